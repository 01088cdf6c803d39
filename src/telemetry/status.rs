//! How each background job is doing: the disk, CrowdSec, Cloudflare, the logs. Jobs report, the
//! admin API and the dashboard read; nothing is decided by it, and no secret belongs in it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::time::Millis;

/// Whether a job does what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not reported yet.
    Starting,
    /// Its latest attempt succeeded.
    Ok,
    /// Its latest attempt failed; it goes on trying.
    Failing,
}

impl State {
    /// `starting`, `ok` or `failing`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Failing => "failing",
        }
    }
}

/// One job as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is called, `crowdsec publish`.
    pub name: Arc<str>,
    /// How it is doing.
    pub state: State,
    /// Since when it has been doing so, Unix milliseconds; 0 while starting.
    pub since: Millis,
    /// Its latest success.
    pub last_ok: Option<Millis>,
    /// Its latest failure, and in which words.
    pub last_error: Option<(Millis, String)>,
    /// How far it is behind, in milliseconds.
    pub lag: u64,
    /// What there is to say while all is well, `1,204 decisions`.
    pub detail: String,
}

/// Every job of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    jobs: Arc<Mutex<Vec<Snapshot>>>,
    changed: watch::Sender<u64>,
}

/// By which one job reports. Clones are the same job.
#[derive(Clone, Debug)]
pub struct Status {
    all: Statuses,
    at: usize,
}

impl Statuses {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a job, or finds the one of that name.
    pub fn add(&self, name: &str) -> Status {
        let mut jobs = self.jobs.lock();
        let known = jobs.iter().position(|job| &*job.name == name);
        let at = known.unwrap_or_else(|| {
            jobs.push(Snapshot {
                name: name.into(),
                state: State::Starting,
                since: 0,
                last_ok: None,
                last_error: None,
                lag: 0,
                detail: String::new(),
            });
            jobs.len() - 1
        });
        Status {
            all: self.clone(),
            at,
        }
    }

    /// Every job, in the order they were entered.
    pub fn all(&self) -> Vec<Snapshot> {
        self.jobs.lock().clone()
    }

    /// Changes whenever a job goes from one state to another.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Status {
    /// It succeeded; `detail` says at what.
    pub fn ok(&self, now: Millis, detail: impl Into<String>) {
        self.report(now, State::Ok, |job| {
            job.last_ok = Some(now);
            job.detail = detail.into();
        });
    }

    /// It failed and will try again.
    pub fn failed(&self, now: Millis, error: impl Into<String>) {
        self.report(now, State::Failing, |job| {
            job.last_error = Some((now, error.into()));
        });
    }

    /// How far it is behind, in milliseconds.
    pub fn lag(&self, millis: u64) {
        self.all.jobs.lock()[self.at].lag = millis;
    }

    fn report(&self, now: Millis, state: State, say: impl FnOnce(&mut Snapshot)) {
        let mut jobs = self.all.jobs.lock();
        let job = &mut jobs[self.at];
        say(job);
        if job.state != state {
            (job.state, job.since) = (state, now);
            drop(jobs);
            self.all.changed.send_modify(|changes| *changes += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_how_it_is_doing_and_since_when() {
        let all = Statuses::new();
        let mut watch = all.watch();
        let disk = all.add("disk");
        all.add("cloudflare");
        disk.ok(1000, "3 bans");
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        disk.ok(2000, "4 bans");
        assert!(!watch.has_changed().unwrap(), "still well");
        disk.failed(3000, "no space left");
        all.add("disk").failed(4000, "no space left on device");
        disk.lag(1500);
        let jobs = all.all();
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[1].state, State::Starting);
        let expected = Snapshot {
            name: "disk".into(),
            state: State::Failing,
            since: 3000,
            last_ok: Some(2000),
            last_error: Some((4000, "no space left on device".into())),
            lag: 1500,
            detail: "4 bans".into(),
        };
        assert_eq!(jobs[0], expected);
    }
}
