//! Talks HTTP with one LAPI: TLS, timeouts, logins and what its answers mean. What is said and when
//! is decided by `publish` and `subscribe`. No secret is ever part of an error.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use reqwest::{Certificate, Identity, Response, Url};
use serde::{Serialize, de::DeserializeOwned};

use super::wire;
use crate::{
    config::{ClientTls, Crowdsec, CrowdsecPublish, CrowdsecSubscribe},
    time::{Clock, Millis},
};

const CONNECT: Duration = Duration::from_secs(5);
/// Between two reads. LAPIs on a slow disk were seen to think for 25 s.
const READ: Duration = Duration::from_secs(60);
/// A call that is cheap for LAPI.
pub(super) const SHORT: Duration = Duration::from_secs(15);
/// A call that makes LAPI write.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Tokens are good for an hour.
const TOKEN_LIFE: Millis = 55 * 60 * 1000;
/// Clocks this close count as the same: an HTTP date has whole seconds.
const SAME_CLOCK: i64 = 2000;
/// Answers are read this far, except lists of decisions.
const LONGEST_ANSWER: usize = 1 << 20;

/// CrowdSec could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key cannot be read.
    #[error("cannot read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("`crowdsec.tls` or `crowdsec.url` cannot be used")]
    Setup(#[source] reqwest::Error),
    /// The URL is none.
    #[error("`crowdsec.url` cannot be used: {0}")]
    Url(String),
    /// No answer, or none in time. What was asked may have been done.
    #[error("LAPI cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// An answer with a status that is no success.
    #[error("LAPI answered {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// HTTP status.
        status: u16,
        /// LAPI's words, shortened.
        message: String,
    },
    /// The machine login was refused.
    #[error("LAPI refuses the machine `{machine}`: {message}")]
    Login {
        /// Machine id.
        machine: String,
        /// LAPI's words, shortened.
        message: String,
    },
    /// The bouncer key was refused.
    #[error("LAPI refuses the bouncer's key or certificate: {0}")]
    Key(String),
    /// A success that no LAPI would answer with.
    #[error("LAPI's answer cannot be read: {0}")]
    Garbage(String),
}

impl From<super::pieces::NotJson> for Error {
    fn from(_: super::pieces::NotJson) -> Self {
        Self::Garbage("no JSON, or cut short".into())
    }
}

/// One LAPI over one pool of connections.
#[derive(Debug)]
struct Lapi {
    http: reqwest::Client,
    base: Url,
    clock: Clock,
    /// How far LAPI's clock is ahead of ours, in milliseconds.
    ahead: AtomicI64,
}

/// The publisher's end: a machine.
#[derive(Debug)]
pub(super) struct Machine {
    lapi: Lapi,
    id: String,
    password: String,
    registration: Mutex<Option<String>>,
    token: Mutex<Option<(HeaderValue, Millis)>>,
}

/// The subscriber's end: a bouncer.
#[derive(Debug)]
pub(super) struct Bouncer {
    lapi: Lapi,
    headers: HeaderMap,
}

