//! Durations as they are written: Go's (`1h30m`, `1.5h`, `+5m`), humantime's (`1day 2h`) or bare
//! seconds.

use std::time::Duration;

/// Longest duration: further ahead, dates leave what 64-bit milliseconds and formats can carry.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// A duration with its sign; the plugin takes negative ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Written with a minus.
    pub negative: bool,
    /// How long.
    pub length: Duration,
}

/// Reads one duration. The error says how durations are written.
pub fn parse(text: &str) -> Result<Signed, String> {
    let wrong = || "write `90s`, `10m`, `1h30m`, `1day 2h` or seconds".to_owned();
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let length = match go(rest).or_else(|| seconds(rest)) {
        Some(length) => length,
        None if rest.len() < text.len() => return Err(wrong()),
        None => humantime::parse_duration(rest).map_err(|_| wrong())?,
    };
    if length > LONGEST {
        return Err("longer than 1000 years".to_owned());
    }
    Ok(Signed { negative, length })
}

/// Reads a duration that is none to go back. The error says how durations are written.
pub fn length(text: &str) -> Result<Duration, String> {
    let signed = parse(text.trim()).map_err(|how| format!("`{text}` is no duration; {how}"))?;
    if signed.negative {
        return Err(format!("`{text}` lies in the past"));
    }
    Ok(signed.length)
}

/// As people write it: `10m`, `1h 30m`.
pub fn show(length: Duration) -> String {
    humantime::format_duration(length).to_string()
}

fn seconds(text: &str) -> Option<Duration> {
    text.bytes()
        .all(|b| b.is_ascii_digit() || b == b'.')
        .then(|| text.parse().ok())
        .flatten()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// Go's `time.ParseDuration` without the sign: numbers each with a unit, no spaces.
fn go(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let number = text.len()
            - text
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (value, rest) = text.split_at(number);
        let unit = rest.len()
            - rest
                .trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.')
                .len();
        let (unit, rest) = rest.split_at(unit);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let part = value.parse::<f64>().ok()? * nanos / 1e9;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        text = rest;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: i64) {
        let parsed = parse(text).unwrap();
        let found = parsed.length.as_millis() as i64;
        assert_eq!(
            if parsed.negative { -found } else { found },
            millis,
            "{text}"
        );
    }

    #[test]
    fn go_humantime_and_seconds() {
        for (text, millis) in [
            ("300s", 300_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("+5m", 300_000),
            ("-5m", -300_000),
            ("0", 0),
            ("250ms", 250),
            ("1000us", 1),
            ("2000µs", 2),
            ("3000μs", 3),
            ("5000000ns", 5),
            (".5s", 500),
            ("300", 300_000),
            ("1.5", 1_500),
            ("1day 2h", 93_600_000),
            ("4w", 2_419_200_000),
            ("7d", 604_800_000),
            (" 3h", 10_800_000),
        ] {
            check(text, millis);
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "3H",
            "five",
            "5 parsecs",
            "--5m",
            "+ 5m",
            "m",
            "1.2.3s",
            "9999999w",
            ".",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
