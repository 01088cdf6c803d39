//! What of a changed configuration only a restart applies.

use super::super::{Address, Config};

impl Config {
    /// Keys that differ and that only a restart applies: sockets, the database and the shape of
    /// the log. Everything else is swapped while running, certificates too.
    pub fn needs_restart(old: &Self, new: &Self) -> Vec<String> {
        let (before, after) = (old.sockets(), new.sockets());
        let mut keys: Vec<String> = Vec::new();
        for (key, socket) in &after {
            match before.iter().find(|(other, _)| other == key) {
                None => keys.push(key.clone()),
                Some((_, was)) if was != socket => keys.push(format!("{key}.address")),
                Some(_) => {}
            }
        }
        let gone = before
            .iter()
            .filter(|(key, _)| after.iter().all(|(other, _)| other != key));
        keys.extend(gone.map(|(key, _)| key.clone()));
        for (key, differs) in [
            ("state", old.state != new.state),
            ("log.format", old.log.json != new.log.json),
        ] {
            if differs {
                keys.push(key.to_owned());
            }
        }
        keys
    }

    /// Every listener: its key and its address.
    fn sockets(&self) -> Vec<(String, &Address)> {
        let entries = self.entry_points.iter();
        let entries = entries.map(|e| (format!("entryPoints.{}", e.name), &e.address));
        let auth = self.forward_auth.iter();
        let auth = auth.map(|auth| ("forwardAuth".to_owned(), &auth.address));
        let otlp = self
            .otlp
            .iter()
            .map(|otlp| ("otlp".to_owned(), &otlp.address));
        let admin = ("admin".to_owned(), &self.admin.address);
        entries.chain(auth).chain(otlp).chain([admin]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let base = std::path::PathBuf::from("/etc/jailgate");
        super::super::super::compile::compile(text, "t", base, &|_| None).unwrap()
    }

    #[test]
    fn sockets_need_a_restart_and_rules_do_not() {
        let old = "
entryPoints: { a: { address: :1 }, b: { address: :2 }, c: { address: :3 } }
jails: { default: { rules: { maxretry: 3 } } }
";
        let new = "
entryPoints: { a: { address: :1, tls: { selfSigned: true } }, b: { address: :4 },
  d: { address: :3 }, e: { address: :5 } }
jails: { default: { rules: { maxretry: 4 } }, other: {} }
log: { level: debug, format: json, access: stdout }
";
        let (old, new) = (config(old), config(new));
        let keys = Config::needs_restart(&old, &new);
        let expected = [
            "entryPoints.b.address",
            "entryPoints.d",
            "entryPoints.e",
            "entryPoints.c",
            "log.format",
        ];
        assert_eq!(keys, expected);
        assert!(Config::needs_restart(&new, &new).is_empty());
    }
}
