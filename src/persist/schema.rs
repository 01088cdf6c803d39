//! The file itself: how it is opened, what it must look like, and what becomes of a damaged one.
//! Knows SQL and files, no bans.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Error;
use crate::time::{Clock, Millis};

/// "jail": tells our databases from everybody else's.
const APPLICATION: i32 = 0x6a61_696c;
/// What this program writes. A step upwards is one more entry in [`STEPS`].
pub const VERSION: usize = STEPS.len();
/// How long a start may look for damage; a larger file is read without having been looked at.
const CHECK: Duration = Duration::from_secs(3);
/// How long a writer waits for a person's `sqlite3` that holds a lock.
const BUSY: Duration = Duration::from_secs(2);
/// Pages kept in memory, in KiB where negative: few, since the allocator never gives back what they
/// took, and the system has the same pages.
const CACHE: &str = "-256";

/// From each version of the schema to the next.
const STEPS: &[&str] = &["
CREATE TABLE state(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE bans(
    seq INTEGER PRIMARY KEY,        -- number of its latest change
    client TEXT NOT NULL,
    jail TEXT,                      -- NULL: in every jail
    origin TEXT NOT NULL,
    outside INTEGER NOT NULL,       -- 1: somebody else's decision
    cause TEXT NOT NULL,            -- failures, rule, manual, decision
    reason TEXT,                    -- the rule's pattern, the operator's words, the scenario
    count INTEGER NOT NULL,
    first_status INTEGER NOT NULL,
    last_status INTEGER NOT NULL,
    path TEXT NOT NULL,
    since INTEGER NOT NULL,         -- times are Unix milliseconds
    until INTEGER                   -- NULL: never
) STRICT;
CREATE UNIQUE INDEX bans_place ON bans(client, ifnull(jail, ''), origin, outside);
CREATE TABLE past(                  -- bans that ended
    seq INTEGER NOT NULL,
    client TEXT NOT NULL, jail TEXT, origin TEXT NOT NULL, outside INTEGER NOT NULL,
    cause TEXT NOT NULL, reason TEXT, count INTEGER NOT NULL, first_status INTEGER NOT NULL,
    last_status INTEGER NOT NULL, path TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
    lift TEXT NOT NULL,             -- expired, unbanned, withdrawn, evicted
    ended INTEGER NOT NULL
) STRICT;
CREATE INDEX past_seq ON past(seq);
CREATE INDEX past_ended ON past(ended);
CREATE INDEX past_client ON past(client);
CREATE TABLE history(               -- how often bans grew
    client TEXT NOT NULL, jail TEXT NOT NULL, bans INTEGER NOT NULL,
    until INTEGER NOT NULL, save INTEGER NOT NULL,
    PRIMARY KEY(client, jail)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters(              -- those of the newest whole save count
    save INTEGER NOT NULL, client TEXT NOT NULL, jail TEXT NOT NULL, count INTEGER NOT NULL,
    first_status INTEGER NOT NULL, start INTEGER NOT NULL, last INTEGER NOT NULL, events TEXT
) STRICT;
CREATE TABLE logs(                  -- where access logs were left at that same instant
    path ANY NOT NULL, dev INTEGER NOT NULL, inode INTEGER NOT NULL, offset INTEGER NOT NULL,
    begin_len INTEGER NOT NULL, begin_hash INTEGER NOT NULL
) STRICT;
CREATE TABLE cursors(name TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE allowed(               -- the runtime allow list
    subject TEXT PRIMARY KEY,       -- an address, a network or a name
    nets TEXT NOT NULL, note TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER
) STRICT, WITHOUT ROWID;
CREATE VIEW active AS SELECT client, coalesce(jail, '*') AS jail, origin, coalesce(reason, cause)
    AS reason, count, path, datetime(since / 1000, 'unixepoch') AS since,
    coalesce(datetime(until / 1000, 'unixepoch'), 'never') AS until FROM bans ORDER BY seq;
CREATE VIEW ended AS SELECT client, coalesce(jail, '*') AS jail, origin, coalesce(reason, cause)
    AS reason, count, path, datetime(since / 1000, 'unixepoch') AS since,
    datetime(ended / 1000, 'unixepoch') AS ended, lift FROM past ORDER BY rowid;
"];

/// Takes the file for this process, for as long as the answer is kept. The lock is a file of its
/// own: the system drops SQLite's locks as soon as anybody closes another handle of the database.
pub fn lock(path: &Path) -> Result<File, Error> {
    let beside = suffixed(path, ".lock");
    let failed = |source| Error::File {
        path: beside.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&beside).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Taken { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens the file, made when it is not there, and brings its schema up to date. `check` looks for
/// damage first.
pub fn connect(path: &Path, check: bool, clock: Clock) -> Result<Connection, Error> {
    let failed = |source| Error::Database {
        path: path.into(),
        source,
    };
    private(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let fresh = settings(&db, path)?;
    if check && !fresh {
        quick_check(&mut db, clock).map_err(failed)?;
    }
    migrate(&mut db).map_err(failed)?;
    Ok(db)
}

/// Opens a file of this very version where nothing can be written, not even the index that several
/// readers of one database share: nobody else is let in meanwhile.
pub fn connect_to_read(path: &Path) -> Result<Connection, Error> {
    let failed = |source| Error::Database {
        path: path.into(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(failed)?;
    let found = db.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    match found.map_err(failed)? {
        found if found as usize == VERSION => Ok(db),
        found => Err(Error::Newer {
            path: path.into(),
            found,
        }),
    }
}

/// Moves a damaged database and what belongs to it out of the way; answers where to.
pub fn set_aside(path: &Path, now: Millis) -> io::Result<PathBuf> {
    let aside = suffixed(path, &format!(".damaged-{}", now / 1000));
    fs::rename(path, &aside)?;
    for part in ["-wal", "-shm"] {
        match fs::rename(suffixed(path, part), suffixed(&aside, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Whether what SQLite says means that the file's contents are broken, not that it cannot be
/// reached.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// At a start also: the file is whole, but its tables are not ours.
pub fn is_unusable(error: &rusqlite::Error) -> bool {
    is_damage(error) || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// A file beside this one.
pub fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Readable by nobody else, from its first byte on; SQLite gives its side files the same mode.
fn private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path)?.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Answers whether the database is new.
fn settings(db: &Connection, path: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Database {
        path: path.into(),
        source,
    };
    db.busy_timeout(BUSY).map_err(failed)?;
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (
        number("application_id").map_err(failed)?,
        number("user_version").map_err(failed)?,
    );
    let pages = number("page_count").map_err(failed)?;
    let fresh = pages == 0 || (application == 0 && version == 0 && is_empty(db).map_err(failed)?);
    if !fresh && application != APPLICATION {
        return Err(Error::Foreign { path: path.into() });
    }
    if version as usize > VERSION {
        return Err(Error::Newer {
            path: path.into(),
            found: version,
        });
    }
    if fresh {
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(failed)?;
    }
    for (name, value) in [
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("journal_size_limit", "67108864"),
        ("cache_size", CACHE),
    ] {
        db.pragma_update(None, name, value).map_err(failed)?;
    }
    Ok(fresh)
}

fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    let tables = "SELECT count(*) FROM sqlite_schema";
    db.query_row(tables, [], |row| row.get::<_, i64>(0))
        .map(|tables| tables == 0)
}

fn quick_check(db: &mut Connection, clock: Clock) -> rusqlite::Result<()> {
    let until = clock.elapsed() + CHECK;
    db.progress_handler(10_000, Some(move || clock.elapsed() > until))?;
    let said = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    db.progress_handler(0, None::<fn() -> bool>)?;
    match said {
        Ok(word) if word == "ok" => Ok(()),
        Ok(word) => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(word),
        )),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::info!("the state is large: read without looking for damage everywhere");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let at = db.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? as usize;
    if at == VERSION {
        return Ok(());
    }
    let step = db.transaction()?;
    for sql in &STEPS[at..] {
        step.execute_batch(sql)?;
    }
    step.pragma_update(None, "application_id", APPLICATION)?;
    step.pragma_update(None, "user_version", VERSION as i32)?;
    step.commit()
}
