//! The plugin's `statuscode` grammar (facts of the plugin, §5): numbers and inclusive ranges
//! between commas, nothing trimmed.

use std::ops::RangeInclusive;

/// What was read and what is odd about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// In order. A reversed range is kept: it matches nothing, and an empty list means every
    /// request.
    pub ranges: Vec<RangeInclusive<u16>>,
    /// What loads as in the plugin but hardly was meant.
    pub odd: Vec<String>,
}

/// Reads one `statuscode`; empty text is an empty list.
pub fn parse(text: &str) -> Result<Statuses, String> {
    let mut statuses = Statuses::default();
    if text.is_empty() {
        return Ok(statuses);
    }
    for part in text.split(',') {
        let numbers = part
            .split('-')
            .map(number)
            .collect::<Option<Vec<u16>>>()
            .ok_or_else(|| wrong(text, part))?;
        let (low, high) = (numbers[0], *numbers.get(1).unwrap_or(&numbers[0]));
        if numbers.len() > 2 {
            statuses
                .odd
                .push(format!("`{part}` is read as {low}-{high}"));
        }
        if low > high {
            statuses.odd.push(format!(
                "`{part}` matches nothing, did you mean `{high}-{low}`?"
            ));
        } else if low > 599 || high < 100 {
            statuses
                .odd
                .push(format!("`{part}` matches nothing: statuses are 100 to 599"));
        }
        statuses.ranges.push(low..=high);
    }
    Ok(statuses)
}

/// A decimal integer as Go reads it; what no status can be is folded to the largest.
fn number(text: &str) -> Option<u16> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    decimal.then(|| digits.parse().unwrap_or(u16::MAX))
}

fn wrong(text: &str, part: &str) -> String {
    let class = part.trim().strip_suffix("xx").filter(|d| d.len() == 1);
    let hint = match class {
        Some(digit) => format!("write `{digit}00-{digit}99`"),
        None if text.contains(' ') => format!("write `{}`", text.replace(' ', "")),
        None => "write it like `400,401,403-499`".to_owned(),
    };
    format!("`{part}` is neither a status nor a range; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(u16, u16)], odd: usize) {
        let parsed = parse(text).unwrap();
        let ranges: Vec<_> = parsed
            .ranges
            .iter()
            .map(|r| (*r.start(), *r.end()))
            .collect();
        assert_eq!(
            (ranges.as_slice(), parsed.odd.len()),
            (expected, odd),
            "{text}"
        );
    }

    #[test]
    fn the_plugins_grammar() {
        check("", &[], 0);
        check("404", &[(404, 404)], 0);
        check("400,401,403-499", &[(400, 400), (401, 401), (403, 499)], 0);
        check("499-400", &[(499, 400)], 1);
        check("400-401-402", &[(400, 401)], 1);
        check("9999", &[(9999, 9999)], 1);
        check("+400", &[(400, 400)], 0);
        check("0-599", &[(0, 599)], 0);
        check("99999999", &[(65535, 65535)], 1);
    }

    #[test]
    fn what_the_plugin_refuses() {
        for (text, hint) in [
            ("400, 401", "write `400,401`"),
            ("4xx", "write `400-499`"),
            ("400-", "write it like"),
            ("-400", "write it like"),
            ("400,", "write it like"),
            ("x", "write it like"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
