//! Bans: list them page by page, impose and lift them by hand.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    body::{Body as Stream, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Ban, Problem, Refusal, Shared, ending, jail, network, settled};
use crate::{
    admin::{
        auth::Caller,
        problem::{Asked, Body, Refused},
    },
    config::show_duration,
    engine::{
        self, Cause, Exempt, Origin, Selector,
        ban::FOREVER,
        client::{self, fold, spelled},
    },
    time::Millis,
};

/// Bans on a page, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 10_000;
/// How long a ban by hand lasts when neither the command nor a jail says (as `cscli`).
const DEFAULT_BAN: Millis = 4 * 3600 * 1000;
/// Networks wider than this are hardly meant.
const WIDEST: (u8, u8) = (8, 16);
/// Clients in one request.
const MOST: usize = 10_000;
/// Bans turned into JSON at a time.
const PIECE: usize = 500;

/// Bans with the numbers of their changes.
pub type Numbered = Vec<(u64, Arc<engine::Ban>)>;

/// Which bans to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Bans on the page, 1 to 10,000.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<u64>,
    /// Only of this jail; `*`: those that hold in every jail.
    pub jail: Option<String>,
    /// Only of this origin: `jailgate`, `manual`, `crowdsec/CAPI` …
    pub origin: Option<String>,
    /// Only with this in client, reason or path; an address also finds the networks it is in.
    pub text: Option<String>,
    /// Only those begun at or after this time, RFC 3339.
    pub since: Option<String>,
}

/// A page of bans, latest change first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    /// The bans.
    bans: Vec<Ban>,
    /// Cursor of the next page; null: this was the last one.
    next: Option<String>,
    /// All active bans, whatever the filter.
    total: usize,
    /// The newest change that is in here: resume events from it.
    seq: u64,
}

/// Whom to ban.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Addresses and networks.
    #[schema(example = json!(["192.0.2.1", "2001:db8::/64"]))]
    clients: Vec<String>,
    /// How long: `3h`, `1day 2h`, seconds, or `forever`. Absent: the jail's bantime, else 4h.
    #[serde(rename = "for")]
    length: Option<String>,
    /// Where; absent: in every jail.
    jail: Option<String>,
    /// Why, for people.
    #[serde(default)]
    reason: String,
    /// Even if it locks somebody out.
    #[serde(default)]
    force: bool,
}

/// Bans that were imposed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Imposed {
    /// Each as it stands now.
    bans: Vec<Ban>,
}

/// Bans that were lifted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Lifted {
    /// Each as it stood.
    lifted: Vec<Ban>,
    /// Clients that had no ban of their own.
    missing: Vec<String>,
    /// Bans of networks around those clients, which stay.
    covering: Vec<Ban>,
}

/// Active bans, latest change first. Filters combine.
#[utoipa::path(get, path = "/bans", tag = "bans", operation_id = "listBans", params(Filter),
    responses((status = 200, body = Page), (status = "4XX", response = Refusal)))]
pub async fn list(
    State(shared): State<Shared>,
    Asked(filter): Asked<Filter>,
) -> Result<Response, Problem> {
    let limit = filter.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::invalid("`limit` is 1 to 10000"));
    }
    let ledger = shared.engine.ledger();
    let seq = *ledger.settled().borrow();
    let (bans, next) = filter.page(&shared, limit)?;
    let next = next.map_or("null".to_owned(), |next| format!("\"{next}\""));
    let total = ledger.len();
    let tail = format!("],\"next\":{next},\"total\":{total},\"seq\":{seq}}}");
    Ok(streamed(bans, tail))
}

