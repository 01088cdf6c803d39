//! Listeners and routes: `entryPoints`, `routes`, `forwardAuth`, `admin`.

use std::sync::Arc;

use super::{
    super::{
        Admin, ClientLimits, ClientTimeouts, EntryPoint, ForwardAuth, Route, Tls,
        read::{Block, Field},
        shape::{self, Shape},
    },
    address,
    checks::Listed,
    lists::{net_set, nets},
};

pub(super) fn entry_points(field: &Field<'_>) -> Vec<EntryPoint> {
    field.named().iter().filter_map(entry_point).collect()
}

fn entry_point(field: &Field<'_>) -> Option<EntryPoint> {
    if field.is_null() {
        field.error(format!("`{}` needs an `address`", field.path));
        return None;
    }
    let block = field.block(shape::ENTRY_POINT)?;
    let http = block.block("http", shape::ENTRY_HTTP);
    let trusted = |key, shape| net_set(block.block(key, shape).and_then(|b| b.get("trustedIPs")));
    let entry = EntryPoint {
        name: field.name.into(),
        forwarded_trusted: trusted("forwardedHeaders", shape::FORWARDED_HEADERS),
        proxy_trusted: trusted("proxyProtocol", shape::PROXY_PROTOCOL),
        tls: tls(&block, shape::ENTRY_TLS),
        timeouts: timeouts(&block),
        limits: limits(&block, http.as_ref()),
        canonical_path: http.is_some_and(|http| http.flag("canonicalPath", false)),
        address: listen(&block)?,
    };
    Some(entry)
}

fn listen(block: &Block<'_>) -> Option<super::Address> {
    let Some(field) = block.get("address") else {
        block.error(format!("`{}` needs an `address`", block.path()));
        return None;
    };
    address(&field)
}

fn tls(block: &Block<'_>, shape: &'static Shape) -> Option<Tls> {
    let block = block.block("tls", shape)?;
    let self_signed = block.flag("selfSigned", false);
    match (block.get("certFile"), block.get("keyFile")) {
        (None, None) => self_signed.then_some(Tls::SelfSigned),
        (Some(_), Some(_)) if self_signed => {
            block.error("both files and `selfSigned`; keep one");
            None
        }
        (Some(_), Some(_)) => {
            let (cert, key) = (block.file("certFile"), block.file("keyFile"));
            Some(Tls::Files {
                cert: cert?,
                key: key?,
            })
        }
        (Some(field), None) => {
            field.error(format!("`{}` without `keyFile`", field.path));
            None
        }
        (None, Some(field)) => {
            field.error(format!("`{}` without `certFile`", field.path));
            None
        }
    }
}

fn timeouts(block: &Block<'_>) -> ClientTimeouts {
    let mut timeouts = ClientTimeouts::default();
    let Some(transport) = block.block("transport", shape::ENTRY_TRANSPORT) else {
        return timeouts;
    };
    if let Some(block) = transport.block("respondingTimeouts", shape::RESPONDING_TIMEOUTS) {
        timeouts.header = block.duration("headerTimeout", timeouts.header);
        timeouts.body = block.duration("readTimeout", timeouts.body);
        timeouts.idle = block.duration("idleTimeout", timeouts.idle);
    }
    if let Some(block) = transport.block("lifeCycle", shape::LIFE_CYCLE) {
        timeouts.grace = block.duration("graceTimeOut", timeouts.grace);
    }
    timeouts
}

fn limits(block: &Block<'_>, http: Option<&Block<'_>>) -> ClientLimits {
    let mut limits = ClientLimits::default();
    if let Some(http) = http {
        limits.header_bytes = http.number("maxHeaderBytes", 1024, 16 << 20, limits.header_bytes);
        limits.headers = http.number("maxHeaders", 1, 10_000, limits.headers);
        limits.uri_bytes = http.number("maxUriBytes", 64, 1 << 20, limits.uri_bytes);
        limits.body_bytes = http.number("maxBodyBytes", 0, i64::MAX, limits.body_bytes);
        limits.connections = http.number("maxConnections", 0, 10_000_000, limits.connections);
        let per_client = limits.connections_per_client;
        limits.connections_per_client =
            http.number("maxConnectionsPerClient", 0, 10_000_000, per_client);
    }
    if let Some(http2) = block.block("http2", shape::ENTRY_HTTP2) {
        let streams = limits.concurrent_streams;
        limits.concurrent_streams = http2.number("maxConcurrentStreams", 1, 100_000, streams);
    }
    limits
}

