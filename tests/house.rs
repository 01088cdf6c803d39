//! The house rules that a compiler does not hold: who may import whom, where the clock is read,
//! how long a file is, and that the documents name what exists. Reads files, runs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What one file may be long, in lines, its tests not counted.
const LONGEST: usize = 460;

/// Rooms from the top of the house to its ground: a room imports only from lower floors.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &[
        "gate",
        "access_log",
        "crowdsec",
        "cloudflare",
        "persist",
        "notify",
        "cluster",
        "admin",
    ],
    &["proxy"],
    &["telemetry"],
    &["config"],
    &["directories"],
    &["engine"],
    &["tasks", "time"],
];

/// Only the gate proxies.
const PROXY_USERS: &[&str] = &["main", "cli", "app", "gate", "proxy"];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// `gate` for `src/gate/stack.rs`, `time` for `src/time.rs`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src").expect("it is under src");
        let first = inside.iter().next().expect("it has a name");
        let first = first.to_str().expect("names are UTF-8");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }

    /// Everything but the unit tests at its end.
    fn tested(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    fn is_tests(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.iter().any(|part| part == "tests")
    }

    /// Lines that are neither blank nor comments, numbered from 1, up to the unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.tested().lines().enumerate();
        lines
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(dir)];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("the directory is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                found.push(path.strip_prefix(root()).expect("under root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).expect("the file is UTF-8")
}

fn sources() -> Vec<Source> {
    let all: Vec<_> = files("src", ".rs")
        .into_iter()
        .map(|path| Source {
            text: read(&path),
            path,
        })
        .collect();
    assert!(all.len() > 10, "the sources were not found");
    all
}

#[track_caller]
fn nothing(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Every room named after `crate::` in a line, also in `use crate::{a::b, c}`.
fn imported(line: &str) -> Vec<&str> {
    let word = |text| {
        let end = str::find(text, |c: char| !c.is_alphanumeric() && c != '_');
        &text[..end.unwrap_or(text.len())]
    };
    let mut rooms = Vec::new();
    for after in line.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => rooms.push(word(after)),
            Some(group) => rooms.extend(top_level(group).map(word)),
        }
    }
    rooms
}

/// The parts of a brace group up to its closing brace, split at its own commas only.
fn top_level(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let mut parts = vec![(0, 0)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push((at + 1, at + 1)),
            _ => {}
        }
        parts.last_mut().expect("it starts with one").1 = at + c.len_utf8();
    }
    let parts = parts.into_iter().map(|(from, to)| group[from..to].trim());
    parts.filter(|part| !part.is_empty())
}

/// `use` statements that rustfmt broke over lines, put back on one.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in source.code() {
        match joined.last_mut() {
            Some((_, last)) if open => last.push_str(line),
            _ => joined.push((number, line.to_owned())),
        }
        let (_, last) = joined.last().expect("one was just pushed");
        open = last.contains("crate::{") && last.matches('{').count() > last.matches('}').count();
    }
    joined
}

#[test]
fn rooms_import_only_from_lower_floors() {
    let floor = |room: &str| FLOORS.iter().position(|floor| floor.contains(&room));
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is("src/lib.rs")) {
        let from = source.room();
        let Some(mine) = floor(from) else {
            broken.push(format!("{}: no floor for this room", source.path.display()));
            continue;
        };
        for (number, statement) in statements(source) {
            for to in imported(&statement) {
                let allowed = match floor(to) {
                    _ if to == from => true,
                    Some(theirs) => theirs > mine,
                    None => false,
                };
                let pure = from == "engine" && !["engine", "time"].contains(&to);
                let proxying = to == "proxy" && !PROXY_USERS.contains(&from);
                if !allowed || pure || proxying {
                    let path = source.path.display();
                    broken.push(format!("{path}:{number}: {from} imports {to}"));
                }
            }
        }
    }
    nothing(broken, "an arrow points up");
}

#[test]
fn import_lines_are_read_as_rust_reads_them() {
    assert_eq!(imported("use crate::time::Millis;"), ["time"]);
    let group = "use crate::{engine::{self, ban::Ban}, time::Millis, tasks};";
    assert_eq!(imported(group), ["engine", "time", "tasks"]);
    assert_eq!(imported("let x: crate::config::Config = y;"), ["config"]);
    assert!(imported("use std::fmt;").is_empty());
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.text.lines();
        let opening = lines.take_while(|line| line.starts_with("//!"));
        let count = opening.filter(|line| *line != "//!").count();
        // lib.rs tells the flows through the whole house, so it may be longer.
        if count == 0 || (count > 6 && !source.is("src/lib.rs")) {
            broken.push(format!("{}: {count} lines", source.path.display()));
        }
    }
    nothing(broken, "a file opens with a `//!` of one to six lines");
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.tested().lines().count();
        if lines > LONGEST && !source.is_tests() {
            broken.push(format!("{}: {lines} lines", source.path.display()));
        }
    }
    nothing(broken, &format!("a file has at most {LONGEST} lines"));
}

