//! Times as logs write them, to Unix milliseconds. RFC 3339 and CLF times are read by hand since
//! every line has one; the rest goes through jiff. A time without a zone is UTC.

use jiff::{civil, fmt::rfc2822, tz::TimeZone};

use crate::time::Millis;

/// `2026-11-21T21:20:22.123456789Z`, also `+hh:mm`, `+hhmm`, and a space for the `T`.
pub fn rfc3339(text: &[u8]) -> Option<Millis> {
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || !matches!(text[10], b'T' | b' ') {
        return None;
    }
    let date = days(
        number(&text[..4])?,
        number(&text[5..7])?,
        number(&text[8..10])?,
    )?;
    let mut rest = &text[19..];
    let mut fraction = 0;
    if rest[0] == b'.' {
        let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..3 {
            let digit = rest.get(1 + place).filter(|_| place < digits);
            fraction = fraction * 10 + digit.map_or(0, |b| i64::from(b - b'0'));
        }
        rest = &rest[1 + digits..];
    }
    let offset = if matches!(rest, b"Z" | b"z") {
        0
    } else {
        zone(rest)?
    };
    millis(date, clock(&text[11..19])?, offset, fraction)
}

/// `21/Nov/2026:21:20:22 +0100`, without the brackets.
pub fn clf(text: &[u8]) -> Option<Millis> {
    if text.len() != 26 || text[2] != b'/' || text[6] != b'/' || text[11] != b':' {
        return None;
    }
    let date = days(
        number(&text[7..11])?,
        month(&text[3..6])?,
        number(&text[..2])?,
    )?;
    if text[20] != b' ' {
        return None;
    }
    millis(date, clock(&text[12..20])?, zone(&text[21..])?, 0)
}

/// Unix seconds with or without a fraction: nginx's `$msec`, Caddy's `ts`.
pub fn unix_seconds(text: &[u8]) -> Option<Millis> {
    let text = std::str::from_utf8(text).ok()?;
    let seconds: f64 = text.parse().ok().filter(|s| (0.0..1e11).contains(s))?;
    Some((seconds * 1000.0).round() as Millis)
}

/// Any of the above, Unix milliseconds, RFC 2822, or `2026-11-21 21:20:22` with `-` or `/` (UTC).
pub fn any(text: &[u8]) -> Option<Millis> {
    let by_hand = rfc3339(text).or_else(|| clf(text));
    by_hand
        .or_else(|| digits(text))
        .or_else(|| odd(std::str::from_utf8(text).ok()?))
}

fn digits(text: &[u8]) -> Option<Millis> {
    if text.len() >= 12 && text.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    unix_seconds(text)
}

fn odd(text: &str) -> Option<Millis> {
    let zoned = rfc2822::parse(text).ok();
    let time = zoned.or_else(|| {
        [
            "%Y-%m-%dT%H:%M:%S%.f",
            "%Y-%m-%d %H:%M:%S%.f",
            "%Y/%m/%d %H:%M:%S%.f",
        ]
        .iter()
        .find_map(|form| civil::DateTime::strptime(form, text).ok())
        .and_then(|time| time.to_zoned(TimeZone::UTC).ok())
    })?;
    Millis::try_from(time.timestamp().as_millisecond()).ok()
}

fn millis(days: i64, seconds: i64, offset: i64, fraction: i64) -> Option<Millis> {
    Millis::try_from((days * 86_400 + seconds - offset) * 1000 + fraction).ok()
}

fn clock(text: &[u8]) -> Option<i64> {
    if text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (h, m, s) = (
        number(&text[..2])?,
        number(&text[3..5])?,
        number(&text[6..8])?,
    );
    (h < 24 && m < 60 && s <= 60).then_some(h * 3600 + m * 60 + s)
}

fn zone(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        [s @ (b'+' | b'-'), a, b, c, d] | [s @ (b'+' | b'-'), a, b, b':', c, d] => {
            (*s, number(&[*a, *b])?, number(&[*c, *d])?)
        }
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    (hours < 24 && minutes < 60).then_some(if sign == b'-' { -seconds } else { seconds })
}

#[inline(always)]
fn number(text: &[u8]) -> Option<i64> {
    let (mut sum, mut worst) = (0, 0);
    for b in text {
        let digit = b.wrapping_sub(b'0');
        worst = digit.max(worst);
        sum = sum * 10 + i64::from(digit);
    }
    (worst < 10).then_some(sum)
}

fn month(name: &[u8]) -> Option<i64> {
    const NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let at = NAMES.chunks_exact(3).position(|month| month == name)?;
    Some(at as i64 + 1)
}

/// Days since 1970-01-01 of a Gregorian date (Howard Hinnant, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const LENGTH: [i64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *LENGTH.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, in_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = in_era * 365 + in_era / 4 - in_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: impl Into<Option<Millis>>) {
        assert_eq!(any(text.as_bytes()), expected.into(), "{text}");
    }

    #[test]
    fn times_agree_with_their_offset() {
        check("2026-11-21T21:20:22Z", 1_795_296_022_000);
        check("2026-11-21T21:20:22.5Z", 1_795_296_022_500);
        check("2026-11-21T21:20:22.123987654Z", 1_795_296_022_123);
        check("2026-11-21T22:20:22+01:00", 1_795_296_022_000);
        check("2026-11-21T16:50:22-0430", 1_795_296_022_000);
        check("21/Nov/2026:21:20:22 +0000", 1_795_296_022_000);
        check("21/Nov/2026:13:20:22 -0800", 1_795_296_022_000);
        check("Sat, 21 Nov 2026 21:20:22 +0000", 1_795_296_022_000);
        check("2026-11-21 21:20:22", 1_795_296_022_000);
        check("2026/11/21 21:20:22", 1_795_296_022_000);
        check("1795296022", 1_795_296_022_000);
        check("1795296022.123", 1_795_296_022_123);
        check("1795296022123", 1_795_296_022_123);
    }

    #[test]
    fn the_hour_that_a_dst_change_repeats_is_told_apart_by_its_offset() {
        let summer = any(b"25/Oct/2026:02:30:00 +0200").unwrap();
        let winter = any(b"25/Oct/2026:02:30:00 +0100").unwrap();
        assert_eq!(winter - summer, 3_600_000);
        check("2024-02-29T00:00:00Z", 1_709_164_800_000);
        check("2000-03-01T00:00:00Z", 951_868_800_000);
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in [
            "",
            "now",
            "2026-11-21",
            "2026-13-21T21:20:22Z",
            "2026-11-32T21:20:22Z",
            "2026-11-21T25:20:22Z",
            "2026-11-21T21:20:22",
            "21/Nov/2026:21:20:22",
            "21/Foo/2026:21:20:22 +0000",
            "2026-11-21T21:20:22.Z",
            "-5",
            "NaN",
            "1e300",
            "2026-11-21T21:20:22+1",
            "21/Nov/2026:21:20:22 UTC00",
        ] {
            // a civil time without a zone is read as UTC on purpose
            let expected = (text == "2026-11-21T21:20:22").then_some(1_795_296_022_000);
            check(text, expected);
        }
    }
}
