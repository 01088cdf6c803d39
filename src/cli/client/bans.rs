//! `bans`, `ban`, `unban`.

use std::{
    io::{BufRead, IsTerminal, Write, stdin, stdout},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{
    Api, CODES, Failure, Reach, print_json,
    screen::{self, left, line, list, moment, text},
};
use crate::time::Clock;

/// Bans asked for at a time.
const PAGE: usize = 10_000;

/// Arguments of `bans`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Bans {
    #[command(flatten)]
    reach: Reach,
    /// Only of this jail; `*`: those that hold in every jail
    #[arg(long)]
    jail: Option<String>,
    /// Only of this origin: jailgate, manual, crowdsec/CAPI …
    #[arg(long)]
    origin: Option<String>,
    /// Only with this in client, reason or path; an address also finds networks around it
    #[arg(long)]
    text: Option<String>,
    /// Only those begun since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most so many, latest change first [default: 200 in a table, all as JSON]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Arguments of `ban`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Ban {
    /// Addresses and networks
    #[arg(required = true, value_name = "IP|CIDR")]
    clients: Vec<String>,
    /// How long: 90s, 3h, 1day 2h, or forever [default: the jail's bantime, else 4h]
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    /// Only in this jail [default: in every jail]
    #[arg(long)]
    jail: Option<String>,
    /// Why, for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// Even a trusted proxy, a gateway, an own address, your address, or half the world
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `unban`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Unban {
    /// Addresses and networks, as they were banned
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "IP|CIDR"
    )]
    clients: Vec<String>,
    /// Every ban of jailgate's own and by hand; decisions from elsewhere stay
    #[arg(long)]
    all: bool,
    /// Only in this jail
    #[arg(long, conflicts_with = "all")]
    jail: Option<String>,
    /// Do not ask before --all
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    reach: Reach,
}

/// `jailgate bans`
pub fn list_all(args: &Bans) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let limit = args
            .limit
            .unwrap_or(if args.reach.json { usize::MAX } else { 200 });
        if args.reach.json {
            as_json(args, &api, limit).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let (bans, total) = args
            .page(&api, limit.clamp(1, PAGE), None)
            .await
            .map(|page| {
                (
                    list(&page, "bans").to_vec(),
                    page["total"].as_u64().unwrap_or(0),
                )
            })?;
        show(&bans);
        let shown = bans.len() as u64;
        if shown < total {
            line(&format!("{shown} of {total} bans (--limit, --json)"));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// One array, printed page by page.
async fn as_json(args: &Bans, api: &Api, mut limit: usize) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(stdout().lock());
    let (mut cursor, mut first) = (None, true);
    write!(out, "[")?;
    loop {
        let page = args.page(api, limit.clamp(1, PAGE), cursor).await?;
        for ban in list(&page, "bans").iter().take(limit) {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            write!(out, "{comma}\n  {ban}")?;
        }
        limit = limit.saturating_sub(list(&page, "bans").len());
        match page["next"].as_str() {
            Some(next) if limit > 0 => cursor = Some(next.to_owned()),
            _ => break,
        }
    }
    writeln!(out, "{}]", if first { "" } else { "\n" })?;
    Ok(out.flush()?)
}

impl Bans {
    async fn page(&self, api: &Api, limit: usize, cursor: Option<String>) -> anyhow::Result<Value> {
        let mut query = vec![("limit", limit.to_string())];
        let filters = [
            ("cursor", cursor),
            ("jail", self.jail.clone()),
            ("origin", self.origin.clone()),
            ("text", self.text.clone()),
            ("since", self.since.clone()),
        ];
        query.extend(
            filters
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        api.get("/bans", &query).await
    }
}

/// `jailgate ban`
pub fn ban(args: &Ban) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let mut order = json!({
            "clients": args.clients,
            "reason": args.reason,
            "force": args.force,
        });
        for (key, value) in [("for", &args.length), ("jail", &args.jail)] {
            if let Some(value) = value {
                order[key] = json!(value);
            }
        }
        let answer = api.post("/bans", &order).await?;
        if args.reach.json {
            print_json(&answer["bans"]);
            return Ok(ExitCode::SUCCESS);
        }
        for ban in list(&answer, "bans") {
            let end = match ban["until"].is_null() {
                true => "for ever".to_owned(),
                false => format!("until {}", moment(ban, "until")),
            };
            line(&format!(
                "{} banned in {} {end}",
                text(ban, "client"),
                place(ban)
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `jailgate unban`
pub fn unban(args: &Unban) -> anyhow::Result<ExitCode> {
    if args.all && !args.yes {
        sure("Lift every ban of jailgate's own and by hand?")?;
    }
    args.reach.run(async |api| {
        let mut query: Vec<(&str, String)> = Vec::new();
        if args.all {
            query.push(("all", "true".to_owned()));
        }
        query.extend(args.clients.iter().map(|client| ("client", client.clone())));
        query.extend(args.jail.clone().map(|jail| ("jail", jail)));
        let answer = api.delete("/bans", &query).await?;
        if args.reach.json {
            print_json(&answer);
            return Ok(ExitCode::SUCCESS);
        }
        for ban in list(&answer, "lifted") {
            line(&format!(
                "{} unbanned in {}",
                text(ban, "client"),
                place(ban)
            ));
        }
        for client in list(&answer, "missing").iter().filter_map(Value::as_str) {
            line(&format!("{} had no ban of its own", screen::inert(client)));
        }
        for ban in list(&answer, "covering") {
            let (client, place) = (text(ban, "client"), place(ban));
            line(&format!(
                "still banned: {client} in {place} ({})",
                text(ban, "reason")
            ));
        }
        if args.all && list(&answer, "lifted").is_empty() {
            line("there was no ban to lift");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Asks a yes on the terminal; without one, `-y` must have been said.
fn sure(question: &str) -> anyhow::Result<()> {
    let refused = |text: &str| Failure {
        text: text.to_owned(),
        code: 1,
    };
    if !stdin().is_terminal() {
        return Err(refused("say --yes to lift every ban without being asked").into());
    }
    print(&format!("{question} [y/N] "));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused("nothing was lifted").into()),
    }
}

fn print(text: &str) {
    let mut out = stdout();
    // Without a terminal nobody would have been asked.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Bans as a table.
pub fn show(bans: &[Value]) {
    if bans.is_empty() {
        line("no bans");
        return;
    }
    let now = Clock::start().now();
    let heading = [
        "CLIENT", "JAIL", "ORIGIN", "REASON", "COUNT", "STATUS", "PATH", "SINCE", "LEFT",
    ];
    screen::table(
        &heading,
        bans.iter().map(|ban| {
            let status = match (ban["firstStatus"].as_u64(), ban["lastStatus"].as_u64()) {
                (Some(0) | None, Some(0) | None) => String::new(),
                (first, last) if first == last => text(ban, "lastStatus"),
                _ => format!("{}…{}", text(ban, "firstStatus"), text(ban, "lastStatus")),
            };
            vec![
                text(ban, "client"),
                if ban["jail"].is_null() {
                    "*".to_owned()
                } else {
                    text(ban, "jail")
                },
                text(ban, "origin"),
                text(ban, "reason"),
                text(ban, "count"),
                status,
                text(ban, "path"),
                moment(ban, "since"),
                left(ban, "until", now),
            ]
        }),
    );
}

fn place(ban: &Value) -> String {
    match ban["jail"].as_str() {
        Some(jail) => format!("jail {}", screen::inert(jail)),
        None => "every jail".to_owned(),
    }
}
