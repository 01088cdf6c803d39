//! Refuses requests that two servers could read differently, and brings the rest into one form:
//! origin-form target, exactly one `Host`. What is malformed on the wire hyper refused already.

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use super::{exchange::RequestBody, respond::Refusal};
use crate::config::ClientLimits;

/// Checks a request and brings it into normal form.
pub fn admit(head: &mut Parts, body: &RequestBody, limits: &ClientLimits) -> Result<(), Refusal> {
    if head.headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders);
    }
    let target = head.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > limits.uri_bytes) {
        return Err(Refusal::TargetTooLong);
    }
    normalise(head)?;
    if body.too_large() {
        return Err(Refusal::BodyTooLarge);
    }
    Ok(())
}

/// Origin-form and one `Host`, or the reason why not.
fn normalise(head: &mut Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Malformed("CONNECT"));
    }
    encoding(&head.headers)?;
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("more than one Host"));
    }
    if let Some(host) = host
        && !plausible(host.as_bytes())
    {
        return Err(Refusal::Malformed("a Host that is none"));
    }
    match (head.uri.authority(), host) {
        (None, None) if head.version == Version::HTTP_10 => {}
        (None, None) => return Err(Refusal::Malformed("no Host")),
        (None, Some(_)) => {}
        (Some(_), None) if head.version != Version::HTTP_2 => {
            return Err(Refusal::Malformed("no Host"));
        }
        (Some(authority), host) => {
            if !names_same(authority, host) {
                return Err(Refusal::Malformed(
                    "the target names another host than Host",
                ));
            }
        }
    }
    origin_form(head)
}

fn origin_form(head: &mut Parts) -> Result<(), Refusal> {
    const NO_PATH: Refusal = Refusal::Malformed("a target that is not a path");
    let target = head.uri.path_and_query();
    let Some(authority) = head.uri.authority() else {
        return match target {
            Some(target) if target.as_str().starts_with('/') => Ok(()),
            _ => Err(NO_PATH),
        };
    };
    let target = match target {
        Some(target) if target.as_str().starts_with('/') => target.clone(),
        // `http://host?q` has the path `/`; `host:80` and `*` have none.
        Some(target) if target.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", target.as_str())).map_err(|_| NO_PATH)?
        }
        _ => return Err(NO_PATH),
    };
    if !head.headers.contains_key(header::HOST) {
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| NO_PATH)?;
        head.headers.insert(header::HOST, host);
    }
    head.uri = Uri::from(target);
    Ok(())
}

/// Only `chunked`, once: a second coding, or a second line, is read differently by others.
fn encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::Malformed("a Transfer-Encoding other than chunked")),
    }
}

/// Letters of `uri-host [ ":" port ]`; what would end or split it elsewhere is none.
pub fn plausible(host: &[u8]) -> bool {
    !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]~!$&'()*+;=%".contains(byte))
}

fn names_same(authority: &Authority, host: Option<&HeaderValue>) -> bool {
    let authority = authority.as_str().as_bytes();
    plausible(authority) && host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn becomes(version: Version, target: &str, host: &[&str], expected: (&str, Option<&str>)) {
        let headers: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
        let mut parts = parts(version, target, &headers);
        normalise(&mut parts).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let host = parts.headers.get("host").map(|host| host.to_str().unwrap());
        assert_eq!((parts.uri.to_string().as_str(), host), expected);
    }

    #[track_caller]
    fn refused(version: Version, target: &str, headers: &[(&str, &str)]) {
        let mut parts = parts(version, target, headers);
        assert!(normalise(&mut parts).is_err(), "{target} {headers:?}");
    }

    const H1: Version = Version::HTTP_11;
    const H2: Version = Version::HTTP_2;

    #[test]
    fn one_form_for_every_way_to_say_the_same() {
        becomes(H1, "/a?b", &["h"], ("/a?b", Some("h")));
        becomes(H1, "//x/../y", &["h"], ("//x/../y", Some("h")));
        becomes(
            H1,
            "http://h:8080/a?b",
            &["H:8080"],
            ("/a?b", Some("H:8080")),
        );
        becomes(H1, "http://h", &["h"], ("/", Some("h")));
        becomes(H1, "http://h?q", &["h"], ("/?q", Some("h")));
        becomes(H2, "https://h/a", &[], ("/a", Some("h")));
        becomes(H2, "https://h/a", &["h"], ("/a", Some("h")));
        becomes(Version::HTTP_10, "/", &[], ("/", None));
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        let h = ("host", "h");
        refused(H1, "/", &[]);
        refused(H1, "/", &[h, h]);
        refused(H1, "/", &[("host", "")]);
        for host in ["a b", "a,b", "a/b", "a@b", "a?b", "a\\b", "a#b"] {
            refused(H1, "/", &[("host", host)]);
        }
        refused(H1, "http://other/", &[h]);
        refused(H1, "http://h:80/", &[h]);
        refused(H1, "http://user@h/", &[h]);
        refused(H1, "http://h/", &[]);
        refused(H1, "h:80", &[("host", "h:80")]);
        refused(H1, "*", &[h]);
        refused(H2, "https://h/", &[("host", "other")]);
        refused(H2, "/", &[]);
        for codings in [
            &["gzip, chunked"][..],
            &["chunked", "chunked"],
            &["xchunked"],
        ] {
            let mut headers = vec![h];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            refused(H1, "/", &headers);
        }
    }

    #[test]
    fn connect_is_refused() {
        let mut parts = parts(H1, "h:443", &[("host", "h:443")]);
        parts.method = Method::CONNECT;
        assert!(normalise(&mut parts).is_err());
    }
}
