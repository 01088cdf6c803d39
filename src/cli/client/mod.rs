//! Commands that talk to a running jailgate: how it is reached, how answers become output and
//! exit codes. What they do is the admin API's.

pub mod allow;
pub mod bans;
pub mod clients;
pub mod events;
mod screen;
pub mod status;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::ConfigArg;
use crate::config::{Address, Secret};

/// Nobody answers where jailgate should be.
pub const NOBODY: u8 = 3;
/// The token is missing, wrong, or may only read.
pub const NOT_ALLOWED: u8 = 4;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Said below the help of each command.
pub const CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 jailgate does \
                         not answer, 4 token missing or not enough, 78 bad configuration";

/// How to reach the running jailgate.
#[derive(Debug, clap::Args)]
pub struct Reach {
    #[command(flatten)]
    config: ConfigArg,
    /// Admin address instead of the configuration's: host:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "JAILGATE_ADMIN")]
    admin: Option<String>,
    /// File with the token, instead of the configuration's
    #[arg(long, value_name = "FILE", env = "JAILGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// An open way to the admin API.
#[derive(Debug)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    address: Address,
    token: Option<Secret>,
}

/// What the API refused, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    text: String,
    /// Of the process.
    pub code: u8,
}

impl Reach {
    /// Runs one command on a runtime of its own.
    pub fn run(
        &self,
        command: impl AsyncFnOnce(Api) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        let api = self.open()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(command(api))
    }

    fn open(&self) -> anyhow::Result<Api> {
        let (address, mut token) = match &self.admin {
            Some(text) => (Address::parse(text).map_err(anyhow::Error::msg)?, None),
            None => {
                let admin = self.config.load_admin()?;
                (admin.address, admin.token)
            }
        };
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            token = Some(Secret::new(text.trim()));
        }
        Api::new(address, token)
    }
}

impl Api {
    fn new(address: Address, token: Option<Secret>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5));
        let (client, base) = match &address {
            Address::Tcp(at) => {
                let mut at = *at;
                if at.ip().is_unspecified() {
                    at.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
                }
                (client, format!("http://{at}"))
            }
            Address::Unix(path) => (
                client.unix_socket(path.as_path()),
                "http://localhost".to_owned(),
            ),
        };
        Ok(Self {
            client: client.build()?,
            base,
            address,
            token,
        })
    }

    /// A request of `path` below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}/api/v1{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Asks and answers the JSON.
    pub async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request.timeout(PATIENCE)).await?;
        Ok(response.json().await?)
    }

    /// Asks for something that goes on.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| Failure {
            text: format!(
                "no answer from {}: {}; does jailgate run there?",
                self.address,
                root(&error)
            ),
            code: NOBODY,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said: Value = response.json().await.unwrap_or_default();
        Err(refusal(status, &said).into())
    }

    /// GET.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(self.request(Method::GET, &with(path, query)))
            .await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(self.request(Method::POST, path).json(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(self.request(Method::DELETE, &with(path, query)))
            .await
    }
}

/// A path with its query, escaped.
fn with(path: &str, query: &[(&str, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let pair = |(key, value): &(&str, String)| format!("{key}={}", escaped(value));
    let pairs: Vec<String> = query.iter().map(pair).collect();
    format!("{path}?{}", pairs.join("&"))
}

/// Percent-encoded, for one segment of a path or one value of a query.
pub fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let each = text.bytes().map(|b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    each.collect()
}

fn refusal(status: StatusCode, said: &Value) -> Failure {
    let detail = said["detail"]
        .as_str()
        .map_or_else(|| format!("the answer is {status}"), screen::inert);
    let problems = said["problems"].as_array().into_iter().flatten();
    let mut text = detail;
    for problem in problems.filter_map(Value::as_str) {
        text.push_str("\n  ");
        text.push_str(&screen::inert(problem));
    }
    if said["refused"].is_array() {
        text.push_str(" (--force bans all the same)");
    }
    Failure {
        text,
        code: match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NOT_ALLOWED,
            _ => 1,
        },
    }
}

/// The innermost words of an error, which say what happened.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Prints JSON for programs.
pub fn print_json(value: &Value) {
    screen::line(&serde_json::to_string_pretty(value).unwrap_or_default());
}
