//! A deadline that costs nothing until it matters: setting it stores a number, and the timer
//! behind it is moved only when it fires early. One lives as long as its connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::time::{Clock, Millis};

const NEVER: Millis = Millis::MAX;

#[derive(Debug)]
pub(super) struct Timer {
    deadline: Millis,
    armed: Millis,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self {
            deadline: NEVER,
            armed: NEVER,
            sleep: None,
        }
    }

    /// From `now` on for `limit`; zero is no limit, as everywhere in the configuration.
    pub(super) fn set(&mut self, now: Millis, limit: Duration) {
        self.deadline = match limit.as_millis() as Millis {
            0 => NEVER,
            limit => now.saturating_add(limit),
        };
    }

    pub(super) fn clear(&mut self) {
        self.deadline = NEVER;
    }

    pub(super) fn is_set(&self) -> bool {
        self.deadline != NEVER
    }

    /// Ready once the deadline has passed. Poll it last: it is what wakes the task in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, clock: &Clock) -> Poll<()> {
        if self.deadline == NEVER {
            return Poll::Pending;
        }
        loop {
            match &mut self.sleep {
                // An alarm that is too early is moved when it rings; only a late one must be now.
                Some(sleep) if self.armed <= self.deadline => ready!(sleep.as_mut().poll(cx)),
                _ => {}
            }
            let now = clock.now();
            if now >= self.deadline {
                return Poll::Ready(());
            }
            self.armed = self.deadline;
            let alarm = sleep(Duration::from_millis(self.deadline - now));
            match &mut self.sleep {
                Some(slot) => slot.set(alarm),
                None => self.sleep = Some(Box::pin(alarm)),
            }
        }
    }
}
