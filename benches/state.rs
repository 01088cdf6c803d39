//! What the state on disk costs: how long after a ban it is kept, how fast many are, how long a
//! start takes, and what is left of it. The file lies in the directory for temporary files.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock and prints its result"
)]

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jailgate::{
    engine::{Ban, Cause, Delta, Engine, JailSpec, Limits, Origin, Request, Told, nets::NetSet},
    persist::{Running, Setup, State},
    telemetry::{Metrics, Statuses},
    time::Clock,
};

const MANY: u32 = 100_000;
const MILLION: u32 = 1_000_000;

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        latency(&dir.path().join("latency.db")).await?;
        for bans in [MANY, MILLION] {
            size(&dir.path().join(format!("{bans}.db")), bans).await?;
        }
        Ok(())
    })
}

/// An engine and its file, from opening it on.
fn begin(path: &Path) -> anyhow::Result<(Arc<Engine>, Clock, Running)> {
    let limits = Limits {
        tracked_clients: 2_000_000,
        bans: 2_000_000,
        aggregate_ipv6: false,
    };
    let (clock, engine) = (Clock::start(), Arc::new(Engine::new(limits, 1)));
    let web = JailSpec {
        statuses: vec![401..=401],
        ..JailSpec::named("web")
    };
    engine.configure(vec![web], NetSet::default(), clock.now());
    let state = State::open(Setup {
        path: path.to_owned(),
        keep: Duration::from_secs(86_400),
        engine: engine.clone(),
        clock,
        metrics: Arc::new(Metrics::new()),
        status: Statuses::new().add("disk"),
    })?;
    let running = state.start(Box::new(|take| take(Vec::new())))?;
    Ok((engine, clock, running))
}

fn ban(number: u32, clock: Clock) -> Ban {
    Ban {
        client: std::net::IpAddr::from(Ipv4Addr::from(0x0b00_0000 + number)).into(),
        jail: Some("web".into()),
        origin: Origin::Manual,
        cause: Cause::Decision("crowdsecurity/http-probing".into()),
        count: 0,
        first_status: 0,
        last_status: 0,
        path: "".into(),
        since: clock.now(),
        until: clock.now() + 3_600_000,
    }
}

/// From the call that bans to the moment it may be told.
async fn latency(path: &Path) -> anyhow::Result<()> {
    let (engine, clock, running) = begin(path)?;
    for (name, together) in [("one ban at a time", 1), ("a hundred at a time", 100)] {
        let mut took = Vec::new();
        for round in 0..200 {
            let began = Instant::now();
            for number in 0..together {
                engine.ban(ban(round * together + number, clock), clock.now());
            }
            let newest = *engine.ledger().watch().borrow();
            engine.ledger().wait_settled(newest).await;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        took.sort_by(f64::total_cmp);
        let [p50, p99] = [100, 198].map(|at| took[at]);
        println!("{name:<24} kept after {p50:.2} ms (p99 {p99:.2} ms)");
    }
    running.close(Duration::from_secs(60)).await;
    Ok(())
}

async fn size(path: &Path, bans: u32) -> anyhow::Result<()> {
    let (engine, clock, running) = begin(path)?;
    let origin = Origin::Outside("crowdsec/CAPI".into());
    let add = (0..bans).map(|number| ban(number, clock)).collect();
    let began = Instant::now();
    engine.apply(
        &origin,
        Delta {
            add,
            ..Delta::default()
        },
        clock.now(),
    );
    let applied = began.elapsed();
    let newest = *engine.ledger().watch().borrow();
    engine.ledger().wait_settled(newest).await;
    let kept = began.elapsed();
    let jail = engine.jail("web").expect("it is configured");
    for number in 0..bans {
        let request = Request {
            client: Ipv4Addr::from(0x0c00_0000 + number).into(),
            method: b"GET",
            target: b"/",
            told: Told::These {
                host: b"",
                agent: b"",
            },
            plain: false,
        };
        engine.observe(jail, &request, 401, clock.now());
    }
    let began = Instant::now();
    running.close(Duration::from_secs(120)).await;
    let saved = began.elapsed();
    drop(engine);
    let began = Instant::now();
    let (engine, _, running) = begin(path)?;
    let restored = began.elapsed();
    assert_eq!(engine.ledger().len(), bans as usize, "all of them");
    assert_eq!(engine.counters().len(), bans as usize, "all of them");
    running.close(Duration::from_secs(120)).await;
    println!(
        "{bans} decisions: applied in {applied:.2?}, kept in {kept:.2?}; as many counters saved in \
         {saved:.2?}; a start with both takes {restored:.2?}; {} MB",
        std::fs::metadata(path)?.len() >> 20
    );
    Ok(())
}
