//! Notices that a file of the configuration changed and has been written to its end, and says what
//! of a change only a restart applies. Loading and swapping are the caller's.

use std::path::PathBuf;

use super::{Address, Config, Tls};
use crate::tasks::Tasks;

/// Tells when one of the followed files changed.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Follows these files (`Config::watched`) from their present state on.
    pub fn start(_tasks: &Tasks, _files: Vec<PathBuf>) -> Self {
        todo!()
    }

    /// Follows other files from now on: call it after each load.
    pub fn follow(&self, _files: Vec<PathBuf>) {
        todo!()
    }

    /// Resolves when a followed file has changed and lies still; safe to drop and call again.
    pub async fn changed(&mut self) {
        todo!()
    }
}

impl Config {
    /// Keys that differ and that only a restart applies: sockets, whether they speak TLS, the
    /// database, and where the log goes. Everything else may be swapped while running.
    pub fn needs_restart(old: &Self, new: &Self) -> Vec<String> {
        let (before, after) = (old.sockets(), new.sockets());
        let mut keys: Vec<String> = Vec::new();
        for (key, socket) in &after {
            match before.iter().find(|(other, _)| other == key) {
                None => keys.push(key.clone()),
                Some((_, was)) if was.0 != socket.0 => keys.push(format!("{key}.address")),
                Some((_, was)) if was.1 != socket.1 => keys.push(format!("{key}.tls")),
                Some(_) => {}
            }
        }
        let gone = before
            .iter()
            .filter(|(key, _)| after.iter().all(|(other, _)| other != key));
        keys.extend(gone.map(|(key, _)| key.clone()));
        for (key, differs) in [
            ("state.path", old.state != new.state),
            ("log.format", old.log.json != new.log.json),
            ("log.access", old.log.access != new.log.access),
        ] {
            if differs {
                keys.push(key.to_owned());
            }
        }
        keys
    }

    /// Every listener: its key, its address, and how it speaks TLS.
    fn sockets(&self) -> Vec<(String, (&Address, Option<&Tls>))> {
        let entries = self.entry_points.iter().map(|entry| {
            (
                format!("entryPoints.{}", entry.name),
                (&entry.address, entry.tls.as_ref()),
            )
        });
        let auth = self.forward_auth.iter();
        let auth = auth.map(|auth| ("forwardAuth".to_owned(), (&auth.address, auth.tls.as_ref())));
        let otlp = self
            .otlp
            .iter()
            .map(|otlp| ("otlp".to_owned(), (&otlp.address, None)));
        let admin = ("admin".to_owned(), (&self.admin.address, None));
        entries.chain(auth).chain(otlp).chain([admin]).collect()
    }
}
