//! `jailgate replay`: the jails of a configuration over old logs, nothing enforced.
//!
//! Here: what is wanted and where it goes. `source` reads, `tally` judges, `report` and `html`
//! tell.

mod html;
mod report;
mod source;
mod tally;

use std::{
    fs,
    io::{IsTerminal, Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ipnet::IpNet;

use super::ConfigArg;
use crate::{
    access_log::format::Format,
    config::{AccessLog, Config, Jail, LogLineFormat},
    engine::nets::NetSet,
};
use report::Report;
use source::Source;
use tally::Tally;

/// Replay old access logs: who would have been banned, when, and for what.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Access logs: plain, gzip or zstd
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// traefik-json, clf, combined, caddy-json, nginx-json or regex:PATTERN [default: as the
    /// configuration says of that path, else by the first lines]
    #[arg(short, long, value_parser = parse_format)]
    format: Option<LogLineFormat>,
    /// Jails to replay [default: those the configuration gives that path, else all]
    #[arg(short, long = "jail", value_name = "JAIL")]
    jails: Vec<String>,
    /// Proxies in front of the server that wrote the logs
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    trusted_ips: Vec<IpNet>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Also write the report as an HTML file
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
}

/// What is wanted of one log.
struct Target {
    format: Option<Format>,
    trusted: Arc<NetSet>,
    jails: Vec<Arc<str>>,
}

/// Replays and reports.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = replay(args, &args.config.load()?)?;
    if let Some(out) = &args.html {
        fs::write(out, html::page(&report))
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.table(),
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn replay(args: &Args, config: &Config) -> anyhow::Result<Report> {
    let targets = args.logs.iter().map(|log| target(args, config, log));
    let targets: Vec<_> = targets.collect::<Result<_, _>>()?;
    let bar = progress(source::total_bytes(&args.logs));
    let mut sources = Vec::new();
    for (at, (path, target)) in args.logs.iter().zip(&targets).enumerate() {
        let mut source = Source::open(path, target.format.clone(), at, &bar)?;
        source.advance()?;
        sources.push(source);
    }
    let wanted = |jail: &&Jail| {
        targets
            .iter()
            .any(|one| one.jails.contains(&jail.spec.name))
    };
    let jails: Vec<_> = config.jails.iter().filter(wanted).collect();
    let begin = sources.iter().filter_map(Source::time).min().unwrap_or(0);
    let mut tally = Tally::new(&jails, config.limits, itself(config, &targets), begin);
    while let Some(next) = source::oldest(&sources) {
        let source = &mut sources[next];
        let target = &targets[source.target];
        if let (Some(at), Ok(event)) = (source.time(), source.format.parse(source.line())) {
            tally.take(&event, at, &target.trusted, &target.jails);
        }
        source.advance()?;
    }
    bar.finish_and_clear();
    Ok(Report::new(&sources, &tally))
}

/// The words of the command line first, then what the configuration says of this very path.
fn target(args: &Args, config: &Config, path: &Path) -> anyhow::Result<Target> {
    let known = configured(config, path);
    let format = args.format.as_ref().or(known.map(|log| &log.format));
    let jails: Vec<Arc<str>> = match (&args.jails[..], known) {
        ([], Some(log)) => log.jails.clone(),
        ([], None) => config
            .jails
            .iter()
            .map(|jail| jail.spec.name.clone())
            .collect(),
        (named, _) => named.iter().map(|name| name.as_str().into()).collect(),
    };
    for name in &jails {
        if !config.jails.iter().any(|jail| jail.spec.name == *name) {
            bail!("no jail `{name}` in the configuration");
        }
    }
    let trusted = match (&args.trusted_ips[..], known) {
        ([], Some(log)) => log.trusted.clone(),
        (nets, _) => Arc::new(NetSet::build(nets.iter().copied())),
    };
    let format = format
        .map(Format::compile)
        .transpose()
        .context("--format")?;
    Ok(Target {
        format,
        trusted,
        jails,
    })
}

/// The followed log that `path` is, or is a rotated part of.
fn configured<'c>(config: &'c Config, path: &Path) -> Option<&'c AccessLog> {
    let path = path.canonicalize().ok()?;
    let path = path.to_str()?;
    config.access_logs.iter().find(|log| {
        let followed = log.path.to_str().unwrap_or_default();
        path.strip_prefix(followed)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
            || glob::Pattern::new(followed).is_ok_and(|pattern| pattern.matches(path))
    })
}

/// Who `ignoreself` spares: loopback and every proxy that is trusted anywhere. Not this machine's
/// addresses, which need not be those of the logs' server.
fn itself(config: &Config, targets: &[Target]) -> NetSet {
    let loopback = ["127.0.0.0/8", "::1/128"]
        .into_iter()
        .filter_map(|net| net.parse().ok());
    let gates = config
        .entry_points
        .iter()
        .map(|entry| &entry.forwarded_trusted);
    let auth = config.forward_auth.iter().map(|auth| &auth.trusted);
    let trusted = gates
        .chain(auth)
        .chain(targets.iter().map(|target| &target.trusted));
    NetSet::build(loopback.chain(trusted.flat_map(|set| set.iter())))
}

fn parse_format(name: &str) -> Result<LogLineFormat, String> {
    Ok(match name {
        "traefik-json" => LogLineFormat::TraefikJson,
        "clf" => LogLineFormat::Clf,
        "combined" => LogLineFormat::Combined,
        "caddy-json" => LogLineFormat::CaddyJson,
        "nginx-json" => LogLineFormat::NginxJson,
        _ => match name.strip_prefix("regex:") {
            Some(pattern) => LogLineFormat::Regex(pattern.into()),
            None => {
                return Err(
                    "one of traefik-json, clf, combined, caddy-json, nginx-json, regex:PATTERN"
                        .into(),
                );
            }
        },
    })
}

fn progress(bytes: u64) -> ProgressBar {
    let target = match stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests;
