//! Would the simulation notice? Bugs are planted into a copy of the program, one at a time, and each must be
//! found within 500 seeds.
//!
//! A bug is a patch in `tests/planted`. One that no longer fits the code fails this test: make it anew.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test panics where it fails, and tells what it found"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a copy of the program needs to be built and tested.
const PARTS: [&str; 6] = ["Cargo.toml", "Cargo.lock", "src", "tests", "benches", "examples"];
/// How many seeds a bug may take to be found.
const SEEDS_MAX: u64 = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder of ours");
        for entry in fs::read_dir(from).expect("it can be read") {
            let name = entry.expect("it can be read").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).expect("it can be copied");
    }
}

/// Tells the copy from the program: else cargo would take what was built of one for the other.
fn give_another_version(file: &Path) {
    let ours = format!("name = \"portcullis\"\nversion = \"{}\"", env!("CARGO_PKG_VERSION"));
    let text = fs::read_to_string(file).expect("it can be read");
    assert!(text.contains(&ours), "{} does not name the program", file.display());
    let text = text.replace(&ours, "name = \"portcullis\"\nversion = \"0.0.0\"");
    fs::write(file, text).expect("it is ours");
}

/// A copy of the program with a bug in it.
fn planted(patch: &Path) -> PathBuf {
    let copied = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    if copied.exists() {
        fs::remove_dir_all(&copied).expect("a folder of ours");
    }
    fs::create_dir_all(&copied).expect("a folder of ours");
    PARTS.iter().for_each(|part| copy(&root().join(part), &copied.join(part)));
    ["Cargo.toml", "Cargo.lock"].iter().for_each(|file| give_another_version(&copied.join(file)));
    let mut apply = Command::new("git");
    // A repository around the copy is none of its business: git would look for the files there.
    apply.args(["apply", "--verbose"]).arg(patch).current_dir(&copied);
    apply.env("GIT_CEILING_DIRECTORIES", env!("CARGO_TARGET_TMPDIR"));
    let applied = apply.output().expect("git is there");
    let said = String::from_utf8_lossy(&applied.stderr);
    let cleanly = applied.status.success() && said.contains("Applied patch");
    assert!(cleanly, "{} no longer fits the code: {said}", patch.display());
    copied
}

/// The seed by which the simulation finds the bug of this copy; none if it does not.
fn found(copied: &Path) -> Option<u64> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["test", "--locked", "--no-default-features", "--test", "simulation", "every_history"])
        .current_dir(copied)
        // What the program depends on is built already.
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside of target"),
        )
        .env("PORTCULLIS_SEEDS", format!("0..{SEEDS_MAX}"))
        .env_remove("PORTCULLIS_SEED")
        .stdin(Stdio::null());
    let output = command.output().expect("cargo is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "it was not built: {}", String::from_utf8_lossy(&output.stderr));
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("play it by: PORTCULLIS_SEED="));
    let seed = lines.next().and_then(|line| line.split(' ').next());
    assert_eq!(output.status.success(), seed.is_none(), "{said}");
    seed.map(|seed| seed.parse().expect("a number"))
}

#[test]
#[ignore = "builds the program once for each bug"]
fn each_planted_bug_is_found() {
    let patches = fs::read_dir(root().join("tests/planted")).expect("it is there");
    let mut patches: Vec<PathBuf> = patches.map(|entry| entry.expect("it can be read").path()).collect();
    patches.sort();
    assert!(patches.len() >= 5, "{patches:?}");
    for patch in patches {
        let seed = found(&planted(&patch));
        let name = patch.file_stem().expect("a name").to_string_lossy().into_owned();
        let seed = seed.unwrap_or_else(|| panic!("{name} is not found within {SEEDS_MAX} seeds"));
        println!("{name} is found by seed {seed}");
    }
}