/// The JSON of many bans, made piece by piece as the client takes it.
fn streamed(bans: Vec<(u64, Arc<engine::Ban>)>, tail: String) -> Response {
    let mut pieces: Vec<Vec<Arc<engine::Ban>>> = Vec::new();
    for chunk in bans.chunks(PIECE) {
        pieces.push(chunk.iter().map(|(_, ban)| ban.clone()).collect());
    }
    let bodies = pieces.into_iter().enumerate().map(|(at, piece)| {
        let mut out = String::new();
        for (number, ban) in piece.iter().enumerate() {
            if at + number > 0 {
                out.push(',');
            }
            // A ban is plain data: nothing of it can fail to be JSON.
            out.push_str(&serde_json::to_string(&Ban::from(&**ban)).unwrap_or_default());
        }
        out
    });
    let all = std::iter::once("{\"bans\":[".to_owned())
        .chain(bodies)
        .chain([tail]);
    let body = stream::iter(all.map(|text| Ok::<_, std::convert::Infallible>(Bytes::from(text))));
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, kind, Stream::from_stream(body)).into_response()
}

impl Filter {
    /// So many of the wanted bans, and the cursor of the next page.
    pub fn page(&self, shared: &Shared, limit: usize) -> Result<(Numbered, Option<u64>), Problem> {
        let before = self.cursor.unwrap_or(u64::MAX);
        let ledger = shared.engine.ledger();
        let mut bans = ledger.page(before, limit + 1, self.wanted()?);
        let more = bans.len() > limit;
        bans.truncate(limit);
        let next = bans.last().filter(|_| more).map(|(seq, _)| *seq);
        Ok((bans, next))
    }

    fn wanted(&self) -> Result<impl Fn(&engine::Ban) -> bool + '_, Problem> {
        let since = match &self.since {
            None => 0,
            Some(text) => {
                let at: jiff::Timestamp = text
                    .parse()
                    .map_err(|_| Problem::invalid("`since` is a time like 2026-01-31T12:00:00Z"))?;
                Millis::try_from(at.as_millisecond()).unwrap_or(0)
            }
        };
        let text = self.text.as_deref().unwrap_or_default().to_lowercase();
        let addr = client::parse(&text);
        Ok(move |ban: &engine::Ban| {
            let jail = self.jail.as_deref();
            ban.since >= since
                && jail.is_none_or(|jail| ban.jail.as_deref().unwrap_or("*") == jail)
                && (self.origin.as_deref()).is_none_or(|origin| *ban.origin.label() == *origin)
                && (text.is_empty() || says(ban, &text, addr))
        })
    }
}

fn says(ban: &engine::Ban, text: &str, addr: Option<IpAddr>) -> bool {
    addr.is_some_and(|addr| ban.client.contains(&addr))
        || ban.client.to_string().contains(text)
        || ban.cause.to_string().to_lowercase().contains(text)
        || ban.path.to_lowercase().contains(text)
}

/// Bans addresses and networks by hand, all or none. Trusted proxies, gateways, the machine's own
/// addresses and the caller's are refused unless `force` says so.
#[utoipa::path(post, path = "/bans", tag = "bans", operation_id = "ban", request_body = Order,
    responses((status = 200, body = Imposed), (status = "4XX", response = Refusal)))]
pub async fn ban(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(order): Body<Order>,
) -> Result<Json<Imposed>, Problem> {
    let now = shared.clock.now();
    let clients = networks(&order.clients)?;
    if let Some(name) = &order.jail {
        jail(&shared, name)?;
    }
    let until = order.until(&shared, now)?;
    if !order.force {
        let refused: Vec<Refused> = clients
            .iter()
            .filter_map(|net| refused(&shared, *net, caller))
            .collect();
        if !refused.is_empty() {
            let words: Vec<&str> = refused.iter().map(|one| &*one.detail).collect();
            let detail = format!("nobody was banned: {}", words.join("; "));
            return Err(Problem {
                refused,
                ..Problem::new(StatusCode::CONFLICT, detail)
            });
        }
    }
    let bans: Vec<engine::Ban> = clients
        .into_iter()
        .map(|client| engine::Ban {
            client,
            jail: order.jail.as_deref().map(Arc::from),
            origin: Origin::Manual,
            cause: Cause::Manual(order.reason.as_str().into()),
            count: 0,
            first_status: 0,
            last_status: 0,
            path: "".into(),
            since: now,
            until,
        })
        .collect();
    for ban in &bans {
        shared.engine.ban(ban.clone(), now);
    }
    settled(&shared).await;
    Ok(Json(Imposed {
        bans: bans.iter().map(Ban::from).collect(),
    }))
}

