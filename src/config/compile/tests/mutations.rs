//! Damaged files: never a panic, and never a problem without a place.

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

const EXAMPLE: &str = include_str!("../../../../config.example.yaml");

#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Insert(usize, String),
    Delete(usize, usize),
    Swap(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let junk = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "|",
        ">",
        "!x ",
        "\t",
        "\0",
        "#",
        "\n",
        "? ",
        "---\n",
        "%YAML 9\n",
        "é",
        "\u{feff}",
        "${X}",
        "$",
        "9999999999999999999",
        "-1",
        "~",
        "  ",
    ]);
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), junk).prop_map(|(at, text)| Damage::Insert(at, text.to_owned())),
        (any::<usize>(), 1..40usize).prop_map(|(at, len)| Damage::Delete(at, len)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Damage::Swap(a, b)),
    ]
}

fn apply(text: &mut Vec<char>, damage: &Damage) {
    let len = text.len().max(1);
    match damage {
        Damage::Cut(at) => text.truncate(at % len),
        Damage::Insert(at, junk) => {
            let at = at % len;
            text.splice(at.min(text.len())..at.min(text.len()), junk.chars());
        }
        Damage::Delete(at, count) => {
            let from = (at % len).min(text.len());
            let to = (from + count).min(text.len());
            text.drain(from..to);
        }
        Damage::Swap(a, b) if !text.is_empty() => text.swap(a % len, b % len),
        Damage::Swap(..) => {}
    }
}

/// Seeded, so that every run tries the same thousand files.
#[test]
fn a_thousand_damaged_files_give_placed_errors_or_load() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Runs::with_cases(1000), rng);
    // Damage to a line of comment does no harm.
    let is_said = |line: &&str| !line.trim_start().starts_with('#');
    let said: Vec<&str> = EXAMPLE.lines().filter(is_said).collect();
    let said: Vec<char> = said.join("\n").chars().collect();
    let mut broken = 0;
    for _ in 0..1000 {
        let damages = vec(damage(), 1..4).new_tree(&mut runner).unwrap().current();
        let mut text = said.clone();
        damages.iter().for_each(|damage| apply(&mut text, damage));
        let text: String = text.into_iter().collect();
        let Err(problems) = load(&text) else { continue };
        broken += 1;
        assert!(!problems.is_empty(), "{damages:?}");
        for problem in problems.iter() {
            let lines = text.lines().count() as u32 + 1;
            let at = problem.at();
            let whole = problem.message() == "the file says nothing";
            assert!(
                whole || (1..=lines).contains(&at.line),
                "{problem} {damages:?}"
            );
            assert!(whole || at.col >= 1, "{problem} {damages:?}");
        }
    }
    assert!(
        broken > 300,
        "only {broken} of 1000 damaged files were refused"
    );
}

#[test]
fn bytes_that_are_no_text_have_a_place_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("j.yaml");
    std::fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
    let problems = Config::load(&file).unwrap_err().to_string();
    assert!(
        problems.contains("j.yaml:2:4: this byte is no UTF-8"),
        "{problems}"
    );
    let problems = Config::load(&dir.path().join("none.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        problems.ends_with("none.yaml: No such file or directory\n"),
        "{problems}"
    );
    assert!(Config::load(dir.path()).is_err());
}
