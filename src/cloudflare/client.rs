//! One account list over HTTP: pages, changes as bulk operations, one at a time, each followed to
//! its end. It decides nothing about what should be listed, and repeats nothing by itself.

use std::time::Duration;

use ipnet::IpNet;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    allowance::Allowance,
    error::{Call, Error},
    plan::{self, spell},
    wire::{Begun, Envelope, Item, ItemId, List, NewItem, Operation, Removal},
};
use crate::{
    config::Secret,
    telemetry::in_full,
    time::{Clock, Millis},
};

/// For one request and its answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one bulk operation is followed.
const OPERATION: Millis = 25_000;
/// The first look at an operation; further ones follow each second.
const FIRST_LOOK: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Items asked for in one page, the most that is known to be given.
const PAGE: &str = "500";
/// Without `Retry-After`: after the account's request limit, and after other refusals (another
/// operation is pending).
const LIMITED: Duration = Duration::from_secs(300);
const BUSY: Duration = Duration::from_secs(5);
/// Cloudflare's code for the request limit.
const REQUEST_LIMIT: u64 = 971;
/// Cloudflare's code for a token or account it does not take.
const AUTHENTICATION: u64 = 10_000;
/// Bytes of an answer that are read.
const ANSWER: usize = 16 << 20;
/// An operation that takes longer has been forgotten by Cloudflare.
const GIVE_UP: Millis = 600_000;
const HALF_DAY: Millis = 12 * 3_600_000;

/// Which list, and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// Base URL without a trailing slash.
    pub base_url: String,
    /// Account.
    pub account_id: String,
    /// List.
    pub list_id: String,
    /// Token with the right to edit lists.
    pub token: Secret,
}

/// Speaks to one list. Every call takes `&mut self`: one bulk operation at a time.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    lists: String,
    list_id: String,
    token: Secret,
    header: HeaderValue,
    clock: Clock,
    deadline: Millis,
    /// An operation that may still go on, and since when.
    unfinished: Option<(String, Millis)>,
    requests: Allowance,
    changes: Allowance,
    changed_items: Allowance,
}