#[test]
fn no_room_is_a_junk_drawer() {
    let drawers = ["utils", "util", "common", "helpers", "prelude", "globals"];
    let mut broken = Vec::new();
    for source in sources() {
        let mut parts = source.path.iter().filter_map(|part| part.to_str());
        if parts.any(|part| drawers.contains(&part.trim_end_matches(".rs"))) {
            broken.push(source.path.display().to_string());
        }
    }
    nothing(broken, "a module is named for what it owns");
}

/// Where a word may stand: everywhere else it breaks the rule.
#[track_caller]
fn only_in(home: &str, words: &[&str], rule: &str) {
    let mut broken = Vec::new();
    let tests = |source: &Source| source.path.ends_with("tests.rs");
    for source in sources()
        .iter()
        .filter(|source| !source.is(home) && !tests(source))
    {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    nothing(broken, rule);
    let kept = read(Path::new(home));
    assert!(
        words.iter().any(|word| kept.contains(word)),
        "{home} no longer has any of {words:?}: the rule is stale"
    );
}

#[test]
fn the_clock_is_read_in_one_file() {
    only_in(
        "src/time.rs",
        &[
            "SystemTime::now",
            "Instant::now",
            "Timestamp::now",
            "Zoned::now",
        ],
        "the clock is read in src/time.rs only",
    );
}

#[test]
fn tasks_and_threads_start_in_one_file() {
    only_in(
        "src/tasks.rs",
        &[
            "tokio::spawn",
            "task::spawn",
            "spawn_local(",
            "spawn_blocking(",
            "thread::spawn",
            "thread::Builder",
            "JoinSet::new",
        ],
        "tasks and threads start in src/tasks.rs only",
    );
}

#[test]
fn one_file_knows_the_yaml_crate() {
    only_in(
        "src/config/raw.rs",
        &["serde_saphyr"],
        "the YAML crate is named in src/config/raw.rs only",
    );
}

#[test]
fn the_engine_does_no_io() {
    let outside = [
        "std::fs",
        "std::io",
        "tokio::net",
        "tokio::fs",
        "TcpStream",
        "hyper::",
    ];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.room() == "engine") {
        for (number, line) in source.code() {
            if outside.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    nothing(broken, "the engine is pure");
}

/// Paths of this repository that a document names in backticks.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let tops = [
        "src/", "tests/", "benches/", "docs/", "demo/", "compose/", "contrib/", ".ci/", ".github/",
    ];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |word| {
        let is_path = tops.iter().any(|top| word.starts_with(top));
        is_path && !word.contains(['*', ' ', '{', '<'])
    })
}

#[test]
fn architecture_is_short_and_names_what_exists() {
    let text = read(Path::new("ARCHITECTURE.md"));
    let lines = text.lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines");
    let missing: Vec<_> = named_paths(&text)
        .filter(|path| !root().join(path).exists())
        .map(str::to_owned)
        .collect();
    nothing(missing, "ARCHITECTURE.md names what is not there");
    assert!(named_paths(&text).count() > 10, "the map names no files");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read(Path::new("Cargo.toml"));
    let reasons = read(Path::new("ARCHITECTURE.md"));
    let section = manifest.split("\n[dependencies]\n").nth(1);
    let section = section.and_then(|rest| rest.split("\n[").next());
    let names = section.expect("there are dependencies").lines();
    let names = names.filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    let listed: Vec<_> = reasons
        .split([' ', ',', ':', '|', '\n', '.'])
        .map(str::trim)
        .collect();
    let missing: Vec<_> = names
        .filter(|name| !name.starts_with('#') && !listed.contains(name))
        .map(str::to_owned)
        .collect();
    nothing(missing, "ARCHITECTURE.md does not say what a crate is for");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .into();
    documents.extend(files("docs", ".md"));
    let mut broken = Vec::new();
    for document in documents {
        let text = read(&document);
        let base = document.parent().expect("it is a file");
        for after in text.split("](").skip(1) {
            let target = after.split([')', '#', ' ']).next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://");
            if local && !root().join(base).join(target).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    nothing(broken, "a link leads nowhere");
}
