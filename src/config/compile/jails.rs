//! `jails`: the block the Traefik plugin takes, read with the plugin's habits, and what jailgate
//! adds to it.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    super::{
        DenyResponse, Jail, SourceCriterion,
        read::{Block, Field},
        shape, statuscode,
    },
    lists::{from_files, net_set, nets},
};
use crate::engine::{
    JailSpec,
    jail::{Increment, WindowKind},
    nets::NetSet,
    urls::{Mode, UrlRules, from_go},
};

/// A sliding window remembers each event of each client: 8 bytes apiece.
const MAX_SLIDING: u32 = 1000;

/// Longest `page`.
const MAX_PAGE: usize = 1 << 20;

pub(super) fn all(field: &Field<'_>) -> Vec<Jail> {
    let fields = field.named();
    fields
        .into_iter()
        .filter_map(|field| jail(field.lenient()))
        .collect()
}

/// One jail as the plugin would read it, whatever key holds it.
pub(in crate::config) fn plugin(field: Field<'_>) -> Option<Jail> {
    jail(field.lenient())
}

/// One jail. In a disabled one nothing is enforced, so problems there are warnings, as the plugin
/// validates nothing then.
fn jail(field: Field<'_>) -> Option<Jail> {
    let cx = field.cx();
    let before = cx.problems.borrow().len();
    let name: Arc<str> = field.name.into();
    if field.is_null() {
        return Some(defaults(name));
    }
    let jail = compile(&field.block(shape::JAIL)?, name);
    if !jail.spec.enabled {
        let found = cx.problems.borrow_mut().split_off(before);
        cx.warnings.borrow_mut().extend(found);
    }
    Some(jail)
}

fn defaults(name: Arc<str>) -> Jail {
    Jail {
        spec: JailSpec::named(name),
        source: SourceCriterion::default(),
        response: DenyResponse::default(),
        block_logs: true,
    }
}

fn compile(block: &Block<'_>, name: Arc<str>) -> Jail {
    let mut jail = defaults(name);
    let spec = &mut jail.spec;
    spec.allowlist = list(block, "allowlist", "whitelist", shape::ALLOWLIST);
    spec.denylist = list(block, "denylist", "blacklist", shape::DENYLIST);
    if let Some(rules) = block.block("rules", shape::RULES) {
        self::rules(&rules, spec);
    }
    if let Some(block) = block.block("match", shape::MATCH) {
        spec.match_methods = block
            .get("methods")
            .map(|field| methods(&field))
            .unwrap_or_default();
        spec.match_path = block
            .get("pathRegexp")
            .and_then(|field| path_regexp(&field));
    }
    if let Some(field) = block.get("window") {
        let kinds = [
            ("fixed", WindowKind::Fixed),
            ("sliding", WindowKind::Sliding),
        ];
        spec.window = field.choice(&kinds).unwrap_or(spec.window);
    }
    if spec.window == WindowKind::Sliding && spec.maxretry > MAX_SLIDING {
        block.error(format!(
            "a sliding window counts to {MAX_SLIDING} at most, `maxretry` is more"
        ));
    }
    spec.increment = block
        .block("bantimeIncrement", shape::INCREMENT)
        .map(|b| increment(&b));
    spec.simulate = block.flag("simulate", false);
    spec.ignore_self = block.flag("ignoreself", true);
    jail.block_logs = block.flag("enableBlockLogs", true);
    if let Some(block) = block.block("sourceCriterion", shape::SOURCE_CRITERION) {
        let (source, prefix) = source(&block);
        jail.source = source;
        jail.spec.ipv6_prefix = prefix;
    }
    if let Some(block) = block.block("response", shape::RESPONSE) {
        jail.response = response(&block);
    }
    jail
}

/// Files first, then `ip`, then the deprecated name: the plugin's order, though a set has none.
fn list(
    block: &Block<'_>,
    key: &'static str,
    old: &'static str,
    shape: &'static shape::Shape,
) -> Arc<NetSet> {
    let mut found = Vec::new();
    for key in [key, old] {
        if let Some(list) = block.block(key, shape) {
            found.extend(from_files(list.get("files").as_ref()));
            found.extend(nets(list.get("ip").as_ref()));
        }
    }
    Arc::new(NetSet::build(found))
}

