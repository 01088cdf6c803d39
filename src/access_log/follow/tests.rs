//! Rotation, truncation and restarts under a seeded writer: every line exactly once.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    Checkpoints, Follower, Line,
    reader::{FileId, MAX_LINE},
};
use crate::time::Millis;

/// A log with a writer and a follower, and every numbered line that came through.
struct Bench {
    dir: TempDir,
    pattern: PathBuf,
    writer: File,
    follower: Follower,
    written: u32,
    seen: Vec<u8>,
    odd: Vec<String>,
    too_long: usize,
    now: Millis,
    rotations: usize,
}

impl Bench {
    fn new(pattern: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let writer = append(&dir.path().join("access.log"));
        let pattern = dir.path().join(pattern);
        let follower = Follower::new(pattern.clone(), Checkpoints::new());
        Self {
            dir,
            pattern,
            writer,
            follower,
            written: 0,
            seen: Vec::new(),
            odd: Vec::new(),
            too_long: 0,
            now: 1_000_000,
            rotations: 0,
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn write(&mut self, lines: u32) {
        let mut text = String::new();
        for _ in 0..lines {
            text.push_str(&format!(
                "line {:08} of a log that is followed\n",
                self.written
            ));
            self.written += 1;
        }
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    /// One step of reading.
    fn pump_once(&mut self) -> bool {
        let Self {
            follower,
            seen,
            odd,
            too_long,
            now,
            ..
        } = self;
        *now += 10;
        follower
            .pump(*now, &mut |line| match line {
                Line::Whole(line) => note(line, seen, odd),
                Line::TooLong(_) => *too_long += 1,
            })
            .more
    }

    fn pump(&mut self) {
        while self.pump_once() {}
    }

    /// logrotate's default: the writer goes on in the old file until it reopens.
    fn rename(&mut self, late_lines: u32) {
        self.shift();
        fs::rename(self.log(), self.dir.path().join("access.log.1")).unwrap();
        self.write(late_lines);
        self.writer = append(&self.log());
    }

    fn copytruncate(&mut self) {
        self.shift();
        fs::copy(self.log(), self.dir.path().join("access.log.1")).unwrap();
        self.writer.set_len(0).unwrap();
    }

    fn shift(&mut self) {
        self.rotations += 1;
        for n in (1..20).rev() {
            let from = self.dir.path().join(format!("access.log.{n}"));
            if from.exists() {
                fs::rename(from, self.dir.path().join(format!("access.log.{}", n + 1))).unwrap();
            }
        }
        let _ = fs::remove_file(self.dir.path().join("access.log.20"));
    }

    /// The process ends and begins again, with what it saved.
    fn restart(&mut self) {
        let kept = Checkpoints::new();
        kept.restore(self.follower.checkpoints().all());
        self.follower = Follower::new(self.pattern.clone(), kept);
    }

    #[track_caller]
    fn check(&self) {
        let lost = (0..self.written).filter(|n| self.seen.get(*n as usize) != Some(&1));
        let lost: Vec<_> = lost.take(5).collect();
        let total: usize = self.seen.iter().map(|times| usize::from(*times)).sum();
        assert_eq!(
            (total, &lost),
            (self.written as usize, &vec![]),
            "after {} rotations",
            self.rotations
        );
        assert_eq!(self.odd, Vec::<String>::new());
    }
}

fn note(line: &[u8], seen: &mut Vec<u8>, odd: &mut Vec<String>) {
    let number = std::str::from_utf8(line)
        .ok()
        .and_then(|line| {
            line.strip_prefix("line ")?
                .strip_suffix(" of a log that is followed")
        })
        .and_then(|number| number.parse::<usize>().ok());
    match number {
        Some(number) => {
            seen.resize(seen.len().max(number + 1), 0);
            seen[number] += 1;
        }
        None => odd.push(String::from_utf8_lossy(line).into_owned()),
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// A small generator: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// 50 rotations, by rename and by copytruncate, and restarts in all places between.
fn storm(seed: u64, lines: u32, pattern: &str) {
    let mut bench = Bench::new(pattern);
    let mut dice = Dice(seed);
    bench.pump();
    let per_round = lines / 50;
    while bench.rotations < 50 {
        let mut left = per_round;
        while left > 0 {
            let some = (dice.roll(u64::from(per_round)) as u32 / 4 + 1).min(left);
            bench.write(some);
            left -= some;
            match dice.roll(4) {
                0 => bench.pump(),
                1 => {
                    bench.pump_once();
                }
                _ => {}
            }
        }
        if dice.roll(3) == 0 {
            bench.restart();
        }
        match dice.roll(2) {
            0 => bench.rename(dice.roll(50) as u32),
            _ => bench.copytruncate(),
        }
        match dice.roll(6) {
            0 => bench.restart(),
            1 | 2 => bench.pump(),
            3 => {
                bench.pump_once();
            }
            _ => {}
        }
    }
    bench.pump();
    bench.check();
    assert!(bench.written >= lines);
}

#[test]
fn fifty_rotations_lose_and_double_nothing() {
    storm(0x5EED, 1_000_000, "access.log");
}

#[test]
fn many_seeds_lose_and_double_nothing() {
    for seed in 1..=12 {
        storm(seed * 7919, 5_000, "access.log");
    }
}

#[test]
fn a_glob_that_matches_rotated_files_reads_each_line_once() {
    for seed in 1..=6 {
        storm(seed * 104_729, 5_000, "access.log*");
    }
}

#[test]
fn the_first_start_reads_the_whole_file_but_no_older_sibling() {
    let mut bench = Bench::new("access.log");
    fs::write(
        bench.dir.path().join("access.log.1"),
        "something from long ago\n",
    )
    .unwrap();
    bench.write(10);
    bench.pump();
    bench.check();
    bench.rename(0);
    bench.write(3);
    bench.pump();
    bench.check();
}

#[test]
fn a_file_that_comes_late_goes_away_and_comes_back() {
    let mut bench = Bench::new("access.log");
    fs::remove_file(bench.log()).unwrap();
    bench.pump();
    bench.writer = append(&bench.log());
    bench.write(5);
    bench.pump();
    fs::remove_file(bench.log()).unwrap();
    bench.write(5); // into the deleted file, which is still open on both sides
    bench.pump();
    bench.writer = append(&bench.log());
    bench.write(5);
    bench.pump();
    bench.check();
}

#[test]
fn an_inode_used_again_is_a_new_file() {
    let mut bench = Bench::new("access.log");
    bench.write(100);
    bench.pump();
    bench.restart();
    // The same inode with other content, at least as long as what was read.
    bench.writer.set_len(0).unwrap();
    bench.write(200);
    bench.pump();
    bench.check();
}

#[test]
fn half_a_line_waits_for_its_other_half_also_over_a_restart() {
    let mut bench = Bench::new("access.log");
    bench.write(1);
    bench.writer.write_all(b"line 00000001 of a log").unwrap();
    bench.pump();
    assert_eq!(bench.seen, [1]);
    bench.restart();
    bench.pump();
    assert_eq!(bench.seen, [1]);
    bench.writer.write_all(b" that is followed\n").unwrap();
    bench.written = 2;
    bench.pump();
    bench.check();
}

#[test]
fn an_endless_line_is_skipped_and_its_end_is_never_taken_for_a_line() {
    let mut bench = Bench::new("access.log");
    bench.write(1);
    let long = "x".repeat(MAX_LINE + (3 << 20));
    bench.writer.write_all(long.as_bytes()).unwrap();
    bench.pump();
    bench.restart();
    bench.pump();
    bench
        .writer
        .write_all(b"line 99999999 of a log that is followed\n")
        .unwrap();
    bench.write(1);
    bench
        .writer
        .write_all(&[b"y".repeat(MAX_LINE + 1), b"\n".to_vec()].concat())
        .unwrap();
    bench.write(1);
    bench.pump();
    bench.check();
    assert_eq!(
        bench.too_long, 3,
        "the first one twice: it was not over at the restart"
    );
}

#[test]
fn a_file_moved_away_is_let_go_after_a_minute_of_silence() {
    let mut bench = Bench::new("access.log");
    bench.write(3);
    bench.pump();
    bench.rename(2);
    bench.pump();
    assert_eq!(open(&bench).len(), 2);
    bench.now += 61_000;
    bench.pump();
    assert_eq!(open(&bench).len(), 1);
    bench.check();
}

fn open(bench: &Bench) -> Vec<FileId> {
    bench.follower.open_files()
}
