//! What the documents show works as typed: every jailgate configuration in them compiles without
//! a warning. A block is one when its first line says `# jailgate.yaml`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jailgate::config::Config;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs")).expect("docs is there") {
        found.push(entry.expect("it is readable").path());
    }
    found.retain(|path| path.extension().is_some_and(|suffix| suffix == "md"));
    found
}

/// The blocks of a document with the line each begins on.
fn configurations(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None if line == "```yaml" => open = Some((index + 1, String::new())),
            Some(_) if line == "```" => found.extend(open.take()),
            Some((_, block)) => *block += &format!("{line}\n"),
            None => {}
        }
    }
    found.retain(|(_, block)| block.starts_with("# jailgate.yaml"));
    found
}

fn has(block: &str, key: &str) -> bool {
    block.contains(&format!("\n{key}:"))
}

/// Its warnings.
fn odd(config: &Config) -> Vec<String> {
    let warnings = config.warnings.iter().map(|warning| warning.message());
    warnings.map(str::to_owned).collect()
}

/// A block that shows one part only gets a listener, without which there is nothing to run.
fn whole(block: &str) -> String {
    let mut block = block.to_owned();
    if !has(&block, "entryPoints") && !has(&block, "forwardAuth") {
        block += "entryPoints: { shown: { address: \"127.0.0.1:0\" } }\n";
    }
    if !has(&block, "routes") && has(&block, "entryPoints") {
        block += "routes: [{ service: whoami@internal, jails: [web] }]\n";
    }
    if !has(&block, "jails") {
        block += "jails: { web: { rules: { statuscode: 401 } } }\n";
    }
    block
}

/// Where the documents say `/etc/jailgate`: a certificate with its key, and tokens.
fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).expect("keys");
    fs::write(dir.path().join("tls.crt"), made.cert.pem()).expect("it is writable");
    fs::write(dir.path().join("tls.key"), made.signing_key.serialize_pem()).expect("it is too");
    for name in ["token", "read-token"] {
        let token = format!("0123456789abcdef0123456789abcdef-{name}");
        fs::write(dir.path().join(name), token).expect("and so are these");
    }
    dir
}

#[test]
fn every_configuration_shown_compiles() {
    let dir = certificates();
    let etc = format!("{}/", dir.path().display());
    let mut shown = 0;
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("it is UTF-8");
        for (line, block) in configurations(&text) {
            shown += 1;
            let file = dir.path().join("jailgate.yaml");
            let block = whole(&block).replace("/etc/jailgate/", &etc);
            fs::write(&file, block).expect("it is writable");
            let place = format!("{}:{line}", document.display());
            match Config::load(&file) {
                Err(problems) => broken.push(format!("{place}\n{problems:#}")),
                Ok(config) if odd(&config).is_empty() => {}
                Ok(config) => broken.push(format!("{place}\n{:?}", odd(&config))),
            }
        }
    }
    assert!(shown >= 8, "only {shown} blocks were found");
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// The `config` of the Helm chart's values.
fn chart() -> String {
    let values = root().join("contrib/helm/jailgate/values.yaml");
    let values = fs::read_to_string(values).expect("it is there");
    let config = values.lines().skip_while(|line| *line != "config:").skip(1);
    let config = config.take_while(|line| line.starts_with("  "));
    config.map(|line| format!("{}\n", &line[2..])).collect()
}

#[test]
fn the_configurations_for_kubernetes_compile() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["admin-token", "read-token", "otlp-token"] {
        let token = format!("0123456789abcdef0123456789abcdef-{name}");
        fs::write(dir.path().join(name), token).expect("written");
    }
    let plain = root().join("contrib/kubernetes/jailgate.yaml");
    let plain = fs::read_to_string(plain).expect("it is there");
    let secrets = dir.path().display().to_string();
    for text in [plain, chart()] {
        assert!(text.contains("/etc/jailgate-secrets/otlp-token"), "{text}");
        let file = dir.path().join("jailgate.yaml");
        let text = text.replace("/etc/jailgate-secrets", &secrets);
        fs::write(&file, text).expect("it is writable");
        let config = Config::load(&file).unwrap_or_else(|problems| panic!("{problems:#}"));
        assert_eq!(odd(&config), [""; 0]);
    }
}

#[test]
fn the_files_of_demo_and_compose_compile() {
    for file in ["demo/jailgate.yaml", "compose/jailgate/jailgate.yaml"] {
        let config = Config::load(Path::new(&root().join(file)));
        let config = config.unwrap_or_else(|problems| panic!("{problems:#}"));
        assert_eq!(odd(&config), [""; 0], "{file}");
    }
}
