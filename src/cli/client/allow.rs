//! `allow add`, `allow remove`, `allow list`: the runtime allow list.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    CODES, Reach, print_json,
    screen::{self, left, line, list, moment, text},
};
use crate::time::Clock;

/// What to do with the list.
#[derive(Debug, clap::Subcommand)]
pub enum Allow {
    /// Let addresses, networks or DNS names pass every jail, uncounted
    Add(Add),
    /// Take entries out again
    Remove(Remove),
    /// Show the entries
    List(List),
}

/// Arguments of `allow add`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Add {
    /// Addresses, networks, DNS names (looked up again every minute), or `me`
    #[arg(required = true)]
    subjects: Vec<String>,
    /// How long: 2h, 1day, or forever [default: forever]
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    /// Why, for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `allow remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Remove {
    /// As they are listed, or `me`
    #[arg(required = true)]
    subjects: Vec<String>,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `allow list`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct List {
    #[command(flatten)]
    reach: Reach,
}

/// `jailgate allow`
pub fn run(allow: &Allow) -> anyhow::Result<ExitCode> {
    match allow {
        Allow::Add(args) => add(args),
        Allow::Remove(args) => remove(args),
        Allow::List(args) => args.reach.run(async |api| {
            let answer = api.get("/allow", &[]).await?;
            match args.reach.json {
                true => print_json(&answer["allowed"]),
                false => show(list(&answer, "allowed")),
            }
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn add(args: &Add) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let mut entry = json!({"subjects": args.subjects, "note": args.note});
        if let Some(length) = &args.length {
            entry["for"] = json!(length);
        }
        let answer = api.post("/allow", &entry).await?;
        match args.reach.json {
            true => print_json(&answer["allowed"]),
            false => show(list(&answer, "allowed")),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn remove(args: &Remove) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let subjects = args.subjects.iter();
        let query: Vec<_> = subjects
            .map(|subject| ("subject", subject.clone()))
            .collect();
        let answer = api.delete("/allow", &query).await?;
        if args.reach.json {
            print_json(&answer);
            return Ok(ExitCode::SUCCESS);
        }
        for entry in list(&answer, "removed") {
            line(&format!("{} no longer allowed", text(entry, "subject")));
        }
        for subject in list(&answer, "missing").iter().filter_map(Value::as_str) {
            line(&format!("{} was not on the list", screen::inert(subject)));
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(entries: &[Value]) {
    if entries.is_empty() {
        line("nobody is allowed at runtime");
        return;
    }
    let now = Clock::start().now();
    screen::table(
        &["SUBJECT", "PASSES", "SINCE", "LEFT", "NOTE"],
        entries.iter().map(|entry| {
            let addresses = list(entry, "addresses").iter().filter_map(Value::as_str);
            let addresses: Vec<&str> = addresses.collect();
            vec![
                text(entry, "subject"),
                addresses.join(" "),
                moment(entry, "since"),
                left(entry, "until", now),
                text(entry, "note"),
            ]
        }),
    );
}
