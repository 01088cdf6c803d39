//! The command line: one file per group of commands, and the exit codes they share.

mod check;
mod healthcheck;
mod notify;
mod proxy;
mod replay;
mod run;
mod shell;
mod sync;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{Config, Problems};

/// Exit code of a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIG: u8 = 78;

/// Counts failures and bans who fails too often: a reverse proxy and a forwardAuth target.
#[derive(Debug, Parser)]
#[command(name = "jailgate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the program: proxy, count, ban
    Run(ConfigArg),
    /// Protect one upstream, without a configuration file
    Proxy(proxy::Args),
    /// Validate the configuration and print what will run
    Check(ConfigArg),
    /// Replay old access logs: who would have been banned, when and for what
    Replay(replay::Args),
    /// Try the targets of `notify`
    Notify(notify::Args),
    /// Bring a Cloudflare list in line with LAPI's decisions once, for cron
    ///
    /// Takes the environment LAPI_URL, LAPI_KEY, CF_ACCOUNT_ID, CF_API_TOKEN, CF_BAN_LIST_ID, and
    /// if need be PUSHGATEWAY_URL, CF_LIST_CAPACITY and CF_API_URL. It owns the whole list. Exit
    /// code 0: done, or LAPI cannot be read and the list is untouched; 1: Cloudflare fails.
    Sync,
    /// Ask the running jailgate whether it is well (for containers)
    Healthcheck(healthcheck::Args),
    /// Print completions for a shell
    Completions(shell::Completions),
    /// Print the manual page
    Man,
}

/// Which configuration file.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// Configuration file [default: ./jailgate.yaml, then /etc/jailgate/jailgate.yaml]
    #[arg(short, long, value_name = "FILE", env = "JAILGATE_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    /// Loads it; the problems are the caller's to print.
    pub fn load(&self) -> Result<Config, Problems> {
        match &self.config {
            Some(file) => Config::load(file),
            None => Config::load_default(),
        }
    }
}

/// Runs one command line to its end.
pub fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Proxy(args) => proxy::run(args),
        Command::Check(args) => check::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Notify(args) => notify::run(&args),
        Command::Sync => sync::run(),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
    };
    result.unwrap_or_else(|error| match error.downcast_ref::<Problems>() {
        Some(problems) => {
            eprint!("{problems}");
            ExitCode::from(BAD_CONFIG)
        }
        None => {
            eprintln!("jailgate: {error:#}");
            ExitCode::FAILURE
        }
    })
}