impl Lapi {
    fn new(config: &Crowdsec, agent: &str, clock: Clock) -> Result<Self, Error> {
        let base = Url::parse(&config.url).map_err(|error| Error::Url(error.to_string()))?;
        let builder = reqwest::Client::builder()
            .user_agent(agent)
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let secure = base.scheme() == "https";
        let builder = match &config.tls {
            Some(tls) if secure => with_tls(builder, tls)?,
            _ if secure => builder,
            // the system's roots may be missing, in an empty image, and are not needed
            _ => builder.tls_certs_only([]),
        };
        Ok(Self {
            http: builder.build().map_err(Error::Setup)?,
            base,
            clock,
            ahead: AtomicI64::new(0),
        })
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Error> {
        let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
        let response = request.send().await.map_err(unreachable)?;
        self.compare_clocks(response.headers());
        Ok(response)
    }

    fn compare_clocks(&self, headers: &HeaderMap) {
        let date = headers
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let Some(theirs) = date.map(|date| date.timestamp().as_millisecond() + 500) else {
            return;
        };
        let ahead = theirs - self.clock.now() as i64;
        let ahead = if ahead.abs() > SAME_CLOCK { ahead } else { 0 };
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        if ahead.abs() > 10_000 && (before - ahead).abs() > 10_000 {
            let seconds = ahead / 1000;
            tracing::warn!(
                seconds,
                "LAPI's clock is ahead of ours by this much; allowed for"
            );
        }
    }
}

impl Machine {
    /// Prepares the login; nothing is sent yet.
    pub(super) fn new(
        config: &Crowdsec,
        publish: &CrowdsecPublish,
        clock: Clock,
    ) -> Result<Self, Error> {
        let agent = concat!("jailgate/", env!("CARGO_PKG_VERSION"));
        let text = |secret: &Option<crate::config::Secret>| {
            secret.as_ref().map(|secret| secret.expose().to_owned())
        };
        Ok(Self {
            lapi: Lapi::new(config, agent, clock)?,
            id: publish.machine_id.clone(),
            password: text(&publish.password).unwrap_or_default(),
            registration: Mutex::new(text(&publish.registration_token)),
            token: Mutex::default(),
        })
    }

    /// LAPI's time at our time `at`.
    pub(super) fn their_time(&self, at: Millis) -> Millis {
        at.saturating_add_signed(self.lapi.ahead.load(Ordering::Relaxed))
    }

    /// Our time at LAPI's time `at`.
    pub(super) fn our_time(&self, at: Millis) -> Millis {
        at.saturating_add_signed(-self.lapi.ahead.load(Ordering::Relaxed))
    }

    /// Asks and answers the response of whatever status but 401, after which it logs in again, once.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let url = self.lapi.url(path, query);
        let body = body.map(json).transpose()?;
        let mut fresh = false;
        loop {
            let token = match self.kept_token() {
                Some(token) => token,
                None => {
                    fresh = true;
                    self.login().await?
                }
            };
            let request = self.lapi.http.request(method.clone(), url.clone());
            let request = request
                .header(header::AUTHORIZATION, token)
                .timeout(timeout);
            let request = match &body {
                Some(body) => request
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body.clone()),
                None => request,
            };
            let response = self.lapi.send(request).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            // The secret of tokens changes with every start of LAPI.
            *self.token.lock() = None;
            if fresh {
                return Err(refusal(response).await);
            }
        }
    }

    fn kept_token(&self) -> Option<HeaderValue> {
        let token = self.token.lock();
        let (token, since) = token.as_ref()?;
        (self.lapi.clock.now() < since + TOKEN_LIFE).then(|| token.clone())
    }

    async fn login(&self) -> Result<HeaderValue, Error> {
        let mut response = self.log_in().await?;
        let registration = match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.registration.lock().take(),
            _ => None,
        };
        if let Some(registration) = registration {
            self.register(&registration).await?;
            response = self.log_in().await?;
        }
        if !response.status().is_success() {
            return Err(match refusal(response).await {
                Error::Refused {
                    status: 401 | 403,
                    message,
                } => Error::Login {
                    machine: self.id.clone(),
                    message,
                },
                other => other,
            });
        }
        let wire::Token { token } = answer(response).await?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::Garbage("the token is no token".into()))?;
        value.set_sensitive(true);
        *self.token.lock() = Some((value.clone(), self.lapi.clock.now()));
        Ok(value)
    }

    async fn log_in(&self) -> Result<Response, Error> {
        let login = wire::Login {
            machine_id: &self.id,
            password: &self.password,
            registration_token: "",
            scenarios: Some([]),
        };
        self.post_bare("/v1/watchers/login", &login).await
    }

    /// Enters this machine where LAPI lets machines enter themselves.
    async fn register(&self, token: &str) -> Result<(), Error> {
        let machine = wire::Login {
            machine_id: &self.id,
            password: &self.password,
            registration_token: token,
            scenarios: None,
        };
        let response = self.post_bare("/v1/watchers", &machine).await?;
        let status = response.status();
        if status == StatusCode::ACCEPTED {
            tracing::info!(machine = self.id, "registered at LAPI");
        } else if status.is_success() {
            let machine = &self.id;
            tracing::warn!(
                machine,
                "registered; now `cscli machines validate` it at LAPI"
            );
        } else {
            let error = refusal(response).await;
            tracing::warn!(%error, "LAPI does not let this machine register");
        }
        Ok(())
    }

    async fn post_bare(&self, path: &str, body: &impl Serialize) -> Result<Response, Error> {
        let request = self.lapi.http.post(self.lapi.url(path, &[]));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.lapi
            .send(request.body(json(body)?).timeout(SHORT))
            .await
    }
}

