//! What the operator sees from outside: log lines on standard error and metrics.
//!
//! Logging is set up once per process; its level changes with a reload. It owns no files.

pub mod cloudflare;
pub mod crowdsec;
pub mod journal;
pub mod metrics;
mod observed;
pub mod privacy;
pub mod status;
mod striped;

use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

pub use metrics::Metrics;
pub use status::{Status, Statuses};

/// Changes the log level of the running process.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogLevel")
    }
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.level` is neither a level nor a filter.
    #[error("`log.level` is not a level or filter: {0}")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// A subscriber was installed before, or the one installed is gone.
    #[error("the log is already set up")]
    Installed,
}

/// An error with everything that led to it, on one line; what was said already is not said again.
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// Installs the process-wide log on standard error: text, or one JSON object a line.
pub fn init(level: &str, json: bool) -> Result<LogLevel, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    let installed = if json {
        let layer = layer.json().flatten_event(true).with_current_span(false);
        registry.with(layer).try_init()
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(layer.with_ansi(colour)).try_init()
    };
    installed.map_err(|_| Error::Installed)?;
    Ok(LogLevel(handle))
}

impl LogLevel {
    /// Puts another level or filter in force.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        self.0.reload(filter(level)?).map_err(|_| Error::Installed)
    }
}

/// A bare level speaks of jailgate; the libraries below it stay at `warn`.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let bare = level.chars().all(|c| c.is_ascii_alphabetic());
    let directives = if bare {
        format!("warn,jailgate={level}")
    } else {
        level.to_owned()
    };
    EnvFilter::try_new(directives).map_err(Error::Level)
}
