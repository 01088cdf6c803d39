//! What is wrong with a configuration, and where: every problem carries its place and the line
//! it stands on. Nothing here decides what a problem is.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::{Captures, Regex};

/// Problems printed at once; the rest is only counted.
const SHOWN: usize = 100;

/// Widest excerpt of a line, in characters.
const EXCERPT: usize = 100;

/// A place in a text. Lines and columns count from 1, columns in characters; line 0 is the whole
/// file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line.
    pub line: u32,
    /// Column of the first character.
    pub col: u32,
    /// Characters to underline.
    pub width: u32,
}

/// What sort of problem one is, for those who do not mind them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Any that is not listed here.
    #[default]
    Other,
    /// A key that means nothing where it stands.
    UnknownKey,
    /// What is meant is clear; today it is written otherwise.
    Spelling,
}

/// One thing wrong (or, as a warning, odd). `{}` is the line `file:line:col: message`; `{:#}` adds
/// the offending line with a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: String,
    at: Pos,
    kind: Kind,
    message: String,
    excerpt: String,
}

/// Everything wrong with a configuration at once. Displays one block per problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    found: Vec<Problem>,
    watched: Vec<PathBuf>,
}

impl Problem {
    /// A problem at `at` in `file`, whose line there reads `line`.
    pub fn new(file: impl Into<String>, at: Pos, line: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            at,
            kind: Kind::default(),
            message: message.into().replace(char::is_control, " "),
            excerpt: masked(line),
        }
    }

    /// A problem with a file as a whole.
    pub fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self::new(file.display().to_string(), Pos::default(), "", message)
    }

    /// The same as one of this kind.
    pub fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// What sort of problem it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it is.
    pub fn at(&self) -> Pos {
        self.at
    }
}

impl Problems {
    /// Collects what is to be shown together; sorts by file and place.
    pub fn new(first_file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            (a.file != first_file, &a.file, a.at).cmp(&(b.file != first_file, &b.file, b.at))
        });
        problems.dedup();
        Self {
            found: problems,
            watched: Vec::new(),
        }
    }

    /// The problems, in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }

    /// The same, with the files that were looked at: a change to one may be the remedy.
    pub fn with_watched(mut self, watched: Vec<PathBuf>) -> Self {
        self.watched = watched;
        self
    }

    /// Every file that, when it changes, makes another attempt worth while.
    pub fn watched(&self) -> &[PathBuf] {
        &self.watched
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Never true for an error that was returned.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self {
            found: vec![problem],
            watched: Vec::new(),
        }
    }
}

impl From<Problems> for Vec<Problem> {
    fn from(problems: Problems) -> Self {
        problems.found
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.at.line > 0 {
            write!(f, ":{}:{}", self.at.line, self.at.col)?;
        }
        write!(f, ": {}", self.message)?;
        if f.alternate() && !self.excerpt.is_empty() {
            self.show_line(f)?;
        }
        Ok(())
    }
}

impl Problem {
    fn show_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let col = self.at.col.max(1) as usize - 1;
        let skip = col.saturating_sub(EXCERPT - 30);
        let text: String = self
            .excerpt
            .chars()
            .skip(skip)
            .take(EXCERPT)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let room = text.chars().count().saturating_sub(col - skip).max(1);
        let carets = "^".repeat((self.at.width.max(1) as usize).min(room));
        let number = self.at.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(col - skip);
        write!(
            f,
            "\n  {number} | {}\n  {gutter} | {indent}{carets}",
            text.trim_end()
        )
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.found.iter().take(SHOWN) {
            writeln!(f, "{problem:#}")?;
        }
        if self.found.len() > SHOWN {
            writeln!(f, "… and {} more problems", self.found.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// The line with the values of secrets starred out: a problem beside a password must not print it.
fn masked(line: &str) -> String {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        let key = r#"(?i:password|passwd|token|secret|apikey|topic)(?i:\w*)["']?\s*:\s*"#;
        let value = r#"("[^"]*"?|'[^']*'?|[^\s,}\]]+)"#;
        Regex::new(&format!("({key}){value}")).expect("a test compiles it")
    });
    // The path of a chat's webhook is its password.
    static HOOK: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(https?://[^\s/"']+/)([^\s"',}\]]{16,})"#).expect("a test compiles it")
    });
    let starred = |found: &Captures<'_>| {
        let (key, value) = (&found[1], &found[2]);
        let name = key.trim_end_matches([' ', '\t', ':', '"', '\'']);
        if name.to_ascii_lowercase().ends_with("file") {
            return found[0].to_owned();
        }
        format!("{key}{}", "*".repeat(value.chars().count()))
    };
    let line = SECRET.replace_all(line, starred);
    let path =
        |found: &Captures<'_>| format!("{}{}", &found[1], "*".repeat(found[2].chars().count()));
    HOOK.replace_all(&line, path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, col: u32, width: u32) -> Pos {
        Pos { line, col, width }
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret() {
        let problem = Problem::new("a.yaml", at(12, 3, 4), "  port: nine", "no number");
        assert_eq!(problem.to_string(), "a.yaml:12:3: no number");
        insta::assert_snapshot!(format!("{problem:#}"), @r"
        a.yaml:12:3: no number
          12 |   port: nine
             |   ^^^^
        ");
    }

    #[test]
    fn secrets_and_control_characters_are_not_printed() {
        let shown = |line: &str| format!("{:#}", Problem::new("a", at(1, 3, 5), line, "m"));
        assert!(!shown("a:\tb\u{1b}[31m").contains(['\t', '\u{1b}']));
        let problem = Problem::new("a", at(1, 1, 1), "", "unknown key `\u{1b}[31m`");
        assert!(!problem.to_string().contains('\u{1b}'));
        for line in [
            "  apiToken: hunter2",
            "  \"password\" : \"hunter2 hunter2\" # why",
            "admin: { token: hunter2, adress: x }",
            "secret: 'hunter2",
            "slack: { url: https://hooks.example.com/services/T0/B0/hunter2, o: 1 }",
            "topic: hunter2",
        ] {
            assert!(!shown(line).contains("hunter2"), "{}", shown(line));
        }
        assert!(shown("admin: { token: hunter2, adress: x }").contains("*******, adress: x"));
        assert!(shown("  apiTokenFile: token.txt").contains("token.txt"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let shown = format!("{:#}", Problem::new("a", at(1, 5001, 4), &line, "m"));
        let lines: Vec<&str> = shown.lines().collect();
        let start = lines[1].find("HERE").unwrap();
        assert_eq!(lines[2].find('^'), Some(start));
        assert!(lines[1].len() < 120);
    }

    #[test]
    fn problems_are_sorted_with_the_main_file_first() {
        let problems = vec![
            Problem::new("list", at(1, 1, 1), "", "c"),
            Problem::new("main", at(9, 1, 1), "", "b"),
            Problem::new("main", at(2, 1, 1), "", "a"),
        ];
        let order: Vec<_> = Problems::new("main", problems).found;
        let order: Vec<_> = order.iter().map(Problem::message).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }
}
