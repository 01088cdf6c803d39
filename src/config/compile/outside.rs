//! Who jailgate hears from and talks to: `accessLogs`, `otlp`, `crowdsec`, `cloudflare`.

use std::time::Duration;

use super::{
    super::{
        AccessLog, Address, ClientTls, Cloudflare, CloudflareSource, Crowdsec, CrowdsecPublish,
        CrowdsecSubscribe, Fallback, LogLineFormat, Otlp,
        read::{Block, Field},
        shape,
    },
    address,
    checks::Listed,
    http_url,
    lists::net_set,
};

pub(super) fn access_logs(field: &Field<'_>, listed: &Listed<'_>) -> Vec<AccessLog> {
    let blocks = field.blocks(shape::ACCESS_LOG);
    blocks
        .iter()
        .filter_map(|block| access_log(block, listed))
        .collect()
}

fn access_log(block: &Block<'_>, listed: &Listed<'_>) -> Option<AccessLog> {
    let format = block.get("format").and_then(|field| format(&field));
    let jails = listed.counting_jails(block);
    let trusted = net_set(block.get("trustedIPs"));
    let Some(path) = block.get("path") else {
        block.error("an access log needs a `path`");
        return None;
    };
    Some(AccessLog {
        path: path.path_value()?,
        trusted,
        format: format.unwrap_or(LogLineFormat::TraefikJson),
        jails,
    })
}

fn format(field: &Field<'_>) -> Option<LogLineFormat> {
    if field.is_scalar() {
        let named = [
            ("traefik-json", LogLineFormat::TraefikJson),
            ("clf", LogLineFormat::Clf),
            ("combined", LogLineFormat::Combined),
            ("caddy-json", LogLineFormat::CaddyJson),
            ("nginx-json", LogLineFormat::NginxJson),
        ];
        let places: Vec<_> = (0..).zip(&named).map(|(i, (word, _))| (*word, i)).collect();
        let chosen: usize = field.choice(&places)?;
        return named.into_iter().nth(chosen).map(|(_, format)| format);
    }
    let regex = field.block(shape::ACCESS_LOG_FORMAT)?.get("regex")?;
    let pattern = match regex.is_scalar() {
        true => regex,
        false => regex.block(shape::ACCESS_LOG_REGEX)?.get("pattern")?,
    };
    line_regex(&pattern)
}

fn line_regex(field: &Field<'_>) -> Option<LogLineFormat> {
    const GROUPS: [&str; 6] = ["ip", "status", "path", "method", "host", "time"];
    let pattern = field.word()?;
    let regex = match regex::bytes::Regex::new(&pattern) {
        Ok(regex) => regex,
        Err(error) => {
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            field.error(format!("no regular expression: {reason}"));
            return None;
        }
    };
    let groups: Vec<&str> = regex.capture_names().flatten().collect();
    for needed in ["ip", "status"] {
        if !groups.contains(&needed) {
            field.error(format!("the pattern needs a group `(?P<{needed}>…)`"));
        }
    }
    for group in groups {
        if !GROUPS.contains(&group) {
            field.warn(format!(
                "the group `{group}` means nothing; known: {}",
                GROUPS.join(", ")
            ));
        }
    }
    Some(LogLineFormat::Regex(pattern.into()))
}

pub(super) fn otlp(field: &Field<'_>, listed: &Listed<'_>) -> Option<Otlp> {
    let block = field.block(shape::OTLP)?;
    let default = Address::Tcp(([127, 0, 0, 1], 4318).into());
    let place = block.get("address");
    let address = place.as_ref().map_or(Some(default), address)?;
    let token = block.secret("token", "tokenFile");
    let asked = block.get("token").or_else(|| block.get("tokenFile"));
    if !address.is_local() && token.is_none() && asked.is_none() {
        let place = place.unwrap_or_else(|| field.clone());
        place.error("`otlp.address` is reachable from outside: set `otlp.tokenFile`");
    }
    Some(Otlp {
        address,
        token,
        trusted: net_set(block.get("trustedIPs")),
        jails: listed.counting_jails(&block),
    })
}

pub(super) fn crowdsec(field: &Field<'_>) -> Option<Crowdsec> {
    let block = field.block(shape::CROWDSEC)?;
    let tls = block
        .block("tls", shape::CROWDSEC_TLS)
        .and_then(|block| client_tls(&block));
    let certificate = tls.as_ref().is_some_and(|tls| tls.cert.is_some());
    let publish = block.block("publish", shape::PUBLISH);
    let subscribe = block.block("subscribe", shape::SUBSCRIBE);
    if publish.is_none() && subscribe.is_none() {
        block.error("`crowdsec` needs `publish` or `subscribe`, or both");
    }
    let publish = publish.map(|block| self::publish(&block, certificate));
    let subscribe = subscribe.map(|block| self::subscribe(&block, certificate));
    let how = [("lastKnown", false), ("open", true)];
    let open = block
        .get("unreachable")
        .and_then(|field| field.choice(&how));
    Some(Crowdsec {
        publish,
        subscribe,
        tls,
        open_when_unreachable: open.unwrap_or(false),
        url: needed(&block, "url", "the LAPI's address, `http://127.0.0.1:8080`")
            .and_then(|field| http_url(&field))?,
    })
}

