//! jailgate: counts failures and bans, as a reverse proxy or a forwardAuth target.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod cli;
pub mod cloudflare;
pub mod config;
pub mod crowdsec;
pub mod directories;
pub mod engine;
pub mod gate;
pub mod notify;
pub mod persist;
pub mod proxy;
pub mod tasks;
pub mod telemetry;
pub mod time;
