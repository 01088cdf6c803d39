//! What the tests start: jailgate itself, real servers, and raw sockets to talk with.

mod cloudflare;
mod flood;
mod lapi;
mod link;
mod origin;
mod peer;
mod program;
mod raw;

pub use cloudflare::{ACCOUNT, Cloudflare, LIST, TOKEN};
pub use flood::Flood;
pub use lapi::{Decision, KEY, Lapi, MACHINE, PASSWORD, tools};
pub use link::{Link, Way};
pub use origin::Origin;
pub use peer::{Peer, free_port};
pub use program::Jailgate;
pub use raw::{Answer, Raw, get, request, send};