/// Lifts the bans of these clients (`client`, several times), or with `all=true` every ban of
/// jailgate's own and by hand.
#[utoipa::path(delete, path = "/bans", tag = "bans", operation_id = "unban", params(
        ("client" = Option<Vec<String>>, Query, description = "Address or network, as it was banned"),
        ("jail" = Option<String>, Query, description = "Only in this jail"),
        ("all" = Option<bool>, Query, description = "Everything but decisions from elsewhere")),
    responses((status = 200, body = Lifted), (status = "4XX", response = Refusal)))]
pub async fn unban(
    State(shared): State<Shared>,
    Asked(query): Asked<Vec<(String, String)>>,
) -> Result<Json<Lifted>, Problem> {
    let (mut clients, mut name, mut all) = (Vec::new(), None, false);
    for (key, value) in query {
        match &*key {
            "client" => clients.push(value),
            "jail" => name = Some(value),
            "all" => all = value == "true",
            other => return Err(Problem::invalid(format!("unknown parameter `{other}`"))),
        }
    }
    let now = shared.clock.now();
    if all {
        if !clients.is_empty() || name.is_some() {
            return Err(Problem::invalid("`all` stands alone"));
        }
        let lifted = shared.engine.unban(&Selector::All, now);
        settled(&shared).await;
        return Ok(Json(Lifted::of(&lifted, Vec::new(), &[])));
    }
    let nets = networks(&clients)?;
    if let Some(name) = &name {
        jail(&shared, name)?;
    }
    let (mut lifted, mut missing, mut covering) = (Vec::new(), Vec::new(), Vec::new());
    for net in nets {
        let selector = Selector::Client(net, name.as_deref().map(Arc::from));
        let gone = shared.engine.unban(&selector, now);
        if gone.is_empty() {
            missing.push(spelled(net));
        }
        lifted.extend(gone);
        covering.extend(shared.engine.ban_of(None, net.addr(), now));
    }
    settled(&shared).await;
    Ok(Json(Lifted::of(&lifted, missing, &covering)))
}

impl Lifted {
    fn of(
        lifted: &[Arc<engine::Ban>],
        missing: Vec<String>,
        covering: &[Arc<engine::Ban>],
    ) -> Self {
        let told = |bans: &[Arc<engine::Ban>]| bans.iter().map(|ban| Ban::from(&**ban)).collect();
        Self {
            lifted: told(lifted),
            missing,
            covering: told(covering),
        }
    }
}

impl Order {
    fn until(&self, shared: &Shared, now: Millis) -> Result<Millis, Problem> {
        if let Some(text) = &self.length {
            return ending(text, now);
        }
        let config = shared.config.load();
        let of = |name: &String| config.jails.iter().find(|jail| *jail.spec.name == **name);
        let jail = self.jail.as_ref().and_then(of);
        Ok(match jail {
            Some(jail) => ending(&show_duration(jail.spec.bantime), now).unwrap_or(FOREVER),
            None => now + DEFAULT_BAN,
        })
    }
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    if texts.is_empty() || texts.len() > MOST {
        return Err(Problem::invalid("name 1 to 10000 addresses or networks"));
    }
    texts.iter().map(|text| network(text)).collect()
}

/// Why this network is not banned without being sure.
fn refused(shared: &Shared, net: IpNet, Caller(caller): Caller) -> Option<Refused> {
    let client = spelled(net);
    let widest = match net {
        IpNet::V4(_) => WIDEST.0,
        IpNet::V6(_) => WIDEST.1,
    };
    let own = caller.filter(|caller| net.contains(caller) || net.contains(&fold(*caller, 64)));
    let (why, detail) = if net.prefix_len() < widest {
        ("tooWide", format!("{client} is wider than /{widest}"))
    } else if let Some(own) = own {
        ("caller", format!("{client} holds your own address {own}"))
    } else if shared.engine.spares(&net) == Some(Exempt::Itself) {
        let detail = "is or holds a trusted proxy, a gateway or one of this machine's addresses";
        ("self", format!("{client} {detail}"))
    } else {
        return None;
    };
    Some(Refused {
        client,
        why,
        detail,
    })
}
