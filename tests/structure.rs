//! The layout that ARCHITECTURE.md promises, checked: knowledge flows one way, and each foreign crate that
//! shapes a part of the code is named in that part only.

#![allow(clippy::panic, reason = "a file that is not as expected fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the ground up: a file may use what stands before its own room, and its own room.
const ROOMS: [&str; 27] = [
    "record",
    "address",
    "command",
    "table",
    "blacklist",
    "view",
    "snapshot",
    "status",
    "served",
    "log",
    "backoff",
    "unanswered",
    "check",
    "ends",
    "topic_settings",
    "feed",
    "follower",
    "projector",
    "replay",
    "verify",
    "priority",
    "http",
    "config",
    "service",
    "cli",
    "main",
    "lib",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("the sources are there")
        .map(|entry| entry.expect("it can be read").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The room that a file belongs to: the first part of its path.
fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("a file of ours");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A file's code without its tests, comments and texts, which may name anything.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("it can be read");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The names behind `crate::` and `portcullis::` in a file. Each must be a room: a list in braces is not
/// read, and so not allowed.
fn rooms_used(code: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let after = |mark: &str| code.split(mark).skip(1).map(name).collect::<Vec<_>>();
    [after("crate::"), after("portcullis::")].concat()
}

/// Rooms that must not know each other, though the order would allow it.
const STRANGERS: [(&str, &[&str]); 3] = [
    ("log", &["address", "command", "table", "blacklist", "view", "snapshot", "status", "served"]),
    ("snapshot", &["log", "command"]),
    ("feed", &["blacklist", "served", "snapshot"]),
];

#[test]
fn every_file_imports_downwards_only() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    for path in sources(&root()) {
        let room = room_of(&path);
        let here = place(&room).unwrap_or_else(|| panic!("{} stands in no known room", path.display()));
        for used in rooms_used(&code_of(&path)) {
            let there = place(&used).unwrap_or_else(|| panic!("{}: `{used}` is no room", path.display()));
            let strange = STRANGERS.iter().any(|(from, to)| *from == room && to.contains(&used.as_str()));
            assert!(!strange, "{} must know nothing of {used}", path.display());
            assert!(there <= here, "{} uses {used}, which stands above it", path.display());
        }
    }
}

#[test]
fn a_crate_that_shapes_a_part_is_named_in_that_part_only() {
    let homes = [
        ("hyper", &["http"][..]),
        ("http_body_util", &["http"]),
        ("redb", &["log"]),
        ("rdkafka", &["log"]),
        ("arc_swap", &["snapshot", "status"]),
        ("clap", &["cli", "main"]),
        ("toml", &["config"]),
    ];
    for path in sources(&root()) {
        let (room, code) = (room_of(&path), code_of(&path));
        for (name, rooms) in homes {
            let named = code.contains(&format!("{name}::")) || code.contains(&format!("use {name};"));
            assert!(!named || rooms.contains(&room.as_str()), "{} names {name}", path.display());
        }
    }
}

/// The parts that only compute: no I/O, no thread, no clock of their own.
#[test]
fn the_core_and_the_state_machines_touch_nothing_outside() {
    let below_http = ROOMS.iter().take_while(|room| **room != "http");
    // A log keeps records somewhere, and that takes files, threads and clocks.
    let pure: Vec<&str> = below_http.copied().filter(|room| *room != "log").collect();
    let outside = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "std::process",
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "tracing::",
    ];
    for path in sources(&root()).iter().filter(|path| pure.contains(&room_of(path).as_str())) {
        let code = code_of(path);
        for word in outside {
            assert!(!code.contains(word), "{} uses {word}", path.display());
        }
    }
}
