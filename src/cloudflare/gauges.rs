//! The three gauges of the cron job that this replaces, pushed to a Pushgateway under the same
//! names and the same job. A push that fails is for the caller to mention, never more.

use std::time::Duration;

use crate::{telemetry::in_full, time::Millis};

/// The job they stand under.
const JOB: &str = "crowdsec-cf-list-sync";
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Bans in the list; left out when nobody knows.
    pub bans: Option<usize>,
    /// Whether the list is what it should be.
    pub success: bool,
    /// When, Unix milliseconds; pushed in seconds.
    pub at: Millis,
}

impl Gauges {
    /// Replaces what the gateway at this base URL has of the job. The error is one line.
    pub async fn push(self, gateway: &str) -> Result<(), String> {
        let url = format!("{}/metrics/job/{JOB}", gateway.trim_end_matches('/'));
        let failed = |error: reqwest::Error| in_full(&error.without_url());
        let client = reqwest::Client::builder().timeout(TIMEOUT).build();
        let request = client.map_err(failed)?.put(&url).body(self.text());
        let request = request.header("content-type", "text/plain; version=0.0.4");
        let answer = request.send().await.map_err(failed)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the Pushgateway answers {status}")),
        }
    }

    fn text(self) -> String {
        let gauges = [
            (
                "crowdsec_cf_list_ban_count",
                self.bans.map(|bans| bans as u64),
            ),
            ("crowdsec_cf_list_sync_success", Some(self.success.into())),
            (
                "crowdsec_cf_list_sync_last_run_seconds",
                Some(self.at / 1000),
            ),
        ];
        let known = gauges
            .iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)));
        known
            .map(|(name, value)| format!("# TYPE {name} gauge\n{name} {value}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauges_keep_the_names_of_the_cron_job() {
        let gauges = Gauges {
            bans: Some(7),
            success: true,
            at: 1_700_000_000_999,
        };
        insta::assert_snapshot!(gauges.text(), @r"
        # TYPE crowdsec_cf_list_ban_count gauge
        crowdsec_cf_list_ban_count 7
        # TYPE crowdsec_cf_list_sync_success gauge
        crowdsec_cf_list_sync_success 1
        # TYPE crowdsec_cf_list_sync_last_run_seconds gauge
        crowdsec_cf_list_sync_last_run_seconds 1700000000
        ");
        let unknown = Gauges {
            bans: None,
            success: false,
            at: 1000,
        };
        assert!(!unknown.text().contains("ban_count"));
        assert!(unknown.text().contains("sync_success 0\n"));
    }
}
