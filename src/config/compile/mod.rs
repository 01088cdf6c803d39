//! From what a file says to a [`Config`]: every default filled in, every problem found at once.
//! One file per part of the document; `checks` compares the parts with each other.

mod checks;
mod gate;
pub(super) mod jails;
mod lists;
mod notify;
mod outside;
mod services;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    AccessLogTarget, Address, Admin, Config, Limits, Log, Pos, Problem, Problems, State,
    raw::{self, Node},
    read::{Block, Cx, Environment, Field},
    shape,
};

/// Compiles a text that came from `file`.
pub(super) fn compile(
    text: &str,
    file: &str,
    base: PathBuf,
    env: Environment<'_>,
) -> Result<Config, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let cx = Cx::new(file.to_owned(), base, text, env);
    let tree = raw::parse(text, &mut |at, message| cx.error(at, message));
    let config = tree.as_deref().and_then(|tree| document(&cx, tree));
    let problems = cx.problems.take();
    match config {
        Some(mut config) if problems.is_empty() => {
            config.watched = cx.watched.take();
            config.warnings = Problems::new(file, cx.warnings.take()).into();
            Ok(config)
        }
        _ => Err(Problems::new(file, problems).with_watched(cx.watched.take())),
    }
}

/// Reads a file and compiles it; the file itself is watched.
pub(super) fn compile_file(path: &Path, env: Environment<'_>) -> Result<Config, Problems> {
    let path_given = path.display().to_string();
    let (path, base, text) = source(path)?;
    let mut config = compile(&text, &path_given, base, env)?;
    config.watched.insert(0, path.clone());
    config.file = Some(path);
    Ok(config)
}

