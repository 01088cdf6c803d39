//! `explain` and `forget`: one client.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    CODES, Reach, bans, escaped, print_json,
    screen::{self, Tone, line, list, moment, text, toned},
};

/// Counted requests shown.
const SHOWN: usize = 20;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Explain {
    /// The address that connects
    #[arg(value_name = "IP")]
    client: String,
    /// What it asks for: a path or a URL; then only the jails of that route are walked
    #[arg(long)]
    url: Option<String>,
    /// Host, where the URL does not say
    #[arg(long)]
    host: Option<String>,
    /// Method [default: GET]
    #[arg(long)]
    method: Option<String>,
    /// Only this jail
    #[arg(long)]
    jail: Option<String>,
    /// A header it sends, `X-Forwarded-For: 192.0.2.1`: shows who the request would be from
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Forget {
    /// Addresses and networks
    #[arg(required = true, value_name = "IP|CIDR")]
    clients: Vec<String>,
    #[command(flatten)]
    reach: Reach,
}

/// `jailgate explain`
pub fn explain(args: &Explain) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let given = [
            ("url", &args.url),
            ("host", &args.host),
            ("method", &args.method),
            ("jail", &args.jail),
        ];
        let given = given
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)));
        let mut query: Vec<(&str, String)> = given.collect();
        query.extend(args.header.iter().map(|header| ("header", header.clone())));
        let path = format!("/clients/{}", escaped(&args.client));
        let told = api.get(&path, &query).await?;
        match args.reach.json {
            true => print_json(&told),
            false => show(&told),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `jailgate forget`
pub fn forget(args: &Forget) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let mut answers = Vec::new();
        for client in &args.clients {
            let path = format!("/clients/{}", escaped(client));
            answers.push(api.delete(&path, &[]).await?);
        }
        if args.reach.json {
            print_json(&Value::Array(answers));
            return Ok(ExitCode::SUCCESS);
        }
        for answer in &answers {
            let lifted = list(answer, "lifted").len();
            line(&format!(
                "{} forgotten, {lifted} bans lifted",
                text(answer, "client")
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(told: &Value) {
    for jail in list(told, "jails") {
        let (name, counted) = (text(jail, "jail"), text(jail, "countedAs"));
        line(&format!("jail {name}, counted as {counted}"));
        for step in list(jail, "steps") {
            let mark = if step["decides"] == true { "=>" } else { "  " };
            let row = format!("{mark} {:<11}{}", text(step, "step"), text(step, "text"));
            line(&match step["decides"] == true {
                true => row,
                false => toned(&row, Tone::Faint),
            });
        }
        line(&format!("   {:<11}{}", "next", text(jail, "next")));
        line("");
    }
    let bans = list(told, "bans");
    if !bans.is_empty() {
        bans::show(bans);
        line("");
    }
    for entry in list(told, "allowed") {
        line(&format!(
            "allowed at runtime: {} {}",
            text(entry, "subject"),
            text(entry, "note")
        ));
    }
    evidence(list(told, "evidence"));
    line(&text(told, "summary"));
    let verdict = text(told, "verdict");
    let tone = if verdict == "deny" {
        Tone::Bad
    } else {
        Tone::Good
    };
    line(&toned(&verdict, tone));
}

fn evidence(all: &[Value]) {
    if all.is_empty() {
        return;
    }
    let shown = &all[all.len().saturating_sub(SHOWN)..];
    line(&format!(
        "last counted requests ({} of {})",
        shown.len(),
        all.len()
    ));
    screen::table(
        &["AT", "JAIL", "STATUS", "REQUEST", "HOST", "AGENT"],
        shown.iter().map(|seen| {
            vec![
                moment(seen, "at"),
                text(seen, "jail"),
                match seen["status"].as_u64() {
                    Some(0) | None => "-".to_owned(),
                    Some(status) => status.to_string(),
                },
                format!("{} {}", text(seen, "method"), text(seen, "path")),
                text(seen, "host"),
                text(seen, "agent"),
            ]
        }),
    );
    line("");
}