fn publish(block: &Block<'_>, certificate: bool) -> CrowdsecPublish {
    let password = credential(block, "password", "passwordFile", certificate);
    let machine_id = match block.get("machineId") {
        None if !certificate => needed(block, "machineId", "the name of `cscli machines add`"),
        field => field,
    };
    CrowdsecPublish {
        machine_id: machine_id
            .and_then(|field| field.word())
            .unwrap_or_default(),
        password,
        registration_token: block.secret("registrationToken", "registrationTokenFile"),
        interval: block.period("interval", Duration::from_secs(1)),
        check_interval: block.period("checkInterval", Duration::from_secs(60)),
        origin: block
            .get("origin")
            .and_then(|field| field.word())
            .map_or_else(|| "jailgate".into(), Into::into),
    }
}

fn subscribe(block: &Block<'_>, certificate: bool) -> CrowdsecSubscribe {
    const SCOPES: [(&str, &str); 4] = [
        ("ip", "ip"),
        ("range", "range"),
        ("country", "country"),
        ("as", "as"),
    ];
    let scopes = match block.get("scopes") {
        None => vec!["ip".to_owned(), "range".to_owned()],
        Some(field) => field
            .items()
            .iter()
            .filter_map(|item| item.choice(&SCOPES).map(str::to_owned))
            .collect(),
    };
    const FALLBACKS: [(&str, Fallback); 3] = [
        ("ban", Fallback::Ban),
        ("captcha", Fallback::Captcha),
        ("ignore", Fallback::Ignore),
    ];
    let words = |key| -> Vec<String> {
        let field = block.get(key);
        let items = field.iter().flat_map(Field::items);
        items.filter_map(|item| item.word()).collect()
    };
    let fallback = block
        .get("fallback")
        .and_then(|field| field.choice(&FALLBACKS));
    CrowdsecSubscribe {
        api_key: credential(block, "apiKey", "apiKeyFile", certificate),
        interval: block.period("interval", Duration::from_secs(10)),
        scopes,
        origins: words("origins"),
        scenarios_containing: words("scenariosContaining"),
        scenarios_not_containing: words("scenariosNotContaining"),
        fallback: fallback.unwrap_or(Fallback::Ban),
        metrics_interval: block.duration("metricsInterval", Duration::from_secs(900)),
    }
}

/// A secret that is mandatory without a client certificate.
fn credential(
    block: &Block<'_>,
    key: &'static str,
    file_key: &'static str,
    certificate: bool,
) -> Option<super::super::Secret> {
    if block.get(key).is_none() && block.get(file_key).is_none() && !certificate {
        block.error(format!(
            "`{}` needs `{file_key}` (or a certificate under `tls`)",
            block.path()
        ));
    }
    block.secret(key, file_key)
}

fn client_tls(block: &Block<'_>) -> Option<ClientTls> {
    let tls = ClientTls {
        cert: block.file("certFile"),
        key: block.file("keyFile"),
        ca: block.file("caFile"),
        insecure_skip_verify: block.flag("insecureSkipVerify", false),
    };
    if block.get("certFile").is_some() != block.get("keyFile").is_some() {
        block.error("`certFile` and `keyFile` belong together");
    }
    let empty = tls.cert.is_none() && tls.ca.is_none() && !tls.insecure_skip_verify;
    (!empty).then_some(tls)
}

pub(super) fn cloudflare(field: &Field<'_>) -> Option<Cloudflare> {
    let block = field.block(shape::CLOUDFLARE)?;
    let id = |key, what| needed(&block, key, what).and_then(|field| identifier(&field));
    let account_id = id("accountId", "the account's id");
    let list_id = id("listId", "the id of the list to write");
    let asked = block.get("apiToken").or_else(|| block.get("apiTokenFile"));
    let api_token = block.secret("apiToken", "apiTokenFile");
    if asked.is_none_or(|field| api_token.is_none() && field.text().is_some_and(|t| t.is_empty())) {
        block.error("`cloudflare` needs `apiTokenFile`");
    }
    let sources = [
        ("lapi", CloudflareSource::Lapi),
        ("local", CloudflareSource::Local),
        ("auto", CloudflareSource::Auto),
    ];
    let source = block.get("source").and_then(|field| field.choice(&sources));
    let owners = [("tagged", false), ("wholeList", true)];
    let whole_list = block
        .get("ownership")
        .and_then(|field| field.choice(&owners));
    let base_url = block.get("baseUrl").map(|field| http_url(&field));
    Some(Cloudflare {
        source: source.unwrap_or(CloudflareSource::Auto),
        interval: block.period("interval", Duration::from_secs(120)),
        whole_list: whole_list.unwrap_or(false),
        tag: block
            .get("tag")
            .map_or_else(|| Some("jailgate".into()), |field| tag(&field))?,
        capacity: block.number("capacity", 1, 10_000_000, 10_000),
        base_url: base_url
            .unwrap_or_else(|| Some("https://api.cloudflare.com/client/v4".into()))?,
        account_id: account_id?,
        list_id: list_id?,
        api_token: api_token?,
    })
}

/// One word, so that another tag is never its beginning.
fn tag(field: &Field<'_>) -> Option<String> {
    let text = field.word()?;
    if text.is_empty() || text.len() > 100 || text.contains(char::is_whitespace) {
        field.error(format!("`{}`: one word of at most 100 bytes", field.path));
        return None;
    }
    Some(text)
}

/// Goes into a URL's path as it is.
fn identifier(field: &Field<'_>) -> Option<String> {
    let text = field.word()?;
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    {
        field.error(format!("`{}`: letters and digits only", field.path));
        return None;
    }
    Some(text)
}

fn needed<'a>(block: &Block<'a>, key: &'static str, what: &str) -> Option<Field<'a>> {
    let field = block.get(key);
    if field.is_none() {
        block.error(format!("`{}` needs `{key}`, {what}", block.path()));
    }
    field
}
