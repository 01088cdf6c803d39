//! `jailgate run`: the program itself.

use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::ConfigArg;
use crate::{app, config::Config, telemetry};

/// Loads, starts, runs until told to stop, drains.
pub fn run(args: &ConfigArg) -> anyhow::Result<ExitCode> {
    start(args.load()?)
}

/// Runs a loaded configuration to its end.
pub fn start(config: Config) -> anyhow::Result<ExitCode> {
    let level = telemetry::init(&config.log.level, config.log.json)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_open_files();
    let runtime = app::runtime()?;
    runtime.block_on(async {
        let app = app::App::build(config, Some(level)).await?;
        app.run(app::signals()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// As many connections as the system allows: the usual soft limit of 1,024 is for `select`.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
