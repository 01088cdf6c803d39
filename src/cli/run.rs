//! `jailgate run`: the program itself.

use std::process::ExitCode;

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
    let runtime = app::runtime()?;
    runtime.block_on(async {
        let app = app::App::build(config, Some(level)).await?;
        app.run(app::signals()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}
