//! Who may do what: tokens, browser sessions, and the checks that keep other websites out of them.
//!
//! With a token set, everything but the probes and the login asks for it; without one (possible on
//! loopback and on a unix socket only) everybody who reaches the listener may do everything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use aws_lc_rs::rand;
use axum::{
    Form,
    extract::{ConnectInfo, FromRequest, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{self, HeaderName},
    },
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use parking_lot::Mutex;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{
    Shared, dashboard,
    problem::{Body, Problem},
};
use crate::{
    config::{Address, Admin, Secret},
    engine::{client, host_name},
    time::Millis,
};

/// The browser's cookie.
const COOKIE: &str = "jailgate_session";
/// How long a browser stays logged in.
const SESSION: Millis = 12 * 3600 * 1000;
/// Sessions held at once; the one ending first goes.
const SESSIONS: usize = 256;
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Full,
}

/// Where a request came from; `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub Option<IpAddr>);

/// Who has come in, and where the door is. What opens it is the configuration's.
#[derive(Debug)]
pub struct Keys {
    bound: Address,
    sessions: Mutex<Vec<Session>>,
}

#[derive(Debug)]
struct Session {
    id: String,
    access: Access,
    /// What opened it: another token ends it.
    token: Secret,
    until: Millis,
}

/// What a login sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    token: String,
}

/// How a request proved what it may.
enum Proof {
    Bearer(Access),
    Cookie(Access),
    /// No token is set.
    Open,
}

impl Access {
    /// `read` or `full`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Full => "full",
        }
    }
}

impl Keys {
    /// For a listener at this address.
    pub fn new(bound: Address) -> Self {
        Self {
            bound,
            sessions: Mutex::default(),
        }
    }

    fn proof(&self, admin: &Admin, headers: &HeaderMap, now: Millis) -> Option<Proof> {
        if admin.token.is_none() {
            return Some(Proof::Open);
        }
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            let given = given.as_bytes().strip_prefix(b"Bearer ")?;
            return opens(admin, given).map(|(access, _)| Proof::Bearer(access));
        }
        let id = cookie(headers)?;
        let sessions = self.sessions.lock();
        let same = |session: &&Session| bool::from(session.id.as_bytes().ct_eq(id.as_bytes()));
        let session = sessions.iter().find(same)?;
        let token = opens(admin, session.token.expose().as_bytes());
        let still = token.is_some_and(|(access, _)| access == session.access);
        (still && session.until > now).then_some(Proof::Cookie(session.access))
    }

    /// Opens a session: a random number that says nothing of the token.
    fn open(&self, access: Access, token: &Secret, now: Millis) -> Option<String> {
        let mut random = [0_u8; 32];
        rand::fill(&mut random).ok()?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.until > now);
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        sessions.push(Session {
            id: id.clone(),
            access,
            token: token.clone(),
            until: now + SESSION,
        });
        Some(id)
    }

    fn close(&self, id: &str) {
        self.sessions.lock().retain(|session| session.id != id);
    }

    /// Whether a browser may call us so. A name that only points here by somebody else's DNS
    /// (rebinding) is none of ours.
    fn answers_to(&self, admin: &Admin, headers: &HeaderMap) -> bool {
        let Address::Tcp(local) = &self.bound else {
            return true;
        };
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let Some(host) = host.map(|host| &host[..host_name(host.as_bytes()).len()]) else {
            return false;
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(addr) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            // Addresses cannot be rebound; any of the machine's leads here when we listen on all.
            let addr = addr.to_canonical();
            return addr.is_loopback()
                || addr == local.ip().to_canonical()
                || local.ip().is_unspecified();
        }
        host == "localhost"
            || host.ends_with(".localhost")
            || admin
                .hosts
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&host))
    }
}

/// What a token opens. Both are always compared, in constant time.
fn opens<'a>(admin: &'a Admin, given: &[u8]) -> Option<(Access, &'a Secret)> {
    let is = |token: &'a Option<Secret>| {
        let token = token.as_ref()?;
        bool::from(given.ct_eq(token.expose().as_bytes())).then_some(token)
    };
    let (full, read) = (is(&admin.token), is(&admin.read_token));
    let full = full.map(|token| (Access::Full, token));
    full.or(read.map(|token| (Access::Read, token)))
}

