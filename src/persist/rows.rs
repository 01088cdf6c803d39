//! Bans, counters and places in logs as rows, and back. Every kind of cause, origin and lift has
//! its word here.

use std::{
    ffi::OsString,
    net::IpAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use rusqlite::{
    Row,
    types::{FromSqlError, Type, Value, ValueRef},
};

use super::Place;
use crate::{
    engine::{Allowed, Ban, Cause, Lift, Origin, ban::FOREVER, client::spelled},
    time::Millis,
};

/// The columns of a ban, in the order of [`values`] and [`ban`].
pub const BAN: &str = "client, jail, origin, outside, cause, reason, count, first_status, \
                       last_status, path, since, until";

/// A ban as the values of [`BAN`].
pub fn values(ban: &Ban) -> [Value; 12] {
    let [client, jail, origin, outside] = place(ban);
    let (cause, reason) = match &ban.cause {
        Cause::Failures => ("failures", None),
        Cause::Rule(pattern) => ("rule", Some(pattern)),
        Cause::Manual(text) => ("manual", Some(text)),
        Cause::Decision(scenario) => ("decision", Some(scenario)),
    };
    let reason = reason.map_or(Value::Null, |text| text.to_string().into());
    [
        client,
        jail,
        origin,
        outside,
        cause.to_owned().into(),
        reason,
        ban.count.into(),
        ban.first_status.into(),
        ban.last_status.into(),
        ban.path.to_string().into(),
        time(ban.since),
        end(ban.until),
    ]
}

/// Client, jail, origin, outside: what a ban is found by.
pub fn place(ban: &Ban) -> [Value; 4] {
    let jail = ban.jail.as_ref();
    [
        spelled(ban.client).into(),
        jail.map_or(Value::Null, |jail| jail.to_string().into()),
        ban.origin.label().to_string().into(),
        matches!(ban.origin, Origin::Outside(_)).into(),
    ]
}

/// A ban out of the columns of [`BAN`], which begin at `at`.
pub fn ban(row: &Row<'_>, at: usize) -> rusqlite::Result<Ban> {
    let text = |index: usize| row.get::<_, Option<Arc<str>>>(at + index);
    let word = |index: usize| Ok::<Arc<str>, rusqlite::Error>(text(index)?.unwrap_or_default());
    let origin = match (&*word(2)?, row.get(at + 3)?) {
        ("jailgate", false) => Origin::Jail,
        ("manual", false) => Origin::Manual,
        (name, _) => Origin::Outside(name.into()),
    };
    let reason = word(5)?;
    let cause = match &*word(4)? {
        "rule" => Cause::Rule(reason),
        "manual" => Cause::Manual(reason),
        "decision" => Cause::Decision(reason),
        _ => Cause::Failures,
    };
    Ok(Ban {
        client: parsed(row, at)?,
        jail: text(1)?,
        origin,
        cause,
        count: row.get(at + 6)?,
        first_status: row.get(at + 7)?,
        last_status: row.get(at + 8)?,
        path: word(9)?.as_ref().into(),
        since: row.get::<_, i64>(at + 10)? as Millis,
        until: until(row, at + 11)?,
    })
}

/// How a ban ended, by [`Lift::as_str`]'s word.
pub fn lift(word: &str) -> Lift {
    [Lift::Unbanned, Lift::Withdrawn, Lift::Evicted]
        .into_iter()
        .find(|lift| lift.as_str() == word)
        .unwrap_or(Lift::Expired)
}

/// An address or network out of a column.
pub fn parsed(row: &Row<'_>, at: usize) -> rusqlite::Result<IpNet> {
    let text: String = row.get(at)?;
    parse_net(&text).ok_or_else(|| {
        let odd = FromSqlError::Other(format!("`{text}` is no address").into());
        rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(odd))
    })
}

fn parse_net(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    IpNet::from_str(text).or_else(|_| single()).ok()
}

/// A time; it fits until the year 292,277,026.
pub fn time(at: Millis) -> Value {
    Value::Integer(i64::try_from(at).unwrap_or(i64::MAX))
}

/// The end of a ban; `NULL` never.
pub fn end(at: Millis) -> Value {
    match at {
        FOREVER => Value::Null,
        at => time(at),
    }
}

/// The end of a ban out of a column.
pub fn until(row: &Row<'_>, at: usize) -> rusqlite::Result<Millis> {
    let until: Option<i64> = row.get(at)?;
    Ok(until.map_or(FOREVER, |until| until as Millis))
}

/// The events of a sliding window as `time:status time:status`.
pub fn events(events: &[(Millis, u16)]) -> Value {
    if events.is_empty() {
        return Value::Null;
    }
    let each: Vec<String> = events.iter().map(|(at, s)| format!("{at}:{s}")).collect();
    each.join(" ").into()
}

/// What [`events`] wrote; what is none is passed over.
pub fn parsed_events(text: Option<String>) -> Vec<(Millis, u16)> {
    let text = text.unwrap_or_default();
    let event = |word: &str| {
        let (at, status) = word.split_once(':')?;
        Some((at.parse().ok()?, status.parse().ok()?))
    };
    text.split(' ').filter_map(event).collect()
}

/// An entry of the runtime allow list as the columns of `allowed`.
pub fn allowed_values(entry: &Allowed) -> [Value; 5] {
    let nets: Vec<String> = entry.nets.iter().map(|net| spelled(*net)).collect();
    [
        entry.subject.to_string().into(),
        nets.join(" ").into(),
        entry.note.to_string().into(),
        time(entry.since),
        end(entry.until),
    ]
}

/// What [`allowed_values`] wrote.
pub fn allowed(row: &Row<'_>) -> rusqlite::Result<Allowed> {
    let nets: String = row.get(1)?;
    Ok(Allowed {
        subject: row.get(0)?,
        nets: nets.split_whitespace().filter_map(parse_net).collect(),
        note: row.get(2)?,
        since: row.get::<_, i64>(3)? as Millis,
        until: until(row, 4)?,
    })
}

/// A place in a log as the columns of `logs`. Numbers of the system keep their bits.
pub fn log(place: &Place) -> [Value; 6] {
    [
        path(&place.path),
        Value::Integer(place.dev as i64),
        Value::Integer(place.inode as i64),
        Value::Integer(place.offset as i64),
        Value::Integer(place.begin_len as i64),
        Value::Integer(place.begin_hash as i64),
    ]
}

/// What [`log`] wrote.
pub fn parsed_log(row: &Row<'_>) -> rusqlite::Result<Place> {
    let number = |at| row.get::<_, i64>(at).map(|number| number as u64);
    let path = match row.get_ref(0)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            PathBuf::from(OsString::from_vec(bytes.to_vec()))
        }
        other => {
            let (name, kind) = ("path".to_owned(), other.data_type());
            return Err(rusqlite::Error::InvalidColumnType(0, name, kind));
        }
    };
    Ok(Place {
        path,
        dev: number(1)?,
        inode: number(2)?,
        offset: number(3)?,
        begin_len: number(4)?,
        begin_hash: number(5)?,
    })
}

/// Text where it is text: people look at it.
fn path(path: &Path) -> Value {
    match path.to_str() {
        Some(text) => text.to_owned().into(),
        None => Value::Blob(path.as_os_str().as_bytes().to_vec()),
    }
}