/// Where the admin listener of a file is, and its tokens. What else the file says may be wrong: who
/// asks a running program need not be able to run it.
pub(super) fn admin_of(path: &Path, env: Environment<'_>) -> Result<Admin, Problems> {
    let file = path.display().to_string();
    let (_, base, text) = source(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let cx = Cx::new(file.clone(), base, text, env);
    let tree = raw::parse(text, &mut |at, message| cx.error(at, message));
    let root = tree.as_deref().map(|tree| cx.root(tree));
    let Some(root) = root.and_then(|root| root.block(shape::ROOT)) else {
        return Err(Problems::new(&file, cx.problems.take()));
    };
    cx.problems.take();
    let admin = gate::admin(&root);
    let problems = cx.problems.take();
    match problems.is_empty() {
        true => Ok(admin),
        false => Err(Problems::new(&file, problems)),
    }
}

/// A file: its absolute path, its directory, its text.
fn source(path: &Path) -> Result<(PathBuf, PathBuf, String), Problems> {
    let unreadable =
        |error: std::io::Error| Problems::from(Problem::whole(path, super::read::said(&error)));
    let given = path.display().to_string();
    let path = std::path::absolute(path).map_err(unreadable)?;
    let bytes = std::fs::read(&path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(&given, &error))?;
    let base = path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((path, base, text))
}

fn not_utf8(file: &str, error: &std::string::FromUtf8Error) -> Problems {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let good = String::from_utf8_lossy(good);
    let last = good.rsplit('\n').next().unwrap_or_default();
    let at = Pos {
        line: good.matches('\n').count() as u32 + 1,
        col: last.chars().count() as u32 + 1,
        width: 1,
    };
    Problem::new(file, at, last, "this byte is no UTF-8").into()
}

fn document(cx: &Cx<'_>, tree: &Node) -> Option<Config> {
    if matches!(tree.value, raw::Value::Null) {
        cx.error(tree.at, "the file says nothing");
        return None;
    }
    let root = cx.root(tree).block(shape::ROOT)?;
    let jails = root
        .get("jails")
        .map(|field| jails::all(&field))
        .unwrap_or_default();
    let services = root
        .get("services")
        .map(|field| services::all(&field))
        .unwrap_or_default();
    let names = checks::Names::of(&root);
    let listed = checks::Listed {
        jails: &jails,
        names: &names,
    };
    let config = Config {
        file: None,
        entry_points: root
            .get("entryPoints")
            .map(|field| gate::entry_points(&field))
            .unwrap_or_default(),
        routes: root
            .get("routes")
            .map(|field| gate::routes(&field, &listed))
            .unwrap_or_default(),
        forward_auth: root
            .get("forwardAuth")
            .and_then(|field| gate::forward_auth(&field)),
        access_logs: root
            .get("accessLogs")
            .map(|field| outside::access_logs(&field, &listed))
            .unwrap_or_default(),
        otlp: root
            .get("otlp")
            .and_then(|field| outside::otlp(&field, &listed)),
        state: state(&root, cx),
        limits: limits(&root),
        crowdsec: root
            .get("crowdsec")
            .and_then(|field| outside::crowdsec(&field)),
        cloudflare: root
            .get("cloudflare")
            .and_then(|field| outside::cloudflare(&field)),
        notify: root
            .get("notify")
            .map(|field| notify::targets(&field, &listed))
            .unwrap_or_default(),
        pushgateway: pushgateway(&root),
        admin: gate::admin(&root),
        log: log(&root, cx),
        services,
        jails,
        watched: Vec::new(),
        warnings: Vec::new(),
    };
    checks::whole(cx, &root, &config);
    Some(config)
}

fn state(root: &Block<'_>, cx: &Cx<'_>) -> Option<State> {
    let month = Duration::from_secs(30 * 86_400);
    let block = root.block("state", shape::STATE);
    let keep = block.as_ref().map(|block| block.duration("keep", month));
    let path = match block.and_then(|block| block.get("path")) {
        None => "jailgate.db".to_owned(),
        Some(field) => field.text()?,
    };
    (!path.is_empty()).then(|| State {
        path: cx.base.join(path),
        keep: keep.unwrap_or(month),
    })
}

fn limits(root: &Block<'_>) -> Limits {
    let default = Limits::default();
    let Some(block) = root.block("limits", shape::LIMITS) else {
        return default;
    };
    Limits {
        tracked_clients: block.number("trackedClients", 1, 100_000_000, default.tracked_clients),
        bans: block.number("bans", 1, 100_000_000, default.bans),
        aggregate_ipv6: block.flag("aggregateIPv6", default.aggregate_ipv6),
    }
}

fn pushgateway(root: &Block<'_>) -> Option<String> {
    let field = root.block("pushgateway", shape::PUSHGATEWAY)?.get("url")?;
    match field.text()? {
        url if url.is_empty() => None,
        _ => http_url(&field),
    }
}

fn log(root: &Block<'_>, cx: &Cx<'_>) -> Log {
    let mut log = Log::default();
    let Some(block) = root.block("log", shape::LOG) else {
        return log;
    };
    if let Some(level) = block.get("level") {
        log.level = log_level(&level).unwrap_or(log.level);
    }
    if let Some(format) = block.get("format") {
        log.json = format
            .choice(&[("text", false), ("json", true)])
            .unwrap_or(false);
    }
    log.access = match block.text("access").as_deref() {
        None | Some("") => AccessLogTarget::Off,
        Some("stdout") => AccessLogTarget::Stdout,
        Some(path) => AccessLogTarget::File(cx.base.join(path)),
    };
    if let Some(truncate) = block.block("truncate", shape::TRUNCATE) {
        log.truncate = (
            truncate.number("ipv4", 0, 32, log.truncate.0),
            truncate.number("ipv6", 0, 128, log.truncate.1),
        );
    }
    log
}

/// A level, or a filter such as `info,jailgate::gate=debug`.
fn log_level(field: &Field<'_>) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = field.word()?;
    let words = text
        .split(',')
        .map(|part| part.rsplit('=').next().unwrap_or(part).trim());
    for word in words {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            let choices = LEVELS.map(|level| (level, ()));
            let hint = match shape::nearest(word, &choices.map(|(level, ())| level)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a level is one of {}", LEVELS.join(", ")),
            };
            field.error(format!("`log.level` cannot be `{word}`; {hint}"));
            return None;
        }
    }
    Some(text)
}

/// An address to listen on.
fn address(field: &Field<'_>) -> Option<Address> {
    match Address::parse(&field.text()?) {
        Ok(Address::Unix(path)) => Some(Address::Unix(field.cx().base.join(path))),
        Ok(address) => Some(address),
        Err(message) => {
            field.error(format!("`{}`: {message}", field.path));
            None
        }
    }
}

/// The base URL of an HTTP API, without a trailing slash.
fn http_url(field: &Field<'_>) -> Option<String> {
    let text = field.word()?;
    let good = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    });
    if !good {
        let (path, shown) = (&field.path, field.shown());
        field.error(format!(
            "`{path}`: `{shown}` is no URL like `http://host:port`"
        ));
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests;
