//! One client: why it passes or is denied, and how it is forgotten.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Allowed, Ban, Evidence, Problem, Refusal, Shared, end, jail, missing, network, settled, time,
};
use crate::{
    admin::{Approach, Arrived, problem::Asked},
    engine::{
        self, Denial, Explanation, Finding, Request, Selector, Told, Verdict, client,
        client::spelled, explain::Count, urls::Mode,
    },
    time::Millis,
};

/// Counted requests shown of one client, the newest.
const SHOWN: usize = 100;

/// The request that is asked about.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "described only; headers may repeat")]
pub struct Question {
    /// Path and query, or a whole URL. With it only the jails of its route are asked.
    url: Option<String>,
    /// Host, where the URL does not say.
    host: Option<String>,
    /// `GET` unless said.
    method: Option<String>,
    /// Only this jail.
    jail: Option<String>,
    /// `Name: value`, as the address would send it; may be given several times.
    header: Option<Vec<String>>,
}

/// Why a client passes or is denied.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explained {
    /// The address asked about.
    pub client: String,
    /// `pass` or `deny`: what the next such request gets.
    pub verdict: &'static str,
    /// The same in a sentence.
    pub summary: String,
    /// Each jail that is asked, in order.
    pub jails: Vec<InJail>,
    /// Bans that cover it, in any jail.
    pub bans: Vec<Ban>,
    /// Its last counted requests, oldest first.
    pub evidence: Vec<Evidence>,
    /// Entries of the runtime allow list that cover it.
    pub allowed: Vec<Allowed>,
}

/// What one jail makes of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InJail {
    /// The jail.
    pub jail: String,
    /// The address this jail takes the request to be from.
    pub address: String,
    /// Which rule found it.
    pub address_from: String,
    /// What it is counted and banned as.
    pub counted_as: String,
    /// `pass` or `deny`.
    pub verdict: &'static str,
    /// `banned`, `denylist`, `rule` or `decision`.
    pub reason: Option<&'static str>,
    /// When the denial ends; null: it does not, or there is none.
    pub until: Option<String>,
    /// It would be denied, but the jail only simulates.
    pub simulated: bool,
    /// Counted in the window now.
    pub count: u32,
    /// The N-th bans.
    pub maxretry: u32,
    /// What the next request would do.
    pub next: String,
    /// Question by question; the last one decides.
    pub steps: Vec<Step>,
}

/// One question of a decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    /// `address`, `jail`, `self`, `denylist`, `allowlist`, `allowed`, `urls`, `bans`,
    /// `everywhere` or `count`.
    pub step: &'static str,
    /// It is the one that decides.
    pub decides: bool,
    /// What it came to.
    pub text: String,
}

/// A client that is forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub struct Forgotten {
    /// The address or network.
    client: String,
    /// Its bans, lifted.
    lifted: Vec<Ban>,
    /// Counters, evidence and history are gone.
    forgotten: bool,
}

/// Walks the decision about a client step by step, without counting anything.
#[utoipa::path(get, path = "/clients/{client}", tag = "clients", operation_id = "explain",
    params(("client" = String, Path, description = "Address"), Question),
    responses((status = 200, body = Explained), (status = "4XX", response = Refusal)))]
pub async fn explain(
    State(shared): State<Shared>,
    Path(text): Path<String>,
    Asked(query): Asked<Vec<(String, String)>>,
) -> Result<Json<Explained>, Problem> {
    let addr =
        client::parse(&text).ok_or_else(|| Problem::invalid(format!("`{text}` is no address")))?;
    let approach = approach(&shared, addr, query)?;
    let arrived = (shared.arrive)(&approach);
    if arrived.is_empty() {
        return Err(missing("no jail judges such a request"));
    }
    let now = shared.clock.now();
    let jails: Vec<InJail> = arrived
        .iter()
        .filter_map(|arrived| judged(&shared, &approach, arrived, now))
        .collect();
    let denied = jails.iter().find(|jail| jail.verdict == "deny");
    let summary = match denied {
        Some(jail) => format!("denied by jail {}: {}", jail.jail, jail.next),
        None => jails
            .first()
            .map_or_else(String::new, |jail| format!("passes: {}", jail.next)),
    };
    let verdict = if denied.is_some() { "deny" } else { "pass" };
    let found = arrived.first().map_or(addr, |first| first.client);
    let counted = jails
        .first()
        .and_then(|jail| network(&jail.counted_as).ok());
    let mut evidence = shared.engine.evidence(counted.unwrap_or(found.into()));
    let evidence = evidence.split_off(evidence.len().saturating_sub(SHOWN));
    let bans = shared.engine.ban_of(None, found, now);
    Ok(Json(Explained {
        client: addr.to_string(),
        verdict,
        summary,
        jails,
        bans: bans.iter().map(|ban| Ban::from(&**ban)).collect(),
        evidence: evidence.into_iter().map(Evidence::from).collect(),
        allowed: shared
            .engine
            .allowed_by(found)
            .iter()
            .map(Allowed::from)
            .collect(),
    }))
}

