//! `services`: servers, health checks and how they are spoken to.

use super::super::{
    HealthCheck, Scheme, Server, Service, Transport,
    read::{Block, Field},
    shape,
};

pub(super) fn all(field: &Field<'_>) -> Vec<Service> {
    field.named().iter().filter_map(service).collect()
}

fn service(field: &Field<'_>) -> Option<Service> {
    let no_servers = || {
        field.error(format!(
            "`{}` needs at least one server in `servers`",
            field.path
        ))
    };
    if field.is_null() {
        no_servers();
        return None;
    }
    let block = field.block(shape::SERVICE)?;
    let servers = block.get("servers");
    if servers
        .as_ref()
        .is_none_or(|servers| servers.is_list() && servers.items().is_empty())
    {
        no_servers();
    }
    let servers = servers
        .map(|servers| servers.blocks(shape::SERVER))
        .unwrap_or_default();
    Some(Service {
        name: field.name.into(),
        servers: servers.iter().filter_map(server).collect(),
        pass_host_header: block.flag("passHostHeader", true),
        health_check: block
            .block("healthCheck", shape::HEALTH_CHECK)
            .map(|b| health_check(&b)),
        transport: transport(&block),
    })
}

fn server(block: &Block<'_>) -> Option<Server> {
    let Some(field) = block.get("url") else {
        block.error("a server needs a `url`");
        return None;
    };
    let text = field.text()?;
    let server = parse_server(&text, &field.cx().base);
    server
        .map_err(|hint| field.error(format!("`{}` is no server URL; {hint}", field.shown())))
        .ok()
}

fn parse_server(text: &str, base: &std::path::Path) -> Result<Server, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err("write it like `unix:/run/app.sock`");
        }
        return Ok(Server {
            scheme: Scheme::Unix,
            host: base.join(path).to_string_lossy().into(),
            port: 0,
            base_path: "".into(),
        });
    }
    const HOW: &str = "write it like `http://host:port`, `https://…`, `h2c://…` or `unix:/path`";
    let uri: http::Uri = text.parse().map_err(|_| HOW)?;
    let (scheme, port) = match uri.scheme_str() {
        Some("http") => (Scheme::Http, 80),
        Some("https") => (Scheme::Https, 443),
        Some("h2c") => (Scheme::H2c, 80),
        _ => return Err(HOW),
    };
    let authority = uri.authority().ok_or(HOW)?;
    if authority.as_str().contains('@') {
        return Err("credentials in it are not sent; remove them");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("it has no query and no fragment");
    }
    let host = authority.host();
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let port = match authority.as_str().len() > authority.host().len() {
        true => authority
            .port_u16()
            .filter(|port| *port > 0)
            .ok_or("its port is none")?,
        false => port,
    };
    Ok(Server {
        scheme,
        host: host.into(),
        port,
        base_path: uri.path().trim_end_matches('/').into(),
    })
}

fn health_check(block: &Block<'_>) -> HealthCheck {
    let default = HealthCheck::default();
    let path = block.get("path").and_then(|field| {
        let path = field.text()?;
        if !path.starts_with('/') {
            field.error(format!("`{}` starts with `/`", field.path));
            return None;
        }
        Some(path.into())
    });
    HealthCheck {
        path: path.unwrap_or(default.path),
        interval: block.period("interval", default.interval),
        timeout: block.period("timeout", default.timeout),
    }
}

fn transport(block: &Block<'_>) -> Transport {
    let default = Transport::default();
    let Some(block) = block.block("serversTransport", shape::SERVERS_TRANSPORT) else {
        return default;
    };
    let (wait, body) = (default.response_header_timeout, default.body_timeout);
    Transport {
        dial_timeout: block.period("dialTimeout", default.dial_timeout),
        response_header_timeout: block.duration("responseHeaderTimeout", wait),
        body_timeout: block.duration("readTimeout", body),
        idle_timeout: block.duration("idleConnTimeout", default.idle_timeout),
        max_idle: block.number("maxIdleConnsPerHost", 0, 100_000, default.max_idle),
        root_ca: block.file("rootCAs"),
        insecure_skip_verify: block.flag("insecureSkipVerify", false),
        server_name: block
            .text("serverName")
            .filter(|name| !name.is_empty())
            .map(Into::into),
        retries: block.number("retries", 0, 10, default.retries),
    }
}