pub(super) fn routes(field: &Field<'_>, listed: &Listed<'_>) -> Vec<Route> {
    let blocks = field.blocks(shape::ROUTE);
    blocks
        .iter()
        .filter_map(|block| route(block, listed))
        .collect()
}

fn route(block: &Block<'_>, listed: &Listed<'_>) -> Option<Route> {
    let host = block.get("host").and_then(|field| host(&field));
    let path_prefix = block
        .get("pathPrefix")
        .and_then(|field| path_prefix(&field));
    let jails = listed.jails_or_default(block);
    let Some(service) = block.get("service") else {
        block.error("a route needs a `service`; `whoami@internal` is always there");
        return None;
    };
    Some(Route {
        host,
        path_prefix: path_prefix.unwrap_or_else(|| "/".into()),
        service: listed.service(&service)?,
        jails,
    })
}

/// `app.example.com`, `*.example.com` or an address; lower case.
fn host(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    if text.is_empty() {
        return None;
    }
    let host = text.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fine)
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let v6 = bracketed.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
    if v6 || name.split('.').all(label) {
        return Some(host.into());
    }
    let hint = if !name.is_ascii() {
        "write it in punycode (`xn--…`)"
    } else if name.contains(':') {
        "write it without a port"
    } else if name.contains('*') {
        "a wildcard is `*.` at the start"
    } else {
        "write it like `app.example.com` or `*.example.com`"
    };
    field.error(format!("`{}` is no host; {hint}", field.shown()));
    None
}

fn path_prefix(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text()?;
    let good = text.starts_with('/') && !text.contains(['?', '#', ' ']);
    if !good {
        field.error(format!(
            "`{}` is no path prefix; it starts with `/`",
            field.shown()
        ));
        return None;
    }
    Some(text.into())
}

pub(super) fn forward_auth(field: &Field<'_>) -> Option<ForwardAuth> {
    let block = field.block(shape::FORWARD_AUTH)?;
    let trusted = block.get("trustedIPs");
    if nets(trusted.as_ref()).is_empty() {
        block.warn("`forwardAuth.trustedIPs` is empty: nobody may ask, every request gets 401");
    }
    Some(ForwardAuth {
        trusted: net_set(trusted),
        tls: tls(&block, shape::FORWARD_AUTH_TLS),
        address: listen(&block)?,
    })
}

pub(super) fn admin(root: &Block<'_>) -> Admin {
    let mut admin = Admin::default();
    let Some(block) = root.block("admin", shape::ADMIN) else {
        return admin;
    };
    let field = block.get("address");
    if let Some(address) = field.as_ref().and_then(address) {
        admin.address = address;
    }
    admin.token = block.secret("token", "tokenFile");
    admin.read_token = block.secret("readToken", "readTokenFile");
    let read = block
        .get("readToken")
        .or_else(|| block.get("readTokenFile"));
    match (&admin.token, &admin.read_token, read) {
        (None, Some(_), Some(field)) => {
            field.error("a read-only token needs a full one beside it: set `admin.tokenFile`");
        }
        (Some(token), Some(read_token), Some(field)) if token == read_token => {
            field.error("`admin.readToken` is the same as `admin.token`");
        }
        _ => {}
    }
    if let Some(hosts) = block.get("hosts") {
        let hosts = hosts.items().into_iter().filter_map(|item| host(&item));
        admin.hosts = hosts.map(|host| host.to_string()).collect();
    }
    let asked = block.get("token").or_else(|| block.get("tokenFile"));
    if let Some(field) = field.filter(|_| !admin.address.is_local() && admin.token.is_none()) {
        // A token that could not be read has been reported already.
        if asked.is_none_or(|asked| asked.text().is_some_and(|text| text.is_empty())) {
            field.error("`admin.address` is reachable from outside: set `admin.tokenFile`");
        }
    }
    admin
}
