//! The gate from outside, in one process: raw bytes in, raw bytes out. Real peers (nginx, curl,
//! h2load) are in `tests/it`.

mod closing;
mod drain;
mod forward_auth;
mod h2;
mod limits;
mod long;
mod protocols;
mod raw;
mod smuggling;
pub mod support;
