//! The real broker that other tests run against: that it does what they rely on.
#![cfg(feature = "kafka")]

mod support;

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use support::kafka::{Broker, BrokerOptions, shared_broker, succeeded, wait_until};

#[test]
fn records_that_are_written_can_be_read_and_removed() {
    let broker = shared_broker();
    broker.create_topic("lines", &[("cleanup.policy", "delete"), ("retention.ms", "-1")]);
    broker.console_produce("lines", "one\ntwo\nthree\n");
    assert_eq!(broker.console_consume("lines", 3), "one\ntwo\nthree\n");
    broker.delete_records("lines", 2);
    assert_eq!(broker.console_consume("lines", 1), "three\n");
}

#[test]
fn a_topic_can_be_altered_and_deleted() {
    let broker = shared_broker();
    broker.create_topic("table", &[]);
    broker.alter_topic("table", &[("cleanup.policy", "compact,delete"), ("segment.ms", "1000")]);
    let described = succeeded(&broker.tool("topics", &["--describe", "--topic", "table"], ""));
    assert!(described.contains("compact,delete") && described.contains("segment.ms=1000"), "{described}");
    broker.delete_topic("table");
    assert!(!broker.tool("topics", &["--describe", "--topic", "table"], "").status.success());
    assert!(broker.transactions(&["list"]).starts_with("TransactionalId"));
}

#[test]
fn a_broker_keeps_its_records_when_it_is_stopped_killed_or_frozen_but_not_when_it_is_wiped() {
    let mut broker = Broker::start();
    let bootstrap = broker.bootstrap();
    broker.create_topic("lines", &[]);
    broker.console_produce("lines", "one\n");
    broker.stop();
    assert!(TcpStream::connect(&bootstrap).is_err(), "it is down");
    broker.restart();
    broker.console_produce("lines", "two\n");
    broker.restart();
    broker.freeze();
    assert!(TcpStream::connect(&bootstrap).is_ok(), "the system still takes connections for it");
    broker.thaw();
    assert_eq!(broker.console_consume("lines", 2), "one\ntwo\n");
    broker.wipe_and_restart();
    assert_eq!(broker.bootstrap(), bootstrap);
    let topics = succeeded(&broker.tool("topics", &["--list"], ""));
    assert_eq!(topics.trim(), "", "it is another cluster");
}

#[test]
fn a_secured_broker_takes_no_wrong_password_and_nothing_that_no_acl_allows() {
    let broker = BrokerOptions::default().user("admin", "of all").user("sidecar", "reads").start();
    broker.create_topic("lines", &[]);
    let describe = ["--describe", "--topic", "lines"];
    let sidecar = |password| {
        let output = broker.tool_as("sidecar", password, "topics", &describe, "");
        let said = [&output.stdout[..], &output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (done, said) = sidecar("wrong");
    assert!(!done && said.contains("SaslAuthenticationException"), "{said}");
    // It does not even hear that there is such a topic.
    let (done, said) = sidecar("reads");
    assert!(!done && said.contains("does not exist"), "{said}");
    let what = ["--operation", "Describe", "--operation", "DescribeConfigs", "--topic", "lines"];
    broker.acl(&[&["--add", "--allow-principal", "User:sidecar"], &what[..]].concat());
    let (done, said) = sidecar("reads");
    assert!(done && said.contains("PartitionCount: 1"), "{said}");
    let admin = broker.tool_as("admin", "of all", "topics", &["--delete", "--topic", "lines"], "");
    succeeded(&admin);
}

/// Set in the process that this test starts and kills: where to write what it started.
const DYING: &str = "PORTCULLIS_TEST_DYING";

#[test]
fn a_broker_ends_with_its_process_and_leaves_nothing() {
    if let Some(facts) = env::var_os(DYING) {
        let broker = shared_broker();
        let text = format!("{}\n{}\n", broker.bootstrap(), broker.folder().display());
        fs::write(facts, text).expect("the folder is there");
        broker.freeze();
        loop {
            std::thread::park();
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let facts = folder.path().join("facts");
    let mut dying = Command::new(env::current_exe().expect("a test has a file"));
    dying.args(["--exact", "a_broker_ends_with_its_process_and_leaves_nothing"]).env(DYING, &facts);
    let mut dying = dying.stdout(Stdio::null()).spawn().expect("it starts");
    let read = || fs::read_to_string(&facts).unwrap_or_default();
    wait_until("the other process has a broker", || read().ends_with('\n'));
    dying.kill().expect("it runs");
    dying.wait().expect("it is ours");
    let facts = read();
    let (bootstrap, folder) = facts.trim().split_once('\n').expect("two lines");
    wait_until("the broker is gone", || TcpStream::connect(bootstrap).is_err());
    wait_until("its folder is gone", || !Path::new(folder).exists());
}
