//! The request a proxy asks about, out of the headers it describes it with. Pure. What is missing,
//! doubled or odd is refused: a default would judge another request than the one that is served.

use http::{HeaderMap, HeaderName, uri::PathAndQuery};

use super::Asker;
use crate::gate::strict::plausible;

// Made here once: a name given as text is read anew for every look-up.
static METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
static ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// Longest target taken.
const TARGET_MAX: usize = 64 * 1024;

/// What is known of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// Method.
    pub method: &'a str,
    /// Host without its port.
    pub host: &'a str,
    /// Path and query, origin-form.
    pub target: &'a str,
}

/// Reads `X-Forwarded-{Method,Host,Uri,Proto}`; from nginx also `X-Original-{Method,URI,URL}`,
/// which must agree with the others where both are there. The error names the header.
pub fn rebuild(headers: &HeaderMap, asker: Asker) -> Result<Metadata<'_>, &'static str> {
    let one = |name: &HeaderName, odd: &'static str| -> Result<Option<&str>, &'static str> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| odd),
            (Some(_), Some(_)) => Err(odd),
        }
    };
    let mut method = one(&METHOD, "X-Forwarded-Method is doubled or odd")?;
    let mut host = one(&HOST, "X-Forwarded-Host is doubled or odd")?;
    let mut target = one(&URI, "X-Forwarded-Uri is doubled or odd")?;
    let mut proto = one(&PROTO, "X-Forwarded-Proto is doubled or odd")?;
    if asker == Asker::AuthRequest {
        agree(
            &mut method,
            one(&ORIGINAL_METHOD, "X-Original-Method is doubled or odd")?,
        )
        .ok_or("X-Original-Method and X-Forwarded-Method differ")?;
        agree(
            &mut target,
            one(&ORIGINAL_URI, "X-Original-URI is doubled or odd")?,
        )
        .ok_or("X-Original-URI and X-Forwarded-Uri differ")?;
        if let Some(url) = one(&ORIGINAL_URL, "X-Original-URL is doubled or odd")? {
            let (scheme, named, path) = split_url(url).ok_or("X-Original-URL is no http URL")?;
            agree(&mut proto, Some(scheme)).ok_or("X-Original-URL and X-Forwarded-Proto differ")?;
            agree(&mut host, Some(named)).ok_or("X-Original-URL and X-Forwarded-Host differ")?;
            agree(&mut target, Some(path)).ok_or("X-Original-URL and X-Forwarded-Uri differ")?;
        }
    }
    let method = method
        .filter(|method| http::Method::from_bytes(method.as_bytes()).is_ok())
        .ok_or("X-Forwarded-Method is missing or odd")?;
    let host = host
        .filter(|host| plausible(host.as_bytes()))
        .ok_or("X-Forwarded-Host is missing or odd")?;
    let target = target
        .filter(|target| is_target(target))
        .ok_or("X-Forwarded-Uri is missing or odd")?;
    proto
        .filter(|proto| matches!(*proto, "http" | "https" | "ws" | "wss"))
        .ok_or("X-Forwarded-Proto is missing or odd")?;
    Ok(Metadata {
        method,
        host: without_port(host),
        target,
    })
}

/// Takes the other value where there is none yet; `None` when the two differ.
fn agree<'a>(known: &mut Option<&'a str>, other: Option<&'a str>) -> Option<()> {
    match (*known, other) {
        (Some(known), Some(other)) if known != other => return None,
        (None, Some(_)) => *known = other,
        _ => {}
    }
    Some(())
}

fn split_url(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let path = rest.find('/')?;
    Some((scheme, &rest[..path], &rest[path..]))
}

fn is_target(target: &str) -> bool {
    target.starts_with('/')
        && target.len() <= TARGET_MAX
        && !target.contains('#')
        && PathAndQuery::try_from(target).is_ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 4] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example:8443"),
        ("x-forwarded-uri", "/login?next=/"),
    ];

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const POST: Metadata<'_> = Metadata {
        method: "POST",
        host: "app.example",
        target: "/login?next=/",
    };

    #[test]
    fn a_full_description_is_rebuilt() {
        for asker in [Asker::ForwardAuth, Asker::AuthRequest] {
            assert_eq!(rebuild(&headers(&FULL), asker), Ok(POST));
        }
        let nginx = [
            ("x-original-method", "POST"),
            ("x-original-uri", "/login?next=/"),
            ("x-forwarded-host", "app.example"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(rebuild(&headers(&nginx), Asker::AuthRequest), Ok(POST));
        assert!(rebuild(&headers(&nginx), Asker::ForwardAuth).is_err());
        let url = [
            ("x-original-method", "POST"),
            ("x-original-url", "https://app.example/login?next=/"),
        ];
        assert_eq!(rebuild(&headers(&url), Asker::AuthRequest), Ok(POST));
    }

    #[test]
    fn what_is_missing_is_not_defaulted() {
        for missing in 0..FULL.len() {
            let mut lines = FULL.to_vec();
            let (name, _) = lines.remove(missing);
            let why = rebuild(&headers(&lines), Asker::ForwardAuth).unwrap_err();
            assert!(why.to_lowercase().starts_with(name), "{why}");
        }
    }

    #[test]
    fn what_is_doubled_or_odd_is_refused() {
        for extra in FULL {
            let lines = [FULL.as_slice(), &[extra]].concat();
            assert!(
                rebuild(&headers(&lines), Asker::ForwardAuth).is_err(),
                "{extra:?}"
            );
        }
        for (name, value) in [
            ("x-forwarded-method", "PO ST"),
            ("x-forwarded-method", ""),
            ("x-forwarded-uri", ""),
            ("x-forwarded-uri", "login"),
            ("x-forwarded-uri", "https://app.example/login"),
            ("x-forwarded-uri", "/a#b"),
            ("x-forwarded-uri", "/a b"),
            ("x-forwarded-uri", "*"),
            ("x-forwarded-host", "a,b"),
            ("x-forwarded-host", "a@b"),
            ("x-forwarded-host", "a/b"),
            ("x-forwarded-proto", "https,http"),
            ("x-forwarded-proto", "ftp"),
        ] {
            let lines = FULL.map(|line| if line.0 == name { (name, value) } else { line });
            assert!(
                rebuild(&headers(&lines), Asker::ForwardAuth).is_err(),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_second_description_must_agree_with_the_first() {
        for (name, value) in [
            ("x-original-uri", "/yes"),
            ("x-original-method", "GET"),
            ("x-original-url", "https://other/login?next=/"),
        ] {
            let lines = [FULL.as_slice(), &[(name, value)]].concat();
            assert!(
                rebuild(&headers(&lines), Asker::AuthRequest).is_err(),
                "{name}"
            );
            assert_eq!(
                rebuild(&headers(&lines), Asker::ForwardAuth),
                Ok(POST),
                "{name}"
            );
        }
    }
}
