//! What a shell and a manual reader want: completions and the manual page.

use std::{io, process::ExitCode};

use clap::CommandFactory;

use super::Cli;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell to complete for
    shell: clap_complete::Shell,
}

/// Prints completions on standard output.
pub fn completions(args: &Completions) -> anyhow::Result<ExitCode> {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "jailgate",
        &mut io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page, roff, on standard output: every command in one page.
pub fn man() -> anyhow::Result<ExitCode> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let out = &mut io::stdout();
    clap_mangen::Man::new(command.clone()).render(out)?;
    for sub in command.get_subcommands() {
        clap_mangen::Man::new(sub.clone()).render(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
