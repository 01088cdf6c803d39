//! What LAPI answers when asked for the alerts of our origin: read as it arrives, kept as keys.

use reqwest::Response;

use super::{
    client::{Error, read},
    pieces::Pieces,
    plan::{Held, Id, Key, Known, PREFIX},
    wire,
};
use crate::time::{Clock, Millis};

/// Our decisions that are in force at LAPI.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) known: Known,
    /// Others for a key that is in `known`; the newest counts.
    pub(super) doubled: Vec<(Key, Held)>,
}

impl Listing {
    /// Reads a list of alerts.
    pub(super) async fn read(
        mut response: Response,
        origin: &str,
        clock: Clock,
    ) -> Result<Self, Error> {
        let (mut pieces, mut listing) = (Pieces::new(), Self::default());
        let unreachable = |error: reqwest::Error| Error::Unreachable(error.without_url());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            pieces.feed(&chunk, |_, alert| listing.add(alert, origin, clock.now()))?;
        }
        pieces.end()?;
        Ok(listing)
    }

    /// The decision for a key in one alert.
    pub(super) async fn decision(
        response: Response,
        key: &Key,
        origin: &str,
        clock: Clock,
    ) -> Result<Option<u64>, Error> {
        let mut listing = Self::default();
        listing.add(&read(response).await?, origin, clock.now())?;
        Ok(listing.id(key))
    }

    fn id(&self, key: &Key) -> Option<u64> {
        match self.known.get(key)?.id {
            Id::Decision(id) => Some(id),
            Id::Alert(_) => None,
        }
    }

    fn add(&mut self, alert: &[u8], origin: &str, now: Millis) -> Result<(), Error> {
        let alert: wire::Held<'_> =
            serde_json::from_slice(alert).map_err(|error| Error::Garbage(error.to_string()))?;
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
                id: Id::Decision(decision.id),
            };
            self.enter(key, held);
        }
        Ok(())
    }

    fn enter(&mut self, key: Key, held: Held) {
        let older = match self.known.get(&key).map(|known| known.id) {
            Some(Id::Decision(known)) if Id::Decision(known) > held.id => Some(held),
            _ => self.known.insert(key.clone(), held),
        };
        self.doubled.extend(older.map(|older| (key, older)));
    }
}