fn rules(block: &Block<'_>, spec: &mut JailSpec) {
    spec.enabled = block.flag("enabled", true);
    spec.findtime = length(
        block,
        "findtime",
        spec.findtime,
        "nothing is ever counted together",
    );
    spec.bantime = length(block, "bantime", spec.bantime, "no ban ever holds");
    if let Some(field) = block.get("maxretry") {
        spec.maxretry = match field.number(i64::MIN, i64::from(u32::MAX)) {
            Some(number) if number < 1 => {
                field.warn(format!(
                    "`maxretry: {number}` bans at the first counted event, as 1 does"
                ));
                0
            }
            Some(number) => number as u32,
            None => spec.maxretry,
        };
    }
    if let Some(field) = block.get("statuscode") {
        spec.statuses = statuses(&field).unwrap_or_default();
    }
    if let Some(field) = block.get("urlregexps") {
        spec.urls = Arc::new(urls(&field));
    }
}

/// The plugin takes zero and negative lengths; they switch the thing off.
fn length(block: &Block<'_>, key: &'static str, default: Duration, effect: &str) -> Duration {
    let Some(field) = block.get(key) else {
        return default;
    };
    match field.signed_duration() {
        Some(signed) if signed.negative || signed.length.is_zero() => {
            field.warn(format!("`{key}: {}`: {effect}", field.shown()));
            Duration::ZERO
        }
        Some(signed) => signed.length,
        None => default,
    }
}

/// The plugin takes text only; a list of the same parts is ours.
fn statuses(field: &Field<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let items = if field.is_list() {
        field.items()
    } else {
        vec![field.clone()]
    };
    let mut ranges = Vec::new();
    for item in items {
        match statuscode::parse(&item.text()?) {
            Ok(parsed) => {
                parsed.odd.into_iter().for_each(|odd| item.warn(odd));
                ranges.extend(parsed.ranges);
            }
            Err(message) => {
                item.error(message);
                return None;
            }
        }
    }
    Some(ranges)
}

fn urls(field: &Field<'_>) -> UrlRules {
    if !field.is_list() && !field.is_scalar() {
        field.warn("`urlregexps` is a list; one rule alone is read as a list of one");
    }
    let mut places = Vec::new();
    let mut rules = Vec::new();
    for item in field.items() {
        let Some(block) = item.block(shape::URL_REGEXP) else {
            continue;
        };
        if let Some((place, pattern, mode)) = url_rule(&block) {
            places.push(place);
            rules.push((pattern, mode));
        }
    }
    match UrlRules::compile(&rules) {
        Ok(urls) => {
            for index in urls.allow_without_anchor() {
                places[*index].warn(format!(
                    "this `allow` matches anywhere in a path, also in `/login{}`; begin it with `^`",
                    rules[*index].0.trim_end_matches('$')
                ));
            }
            urls
        }
        Err(bad) => {
            for wrong in bad {
                let place = places.get(wrong.index).unwrap_or(field);
                place.error(wrong.message);
            }
            UrlRules::default()
        }
    }
}

/// A pattern is checked even when its rule is dropped for its mode, as in the plugin.
fn url_rule<'a>(block: &Block<'a>) -> Option<(Field<'a>, String, Mode)> {
    let Some(place) = block.get("regexp") else {
        block.error("a URL rule needs a `regexp`");
        return None;
    };
    let pattern = place.text()?;
    let mode = block.text("mode").unwrap_or_default();
    let mode = match mode.as_str() {
        "block" => Mode::Block,
        "allow" => Mode::Allow,
        _ => {
            let place_of_mode = block.get("mode").unwrap_or_else(|| place.clone());
            place_of_mode.warn(format!(
                "the mode is `block` or `allow`, not `{mode}`: this rule is dropped, as in the plugin"
            ));
            if let Err(message) = from_go(&pattern) {
                place.error(message);
            }
            return None;
        }
    };
    if pattern.is_empty() {
        place.warn("an empty pattern matches every URL");
    }
    Some((place, pattern, mode))
}

