//! `jailgate healthcheck`: one probe of the admin listener, for containers without a shell.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;

use super::ConfigArg;
use crate::config::Address;

/// Arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Admin address instead of the configuration's: host:port or unix:/path
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Exit code 0 when `/healthz` answers 200 within three seconds.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let address = match &args.admin {
        Some(text) => Address::parse(text).map_err(anyhow::Error::msg)?,
        None => args.config.load_admin()?.address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(probe(&address))
}

async fn probe(address: &Address) -> anyhow::Result<ExitCode> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .no_proxy();
    let (client, url) = match address {
        Address::Tcp(address) => {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            (client, format!("http://{address}/healthz"))
        }
        Address::Unix(path) => (
            client.unix_socket(path.as_path()),
            "http://localhost/healthz".to_owned(),
        ),
    };
    let answer = client
        .build()?
        .get(&url)
        .send()
        .await
        .with_context(|| format!("no answer from {address}"))?;
    let healthy = answer.status().is_success();
    if !healthy {
        eprintln!("jailgate: {address} answers {}", answer.status());
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