impl Client {
    /// A client that is not connected yet. Proxies are taken from the environment, as usual.
    pub fn new(access: Access, clock: Clock) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .timeout(HTTP_TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("jailgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Setup(in_full(&error)))?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", access.token.expose()))
            .map_err(|_| Error::Setup("the API token holds characters no header takes".into()))?;
        header.set_sensitive(true);
        let now = clock.now();
        Ok(Self {
            http,
            lists: format!(
                "{}/accounts/{}/rules/lists",
                access.base_url, access.account_id
            ),
            list_id: access.list_id,
            token: access.token,
            header,
            clock,
            deadline: Millis::MAX,
            unfinished: None,
            // Documented: 1,200 requests in 5 minutes for everything that uses the token's owner,
            // 30,000 changing requests and 1,000,000 changed items in 12 hours.
            requests: Allowance::new(200, 800, 300_000, now),
            changes: Allowance::new(2_000, 25_000, HALF_DAY, now),
            changed_items: Allowance::new(100_000, 800_000, HALF_DAY, now),
        })
    }

    /// The list's id.
    pub fn list_id(&self) -> &str {
        &self.list_id
    }

    /// Everything must have ended by then, Unix milliseconds.
    pub fn set_deadline(&mut self, deadline: Millis) {
        self.deadline = deadline;
    }

    /// Refuses to go on while an operation that was begun earlier goes on. How it ended does not
    /// matter, since the list is read again after every error; one that hangs is given up.
    pub async fn quiet(&mut self) -> Result<(), Error> {
        let Some((id, since)) = self.unfinished.clone() else {
            return Ok(());
        };
        match self.look(&id).await {
            Ok(None) if self.clock.now() < since + GIVE_UP => return Err(Error::Pending { id }),
            Ok(_) | Err(Error::Refused { .. }) => self.unfinished = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Every item, page by page.
    pub async fn items(&mut self) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let call = self.page("cursor", cursor.as_deref())?;
            let page: Envelope<Vec<Item>> = self.ask(call, |r| r).await?;
            let cursors = page.result_info.and_then(|info| info.cursors);
            items.extend(page.result.unwrap_or_default());
            let after = cursors.and_then(|cursors| cursors.after);
            match after.filter(|after| !after.is_empty() && cursor.as_ref() != Some(after)) {
                Some(after) => cursor = Some(after),
                None => return Ok(items),
            }
        }
    }

    /// The item of exactly this network.
    pub async fn find(&mut self, net: IpNet) -> Result<Option<Item>, Error> {
        // The search is a prefix of the text, so others come along.
        let call = self.page("search", Some(&spell(net)))?;
        let page: Envelope<Vec<Item>> = self.ask(call, |r| r).await?;
        let mut items = page.result.unwrap_or_default().into_iter();
        Ok(items.find(|item| plan::read(&item.ip) == Some(net)))
    }

    /// The list itself.
    pub async fn describe(&mut self) -> Result<List, Error> {
        let request = self.request(Method::GET, &format!("/{}", self.list_id));
        self.result(request, |r| r).await
    }

    /// Puts items in (what is there gets this comment) and waits until that is done.
    pub async fn put(&mut self, nets: &[IpNet], comment: &str) -> Result<(), Error> {
        let items = nets.iter().map(|net| NewItem {
            ip: spell(*net),
            comment,
        });
        let items: Vec<_> = items.collect();
        self.change(Method::POST, &items, nets.len()).await
    }

    /// Takes items out by their ids and waits until that is done.
    pub async fn remove(&mut self, ids: &[&str]) -> Result<(), Error> {
        let items = ids.iter().map(|id| ItemId { id }).collect();
        self.change(Method::DELETE, &Removal { items }, ids.len())
            .await
    }

    fn items_path(&self) -> String {
        format!("/{}/items", self.list_id)
    }

    fn page(&self, key: &str, value: Option<&str>) -> Result<Call, Error> {
        let call = self.request(Method::GET, &self.items_path());
        let query = [("per_page", PAGE)]
            .into_iter()
            .chain(value.map(|value| (key, value)));
        let url = Url::parse_with_params(&call.url, query)
            .map_err(|error| Error::Setup(format!("{}: {error}", call.url)))?;
        Ok(Call {
            url: url.into(),
            ..call
        })
    }

    async fn change(
        &mut self,
        method: Method,
        body: &(impl Serialize + Sync + ?Sized),
        items: usize,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let wait = self
            .changes
            .take(1, now)
            .max(self.changed_items.take(items, now));
        self.pause(Duration::from_millis(wait)).await?;
        let request = self.request(method, &self.items_path());
        let begun: Begun = self.result(request, |r| r.json(body)).await?;
        self.follow(begun.operation_id).await
    }

    async fn follow(&mut self, id: String) -> Result<(), Error> {
        let until = (self.clock.now() + OPERATION).min(self.deadline);
        self.unfinished = Some((id.clone(), self.clock.now()));
        let mut pause = FIRST_LOOK;
        loop {
            if self.clock.now() + pause.as_millis() as Millis > until {
                return Err(Error::Pending { id });
            }
            tokio::time::sleep(pause).await;
            pause = LOOK_AGAIN;
            match self.look(&id).await {
                Ok(Some(ended)) => {
                    self.unfinished = None;
                    return ended.map_err(|error| Error::Failed { id, error });
                }
                // The operation goes on whether or not we hear of it.
                Ok(None) | Err(Error::Transport { .. }) => {}
                Err(Error::Refused { status, .. }) if status >= 500 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` while it goes on, else how it ended.
    async fn look(&mut self, id: &str) -> Result<Option<Result<(), String>>, Error> {
        let request = self.request(Method::GET, &format!("/bulk_operations/{id}"));
        let operation: Operation = self.result(request, |r| r).await?;
        Ok(match operation.status.as_str() {
            "completed" => Some(Ok(())),
            "failed" => Some(Err(operation
                .error
                .unwrap_or_else(|| "without a reason".into()))),
            _ => None,
        })
    }

    fn request(&self, method: Method, path: &str) -> Call {
        Call {
            method,
            url: format!("{}{path}", self.lists),
        }
    }

    async fn result<T: DeserializeOwned>(
        &mut self,
        call: Call,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, Error> {
        let shown = call.clone();
        let envelope = self.ask(call, with).await?;
        envelope.result.ok_or_else(|| Error::Refused {
            call: shown,
            status: 200,
            body: "success without a result".to_owned(),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        call: Call,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Envelope<T>, Error> {
        let wait = self.requests.take(1, self.clock.now());
        self.pause(Duration::from_millis(wait)).await?;
        let left = self.deadline.saturating_sub(self.clock.now());
        if left == 0 {
            return Err(Error::OutOfTime);
        }
        let request = self.http.request(call.method.clone(), &call.url);
        let request = with(request)
            .header(AUTHORIZATION, self.header.clone())
            .timeout(HTTP_TIMEOUT.min(Duration::from_millis(left)));
        let answer = match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Err(error),
        };
        let (status, retry_after, body) = answer.map_err(|source| Error::Transport {
            call: call.clone(),
            source: source.without_url(),
        })?;
        self.judge(call, status, retry_after, &body)
    }

    fn judge<T: DeserializeOwned>(
        &self,
        call: Call,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Result<Envelope<T>, Error> {
        let envelope = serde_json::from_slice::<Envelope<T>>(body);
        let codes: Vec<u64> = match serde_json::from_slice::<Envelope<serde_json::Value>>(body) {
            Ok(envelope) => envelope.errors.iter().map(|error| error.code).collect(),
            Err(_) => Vec::new(),
        };
        let body = self.shown(body);
        let number = status.as_u16();
        match envelope {
            _ if status == StatusCode::TOO_MANY_REQUESTS => {
                let usual = if codes.contains(&REQUEST_LIMIT) {
                    LIMITED
                } else {
                    BUSY
                };
                let wait = retry_after.unwrap_or(usual);
                Err(Error::Limited { call, body, wait })
            }
            _ if matches!(number, 401 | 403) || codes.contains(&AUTHENTICATION) => {
                Err(Error::Auth {
                    call,
                    status: number,
                    body,
                })
            }
            Ok(envelope) if envelope.success && status.is_success() => Ok(envelope),
            _ => Err(Error::Refused {
                call,
                status: number,
                body,
            }),
        }
    }

    /// What an answer said, fit for one line of a log.
    fn shown(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
        let text = text.replace(self.token.expose(), "<secret>");
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(500).collect()
    }

    async fn pause(&self, wait: Duration) -> Result<(), Error> {
        let left = self.deadline.saturating_sub(self.clock.now());
        if wait >= Duration::from_millis(left) {
            return Err(Error::OutOfTime);
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

async fn read(
    mut response: Response,
) -> Result<(StatusCode, Option<Duration>, Vec<u8>), reqwest::Error> {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, retry_after.map(Duration::from_secs), body))
}