/// Lifts the bans of a client or network and erases what is known of it: counters, evidence,
/// earlier bans, also on disk.
#[utoipa::path(delete, path = "/clients/{client}", tag = "clients", operation_id = "forget",
    params(("client" = String, Path, description = "Address or network")),
    responses((status = 200, body = Forgotten), (status = "4XX", response = Refusal)))]
pub async fn forget(
    State(shared): State<Shared>,
    Path(text): Path<String>,
) -> Result<Json<Forgotten>, Problem> {
    let net = network(&text)?;
    let now = shared.clock.now();
    let lifted = shared.engine.unban(&Selector::Client(net, None), now);
    shared.engine.erase(net);
    settled(&shared).await;
    if let Some(archive) = &shared.archive {
        (archive.forget)(net).await.map_err(|error| {
            let detail = format!("forgotten in memory, but not on disk: {error}");
            Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
    }
    Ok(Json(Forgotten {
        client: spelled(net),
        lifted: lifted.iter().map(|ban| Ban::from(&**ban)).collect(),
        forgotten: true,
    }))
}

fn approach(
    shared: &Shared,
    peer: std::net::IpAddr,
    query: Vec<(String, String)>,
) -> Result<Approach, Problem> {
    let mut approach = Approach {
        peer,
        headers: HeaderMap::new(),
        method: http::Method::GET,
        host: String::new(),
        target: None,
        jail: None,
    };
    for (key, value) in query {
        match &*key {
            "url" => located(&mut approach, &value)?,
            "host" => approach.host = value,
            "method" => {
                approach.method = value
                    .parse()
                    .map_err(|_| Problem::invalid(format!("`{value}` is no method")))?;
            }
            "jail" => {
                jail(shared, &value)?;
                approach.jail = Some(value.into());
            }
            "header" => {
                let (name, value) = header(&value)?;
                approach.headers.append(name, value);
            }
            other => return Err(Problem::invalid(format!("unknown parameter `{other}`"))),
        }
    }
    Ok(approach)
}

/// `/x?y`, or `https://app.example.com/x?y`.
fn located(approach: &mut Approach, url: &str) -> Result<(), Problem> {
    let wrong = || Problem::invalid(format!("`{url}` is neither a path nor a URL"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    if let Some(host) = uri.host() {
        approach.host = host.to_owned();
    }
    let target = uri.path_and_query().ok_or_else(wrong)?;
    approach.target = Some(target.as_str().to_owned());
    Ok(())
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let wrong = || Problem::invalid(format!("`{line}` is no header like `Name: value`"));
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

fn judged(shared: &Shared, approach: &Approach, arrived: &Arrived, now: Millis) -> Option<InJail> {
    let id = shared.engine.jail(&arrived.jail)?;
    let request = Request {
        client: arrived.client,
        method: approach.method.as_str().as_bytes(),
        target: approach.target.as_deref().unwrap_or("/").as_bytes(),
        told: Told::These {
            host: approach.host.as_bytes(),
            agent: b"",
        },
        plain: false,
    };
    let told = shared.engine.explain(id, &request, now);
    let mut steps = vec![Step {
        step: "address",
        decides: false,
        text: format!("{}, taken from {}", arrived.client, arrived.from),
    }];
    let last = told.findings.len().saturating_sub(1);
    let findings = told.findings.iter().enumerate();
    steps.extend(findings.map(|(at, finding)| step(finding, at == last, now)));
    let count = told.findings.iter().find_map(|finding| match finding {
        Finding::Count(count) => Some(*count),
        _ => None,
    });
    let (verdict, denial, simulated) = match &told.verdict {
        Verdict::Pass | Verdict::Exempt(_) => ("pass", None, false),
        Verdict::Simulated(denial) => ("pass", Some(denial), true),
        Verdict::Deny(denial) => ("deny", Some(denial), false),
    };
    Some(InJail {
        jail: arrived.jail.to_string(),
        address: arrived.client.to_string(),
        address_from: arrived.from.clone(),
        counted_as: spelled(told.counted_as),
        verdict,
        reason: denial.map(|denial| denial.reason.as_str()),
        until: denial.and_then(|denial| end(denial.until?)),
        simulated,
        count: count.map_or(0, |count| count.counted),
        maxretry: count.map_or(0, |count| count.maxretry),
        next: next(&told, count, now),
        steps,
    })
}

/// One finding in words.
fn step(finding: &Finding, decides: bool, now: Millis) -> Step {
    let listed = |net: &Option<ipnet::IpNet>, list: &str| match net {
        Some(net) => format!("{list}, by {net}"),
        None => format!("not {list}"),
    };
    let (step, text) = match finding {
        Finding::Enabled(true) => ("jail", "the jail is enabled".to_owned()),
        Finding::Enabled(false) => ("jail", "the jail is disabled: everything passes".to_owned()),
        Finding::Itself(net) => {
            let list = "a trusted proxy, a gateway or an own address (ignoreself)";
            ("self", listed(net, list))
        }
        Finding::Denylist(net) => ("denylist", listed(net, "on the denylist")),
        Finding::Allowlist(net) => ("allowlist", listed(net, "on the jail's allowlist")),
        Finding::Allowed(entries) if entries.is_empty() => {
            ("allowed", "not allowed at runtime".to_owned())
        }
        Finding::Allowed(entries) => {
            let entries = entries.join(", ");
            ("allowed", format!("allowed at runtime, by {entries}"))
        }
        Finding::Rules(None) => ("urls", "no URL rule matches".to_owned()),
        Finding::Rules(Some((Mode::Block, rule))) => (
            "urls",
            format!("the block rule {rule} matches: ban and deny"),
        ),
        Finding::Rules(Some((Mode::Allow, rule))) => (
            "urls",
            format!("the allow rule {rule} matches: pass, uncounted"),
        ),
        Finding::Bans(None) => ("bans", "not banned in this jail".to_owned()),
        Finding::Bans(Some(denial)) => {
            ("bans", format!("banned in this jail {}", left(denial, now)))
        }
        Finding::Everywhere(None) => {
            let text = "no ban by hand and no decision from elsewhere holds";
            ("everywhere", text.to_owned())
        }
        Finding::Everywhere(Some(denial)) => {
            let what = match denial.reason {
                engine::Reason::Decision => "a decision from elsewhere holds",
                _ => "banned by hand in every jail",
            };
            ("everywhere", format!("{what} {}", left(denial, now)))
        }
        Finding::Count(count) => ("count", counted(count)),
    };
    Step {
        step,
        decides,
        text,
    }
}

fn counted(count: &Count) -> String {
    let what = match (count.each, count.matches) {
        (_, false) => return "requests like this one are not counted (match)".to_owned(),
        (true, true) => "requests",
        (false, true) => "failures",
    };
    let Count {
        counted, maxretry, ..
    } = count;
    match count.window_ends {
        Some(ends) => format!(
            "{counted} of {maxretry} {what} counted, until {}",
            time(ends)
        ),
        None => format!("no {what} counted; {maxretry} within findtime ban"),
    }
}

/// What the next request would do.
fn next(told: &Explanation, count: Option<Count>, now: Millis) -> String {
    let denied = |denial: &Denial| {
        let how = match denial.reason {
            engine::Reason::Banned if count.is_some() => "the next request is counted, and bans",
            engine::Reason::Banned => "banned",
            engine::Reason::Denylist => {
                return "on the denylist, for as long as it stands there".to_owned();
            }
            engine::Reason::Rule => "the next such request bans",
            engine::Reason::Decision => "a decision from elsewhere",
        };
        format!("{how} {}", left(denial, now))
    };
    match (&told.verdict, count) {
        (Verdict::Deny(denial), _) => denied(denial),
        (Verdict::Simulated(denial), _) => {
            format!(
                "passes, because the jail only simulates: {}",
                denied(denial)
            )
        }
        (Verdict::Exempt(_), _) => "never counted and never denied here".to_owned(),
        (Verdict::Pass, Some(count)) if count.matches => {
            let more = count.maxretry.saturating_sub(count.counted).max(1);
            let what = if count.each { "request" } else { "failure" };
            match more {
                1 => format!("one more {what} bans"),
                more => format!("{more} more {what}s within findtime ban"),
            }
        }
        (Verdict::Pass, _) => "the next request passes uncounted".to_owned(),
    }
}

fn left(denial: &Denial, now: Millis) -> String {
    let Some(until) = denial.until else {
        return "without an end".to_owned();
    };
    match end(until) {
        None => "for ever".to_owned(),
        Some(at) => {
            let seconds = until.saturating_sub(now).div_ceil(1000);
            let length = std::time::Duration::from_secs(seconds);
            format!("until {at} ({} left)", crate::config::show_duration(length))
        }
    }
}
