//! `jailgate notify test`: one message to each target of `notify`, and what became of it.

use std::{io::Write, process::ExitCode};

use super::ConfigArg;
use crate::{notify, telemetry::in_full};

/// Arguments of `notify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send one test message to each target and say what happened; exit code 1 when any failed
    Test(ConfigArg),
}

/// Runs one of its commands.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Test(config) = &args.command;
    let config = config.load()?;
    if config.notify.is_empty() {
        anyhow::bail!("the configuration has no `notify`");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut out = std::io::stdout();
    let mut code = ExitCode::SUCCESS;
    for (name, outcome) in runtime.block_on(notify::test(&config.notify)) {
        match outcome {
            Ok(()) => writeln!(out, "{name}: sent")?,
            Err(error) => {
                writeln!(out, "{name}: failed: {}", in_full(&error))?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
