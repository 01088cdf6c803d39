//! `jailgate check`: validates and says what would run.

use std::{io::Write, process::ExitCode};

use super::ConfigArg;

/// Prints the summary on standard output and the warnings on standard error.
pub fn run(args: &ConfigArg) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    for warning in &config.warnings {
        eprintln!("warning: {warning:#}");
    }
    write!(std::io::stdout(), "{}", config.summary())?;
    Ok(ExitCode::SUCCESS)
}
