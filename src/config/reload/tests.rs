//! Files on a real disk changed the way editors, shells and Kubernetes change them.

use std::{fs, io::Write, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

/// Longer than a change takes to settle, with and without events.
const SOON: Duration = Duration::from_secs(8);

/// Long enough that a change would have been told.
const WHILE: Duration = Duration::from_millis(1200);

struct Setup {
    dir: TempDir,
    watch: Watch,
    _tasks: Tasks,
}

async fn setup(events: bool) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jailgate.yaml");
    fs::write(&file, "old").unwrap();
    let tasks = Tasks::new();
    let watch = Watch::with(&tasks, vec![file], events);
    // From here on it knows who has a file open.
    tokio::task::yield_now().await;
    Setup {
        watch,
        dir,
        _tasks: tasks,
    }
}

impl Setup {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn tells(&mut self) -> impl Future<Output = ()> {
        let told = time::timeout(SOON, self.watch.changed());
        async { told.await.expect("the change was not told") }
    }

    async fn is_silent(&mut self) {
        let told = time::timeout(WHILE, self.watch.changed()).await;
        assert!(told.is_err(), "told of a change");
    }
}

#[tokio::test]
async fn a_file_written_in_place() {
    let mut setup = setup(true).await;
    fs::write(setup.path("jailgate.yaml"), "new").unwrap();
    setup.tells().await;
    setup.is_silent().await;
}

#[tokio::test]
async fn a_file_replaced_as_editors_do() {
    let mut setup = setup(true).await;
    fs::write(setup.path(".jailgate.yaml.swp"), "new").unwrap();
    fs::rename(
        setup.path(".jailgate.yaml.swp"),
        setup.path("jailgate.yaml"),
    )
    .unwrap();
    setup.tells().await;
    fs::rename(setup.path("jailgate.yaml"), setup.path("jailgate.yaml~")).unwrap();
    fs::write(setup.path("jailgate.yaml"), "newer").unwrap();
    setup.tells().await;
}

#[tokio::test]
async fn without_events_files_are_looked_at() {
    let mut setup = setup(false).await;
    fs::write(setup.path("jailgate.yaml"), "new").unwrap();
    setup.tells().await;
}

#[tokio::test]
async fn a_link_swapped_as_kubernetes_does() {
    let mut setup = setup(true).await;
    for version in ["..1", "..2"] {
        fs::create_dir(setup.path(version)).unwrap();
        fs::write(setup.path(version).join("config.yaml"), version).unwrap();
    }
    symlink("..1", setup.path("..data")).unwrap();
    symlink("..data/config.yaml", setup.path("config.yaml")).unwrap();
    setup.watch.follow(vec![setup.path("config.yaml")]);
    symlink("..2", setup.path("..data_tmp")).unwrap();
    fs::rename(setup.path("..data_tmp"), setup.path("..data")).unwrap();
    setup.tells().await;
}

#[tokio::test]
async fn a_half_written_file_is_waited_for() {
    let mut setup = setup(true).await;
    let mut file = fs::File::create(setup.path("jailgate.yaml")).unwrap();
    file.write_all(b"first ").unwrap();
    setup.is_silent().await;
    file.write_all(b"second").unwrap();
    setup.is_silent().await;
    drop(file);
    setup.tells().await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_waited_for() {
    let mut setup = setup(true).await;
    fs::remove_file(setup.path("jailgate.yaml")).unwrap();
    setup.is_silent().await;
    fs::write(setup.path("jailgate.yaml"), "back").unwrap();
    setup.tells().await;
}

#[tokio::test]
async fn only_followed_files_count() {
    let mut setup = setup(true).await;
    fs::write(setup.path("other"), "1").unwrap();
    fs::write(setup.path("list.txt"), "1").unwrap();
    setup.is_silent().await;
    setup
        .watch
        .follow(vec![setup.path("jailgate.yaml"), setup.path("list.txt")]);
    fs::write(setup.path("list.txt"), "2 now").unwrap();
    setup.tells().await;
}
