//! The `jailgate` binary: parse the command line, run it, exit with its code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    jailgate::cli::main(jailgate::cli::Cli::parse())
}
