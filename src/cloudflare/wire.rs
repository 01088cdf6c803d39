//! Cloudflare's JSON, as far as lists need it. Nothing is sent or interpreted here.

use serde::{Deserialize, Serialize};

/// What every answer is wrapped in.
#[derive(Debug, Deserialize)]
pub struct Envelope<T> {
    /// Only then is there a result.
    pub success: bool,
    /// Why not.
    #[serde(default = "Vec::new")]
    pub errors: Vec<Complaint>,
    /// What was asked for.
    pub result: Option<T>,
    /// Where pages go on.
    pub result_info: Option<ResultInfo>,
}

/// One error of an answer.
#[derive(Debug, Deserialize)]
pub struct Complaint {
    /// Cloudflare's number.
    #[serde(default)]
    pub code: u64,
}

/// What comes beside a page.
#[derive(Debug, Deserialize)]
pub struct ResultInfo {
    /// Absent on a page that is the only one.
    pub cursors: Option<Cursors>,
}

/// Neighbouring pages.
#[derive(Debug, Deserialize)]
pub struct Cursors {
    /// The next one; absent or empty at the end.
    pub after: Option<String>,
}

/// A list, without its items.
#[derive(Debug, Deserialize)]
pub struct List {
    /// `ip`, `redirect`, `hostname` or `asn`.
    pub kind: String,
    /// By which rules name it.
    pub name: String,
    /// A count; some schema versions type it as any number.
    #[serde(default)]
    pub num_items: f64,
}

/// One item of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    /// 32 hex characters.
    pub id: String,
    /// In Cloudflare's spelling.
    #[serde(default)]
    pub ip: String,
    /// Free text; it carries our tag.
    pub comment: Option<String>,
}

/// An item to put into a list.
#[derive(Debug, Serialize)]
pub struct NewItem<'a> {
    /// In canonical spelling.
    pub ip: String,
    /// Our tag.
    pub comment: &'a str,
}

/// Items to take out of a list.
#[derive(Debug, Serialize)]
pub struct Removal<'a> {
    /// At least one.
    pub items: Vec<ItemId<'a>>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct ItemId<'a> {
    /// As the list gave it.
    pub id: &'a str,
}

/// The answer to a change: it goes on in the background.
#[derive(Debug, Deserialize)]
pub struct Begun {
    /// To ask after it.
    pub operation_id: String,
}

/// How far a change has come.
#[derive(Debug, Deserialize)]
pub struct Operation {
    /// `pending`, `running`, `completed` or `failed`.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
}
