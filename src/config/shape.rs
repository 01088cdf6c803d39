//! Every key a configuration may hold, block by block, and what to suggest for one that is none.
//! The only list of keys: the reader refuses others, and a test finds each in the example.

/// The keys of one kind of block.
#[derive(Debug)]
pub struct Shape {
    /// Where such blocks stand; `*` is a name chosen by the author or a list's position.
    pub path: &'static str,
    /// Keys allowed, in the order of the example.
    pub keys: &'static [&'static str],
}

macro_rules! shapes {
    ($($name:ident $path:literal [$($key:literal)*])*) => {
        $(#[doc = concat!("`", $path, "`")]
        pub const $name: &Shape = &Shape { path: $path, keys: &[$($key),*] };)*
        /// All of them.
        pub const ALL: &[&Shape] = &[$($name),*];
    };
}

shapes! {
    ROOT "" ["entryPoints" "routes" "services" "forwardAuth" "accessLogs" "otlp" "jails" "state"
        "limits" "crowdsec" "cloudflare" "notify" "pushgateway" "admin" "log"]
    ENTRY_POINT "entryPoints.*" ["address" "forwardedHeaders" "proxyProtocol" "tls" "transport"
        "http" "http2"]
    FORWARDED_HEADERS "entryPoints.*.forwardedHeaders" ["trustedIPs"]
    PROXY_PROTOCOL "entryPoints.*.proxyProtocol" ["trustedIPs"]
    ENTRY_TLS "entryPoints.*.tls" ["certFile" "keyFile" "selfSigned"]
    ENTRY_TRANSPORT "entryPoints.*.transport" ["respondingTimeouts" "lifeCycle"]
    RESPONDING_TIMEOUTS "entryPoints.*.transport.respondingTimeouts"
        ["readTimeout" "headerTimeout" "idleTimeout"]
    LIFE_CYCLE "entryPoints.*.transport.lifeCycle" ["graceTimeOut"]
    ENTRY_HTTP "entryPoints.*.http" ["maxHeaderBytes" "maxHeaders" "maxUriBytes" "maxBodyBytes"
        "maxConnections" "maxConnectionsPerClient" "canonicalPath"]
    ENTRY_HTTP2 "entryPoints.*.http2" ["maxConcurrentStreams"]
    ROUTE "routes.*" ["host" "pathPrefix" "service" "jails"]
    SERVICE "services.*" ["servers" "passHostHeader" "healthCheck" "serversTransport"]
    SERVER "services.*.servers.*" ["url"]
    HEALTH_CHECK "services.*.healthCheck" ["path" "interval" "timeout"]
    SERVERS_TRANSPORT "services.*.serversTransport" ["dialTimeout" "responseHeaderTimeout"
        "readTimeout" "idleConnTimeout" "maxIdleConnsPerHost" "rootCAs" "insecureSkipVerify"
        "serverName" "retries"]
    FORWARD_AUTH "forwardAuth" ["address" "trustedIPs" "tls"]
    FORWARD_AUTH_TLS "forwardAuth.tls" ["certFile" "keyFile" "selfSigned"]
    ACCESS_LOG "accessLogs.*" ["path" "trustedIPs" "format" "jails"]
    ACCESS_LOG_FORMAT "accessLogs.*.format" ["regex"]
    ACCESS_LOG_REGEX "accessLogs.*.format.regex" ["pattern"]
    OTLP "otlp" ["address" "token" "tokenFile" "trustedIPs" "jails"]
    JAIL "jails.*" ["allowlist" "denylist" "sourceCriterion" "rules" "enableBlockLogs" "match"
        "window" "bantimeIncrement" "response" "simulate" "ignoreself"]
    ALLOWLIST "jails.*.allowlist" ["ip" "files"]
    DENYLIST "jails.*.denylist" ["ip" "files"]
    SOURCE_CRITERION "jails.*.sourceCriterion" ["requestHeaderName" "ipStrategy"]
    IP_STRATEGY "jails.*.sourceCriterion.ipStrategy" ["depth" "excludedIPs" "ipv6Subnet"]
    RULES "jails.*.rules" ["enabled" "findtime" "bantime" "maxretry" "statuscode" "urlregexps"]
    URL_REGEXP "jails.*.rules.urlregexps.*" ["regexp" "mode"]
    MATCH "jails.*.match" ["methods" "pathRegexp"]
    INCREMENT "jails.*.bantimeIncrement" ["factor" "maxtime" "rndtime" "remember"]
    RESPONSE "jails.*.response" ["status" "retryAfter" "page"]
    STATE "state" ["path" "keep"]
    LIMITS "limits" ["trackedClients" "bans" "aggregateIPv6"]
    CROWDSEC "crowdsec" ["url" "publish" "subscribe" "tls" "unreachable"]
    PUBLISH "crowdsec.publish" ["machineId" "password" "passwordFile" "registrationToken"
        "registrationTokenFile" "interval" "checkInterval" "origin"]
    SUBSCRIBE "crowdsec.subscribe" ["apiKey" "apiKeyFile" "interval" "scopes" "origins"
        "scenariosContaining" "scenariosNotContaining" "fallback" "metricsInterval"]
    CROWDSEC_TLS "crowdsec.tls" ["certFile" "keyFile" "caFile" "insecureSkipVerify"]
    CLOUDFLARE "cloudflare" ["accountId" "listId" "apiToken" "apiTokenFile" "source" "interval"
        "ownership" "tag" "capacity" "baseUrl"]
    NOTIFY "notify.*" ["webhook" "ntfy" "slack" "email" "on" "jails" "origins" "interval"
        "allowLocal"]
    WEBHOOK "notify.*.webhook" ["url" "urlFile" "template" "headers"]
    NTFY "notify.*.ntfy" ["url" "topic" "token" "tokenFile"]
    SLACK "notify.*.slack" ["url" "urlFile"]
    EMAIL "notify.*.email" ["smtp" "tls" "from" "to" "username" "password" "passwordFile"]
    PUSHGATEWAY "pushgateway" ["url"]
    ADMIN "admin" ["address" "token" "tokenFile" "readToken" "readTokenFile" "hosts"]
    LOG "log" ["level" "format" "access" "truncate"]
    TRUNCATE "log.truncate" ["ipv4" "ipv6"]
}