impl Bouncer {
    /// Prepares the subscription; nothing is sent yet.
    pub(super) fn new(
        config: &Crowdsec,
        subscribe: &CrowdsecSubscribe,
        clock: Clock,
    ) -> Result<Self, Error> {
        let agent = concat!("crowdsec-jailgate-bouncer/v", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::new();
        if let Some(key) = &subscribe.api_key {
            let mut key = HeaderValue::try_from(key.expose())
                .map_err(|_| Error::Key("it holds what no header may".into()))?;
            key.set_sensitive(true);
            headers.insert("x-api-key", key);
        }
        Ok(Self {
            lapi: Lapi::new(config, agent, clock)?,
            headers,
        })
    }

    /// Asks for a list of any length; the caller reads the body as it comes.
    pub(super) async fn stream(&self, query: &[(&str, &str)]) -> Result<Response, Error> {
        let request = self
            .lapi
            .http
            .get(self.lapi.url("/v1/decisions/stream", query));
        let response = self
            .lapi
            .send(request.headers(self.headers.clone()))
            .await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(match refusal(response).await {
                    Error::Refused { message, .. } => Error::Key(message),
                    other => other,
                })
            }
            _ => Err(refusal(response).await),
        }
    }

    /// Sends something small and answers the status.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Response, Error> {
        let request = self.lapi.http.post(self.lapi.url(path, &[]));
        let request = request
            .headers(self.headers.clone())
            .header(header::CONTENT_TYPE, "application/json");
        self.lapi
            .send(request.body(json(body)?).timeout(SHORT))
            .await
    }
}

fn with_tls(
    builder: reqwest::ClientBuilder,
    tls: &ClientTls,
) -> Result<reqwest::ClientBuilder, Error> {
    let mut builder = builder.tls_danger_accept_invalid_certs(tls.insecure_skip_verify);
    if let Some(ca) = &tls.ca {
        let roots = Certificate::from_pem_bundle(&read_file(ca)?).map_err(Error::Setup)?;
        builder = builder.tls_certs_only(roots);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let pem = [read_file(key)?, b"\n".to_vec(), read_file(cert)?].concat();
        builder = builder.identity(Identity::from_pem(&pem).map_err(Error::Setup)?);
    }
    Ok(builder)
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::Garbage(error.to_string()))
}

/// A body of bounded length, as JSON.
pub(super) async fn answer<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    let body = read(response).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Garbage(error.to_string()))
}

/// What a status that is no success means, in LAPI's words.
pub(super) async fn refusal(response: Response) -> Error {
    let status = response.status().as_u16();
    let body = read(response).await.unwrap_or_default();
    let said = serde_json::from_slice::<wire::Refusal>(&body).unwrap_or_default();
    Error::Refused {
        status,
        message: said.message.chars().take(300).collect(),
    }
}

pub(super) async fn read(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return Err(Error::Garbage("it does not end".into()));
        }
    }
    Ok(body)
}
