//! `events`: bans, unbans, reloads and jobs as they happen, also over a lost connection.

use std::{process::ExitCode, time::Duration};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{
    Api, CODES, Reach,
    screen::{Tone, line, moment, text, toned},
};

/// How long to wait before asking again, and how often.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 60;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct Events {
    /// Begin after this change (`seq` of `status --json`) instead of now
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    #[command(flatten)]
    reach: Reach,
}

/// One event as it comes in.
#[derive(Debug, Default)]
struct Event {
    name: String,
    id: Option<u64>,
    data: String,
}

/// `jailgate events`
pub fn run(args: &Events) -> anyhow::Result<ExitCode> {
    args.reach.run(async |api| {
        let mut last = args.since;
        let mut response = open(&api, last).await?;
        loop {
            read(&mut response, &mut last, args.reach.json).await;
            response = again(&api, last).await?;
        }
    })
}

async fn open(api: &Api, last: Option<u64>) -> anyhow::Result<Response> {
    let mut request = api.request(Method::GET, "/events");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    api.send(request).await
}

async fn again(api: &Api, last: Option<u64>) -> anyhow::Result<Response> {
    for _ in 1..TRIES {
        tokio::time::sleep(PAUSE).await;
        if let Ok(response) = open(api, last).await {
            return Ok(response);
        }
    }
    open(api, last).await
}

/// Prints events until the connection ends.
async fn read(response: &mut Response, last: &mut Option<u64>, json: bool) {
    let (mut rest, mut event) = (Vec::new(), Event::default());
    while let Ok(Some(chunk)) = response.chunk().await {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let row: Vec<u8> = rest.drain(..=end).collect();
            let row = String::from_utf8_lossy(&row);
            match row.trim_end().split_once(':') {
                Some(("event", name)) => event.name = name.trim().to_owned(),
                Some(("id", id)) => event.id = id.trim().parse().ok(),
                Some(("data", data)) => event.data.push_str(data.trim_start()),
                Some(_) => {}
                None => {
                    let event = std::mem::take(&mut event);
                    *last = event.id.or(*last);
                    event.show(json);
                }
            }
        }
    }
}

impl Event {
    fn show(&self, as_json: bool) {
        if matches!(&*self.name, "" | "hello") {
            return;
        }
        let data: Value = serde_json::from_str(&self.data).unwrap_or_default();
        if as_json {
            let whole = json!({"event": self.name, "id": self.id, "data": data});
            line(&whole.to_string());
            return;
        }
        let place = data["jail"].as_str().unwrap_or("*");
        let (client, reason) = (text(&data, "client"), text(&data, "reason"));
        line(&match &*self.name {
            "ban" | "change" => {
                let end = match data["until"].is_null() {
                    true => "for ever".to_owned(),
                    false => format!("until {}", moment(&data, "until")),
                };
                let row = format!("{:<6} {client} {place} {reason} {end}", self.name);
                toned(&row, Tone::Bad)
            }
            "unban" => {
                let row = format!("unban  {client} {place} {}", text(&data, "lift"));
                toned(&row, Tone::Good)
            }
            "job" => {
                let error = text(&data["lastError"], "message");
                format!(
                    "job    {} {} {error}",
                    text(&data, "name"),
                    text(&data, "state")
                )
            }
            "reload" => match data["ok"] == true {
                true => "reload in force".to_owned(),
                false => format!("reload refused: {}", text(&data, "message")),
            },
            name => format!("{name:<6} {}", super::screen::inert(&self.data)),
        });
    }
}
