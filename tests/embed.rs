//! `examples/embed.rs` does what it says.

#[allow(dead_code, reason = "the example's own `main` is not called")]
#[path = "../examples/embed.rs"]
mod embed;

use std::path::Path;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::record::Position;
use portcullis::service::{FollowedLog, ServeError};

fn run(directory: &Path) -> String {
    let mut out = Vec::new();
    embed::run(directory, &mut out).expect("it runs");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn another_program_follows_edits_and_asks() {
    let directory = tempfile::tempdir().expect("a directory");
    // The second time finds what the first left, and changes nothing.
    for _ in 0..2 {
        let said = run(directory.path());
        let verdicts = "203.0.113.6 Blacklisted\n203.0.113.7 Free\n";
        assert!(said.starts_with(verdicts) && said.ends_with("in 2 rows\n"), "{said}");
    }
}

#[test]
fn it_is_waited_for_a_position_and_no_longer_than_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || FollowedLog::start(&Config::default(), directory.path());
    let followed = start().expect("nobody else is there");
    assert!(followed.wait_for(Position::START, Duration::from_secs(60)), "an empty log is a list, too");
    assert!(!followed.wait_for(Position::new(1), Duration::from_millis(20)), "nothing was appended");
    assert!(matches!(start(), Err(ServeError::Unavailable(_))), "one at a time");
    drop(followed);
    assert!(start().is_ok(), "the directory is free again");
}
