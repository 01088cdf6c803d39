//! URL rules: every pattern in one pass, on the raw and the canonical path, in Go's dialect.

/// Compiled `urlregexps` of one jail.
#[derive(Debug, Default)]
pub struct UrlRules {}

/// `mode` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ban and deny.
    Block,
    /// Pass, uncounted, open even to the banned.
    Allow,
}

/// Why a pattern cannot be taken; the index says which of the given rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadPattern {
    /// Position in the input.
    pub index: usize,
    /// What is wrong, in words for the configuration's author.
    pub message: String,
}

impl UrlRules {
    /// Compiles rules written in Go's RE2 dialect; every bad one is reported.
    pub fn compile(_rules: &[(String, Mode)]) -> Result<Self, Vec<BadPattern>> {
        todo!()
    }
}

/// Translates one pattern from Go's dialect to the `regex` crate's (see the table in README).
pub fn from_go(_pattern: &str) -> Result<String, String> {
    todo!()
}
