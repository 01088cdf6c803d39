//! `jailgate proxy` and the embedded example: configurations without a file of their own.

use std::path::{Path, PathBuf};

use super::{Config, Problem, Problems, compile::compile};

/// The example as it stands in the repository.
const EXAMPLE: &str = include_str!("../../config.example.yaml");

/// Statuses that `jailgate proxy` counts when told none: with the jail's own default, every
/// request, the fifth page view would ban its reader.
const STATUSES: &str = "400,401,403-499";

/// What `jailgate proxy` was told on the command line, each as its option's text.
#[derive(Clone, Debug, Default)]
pub struct ProxyFlags {
    /// `--to`: the upstream's URL.
    pub to: String,
    /// `--listen`; `:8080` by default.
    pub listen: Option<String>,
    /// `--maxretry`.
    pub maxretry: Option<String>,
    /// `--findtime`.
    pub findtime: Option<String>,
    /// `--bantime`.
    pub bantime: Option<String>,
    /// `--statuscode`; `400,401,403-499` by default.
    pub statuscode: Option<String>,
    /// `--trusted`: peers whose `X-Forwarded-For` is believed, each one value or several by commas.
    pub trusted: Vec<String>,
}

impl Config {
    /// One upstream, one jail `default`, state in memory. Problems name the option.
    pub fn for_proxy(flags: &ProxyFlags) -> Result<Self, Problems> {
        let (text, options) = document(flags);
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let mut config = compile(&text, "jailgate proxy", base, &|_| None).map_err(|problems| {
            let named = |problem: &Problem| {
                let line = problem.at().line as usize;
                let option = options
                    .get(line.wrapping_sub(1))
                    .copied()
                    .unwrap_or("proxy");
                let message = problem.message().replace("jails.default.rules.", "");
                Problem::whole(Path::new(option), message)
            };
            Problems::new("", problems.iter().map(named).collect())
        })?;
        config.warnings.clear();
        Ok(config)
    }

    /// `config.example.yaml` as it is embedded; relative paths start at the working directory.
    pub fn example() -> Self {
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        compile(EXAMPLE, "config.example.yaml", base, &|_| None)
            .expect("a test compiles the embedded example")
    }
}

/// The same as a document, and for each of its lines the option it came from.
fn document(flags: &ProxyFlags) -> (String, Vec<&'static str>) {
    let (mut text, mut options) = (String::new(), Vec::new());
    let mut line = |option, line: String| {
        text.push_str(&line);
        text.push('\n');
        options.push(option);
    };
    let value = |text: &str| serde_json::Value::from(text.replace('$', "$$")).to_string();
    let listen = flags.listen.as_deref().unwrap_or(":8080");
    line("--listen", "entryPoints: { web: {".to_owned());
    line("--listen", format!(" address: {},", value(listen)));
    let trusted = value(&flags.trusted.join(","));
    line(
        "--trusted",
        format!(" forwardedHeaders: {{ trustedIPs: {trusted} }} }} }}"),
    );
    line(
        "--to",
        format!(
            "services: {{ upstream: {{ servers: [{{ url: {} }}] }} }}",
            value(&flags.to)
        ),
    );
    line("--to", "routes: [{ service: upstream }]".to_owned());
    line("--statuscode", "jails: { default: { rules: {".to_owned());
    for (option, key, flag) in [
        ("--maxretry", "maxretry", &flags.maxretry),
        ("--findtime", "findtime", &flags.findtime),
        ("--bantime", "bantime", &flags.bantime),
    ] {
        if let Some(flag) = flag {
            line(option, format!(" {key}: {},", value(flag)));
        }
    }
    let statuses = flags.statuscode.as_deref().unwrap_or(STATUSES);
    line(
        "--statuscode",
        format!(" statuscode: {} }} }} }}", value(statuses)),
    );
    line("--to", "state: { path: \"\" }".to_owned());
    (text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(to: &str) -> ProxyFlags {
        ProxyFlags {
            to: to.to_owned(),
            ..ProxyFlags::default()
        }
    }

    #[test]
    fn one_upstream_one_jail_and_nothing_on_disk() {
        let config = Config::for_proxy(&ProxyFlags {
            listen: Some("127.0.0.1:0".into()),
            maxretry: Some("3".into()),
            findtime: Some("1m".into()),
            bantime: Some("1day".into()),
            trusted: vec!["10.0.0.0/8".into(), "::1".into()],
            ..flags("http://127.0.0.1:3000/base/")
        })
        .unwrap();
        let jail = &config.jails[0].spec;
        assert_eq!(
            (&*jail.name, jail.maxretry, jail.bantime.as_secs()),
            ("default", 3, 86_400)
        );
        assert_eq!(jail.statuses, [400..=400, 401..=401, 403..=499]);
        assert_eq!(*config.routes[0].jails, ["default".into()]);
        assert_eq!(&*config.services[0].servers[0].base_path, "/base");
        let trusted = &config.entry_points[0].forwarded_trusted;
        assert!(trusted.contains([10, 1, 2, 3].into()));
        assert_eq!(
            (config.state, config.file, config.warnings),
            (None, None, Vec::new())
        );
    }

    #[test]
    fn mistakes_name_their_option() {
        let wrong = ProxyFlags {
            maxretry: Some("many".into()),
            findtime: Some("soon".into()),
            statuscode: Some("4xx".into()),
            trusted: vec!["localhost".into()],
            ..flags("127.0.0.1:3000")
        };
        insta::assert_snapshot!(Config::for_proxy(&wrong).unwrap_err(), @r"
        --findtime: `findtime`: `soon` is no duration; write `90s`, `10m`, `1h30m`, `1day 2h` or seconds
        --maxretry: `maxretry` must be a whole number, not `many`
        --statuscode: `4xx` is neither a status nor a range; write `400-499`
        --to: `127.0.0.1:3000` is no server URL; write it like `http://host:port`, `https://…`, `h2c://…` or `unix:/path`
        --trusted: `localhost` is no IP address or CIDR; write `127.0.0.1` and `::1`
        ");
    }

    #[test]
    fn the_embedded_example_compiles() {
        let config = Config::example();
        assert_eq!(&*config.routes[0].service, "whoami@internal");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
