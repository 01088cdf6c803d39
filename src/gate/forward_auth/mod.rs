//! The forwardAuth listener's leaf: `/forward-auth[/JAIL]` for Traefik and Caddy,
//! `/auth-request[/JAIL]` for nginx. It rebuilds the request it is asked about and answers whether
//! a jail lets it pass; what the service then says comes by the access log, never from here.

mod rebuild;
mod suspicion;

use http::{Response, StatusCode};

use self::rebuild::{Metadata, rebuild};
pub use self::suspicion::Suspicion;
use super::{
    client_ip::{Client, Rule},
    exchange::{Body, Exchange},
    guard, identify,
    respond::Refusal,
    site::{Site, Warden},
};
use crate::engine::{Request, Told, Verdict};

/// Who asks, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Traefik, Caddy: every status reaches the client.
    ForwardAuth,
    /// nginx: 401 and 403 deny, anything else is a 500 to the client.
    AuthRequest,
}

/// Answers one question: 200 without a body, or a refusal.
pub async fn answer(mut exchange: Box<Exchange>) -> Result<Response<Body>, Refusal> {
    let Some((asker, jail)) = question(exchange.head.uri.path()) else {
        return Err(Refusal::NotSetUp(
            StatusCode::NOT_FOUND,
            "ask /forward-auth/JAIL or /auth-request/JAIL",
        ));
    };
    judge(&exchange, &exchange.site, asker, jail)?;
    let mut response = Response::new(Body::empty());
    // Emptied, the question's header map is the answer's, and hyper's for the next question.
    std::mem::swap(response.headers_mut(), &mut exchange.head.headers);
    response.headers_mut().clear();
    Ok(response)
}

/// Who asks, and about which jail.
fn question(path: &str) -> Option<(Asker, Option<&str>)> {
    let (asker, rest) = match path.strip_prefix("/forward-auth") {
        Some(rest) => (Asker::ForwardAuth, rest),
        None => (Asker::AuthRequest, path.strip_prefix("/auth-request")?),
    };
    match rest.strip_prefix('/') {
        Some("") => Some((asker, None)),
        Some(jail) => Some((asker, Some(jail))),
        None => rest.is_empty().then_some((asker, None)),
    }
}

fn judge(
    exchange: &Exchange,
    site: &Site,
    asker: Asker,
    jail: Option<&str>,
) -> Result<(), Refusal> {
    if !exchange.trusted {
        return Err(Refusal::NotSetUp(
            StatusCode::UNAUTHORIZED,
            "this peer may not ask; add its address to forwardAuth.trustedIPs",
        ));
    }
    let Some(warden) = site.asked(jail) else {
        let why = match jail {
            Some(_) => "no such jail",
            None => "there is no jail `default`; name one: /forward-auth/JAIL",
        };
        let status = match asker {
            Asker::ForwardAuth => StatusCode::NOT_FOUND,
            Asker::AuthRequest => StatusCode::FORBIDDEN,
        };
        return Err(Refusal::NotSetUp(status, why));
    };
    let refused = |why| {
        let status = match asker {
            Asker::ForwardAuth => StatusCode::BAD_REQUEST,
            Asker::AuthRequest => StatusCode::FORBIDDEN,
        };
        Refusal::Unasked(status, why)
    };
    let asked = rebuild(&exchange.head.headers, asker).map_err(refused)?;
    if !asked.forwarded_for {
        return Err(refused("X-Forwarded-For is missing"));
    }
    let client = match identify::asked_about(exchange, warden) {
        // The peer is a proxy: it is never what is asked about.
        Err(_)
        | Ok(Client {
            rule: Rule::Peer, ..
        }) => {
            return Err(refused("X-Forwarded-For names no client"));
        }
        Ok(client) => client.addr,
    };
    site.suspicion.see(client);
    decide(exchange, site, warden, &asked, client, asker)
}

fn decide(
    exchange: &Exchange,
    site: &Site,
    warden: &Warden,
    asked: &Metadata<'_>,
    client: std::net::IpAddr,
    asker: Asker,
) -> Result<(), Refusal> {
    let request = Request {
        client,
        method: asked.method.as_bytes(),
        target: asked.target.as_bytes(),
        told: Told::These {
            host: asked.host.as_bytes(),
            agent: asked.agent,
        },
        plain: false,
    };
    let verdict = site.engine.check(warden.id, &request, exchange.now);
    warden.metrics.judged(&verdict);
    if let Some(record) = &exchange.record {
        record.judge(|judged| judged.client = Some(client));
    }
    match verdict {
        Verdict::Deny(denial) => {
            let refusal = guard::deny(
                warden,
                denial,
                &request,
                exchange.now,
                exchange.record.as_deref(),
            );
            Err(match (refusal, asker) {
                (Refusal::Denied(mut denied), Asker::AuthRequest) => {
                    denied.response = warden.to_nginx.clone();
                    Refusal::Denied(denied)
                }
                (refusal, _) => refusal,
            })
        }
        Verdict::Pass | Verdict::Exempt(_) | Verdict::Simulated(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_who_asks_about_which_jail() {
        use Asker::{AuthRequest, ForwardAuth};
        for (path, expected) in [
            ("/forward-auth", Some((ForwardAuth, None))),
            ("/forward-auth/", Some((ForwardAuth, None))),
            ("/forward-auth/web", Some((ForwardAuth, Some("web")))),
            ("/auth-request/web", Some((AuthRequest, Some("web")))),
            ("/auth-request", Some((AuthRequest, None))),
            ("/forward-authx", None),
            ("/", None),
        ] {
            assert_eq!(question(path), expected, "{path}");
        }
    }
}
