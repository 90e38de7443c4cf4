//! `portcullis replay` on the embedded log: through the service that has it open, and from its file.

use serde_json::{Value, json};

use super::output::{code, stderr, stdout};
use super::process::{Serving, portcullis};

fn json_of(output: &std::process::Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_str(stdout(output)).expect("JSON")
}

#[test]
fn the_log_comes_to_the_same_through_the_service_and_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let mut serving = Serving::start(folder.path());
    serving.wait_ready();
    for edit in
        [&["blacklist", "203.0.113.0/24"][..], &["whitelist", "203.0.113.7"], &["blacklist", "2001:db8::1"]]
    {
        assert_eq!(code(&serving.run(&[edit, &["--wait"]].concat())), 0);
    }
    let status: Value = serde_json::from_slice(&serving.run(&["status", "--json"]).stdout).expect("JSON");
    let served = json_of(&serving.run(&["replay", "--json"]));
    assert_eq!((&served["position"], &served["rows"]), (&json!(3), &json!({"ipv4": 2, "ipv6": 1})));
    assert_eq!(served["fingerprint"], status["fingerprint"], "what is served");
    assert_eq!(served["addresses"], json!({"ipv4": 255, "ipv6": 1}));
    // The data directory names its service as well.
    assert_eq!(json_of(&portcullis(folder.path(), &["replay", "--data", data, "--json"])), served);

    let first = serving.run(&["replay", "--until", "1"]);
    let said = stdout(&first);
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    for line in [
        "position    1\n",
        "rows        1 IPv4, 0 IPv6\n",
        "addresses   256 IPv4, 0 IPv6\n",
        "began       0\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let time = served["time"].as_str().expect("a time").to_owned();
    let until_last = json_of(&serving.run(&["replay", "--json", "--until", &time]));
    assert_eq!(until_last, served, "the last command is of this time");

    assert_eq!(serving.end("-TERM"), Some(0));
    let from_file = json_of(&portcullis(folder.path(), &["replay", "--json"]));
    assert_eq!(from_file, served);
    assert_eq!(json_of(&portcullis(folder.path(), &["replay", "--json", "--until", "1"]))["position"], 1);
    let begins_again = Serving::start(folder.path());
    begins_again.wait_ready();
}

#[test]
fn what_the_log_does_not_reach_is_bad_input_either_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut serving = Serving::start(folder.path());
    serving.wait_ready();
    assert_eq!(code(&serving.run(&["blacklist", "203.0.113.7", "--wait"])), 0);
    let refused = |output: &std::process::Output, told: &str| {
        let said = stderr(output);
        assert!(code(output) == 2 && said.contains(told) && said.lines().count() == 1, "{said}");
        assert_eq!(stdout(output), "");
    };
    let cases = [
        ("9", "the commands log ends at position 1, before 9"),
        ("2001-01-01T00:00:00Z", "holds nothing up to 2001-01-01T00:00:00.000Z; its first record is of 20"),
    ];
    for (until, told) in cases {
        refused(&serving.run(&["replay", "--until", until]), told);
    }
    // Stopped as it is by a crash, so that the file has to be looked through first.
    serving.kill();
    for (until, told) in cases {
        refused(&portcullis(folder.path(), &["replay", "--until", until]), told);
    }
}

#[test]
fn without_a_service_and_without_a_file_there_is_nothing_to_replay() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = portcullis(folder.path(), &["replay", "--data", folder.path().to_str().expect("UTF-8")]);
    let said = stderr(&output);
    assert!(code(&output) == 3 && said.contains("there is no commands.redb"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "and none is made");
    // A service that was named is the only one that is asked.
    let named = portcullis(folder.path(), &["--url", "unix:/nowhere.sock", "replay"]);
    assert!(code(&named) == 3 && !stderr(&named).contains("commands.redb"), "{}", stderr(&named));
}

#[test]
fn a_log_that_another_process_has_open_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    // As if the service did not answer any more.
    std::fs::remove_file(folder.path().join("admin.sock")).expect("it is there");
    let data = folder.path().to_str().expect("UTF-8");
    let output = portcullis(folder.path(), &["replay", "--data", data]);
    let said = stderr(&output);
    assert!(code(&output) == 3 && said.contains("another process uses the data directory"), "{said}");
}