/// Keys that the plugin honours although they are deprecated, and what they are called now.
pub const DEPRECATED: &[(&str, &str)] = &[("whitelist", "allowlist"), ("blacklist", "denylist")];

/// Keys found in real jails that no version of the plugin since 0.7 reads (facts of the plugin, §1).
pub const IGNORED: &[&str] = &[
    "action",
    "actionAbuseipdb",
    "backend",
    "banaction",
    "banaction_allports",
    "chain",
    "destemail",
    "enabled",
    "fail2banAgent",
    "filter",
    "ignorecommand",
    "logencoding",
    "logLevel",
    "mode",
    "mta",
    "ports",
    "protocol",
    "requestHost",
    "sender",
    "urlregexp",
    "usedns",
];

/// What to add to "unknown key": the key that was meant, or where it belongs.
pub fn suggest(shape: &Shape, key: &str) -> String {
    if let Some(near) = nearest(key, shape.keys) {
        return format!(", did you mean `{near}`?");
    }
    let elsewhere = |other: &&&Shape| {
        other.path != shape.path && other.keys.iter().any(|k| k.eq_ignore_ascii_case(key))
    };
    let inside = |other: &&&Shape| other.path.starts_with(shape.path);
    let found = ALL.iter().filter(elsewhere).find(inside);
    match found.or_else(|| ALL.iter().find(elsewhere)) {
        Some(other) if other.path.is_empty() => format!("; `{key}` belongs at the top level"),
        Some(other) => format!("; `{key}` belongs under `{}`", other.path),
        None => format!("; known here: {}", shape.keys.join(", ")),
    }
}

/// The word that was probably meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::osa_distance(&word, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= k.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_name_what_was_meant() {
        for (shape, key, expected) in [
            (RULES, "maxRetries", ", did you mean `maxretry`?"),
            (ROOT, "entrypoints", ", did you mean `entryPoints`?"),
            (
                JAIL,
                "findtime",
                "; `findtime` belongs under `jails.*.rules`",
            ),
            (
                ENTRY_POINT,
                "trustedIPs",
                "; `trustedIPs` belongs under `entryPoints.*.forwardedHeaders`",
            ),
            (SERVICE, "routes", "; `routes` belongs at the top level"),
            (STATE, "colour", "; known here: path, keep"),
        ] {
            assert_eq!(suggest(shape, key), expected, "{key}");
        }
    }
}
