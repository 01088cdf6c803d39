//! Cuts a JSON document into the objects of its lists while it is still arriving, so that a hundred
//! thousand decisions are never in memory as text. What an object means is read by serde_json.

/// Which list an object stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// The document is one list.
    Whole,
    /// Under the key `new`.
    New,
    /// Under the key `deleted`.
    Deleted,
    /// Under another key.
    Other,
}

/// The document is not a list of objects, nor an object of such lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// A cutter for one document.
#[derive(Debug)]
pub(super) struct Pieces {
    /// The object or key being read; a piece may end in a later chunk.
    part: Vec<u8>,
    depth: u32,
    string: bool,
    escaped: bool,
    list: List,
    /// Depth of the objects to hand out: 2 in a list, 3 in a list under a key.
    inside: u32,
    ended: bool,
}

/// No object of LAPI is this long; more is somebody else's answer.
const LONGEST: usize = 1 << 20;

impl Pieces {
    pub(super) fn new() -> Self {
        Self {
            part: Vec::new(),
            depth: 0,
            string: false,
            escaped: false,
            list: List::Whole,
            inside: 0,
            ended: false,
        }
    }

    /// Takes the next bytes and hands out each object that they complete.
    pub(super) fn feed<E: From<NotJson>>(
        &mut self,
        chunk: &[u8],
        mut object: impl FnMut(List, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for byte in chunk {
            let kept = self.inside > 0 && (self.depth >= self.inside || self.is_key());
            if kept {
                self.part.push(*byte);
                if self.part.len() > LONGEST {
                    return Err(NotJson.into());
                }
            }
            if self.string {
                self.inside_string(*byte);
                continue;
            }
            match byte {
                b'"' if self.depth == 0 => return Err(NotJson.into()),
                b'"' => self.open_string(),
                b'{' | b'[' => self.open(*byte)?,
                b'}' | b']' => {
                    let end = self.depth == self.inside;
                    self.depth = self.depth.checked_sub(1).ok_or(NotJson)?;
                    self.ended |= self.depth == 0;
                    if end {
                        object(self.list, &self.part)?;
                        self.part.clear();
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                // `null` in place of a list is an empty one
                b'n' | b'u' | b'l' if self.depth == 0 => self.ended = true,
                _ if self.depth == 0 => return Err(NotJson.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The document is over: was it whole?
    pub(super) fn end(&self) -> Result<(), NotJson> {
        match self.ended && self.depth == 0 && !self.string {
            true => Ok(()),
            false => Err(NotJson),
        }
    }

    /// Between the members of an outer object, whose keys name the lists.
    fn is_key(&self) -> bool {
        self.inside == 3 && self.depth == 1 && self.string
    }

    fn open_string(&mut self) {
        self.string = true;
        if self.inside == 3 && self.depth == 1 {
            self.part.clear();
        }
    }

    fn inside_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                if self.is_key() {
                    self.list = match self.part.as_slice() {
                        b"new\"" => List::New,
                        b"deleted\"" => List::Deleted,
                        _ => List::Other,
                    };
                    self.part.clear();
                }
                self.string = false;
            }
            _ => {}
        }
    }

    fn open(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.depth == 0 {
            if self.ended {
                return Err(NotJson);
            }
            self.inside = if byte == b'[' { 2 } else { 3 };
        }
        self.depth += 1;
        if self.depth == self.inside {
            self.part.clear();
            self.part.push(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, step: usize) -> Result<Vec<(List, String)>, NotJson> {
        let (mut pieces, mut found) = (Pieces::new(), Vec::new());
        for chunk in text.as_bytes().chunks(step) {
            pieces.feed::<NotJson>(chunk, |list, object| {
                found.push((list, String::from_utf8(object.to_vec()).unwrap()));
                Ok(())
            })?;
        }
        pieces.end().map(|()| found)
    }

    #[track_caller]
    fn check(text: &str, expected: &[(List, &str)]) {
        for step in [1, 2, 3, 7, 1000] {
            let found = cut(text, step).expect(text);
            let found: Vec<_> = found.iter().map(|(list, o)| (*list, &**o)).collect();
            assert_eq!(found, expected, "{text} by {step}");
        }
    }

    #[test]
    fn objects_are_cut_out_wherever_chunks_end() {
        use List::{Deleted, New, Other, Whole};
        check(
            r#"{"deleted":[{"id":1}], "new":[{"a":"}]\"{"},{"b":{"c":[1,{}]}}]}"#,
            &[
                (Deleted, r#"{"id":1}"#),
                (New, r#"{"a":"}]\"{"}"#),
                (New, r#"{"b":{"c":[1,{}]}}"#),
            ],
        );
        check(r#"{"deleted":null,"new":null}"#, &[]);
        check(r#"{"links":[{"x":1}],"new":[]}"#, &[(Other, r#"{"x":1}"#)]);
        check(
            r#"[{"id":1},{"id":2}]"#,
            &[(Whole, r#"{"id":1}"#), (Whole, r#"{"id":2}"#)],
        );
        check("null", &[]);
        check("[]\n", &[]);
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_refused() {
        for text in [
            "",
            "{",
            r#"{"new":[{"id":1}"#,
            r#"{"new":[{"id":1}]"#,
            r#"[{"a":"x"#,
            "<html></html>",
            "\"text\"",
            "]",
            "[] []",
        ] {
            for step in [1, 1000] {
                assert_eq!(cut(text, step), Err(NotJson), "{text:?}");
            }
        }
    }
}
