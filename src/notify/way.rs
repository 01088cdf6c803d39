//! The way of one message to one target: HTTP by POST, or SMTP. Nothing is tried twice here, no
//! redirect is followed, and no error shows a URL, a header or a password.

use std::{error::Error as _, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::header::ContentType,
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};
use reqwest::{
    Client, Url,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use serde_json::{Value, json};

use super::{Error, digest::Digest, guard::Guard};
use crate::config::{Channel, Email, EmailTls, NotifyTarget, Secret};

/// For a whole message.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A receiver that asks for more patience is not believed.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// A target that can be sent to.
#[derive(Debug)]
pub(super) struct Way {
    channel: Channel,
    guard: Guard,
    client: Client,
    host: String,
}

impl Way {
    pub(super) fn build(target: &NotifyTarget) -> Result<Self, Error> {
        let guard = Guard {
            allow_local: target.allow_local,
        };
        let client = Client::builder()
            .user_agent(concat!("jailgate/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .dns_resolver(guard)
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(Error::Http)?;
        let machine = rustix::system::uname();
        Ok(Self {
            channel: target.channel.clone(),
            guard,
            client,
            host: machine.nodename().to_string_lossy().into_owned(),
        })
    }

    pub(super) async fn send(&self, digest: &Digest) -> Result<(), Error> {
        match &self.channel {
            Channel::Webhook {
                url,
                headers,
                template,
            } => {
                let body = template.fill(&|name| digest.value(name, &self.host));
                let headers = headers.iter().cloned().collect();
                self.post(url.expose(), headers, None, &body).await
            }
            Channel::Ntfy { url, topic, token } => {
                let body = json!({
                    "topic": topic.expose(),
                    "title": digest.title(&self.host),
                    "message": digest.lines(&str::to_owned).join("\n"),
                    "priority": if digest.is_urgent() { 4 } else { 3 },
                });
                self.post(url, HeaderMap::new(), token.as_ref(), &body)
                    .await
            }
            Channel::Slack { url } => {
                let title = slack_escaped(&digest.title(&self.host));
                let lines = digest.lines(&|text| slack_quoted(text)).join("\n");
                let body = json!({ "text": format!("*{title}*\n{lines}") });
                self.post(url.expose(), HeaderMap::new(), None, &body).await
            }
            Channel::Email(email) => self.mail(email, digest).await,
        }
    }

    async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        token: Option<&Secret>,
        body: &Value,
    ) -> Result<(), Error> {
        let url = Url::parse(url).map_err(|_| Error::Url)?;
        // An address in place of a name passes no resolver.
        self.guard.literal(url.host_str().ok_or(Error::Url)?)?;
        let mut request = self.client.post(url).headers(headers).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(refusal)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let patience = answer.headers().get(RETRY_AFTER);
        let patience = patience
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY));
        Err(Error::Status(answer.status(), patience))
    }

    async fn mail(&self, email: &Email, digest: &Digest) -> Result<(), Error> {
        let message = self.letter(email, digest)?;
        let addresses = self.guard.addresses(&email.host, email.port).await?;
        let mut last = None;
        for address in addresses {
            let mut transport =
                AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
                    .port(email.port)
                    .tls(tls(email)?)
                    .timeout(Some(TIMEOUT))
                    .hello_name(ClientId::Domain(self.host.clone()));
            if let Some((user, password)) = &email.login {
                let credentials = Credentials::new(user.clone(), password.expose().to_owned());
                transport = transport.credentials(credentials);
            }
            match transport.build().send(message.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if answered(&error) => return Err(Error::Smtp(error)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(Error::Url, Error::Smtp))
    }

    fn letter(&self, email: &Email, digest: &Digest) -> Result<Message, Error> {
        let lines = digest.lines(&str::to_owned).join("\r\n");
        let message = Message::builder().from(email.from.clone());
        let message = email.to.iter().cloned().fold(message, |m, to| m.to(to));
        message
            .subject(digest.title(&self.host))
            .header(ContentType::TEXT_PLAIN)
            .body(lines + "\r\n")
            .map_err(Error::Letter)
    }
}

fn tls(email: &Email) -> Result<Tls, Error> {
    let parameters = || TlsParameters::new_rustls(email.host.clone()).map_err(Error::Smtp);
    Ok(match email.tls {
        EmailTls::Plain => Tls::None,
        EmailTls::Starttls => Tls::Required(parameters()?),
        EmailTls::Wrapped => Tls::Wrapper(parameters()?),
    })
}

/// Whether the server was reached, so that another address of it is not worth trying.
fn answered(error: &lettre::transport::smtp::Error) -> bool {
    error.is_response()
        || error.is_transient()
        || error.is_permanent()
        || error.is_tls()
        || error.is_timeout()
}

/// What the guard refused is said as such, not as a failed connection.
fn refusal(error: reqwest::Error) -> Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Error::Refused(address)) = inner.downcast_ref() {
            return Error::Refused(*address);
        }
        cause = inner.source();
    }
    Error::Http(error.without_url())
}

/// Slack's three characters; without them there is no `<!channel>` and no `<link|text>`.
fn slack_escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// As code, where neither Slack nor those who imitate it read mentions, links or emphasis.
fn slack_quoted(text: &str) -> String {
    format!("`{}`", slack_escaped(&text.replace('`', "'")))
}
