//! The request a proxy asks about, out of the headers it describes it with. Pure. What is missing,
//! doubled or odd is refused: a default would judge another request than the one that is served.

use http::{HeaderMap, HeaderValue};

use super::Asker;
use crate::{engine::host_name, gate::strict::plausible};

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
    /// `User-Agent`, empty when there is none.
    pub agent: &'a [u8],
    /// There is an `X-Forwarded-For`, whatever it says.
    pub forwarded_for: bool,
}

/// Reads `X-Forwarded-{Method,Host,Uri,Proto}`; from nginx also `X-Original-{Method,URI,URL}`,
/// which must agree with the others where both are there. The error names the header.
pub fn rebuild(headers: &HeaderMap, asker: Asker) -> Result<Metadata<'_>, &'static str> {
    let told = Told::by(headers);
    let mut method = told.method.text("X-Forwarded-Method is doubled or odd")?;
    let mut host = told.host.text("X-Forwarded-Host is doubled or odd")?;
    let mut target = told.uri.text("X-Forwarded-Uri is doubled or odd")?;
    let mut proto = told.proto.text("X-Forwarded-Proto is doubled or odd")?;
    if asker == Asker::AuthRequest {
        let original = told.original_method;
        agree(
            &mut method,
            original.text("X-Original-Method is doubled or odd")?,
        )
        .ok_or("X-Original-Method and X-Forwarded-Method differ")?;
        let original = told.original_uri;
        agree(
            &mut target,
            original.text("X-Original-URI is doubled or odd")?,
        )
        .ok_or("X-Original-URI and X-Forwarded-Uri differ")?;
        let original = told.original_url;
        if let Some(url) = original.text("X-Original-URL is doubled or odd")? {
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
        host: &host[..host_name(host.as_bytes()).len()],
        target,
        agent: told.agent.map_or(b"", HeaderValue::as_bytes),
        forwarded_for: told.forwarded_for,
    })
}

/// The lines about the client's request, noted in passing: looking up names that http does not
/// know costs more than passing every line once.
#[derive(Default)]
struct Told<'a> {
    method: Line<'a>,
    host: Line<'a>,
    uri: Line<'a>,
    proto: Line<'a>,
    original_method: Line<'a>,
    original_uri: Line<'a>,
    original_url: Line<'a>,
    agent: Option<&'a HeaderValue>,
    forwarded_for: bool,
}

/// What may stand there once.
#[derive(Clone, Copy, Default)]
enum Line<'a> {
    #[default]
    Missing,
    Once(&'a HeaderValue),
    Again,
}

impl<'a> Told<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut told = Self::default();
        for (name, value) in headers {
            let line = match name.as_str() {
                "x-forwarded-method" => &mut told.method,
                "x-forwarded-host" => &mut told.host,
                "x-forwarded-uri" => &mut told.uri,
                "x-forwarded-proto" => &mut told.proto,
                "x-original-method" => &mut told.original_method,
                "x-original-uri" => &mut told.original_uri,
                "x-original-url" => &mut told.original_url,
                "user-agent" => {
                    told.agent.get_or_insert(value);
                    continue;
                }
                "x-forwarded-for" => {
                    told.forwarded_for = true;
                    continue;
                }
                _ => continue,
            };
            *line = match line {
                Line::Missing => Line::Once(value),
                Line::Once(_) | Line::Again => Line::Again,
            };
        }
        told
    }
}

impl<'a> Line<'a> {
    fn text(self, odd: &'static str) -> Result<Option<&'a str>, &'static str> {
        match self {
            Self::Missing => Ok(None),
            Self::Once(value) => value.to_str().map(Some).map_err(|_| odd),
            Self::Again => Err(odd),
        }
    }
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

/// What [`PathAndQuery`](http::uri::PathAndQuery) takes, short of a fragment and of what is not
/// ASCII; making one takes memory.
fn is_target(target: &str) -> bool {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (target, ""),
    };
    let plain = |byte| matches!(byte, 0x21 | 0x24..=0x3B | 0x3D | 0x40..=0x5F | 0x61..=0x7E);
    path.starts_with('/')
        && target.len() <= TARGET_MAX
        && path.bytes().all(|byte| plain(byte) || byte == b'"')
        && query
            .bytes()
            .all(|byte| plain(byte) || matches!(byte, b'?' | b'`'))
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
        agent: b"",
        forwarded_for: false,
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
    fn a_target_is_what_the_parser_of_requests_takes_for_one() {
        use http::uri::PathAndQuery;
        for byte in (b' '..=b'~').filter(|byte| *byte != b'#') {
            for (before, after) in [("/a", "b"), ("/a?", "b")] {
                let target = format!("{before}{}{after}", char::from(byte));
                let parsed = PathAndQuery::try_from(target.as_str());
                assert_eq!(is_target(&target), parsed.is_ok(), "{target}");
            }
        }
        for target in ["", "?a", "/a#b", "/a?b#c", "/\u{e9}", "*"] {
            assert!(!is_target(target), "{target}");
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
