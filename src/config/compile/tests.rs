//! Whole documents in, configurations or every problem out.

mod example;
mod jails;
mod mutations;
mod native;
mod notify;

use super::*;

/// What a working configuration needs beside what a test is about.
const FRAME: &str = "entryPoints: { web: { address: 127.0.0.1:0 } }\nroutes: []\n";

fn load(text: &str) -> Result<Config, Problems> {
    load_in(Path::new("/etc/jailgate"), text)
}

fn load_in(base: &Path, text: &str) -> Result<Config, Problems> {
    let env = |name: &str| match name {
        "PORT" => Some("8443".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    };
    compile(text, "t.yaml", base.to_owned(), &env)
}

/// Problems as `line:col message`.
fn told<'a>(problems: impl Iterator<Item = &'a Problem>) -> Vec<String> {
    let one = |p: &Problem| format!("{}:{} {}", p.at().line, p.at().col, p.message());
    problems.map(one).collect()
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    match load(text) {
        Ok(_) => panic!("it loads: {text}"),
        Err(problems) => assert_eq!(told(problems.iter()), expected, "{text}"),
    }
}

/// It loads, with these warnings.
#[track_caller]
fn odd(text: &str, expected: &[&str]) -> Config {
    match load(text) {
        Ok(config) => {
            assert_eq!(told(config.warnings.iter()), expected, "{text}");
            config
        }
        Err(problems) => panic!("{problems}"),
    }
}

#[track_caller]
fn fine(text: &str) -> Config {
    odd(text, &[])
}

/// A jail `j` with this body, indented by four spaces.
fn with_jail(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    let routes = "routes: [{ service: whoami@internal, jails: [j] }]";
    format!("entryPoints: {{ web: {{ address: :1 }} }}\n{routes}\njails:\n  j:\n{body}")
}
