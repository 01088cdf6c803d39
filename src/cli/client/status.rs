//! `status`, `ping`, `reload`: the program as a whole.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Reach, print_json,
    screen::{self, Tone, length, line, list, moment, text, toned},
};

/// `jailgate status`
pub fn status(reach: &Reach) -> anyhow::Result<ExitCode> {
    reach.run(async |api| {
        let status = api.get("/status", &[]).await?;
        if reach.json {
            print_json(&status);
        } else {
            show(&status);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `jailgate ping`
pub fn ping(reach: &Reach) -> anyhow::Result<ExitCode> {
    reach.run(async |api| {
        let status = api.get("/status", &[]).await?;
        let version = text(&status, "version");
        match reach.json {
            true => print_json(&json!({"answers": true, "version": version})),
            false => line(&format!("jailgate {version} answers")),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `jailgate reload`
pub fn reload(reach: &Reach) -> anyhow::Result<ExitCode> {
    reach.run(async |api| {
        let reloaded = api.post("/reload", &json!({})).await?;
        match reach.json {
            true => print_json(&reloaded),
            false => line("configuration reloaded"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(status: &Value) {
    let uptime = length(status["uptimeSeconds"].as_u64().unwrap_or(0));
    let ready = if status["ready"] == true {
        "ready"
    } else {
        "not ready"
    };
    line(&format!(
        "jailgate {}, {ready}, up {uptime}",
        text(status, "version")
    ));
    let names: Vec<&str> = list(status, "jails")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let bans = text(status, "bans");
    line(&format!(
        "{bans} bans, {} clients counted",
        text(status, "trackedClients")
    ));
    line(&format!("jails: {}", screen::inert(&names.join(", "))));
    let reload = &status["reload"];
    let outcome = match reload["ok"] == true {
        true => toned("in force", Tone::Good),
        false => toned(&format!("refused: {}", text(reload, "message")), Tone::Bad),
    };
    line(&format!(
        "configuration of {}: {outcome}",
        moment(reload, "at")
    ));
    let evicted = status["evictedBans"].as_u64().unwrap_or(0);
    if evicted > 0 {
        let said = format!("{evicted} bans dropped because the table was full (limits.bans)");
        line(&toned(&said, Tone::Bad));
    }
    let jobs = list(status, "jobs");
    if jobs.is_empty() {
        return;
    }
    line("");
    screen::table(
        &["JOB", "STATE", "SINCE", "LAG", "SAID"],
        jobs.iter().map(|job| {
            let error = text(&job["lastError"], "message");
            let said = match job["state"] == "failing" {
                true => error,
                false => text(job, "detail"),
            };
            let lag = format!("{}s", job["lagSeconds"].as_f64().unwrap_or(0.0).round());
            vec![
                text(job, "name"),
                text(job, "state"),
                moment(job, "since"),
                lag,
                said,
            ]
        }),
    );
}
