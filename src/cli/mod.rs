//! The command line: one file per group of commands, and the exit codes they share.

mod check;
mod client;
mod healthcheck;
mod import;
mod notify;
mod proxy;
mod replay;
mod run;
mod shell;
mod sync;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::config::{Admin, Config, Problems};

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
    /// Turn what another guard was told into a configuration of jailgate's
    Import(import::Args),
    /// Show how the running jailgate is doing
    #[command(after_help = client::CODES)]
    Status(client::Reach),
    /// List active bans
    Bans(client::bans::Bans),
    /// Ban addresses and networks by hand
    Ban(client::bans::Ban),
    /// Lift bans
    Unban(client::bans::Unban),
    /// Say step by step why an address passes or is denied; ends in `pass` or `deny`
    Explain(client::clients::Explain),
    /// Erase clients everywhere: bans, counters, evidence, history
    Forget(client::clients::Forget),
    /// Let somebody pass every jail for a while
    #[command(subcommand)]
    Allow(client::allow::Allow),
    /// Follow bans, unbans, reloads and background jobs as they happen
    Events(client::events::Events),
    /// Load the configuration again
    #[command(after_help = client::CODES)]
    Reload(client::Reach),
    /// Ask whether jailgate answers
    #[command(after_help = client::CODES)]
    Ping(client::Reach),
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
        Config::load(self.file()?)
    }

    /// Loads what it says of the admin listener, whatever else it says.
    pub fn load_admin(&self) -> Result<Admin, Problems> {
        Config::load_admin(self.file()?)
    }

    fn file(&self) -> Result<&Path, Problems> {
        match &self.config {
            Some(file) => Ok(file),
            None => Config::default_file(),
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
        Command::Import(args) => import::run(&args),
        Command::Status(args) => client::status::status(&args),
        Command::Bans(args) => client::bans::list_all(&args),
        Command::Ban(args) => client::bans::ban(&args),
        Command::Unban(args) => client::bans::unban(&args),
        Command::Explain(args) => client::clients::explain(&args),
        Command::Forget(args) => client::clients::forget(&args),
        Command::Allow(args) => client::allow::run(&args),
        Command::Events(args) => client::events::run(&args),
        Command::Reload(args) => client::status::reload(&args),
        Command::Ping(args) => client::status::ping(&args),
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
            let failure = error.downcast_ref::<client::Failure>();
            ExitCode::from(failure.map_or(1, |failure| failure.code))
        }
    })
}
