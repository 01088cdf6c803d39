//! `jailgate proxy`: one upstream, one jail, no file.

use std::process::ExitCode;

use super::run;
use crate::config::{Address, Config, ProxyFlags};

/// Arguments of `proxy`. Values are read like those of a file, and complained about like them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Upstream: http://host:port, https://…, h2c://… or unix:/path
    #[arg(long, value_name = "URL")]
    to: String,
    /// Where to listen: host:port, :port or unix:/path [default: :8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Ban at the N-th failure [default: 5]
    #[arg(long, value_name = "N")]
    maxretry: Option<String>,
    /// Within this time [default: 120s]
    #[arg(long, value_name = "TIME")]
    findtime: Option<String>,
    /// For this long [default: 300s]
    #[arg(long, value_name = "TIME")]
    bantime: Option<String>,
    /// Statuses that are failures [default: 400,401,403-499]
    #[arg(long, value_name = "CODES")]
    statuscode: Option<String>,
    /// Peers whose X-Forwarded-For is believed: addresses or networks [default: nobody]
    #[arg(long, value_name = "NET", value_delimiter = ',')]
    trusted: Vec<String>,
    /// Where the admin listener is: host:port, :0 or unix:/path [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Runs until told to stop.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::for_proxy(&ProxyFlags {
        to: args.to,
        listen: args.listen,
        maxretry: args.maxretry,
        findtime: args.findtime,
        bantime: args.bantime,
        statuscode: args.statuscode,
        trusted: args.trusted,
    })?;
    if let Some(address) = &args.admin {
        config.admin.address = Address::parse(address).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(
            config.admin.address.is_local(),
            "--admin {address} is open to others and there is no token: use loopback or unix:/path"
        );
    }
    run::start(config)
}
