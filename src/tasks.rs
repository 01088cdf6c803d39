//! The only spawner. Every task has a name, is counted, is restarted when it panics if asked to,
//! and is drained at shutdown.

#![expect(clippy::disallowed_methods, reason = "this is the file that spawns")]

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns onto the current runtime and remembers what runs. Clones share one set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    named: Arc<Mutex<Vec<Named>>>,
    runtimes: Arc<Mutex<Vec<Running>>>,
}

/// A runtime under its name.
pub type Running = (Arc<str>, Handle);

/// One long-lived task as the admin API shows it.
#[derive(Clone, Debug)]
pub struct Named {
    /// What the task is called in logs and in `/api/v1/tasks`.
    pub name: Arc<str>,
    /// How often it was started again after a panic.
    pub restarts: u32,
    /// Whether it is still running.
    pub running: bool,
}

impl Tasks {
    /// A fresh, empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves once shutdown has begun. Long-lived tasks select on it.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a short task (a connection, a pump). It ends by itself and is waited for at drain.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Spawns a long-lived task under a name. When it panics it is started again after a second;
    /// when it returns it is done.
    pub fn service<F, Fut>(&self, name: &str, mut start: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let name: Arc<str> = name.into();
        let slot = {
            let mut named = self.named.lock();
            named.push(Named {
                name: name.clone(),
                restarts: 0,
                running: true,
            });
            named.len() - 1
        };
        let (named, stop) = (self.named.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            loop {
                match tokio::spawn(start()).await {
                    Err(error) if error.is_panic() && !stop.is_cancelled() => {
                        tracing::error!(task = %name, %error, "task panicked, starting it again");
                        named.lock()[slot].restarts += 1;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    _ => break,
                }
            }
            named.lock()[slot].running = false;
        });
    }

    /// Starts one operating-system thread under a name.
    pub fn thread<F>(name: String, body: F) -> std::io::Result<std::thread::JoinHandle<()>>
    where
        F: FnOnce() + Send + 'static,
    {
        std::thread::Builder::new().name(name).spawn(body)
    }

    /// The long-lived tasks, in the order they were started.
    pub fn named(&self) -> Vec<Named> {
        self.named.lock().clone()
    }

    /// Remembers the runtime that the caller is on, for the metrics.
    pub fn runtime(&self, name: &str) {
        self.runtimes.lock().push((name.into(), Handle::current()));
    }

    /// The runtimes remembered, in that order.
    pub fn runtimes(&self) -> Vec<Running> {
        self.runtimes.lock().clone()
    }

    /// Whether every runtime remembered runs a task within this time. One that has ended is not
    /// waited for.
    pub async fn answer(&self, within: Duration) -> bool {
        let asked: Vec<_> = self
            .runtimes()
            .iter()
            .map(|(_, runtime)| runtime.spawn(async {}))
            .collect();
        tokio::time::timeout(within, futures_util::future::join_all(asked))
            .await
            .is_ok()
    }

    /// How many tasks run now.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tells every task to stop and waits until all have, at most `grace`. Answers whether all did.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_is_stuck_does_not_answer_and_one_that_ended_is_no_fault() {
        let (tasks, patience) = (Tasks::new(), Duration::from_millis(50));
        tasks.runtime("here");
        assert!(tasks.answer(patience).await);
        // Nobody drives this one, as when its thread hangs.
        let stuck = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let entered = stuck.enter();
        tasks.runtime("gate-0");
        drop(entered);
        assert!(!tasks.answer(patience).await);
        stuck.shutdown_background();
        assert!(tasks.answer(patience).await);
    }
}