fn methods(field: &Field<'_>) -> Vec<http::Method> {
    let mut methods = Vec::new();
    for item in field.items() {
        let Some(text) = item.text() else { continue };
        let upper = text.to_ascii_uppercase();
        match http::Method::from_bytes(upper.as_bytes()) {
            Ok(method) => {
                if upper != text {
                    item.warn(format!("methods are upper case: `{upper}`"));
                }
                methods.push(method);
            }
            Err(_) => item.error(format!("`{}` is no HTTP method", item.shown())),
        }
    }
    methods
}

fn path_regexp(field: &Field<'_>) -> Option<regex::bytes::Regex> {
    let text = field.text()?;
    if text.is_empty() {
        return None;
    }
    let compiled = from_go(&text)
        .and_then(|pattern| regex::bytes::Regex::new(&pattern).map_err(|error| error.to_string()));
    compiled.map_err(|message| field.error(message)).ok()
}

fn increment(block: &Block<'_>) -> Increment {
    let day = Duration::from_secs(86_400);
    let factor = block.get("factor").and_then(|field| {
        let factor = field.text()?.parse::<f64>().ok();
        if !factor.is_some_and(|factor| factor > 0.0 && factor <= 1000.0) {
            field.error(format!(
                "`{}` must be a number above 0, at most 1000",
                field.path
            ));
            return None;
        }
        factor
    });
    Increment {
        factor: factor.unwrap_or(1.0),
        maxtime: block.period("maxtime", 28 * day),
        rndtime: block.duration("rndtime", Duration::ZERO),
        remember: block.duration("remember", 7 * day),
    }
}

fn source(block: &Block<'_>) -> (SourceCriterion, u8) {
    let mut source = SourceCriterion::default();
    if let Some(field) = block.get("requestHeaderName") {
        source.request_header_name = match field.text().as_deref() {
            None | Some("") => None,
            Some(name) => header_name(&field, name),
        };
    }
    let Some(strategy) = block.block("ipStrategy", shape::IP_STRATEGY) else {
        return (source, 64);
    };
    source.depth = strategy.number("depth", 0, 100, 0);
    source.excluded = strategy
        .get("excludedIPs")
        .map(|field| net_set(Some(field)))
        .filter(|set| !set.is_empty());
    if source.depth > 0 && source.excluded.is_some() {
        strategy.warn("`depth` is set: `excludedIPs` has no effect beside it, as in Traefik");
    }
    (source, strategy.number("ipv6Subnet", 1, 128, 64))
}

fn header_name(field: &Field<'_>, name: &str) -> Option<http::HeaderName> {
    let parsed = http::HeaderName::from_bytes(name.as_bytes());
    if parsed.is_err() {
        field.error(format!("`{}` is no header name", field.shown()));
    }
    parsed.ok()
}

fn response(block: &Block<'_>) -> DenyResponse {
    let mut response = DenyResponse {
        retry_after: block.flag("retryAfter", true),
        ..DenyResponse::default()
    };
    // 2xx would let a forwardAuth caller pass, 3xx needs a Location.
    let status = block.number("status", 400, 599, response.status.as_u16());
    response.status = http::StatusCode::from_u16(status).unwrap_or(response.status);
    let page = block
        .get("page")
        .filter(|field| field.text().is_some_and(|text| !text.is_empty()));
    response.page = page.and_then(|field| page_text(&field));
    response
}

fn page_text(field: &Field<'_>) -> Option<Arc<str>> {
    let path = field.path_value()?;
    match field.cx().read_file(&path) {
        Ok(text) if text.len() <= MAX_PAGE => Some(text.into()),
        Ok(_) => {
            field.error(format!(
                "`{}` is longer than {MAX_PAGE} bytes",
                path.display()
            ));
            None
        }
        Err(error) => {
            let why = super::super::read::said(&error);
            field.error(format!("cannot read the page `{}`: {why}", path.display()));
            None
        }
    }
}
