//! The state on disk within the whole: read before anything is served, written while everything
//! runs, closed last. Translates between places in logs and rows, which do not know each other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    access_log::checkpoint::{Checkpoint, Checkpoints, Fingerprint},
    admin,
    config::Config,
    engine::Engine,
    persist::{self, Place, Setup, State},
    telemetry::{Metrics, Status},
    time::Clock,
};

/// Restores the engine, and answers also where access logs were left. Nothing without a file.
pub(super) fn open(
    config: &Config,
    engine: &Arc<Engine>,
    metrics: &Arc<Metrics>,
    status: impl FnOnce() -> Status,
    clock: Clock,
) -> Result<(Option<State>, Checkpoints), persist::Error> {
    let places = Checkpoints::new();
    let Some(wanted) = &config.state else {
        return Ok((None, places));
    };
    let mut state = State::open(Setup {
        path: wanted.path.clone(),
        keep: wanted.keep,
        engine: engine.clone(),
        clock,
        metrics: metrics.clone(),
        status: status(),
    })?;
    if state.places().is_empty() {
        take_over(&mut state, &wanted.path);
    }
    places.restore(state.places().iter().map(checkpoint).collect());
    Ok((Some(state), places))
}

/// What belongs together: counters, and how far the logs were read that they were counted from.
pub(super) fn instant(checkpoints: Checkpoints) -> persist::Instant {
    Box::new(move |take| {
        let _still = checkpoints.still();
        take(checkpoints.all().into_iter().map(place).collect());
    })
}

/// What the admin API asks of the disk.
pub(super) fn archive(disk: &persist::Running) -> admin::Archive {
    let (asked, forgetting) = (disk.archive(), disk.archive());
    let ended = |ended: persist::Ended| admin::Ended {
        ban: ended.ban,
        at: ended.at,
        lift: ended.lift.as_str(),
    };
    admin::Archive {
        history: Arc::new(move |client, limit| {
            let asked = asked.clone();
            Box::pin(async move {
                let all = asked.history(client, limit).await;
                let all = all.map_err(|error| error.to_string())?;
                Ok(all.into_iter().map(ended).collect())
            })
        }),
        forget: Arc::new(move |net| {
            let forgetting = forgetting.clone();
            Box::pin(async move {
                let forgotten = forgetting.forget(net).await;
                forgotten.map_err(|error| error.to_string())
            })
        }),
    }
}

/// Takes the places that earlier versions kept in a file of their own, once.
fn take_over(state: &mut State, path: &Path) {
    let mut file = path.as_os_str().to_owned();
    file.push(".logs.json");
    let file = PathBuf::from(file);
    match Checkpoints::of_file(&file) {
        Ok(old) if old.is_empty() => {}
        Ok(old) => {
            if state.adopt(old.into_iter().map(place).collect())
                && let Err(error) = std::fs::remove_file(&file)
            {
                tracing::warn!(%error, file = %file.display(), "no longer needed, but not removed");
            }
        }
        Err(error) => tracing::warn!(%error, "access logs are read from their beginning"),
    }
}

fn place(checkpoint: Checkpoint) -> Place {
    Place {
        path: checkpoint.path,
        dev: checkpoint.dev,
        inode: checkpoint.inode,
        offset: checkpoint.offset,
        begin_len: checkpoint.fingerprint.len,
        begin_hash: checkpoint.fingerprint.hash,
    }
}

fn checkpoint(place: &Place) -> Checkpoint {
    Checkpoint {
        path: place.path.clone(),
        dev: place.dev,
        inode: place.inode,
        offset: place.offset,
        fingerprint: Fingerprint {
            len: place.begin_len,
            hash: place.begin_hash,
        },
    }
}
