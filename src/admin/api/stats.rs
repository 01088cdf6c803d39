//! What the dashboard draws: denials and bans per minute, and who and what leads the lists.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Problem, Refusal, Shared, time};
use crate::{
    admin::{
        problem::Asked,
        timeline::{MINUTE, MINUTES},
    },
    engine::client::fold,
};

/// What to look at.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// How far back, 1 to 1440; 60 unless said.
    minutes: Option<usize>,
    /// Length of each list, 1 to 100; 10 unless said.
    top: Option<usize>,
}

/// Figures for a chart and lists beside it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Beginning of the first bucket.
    from: String,
    /// Now.
    to: String,
    /// Length of a bucket.
    bucket_seconds: u64,
    /// Oldest first, none left out; the last one is not over yet.
    buckets: Vec<Bucket>,
    /// Counted requests that the lists below are made of.
    evidence: usize,
    /// Clients with most counted requests.
    clients: Vec<Counted>,
    /// The same by /24 and /48.
    networks: Vec<Counted>,
    /// Paths with most counted requests.
    paths: Vec<Counted>,
    /// User agents with most counted requests.
    agents: Vec<Counted>,
    /// Jails with most counted requests.
    jails: Vec<Counted>,
    /// Reasons of active bans.
    reasons: Vec<Counted>,
    /// Origins of active bans.
    origins: Vec<Counted>,
}

/// One minute.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Bucket {
    /// Its beginning.
    pub at: String,
    /// Requests judged, once per jail.
    pub requests: u64,
    /// Requests denied.
    pub denied: u64,
    /// Failures and requests counted.
    pub failures: u64,
    /// Bans that began.
    pub bans: u64,
}

/// A line of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counted {
    /// What is counted.
    name: String,
    /// How often.
    count: usize,
}

/// What happened lately: a timeline by the minute, and the tops of what is still known.
#[utoipa::path(get, path = "/stats", tag = "status", params(Wanted),
    responses((status = 200, body = Stats), (status = "4XX", response = Refusal)))]
pub async fn stats(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Stats>, Problem> {
    let (minutes, top) = (wanted.minutes.unwrap_or(60), wanted.top.unwrap_or(10));
    if !(1..=MINUTES).contains(&minutes) || !(1..=100).contains(&top) {
        return Err(Problem::invalid(
            "`minutes` is 1 to 1440 and `top` 1 to 100",
        ));
    }
    let now = shared.clock.now();
    shared.timeline.sample(shared.metrics.totals(), now);
    let first = (now / MINUTE).saturating_sub(minutes as u64 - 1) * MINUTE;
    let buckets = shared.timeline.since(first, now);
    let buckets = buckets.into_iter().map(|(at, totals)| Bucket {
        at: time(at),
        requests: totals.requests,
        denied: totals.denied,
        failures: totals.failures,
        bans: totals.bans,
    });
    let mut stats = Stats {
        from: time(first),
        to: time(now),
        bucket_seconds: MINUTE / 1000,
        buckets: buckets.collect(),
        ..lists(&shared, top)
    };
    let ledger = shared.engine.ledger();
    stats.reasons = tops(ledger.tally(|ban| ban.cause.to_string()), top, |cause| {
        cause
    });
    stats.origins = tops(ledger.tally(|ban| ban.origin.label()), top, |origin| {
        origin.to_string()
    });
    Ok(Json(stats))
}

/// Counts what is in the ring of evidence.
fn lists(shared: &Shared, top: usize) -> Stats {
    let mut clients: HashMap<IpAddr, usize> = HashMap::new();
    let mut paths: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut agents: HashMap<Box<[u8]>, usize> = HashMap::new();
    let mut jails = HashMap::new();
    let mut evidence = 0;
    shared.engine.traces(|trace| {
        evidence += 1;
        *clients.entry(trace.client).or_default() += 1;
        *jails.entry(trace.jail).or_default() += 1;
        for (texts, text) in [(&mut paths, trace.path), (&mut agents, trace.agent)] {
            match texts.get_mut(text) {
                Some(count) => *count += 1,
                None => drop(texts.insert(text.into(), 1)),
            }
        }
    });
    let mut networks = HashMap::new();
    for (client, count) in &clients {
        *networks.entry(around(*client)).or_default() += count;
    }
    let text = |bytes: Box<[u8]>| String::from_utf8_lossy(&bytes).into_owned();
    Stats {
        from: String::new(),
        to: String::new(),
        bucket_seconds: 0,
        buckets: Vec::new(),
        evidence,
        clients: tops(clients, top, |client| client.to_string()),
        networks: tops(networks, top, |net| net.to_string()),
        paths: tops(paths, top, text),
        agents: tops(agents, top, text),
        jails: tops(jails, top, |jail| {
            let name: Arc<str> = shared.engine.jail_name(jail);
            name.to_string()
        }),
        reasons: Vec::new(),
        origins: Vec::new(),
    }
}

/// The network that people think in.
fn around(client: IpAddr) -> ipnet::IpNet {
    match client {
        IpAddr::V4(v4) => {
            let masked = Ipv4Addr::from_bits(v4.to_bits() & 0xFFFF_FF00);
            ipnet::Ipv4Net::new_assert(masked, 24).into()
        }
        IpAddr::V6(v6) => fold(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits())), 48),
    }
}

fn tops<K: Eq + Hash + Ord>(
    counts: HashMap<K, usize>,
    top: usize,
    name: impl Fn(K) -> String,
) -> Vec<Counted> {
    let mut counts: Vec<(K, usize)> = counts.into_iter().collect();
    counts.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counts.truncate(top);
    let counted = counts.into_iter().map(|(key, count)| Counted {
        name: name(key),
        count,
    });
    counted.collect()
}
