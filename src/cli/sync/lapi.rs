//! What LAPI wants banned, by one plain question: `GET /v1/decisions`. Every error means the same
//! to the caller (nothing is known), so it is only words here.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    cloudflare::{Wanted, Weight, spelled},
    config::{Secret, duration},
    time::Millis,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// One row, as far as it is read. A row that lacks something is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Decision {
    scope: String,
    value: String,
    #[serde(rename = "type")]
    kind: String,
    duration: String,
    simulated: bool,
}

/// Every active decision. The error is one line and holds no secret.
pub(super) async fn decisions(base: &str, key: &Secret) -> Result<Vec<Decision>, String> {
    let url = format!("{base}/v1/decisions");
    let failed = |error: reqwest::Error| {
        let error = anyhow::Error::from(error.without_url());
        format!("GET {url}: {error:#}")
    };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .user_agent(concat!(
            "crowdsec-jailgate-bouncer/v",
            env!("CARGO_PKG_VERSION")
        ))
        .build()
        .map_err(failed)?;
    let request = client.get(&url).header("X-Api-Key", key.expose());
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(failed)?;
    if status != reqwest::StatusCode::OK {
        let body = String::from_utf8_lossy(&body);
        let body = body.replace(|c: char| c.is_control(), " ");
        let body: String = body.chars().take(500).collect();
        return Err(format!("GET {url}: {status} {body}"));
    }
    // Nothing is `null`, in every version.
    let decisions: Option<Vec<Decision>> =
        serde_json::from_slice(&body).map_err(|error| format!("GET {url}: {error}"))?;
    Ok(decisions.unwrap_or_default())
}

/// Bans and captchas of addresses and ranges; the list blocks, so that a captcha becomes a block.
pub(super) fn wanted(decisions: &[Decision], now: Millis) -> Wanted {
    let mut wanted = Wanted::default();
    for decision in decisions {
        let is = |text: &str, words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
        let edge = is(&decision.scope, &["ip", "range"]) && is(&decision.kind, &["ban", "captcha"]);
        if !edge || decision.simulated {
            continue;
        }
        let Some(net) = spelled(&decision.value) else {
            continue;
        };
        let left = duration::parse(&decision.duration).map_or(0, |left| {
            if left.negative {
                0
            } else {
                left.length.as_millis() as Millis
            }
        });
        let weight = Weight {
            ours: false,
            until: now + left,
        };
        wanted.want(net, weight);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: &str, expected: &[&str]) {
        let row: Decision = serde_json::from_str(row).unwrap();
        let nets: Vec<String> = wanted(&[row], 0)
            .nets()
            .map(|net| net.to_string())
            .collect();
        assert_eq!(nets, expected);
    }

    #[test]
    fn bans_and_captchas_of_addresses_and_ranges_go_to_the_edge() {
        check(
            r#"{"duration":"3h59m59.846857981s","id":14,"origin":"crowdsec","scenario":"s","scope":"Ip","type":"ban","value":"192.0.2.30"}"#,
            &["192.0.2.30/32"],
        );
        check(
            r#"{"scope":"ip","type":"captcha","value":"2001:db8::5"}"#,
            &["2001:db8::/64"],
        );
        check(
            r#"{"scope":"RANGE","type":"ban","value":"192.0.2.7/24"}"#,
            &["192.0.2.0/24"],
        );
        check(
            r#"{"scope":"Ip","type":"ban","value":"192.0.2.7/32"}"#,
            &["192.0.2.7/32"],
        );
        check(
            r#"{"scope":"Ip","type":"throttle","value":"192.0.2.30"}"#,
            &[],
        );
        check(r#"{"scope":"Country","type":"ban","value":"FR"}"#, &[]);
        check(r#"{"scope":"Ip","type":"ban","value":"somebody"}"#, &[]);
        check(r#"{"scope":"Ip","type":"ban"}"#, &[]);
        check(
            r#"{"scope":"Ip","type":"ban","value":"192.0.2.30","simulated":true}"#,
            &[],
        );
    }
}
