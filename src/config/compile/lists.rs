//! Address lists, in keys and in files.

use std::sync::Arc;

use ipnet::IpNet;

use super::super::{
    Pos, Problem, nets as written,
    read::{Field, said},
};
use crate::engine::nets::NetSet;

/// Bad entries of one list file that are reported; the rest is only counted.
const REPORTED: usize = 20;

/// The networks of a key: a list, a single value, or several between commas.
pub(super) fn nets(field: Option<&Field<'_>>) -> Vec<IpNet> {
    let Some(field) = field else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in field.items() {
        let Some(text) = item.text() else { continue };
        if !field.is_list() && text.is_empty() {
            continue;
        }
        let parts: Vec<&str> = match field.is_list() {
            true => vec![&text],
            false => text.split(',').collect(),
        };
        for part in parts {
            match written::parse(part) {
                Ok(net) => found.push(checked(&item, net)),
                Err(message) => item.error(message),
            }
        }
    }
    found
}

/// Worth a word: everybody, and IPv4 in IPv6 spelling.
fn checked(item: &Field<'_>, net: IpNet) -> IpNet {
    let mapped = matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
    if mapped && net.prefix_len() >= 96 {
        let shown = item.shown();
        item.warn(format!(
            "`{shown}` stands for IPv4 and matches IPv4 clients"
        ));
    }
    if net.prefix_len() == 0 {
        item.warn(format!("`{}` holds every address there is", item.shown()));
    }
    net
}

/// The same, frozen.
pub(super) fn net_set(field: Option<Field<'_>>) -> Arc<NetSet> {
    Arc::new(NetSet::build(nets(field.as_ref())))
}

/// The entries of every file that `files` names.
pub(super) fn from_files(field: Option<&Field<'_>>) -> Vec<IpNet> {
    let mut found = Vec::new();
    for item in field.iter().flat_map(|field| field.items()) {
        let Some(text) = item.text() else { continue };
        let names: Vec<&str> = match field.is_some_and(|field| field.is_list()) {
            true => vec![&text],
            false => text.split(',').filter(|name| !name.is_empty()).collect(),
        };
        for name in names {
            from_file(&item, name, &mut found);
        }
    }
    found
}

fn from_file(item: &Field<'_>, name: &str, found: &mut Vec<IpNet>) {
    let cx = item.cx();
    let path = cx.base.join(name);
    let text = match cx.read_file(&path) {
        Ok(text) => text,
        Err(error) => {
            return item.error(format!(
                "cannot read the list `{}`: {}",
                path.display(),
                said(&error)
            ));
        }
    };
    let shown = path.display().to_string();
    let mut bad = 0;
    for entry in written::entries(&text) {
        match written::parse(entry.text) {
            Ok(net) => found.push(net),
            Err(message) => {
                bad += 1;
                if bad <= REPORTED {
                    let at = Pos {
                        line: entry.line,
                        col: entry.col,
                        width: entry.text.chars().count() as u32,
                    };
                    let line = text
                        .lines()
                        .nth(entry.line as usize - 1)
                        .unwrap_or_default();
                    let line = line.trim_start_matches('\u{feff}');
                    let problem = Problem::new(&shown, at, line, message);
                    cx.problems.borrow_mut().push(problem);
                }
            }
        }
    }
    if bad > REPORTED {
        let more = format!("{} more entries are no IP address or CIDR", bad - REPORTED);
        cx.problems.borrow_mut().push(Problem::whole(&path, more));
    }
}
