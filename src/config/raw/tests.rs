//! What the tree holds and what is refused.

use std::fmt::Write;

use super::*;

fn read(text: &str) -> (Option<Arc<Node>>, Vec<String>) {
    let mut problems = Vec::new();
    let tree = parse(text, &mut |at, message| {
        problems.push(format!("{}:{}: {message}", at.line, at.col));
    });
    (tree, problems)
}

fn flat(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, plain: true } => text.clone(),
        Value::Scalar { text, .. } => format!("{text:?}"),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| flat(item)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(entries) => {
            let mut out = String::from("{");
            for e in entries {
                let _ = write!(
                    out,
                    "{}@{}:{}={} ",
                    e.key,
                    e.at.line,
                    e.at.col,
                    flat(&e.value)
                );
            }
            format!("{}}}", out.trim_end())
        }
    }
}

#[track_caller]
fn reads(text: &str, tree: &str, problems: &[&str]) {
    let (node, found) = read(text);
    assert_eq!(found, problems);
    assert_eq!(node.map_or("none".to_owned(), |node| flat(&node)), tree);
}

#[test]
fn keys_and_values_know_their_places_and_their_quotes() {
    reads(
        "a: 1\nb:\n  c: \"1\"\n  d: [x, ~]\n",
        "{a@1:1=1 b@2:1={c@3:3=\"1\" d@4:3=[x null]}}",
        &[],
    );
    reads("", "null", &[]);
    reads("# only a comment\n", "null", &[]);
    reads("\u{feff}a: 1\r\nb: 2\r\n", "{a@1:1=1 b@2:1=2}", &[]);
}

#[test]
fn anchors_and_merges_work_and_own_keys_win() {
    reads(
        "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n",
        "{base@1:1={x@1:11=1 y@1:17=2} use@2:1={y@4:3=3 x@1:11=1}}",
        &[],
    );
    reads(
        "a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}\n",
        "{a@1:1={x@1:8=1} b@2:1={x@2:8=2 z@2:14=3} c@3:1={x@1:8=1 z@2:14=3}}",
        &[],
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    reads(
        "a: 1\nb: 2\na: 3\n",
        "{a@1:1=1 b@2:1=2}",
        &["3:1: duplicate key `a`, first on line 1"],
    );
    reads(
        "a: 1\n---\nb: 2\n",
        "none",
        &["2:1: a second document; one file is one document"],
    );
    reads(
        "? [a, b]\n: 1\nc: 2\n",
        "{c@3:1=2}",
        &["1:3: a key must be a single word"],
    );
    reads(
        "a: !include b.yaml\n",
        "{a@1:1=b.yaml}",
        &["1:13: tags such as `!include` are not supported"],
    );
    reads(
        "a: &x [*x]\n",
        "none",
        &["1:8: an alias inside the value that it names"],
    );
    reads(
        "c: {<<: 5}\n",
        "{c@1:1={}}",
        &["1:9: `<<` merges blocks of keys only"],
    );
    let (tree, problems) = read("a: [1, 2\nb: 3\n");
    assert!(tree.is_none() && problems.len() == 1, "{problems:?}");
    let (tree, problems) = read("a: *nobody\n");
    assert!(
        tree.is_none() && problems[0].starts_with("1:4: "),
        "{problems:?}"
    );
}

#[test]
fn hostile_files_are_refused_cheaply() {
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..20 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        let _ = writeln!(laughs, "a{i}: &a{i} [{refs}]");
    }
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut chain = String::from("a0: &a0 [x]\n");
    for i in 1..100_000 {
        let _ = writeln!(chain, "a{i}: &a{i} [*a{}]", i - 1);
    }
    let mut wide = String::new();
    for i in 0..200 {
        let _ = writeln!(wide, "{}k{i}:", " ".repeat(i));
    }
    let mut merges = String::from("a0: &a0 {");
    for i in 0..2000 {
        let _ = write!(merges, "k{i}: 1, ");
    }
    merges.push_str("}\n");
    for i in 1..1000 {
        let _ = writeln!(merges, "a{i}: {{<<: *a0}}");
    }
    for text in [laughs, deep, chain, wide, merges, "x".repeat(MAX_BYTES + 1)] {
        let (tree, problems) = read(&text);
        assert!(tree.is_none() && problems.len() == 1, "{problems:?}");
    }
}
