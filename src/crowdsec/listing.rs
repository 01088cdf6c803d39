//! What LAPI answers when asked for alerts of our origin: read as it arrives, kept as keys.

use reqwest::Response;

use super::{
    client::{Error, read},
    pieces::Pieces,
    plan::{Held, Key, PREFIX},
    wire,
};
use crate::time::{Clock, Millis};

/// One answer.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The numbers of the alerts, in LAPI's order: the newest first.
    pub(super) alerts: Vec<u64>,
    /// Our decisions in force that came with them.
    pub(super) held: Vec<(Key, Held)>,
    /// The second in which the last of these alerts came, by LAPI's clock.
    pub(super) oldest: Option<Millis>,
}

impl Page {
    /// Reads a list of alerts.
    pub(super) async fn read(
        mut response: Response,
        origin: &str,
        clock: Clock,
    ) -> Result<Self, Error> {
        let (mut pieces, mut page) = (Pieces::new(), Self::default());
        let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            pieces.feed(&chunk, |_, alert| page.add(alert, origin, clock.now()))?;
        }
        pieces.end()?;
        Ok(page)
    }

    /// The decision for a key in one alert.
    pub(super) async fn decision(
        response: Response,
        key: &Key,
        origin: &str,
        clock: Clock,
    ) -> Result<Option<u64>, Error> {
        let mut page = Self::default();
        page.add(&read(response).await?, origin, clock.now())?;
        let found = page.held.iter().find(|(held, _)| held == key);
        Ok(found.and_then(|(_, held)| held.decision))
    }

    fn add(&mut self, alert: &[u8], origin: &str, now: Millis) -> Result<(), Error> {
        let alert: wire::Held<'_> =
            serde_json::from_slice(alert).map_err(|error| Error::Garbage(error.to_string()))?;
        self.alerts.push(alert.id);
        let came = alert.created_at.parse::<jiff::Timestamp>().ok();
        self.oldest = came.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        for decision in alert.decisions.unwrap_or_default() {
            if decision.origin != origin || !decision.scenario.starts_with(PREFIX) {
                continue;
            }
            let left = wire::duration(&decision.duration).filter(|left| *left > 0);
            let (Some(left), Some(net)) = (left, wire::network(&decision.value)) else {
                continue;
            };
            let key = Key {
                net,
                scenario: (&*decision.scenario).into(),
            };
            let held = Held {
                until: now.saturating_add_signed(left),
                alert: alert.id,
                decision: Some(decision.id),
                walk: 0,
            };
            self.held.push((key, held));
        }
        Ok(())
    }
}
