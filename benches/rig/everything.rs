//! The product with a number of outside decisions taken in before it serves, for `make guard` alone,
//! which needs few (10,000) and the same ones at the first request. The same `App` as `jailgate run`,
//! with what dev-dependencies add. `peers.py` and `memory.py` measure the shipped program instead.

use std::{net::IpAddr, path::Path, sync::Arc};

use ipnet::IpNet;
use jailgate::{
    app::{self, App},
    config::Config,
    engine::{Ban, Cause, Delta, Origin, ban::FOREVER},
    telemetry,
};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, count] = &args[..] else {
        eprintln!("usage: everything CONFIG DECISIONS");
        return Ok(());
    };
    let config = Config::load(Path::new(file))?;
    let level = telemetry::init(&config.log.level, config.log.json)?;
    let count: u32 = count.parse()?;
    app::runtime()?.block_on(async {
        let app = App::build(config, Some(level)).await?;
        let origin = Origin::Outside("crowdsec/CAPI".into());
        let add = (0..count).map(|n| decision(n, &origin)).collect();
        let delta = Delta {
            add,
            ..Delta::default()
        };
        app.engine().apply(&origin, delta, app.clock().now());
        app.run(app::signals()?).await?;
        Ok(())
    })
}

/// Nine tenths single v4 addresses, the rest v4 and v6 ranges. Single addresses end in .0 or .255
/// and v4 ranges lie in 240.0.0.0/4, where none of the load's clients are.
fn decision(n: u32, origin: &Origin) -> Ban {
    let spread = n.wrapping_mul(2_654_435_769);
    let client = match n % 20 {
        0 => range(IpAddr::from((0xF000_0000 | n << 8).to_be_bytes()), 24),
        1 => range(
            IpAddr::from(((0x2A00_u128 << 112) | (u128::from(spread) << 64)).to_be_bytes()),
            64,
        ),
        _ => {
            let middle = (n / 212).wrapping_mul(13) & 0xFFFF;
            let last = (n & 1) * 255;
            range(
                IpAddr::from((((11 + n % 212) << 24) | (middle << 8) | last).to_be_bytes()),
                32,
            )
        }
    };
    Ban {
        client,
        jail: None,
        origin: origin.clone(),
        cause: Cause::Decision(Arc::from("crowdsecurity/http-probing")),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: 0,
        until: FOREVER,
    }
}

fn range(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new_assert(address, prefix)
}