/// Notes who calls, refuses names that are not ours and what another website sends.
pub async fn guard(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let caller = peer.map(|ConnectInfo(peer)| client::canonical(peer.ip()));
    request.extensions_mut().insert(Caller(caller));
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return next.run(request).await;
    }
    let headers = request.headers();
    let config = shared.config.load();
    let proof = shared
        .keys
        .proof(&config.admin, headers, shared.clock.now());
    // Who holds the token is no browser that was led astray.
    if !matches!(proof, Some(Proof::Bearer(_))) {
        if !shared.keys.answers_to(&config.admin, headers) {
            let detail = "this Host is not one of ours; add it to admin.hosts";
            return Problem::forbidden(detail).into_response();
        }
        let known = matches!(proof, Some(Proof::Cookie(_)));
        if !request.method().is_safe()
            && let Err(problem) = same_site(headers, known)
        {
            return problem.into_response();
        }
    }
    let access = match proof {
        Some(Proof::Open) => Access::Full,
        Some(Proof::Bearer(access) | Proof::Cookie(access)) => access,
        None if matches!(request.uri().path(), "/login" | "/logout") => Access::Read,
        None => return unauthorised(&request),
    };
    let session = matches!(request.uri().path(), "/login" | "/logout");
    if access == Access::Read && !request.method().is_safe() && !session {
        return Problem::forbidden("this token may only read").into_response();
    }
    drop(config);
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// A request that changes something and carries no token must come from our own page (or from no
/// browser at all, where there is no session that another site could ride on).
fn same_site(headers: &HeaderMap, session: bool) -> Result<(), Problem> {
    let elsewhere = || Problem::forbidden("sent by another website");
    let said = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    match said {
        Some(b"same-origin" | b"none") => {}
        Some(_) => return Err(elsewhere()),
        None => match (headers.get(header::ORIGIN), headers.get(header::HOST)) {
            (Some(origin), Some(host)) => {
                let origin = origin.as_bytes();
                let origin = [&b"http://"[..], b"https://"]
                    .iter()
                    .find_map(|scheme| origin.strip_prefix(*scheme));
                if origin != Some(host.as_bytes()) {
                    return Err(elsewhere());
                }
            }
            (None, _) if !session => {}
            _ => return Err(elsewhere()),
        },
    }
    // A form of another website cannot send this type without asking first.
    let body = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    if body && said.is_none() && !headers.contains_key(header::ORIGIN) && !is_json(headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send application/json",
        ));
    }
    Ok(())
}

/// Logs a browser in; a form goes on to the dashboard.
pub async fn login(State(shared): State<Shared>, request: Request) -> Response {
    let json = is_json(request.headers());
    let login = if json {
        Body::<Login>::from_request(request, &())
            .await
            .map(|Body(login)| login)
    } else {
        let form = Form::<Login>::from_request(request, &()).await;
        form.map(|Form(login)| login)
            .map_err(|error| Problem::invalid(error.body_text()))
    };
    let login = match login {
        Ok(login) => login,
        Err(problem) => return problem.into_response(),
    };
    let config = shared.config.load();
    let Some((access, token)) = opens(&config.admin, login.token.trim().as_bytes()) else {
        return if json {
            Problem::new(StatusCode::UNAUTHORIZED, "this is not the token").into_response()
        } else {
            form("That is not the token.")
        };
    };
    let Some(id) = shared.keys.open(access, token, shared.clock.now()) else {
        let detail = "the system has no randomness to make a session of";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    let age = SESSION / 1000;
    with_cookie(
        json,
        &format!("{COOKIE}={id}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict"),
    )
}

/// Ends a browser's session.
pub async fn logout(State(shared): State<Shared>, request: Request) -> Response {
    if let Some(id) = cookie(request.headers()) {
        shared.keys.close(id);
    }
    with_cookie(
        is_json(request.headers()),
        &format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"),
    )
}

fn with_cookie(json: bool, cookie: &str) -> Response {
    let mut response = if json {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Redirect::to("/").into_response()
    };
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

fn unauthorised(request: &Request) -> Response {
    let accept = request.headers().get(header::ACCEPT);
    let page = accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    if request.method() == Method::GET && page {
        return form("");
    }
    let detail = "a token is required: Authorization: Bearer TOKEN (admin.tokenFile)";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let bearer = HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, bearer);
    response
}

/// The login page: a form and nothing else, so that it works without scripts.
fn form(said: &'static str) -> Response {
    const PAGE: &str = include_str!("login.html");
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let style = PAGE
            .split_once("<style>")
            .and_then(|(_, rest)| rest.split_once("</style>"));
        let style = dashboard::source(style.expect("the page has a style").0);
        format!(
            "default-src 'none'; style-src {style}; img-src data:; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'"
        )
    });
    let page = PAGE.replace("{{said}}", said);
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::WWW_AUTHENTICATE, "Bearer"),
    ];
    (StatusCode::UNAUTHORIZED, headers, Html(page)).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter();
    let pairs = cookies.filter_map(|value| value.to_str().ok());
    pairs
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}
