//! The real program on a real Kafka: sidecars, projectors and verbs as processes, from the first topic on
//! through everything that goes wrong.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

#[path = "kafka_service/bad_input.rs"]
mod bad_input;
#[path = "kafka_service/outage.rs"]
mod outage;
#[path = "kafka_service/rig.rs"]
#[allow(dead_code, reason = "each test target uses its own part")]
mod rig;
#[path = "kafka_service/rights.rs"]
mod rights;
#[path = "kafka_service/roles.rs"]
mod roles;
mod support;
#[path = "kafka_service/table.rs"]
mod table;
#[path = "kafka_service/topics.rs"]
mod topics;

use nix::sys::signal::Signal;
use portcullis::log::Topic;
use rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE, code, stderr, stdout};
use serde_json::json;
use support::kafka::shared_broker;

#[test]
fn from_nothing_all_come_to_the_same_list_whoever_writes_the_commands() {
    let broker = shared_broker();
    let site = Site::new(broker, "nothing");
    let created = site.topics(&WITH_TABLE, &["create"]);
    let told = "created nothing.commands: 1 partition, replicas: 1\n\
                created nothing.table: 1 partition, replicas: 1\n\
                began the table in nothing.table: position 0, no rows\n";
    assert_eq!((code(&created), stdout(&created)), (0, told), "{}", stderr(&created));
    let before = site.records(&WITH_TABLE, Topic::Table);
    let again = site.topics(&WITH_TABLE, &["create"]);
    let told = "nothing.commands is there already; `portcullis topics check` looks at it\n\
                nothing.table is there already; `portcullis topics check` looks at it\n\
                the table in nothing.table is begun already\n";
    assert_eq!((code(&again), stdout(&again)), (0, told), "{}", stderr(&again));
    assert_eq!(site.records(&WITH_TABLE, Topic::Table), before);
    assert_eq!(before.len(), 1);
    let check = site.topics(&WITH_TABLE, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, "all settings are as they are to be\n"));

    let projector = site.projector(&WITH_TABLE, &[]);
    let [one, two] = [(); 2].map(|()| site.sidecar(&WITH_TABLE));
    let folding = site.sidecar(&WITHOUT_TABLE);
    assert_eq!(code(&one.run(&["status", "--wait"])), 0);
    [&two, &folding].into_iter().for_each(Process::wait_ready);
    assert!(!one.blocks("198.51.100.7"));

    let edit = one.run(&["blacklist", "198.51.100.0/24", "--reason", "a test", "--wait"]);
    assert_eq!(stdout(&edit), "BLACKLIST 198.51.100.0/24 at offset 0 changed 1 row\n", "{}", stderr(&edit));
    assert!(one.blocks("198.51.100.7"));
    let (status, answer) = two.post("", "BLACKLIST 2001:db8::/64");
    assert_eq!((status, &answer["offset"], &answer["count"]), (201, &json!(1), &json!(1)));
    let (status, answer) = folding.post("?wait=applied", "WHITELIST 198.51.100.7");
    assert_eq!((status, &answer["offset"], &answer["changed"]), (201, &json!(2), &json!(2)));
    let lines = [
        "BLACKLIST 203.0.113.0-203.0.113.255",
        "WHITELIST 203.0.113.9",
        r#"{"v":1,"action":"BLACKLIST","range":"192.0.2.0/25","expires_at":"2100-01-01T00:00:00Z","by":"alice"}"#,
        r#"{"v":1,"id":"mine","action":"WHITELIST","range":"192.0.2.64/26"}"#,
        r#"{"v":1,"id":"mine","action":"BLACKLIST","range":"192.0.2.64/26"}"#,
        "BLACKLIST 0.0.0.0/0",
    ];
    broker.console_produce(&site.commands_topic, &(lines.join("\n") + "\n"));

    site.agree(&WITH_TABLE, &[&projector, &one, &two, &folding], &[]);
    let addresses = [
        "198.51.100.6",
        "198.51.100.7",
        "2001:db8::7",
        "203.0.113.8",
        "203.0.113.9",
        "192.0.2.63",
        "192.0.2.64",
    ];
    for sidecar in [&one, &two, &folding] {
        let blocked = addresses.map(|address| sidecar.blocks(address));
        assert_eq!(blocked, [true, false, true, true, false, true, false]);
        let status = sidecar.status();
        assert_eq!(
            status["refused"],
            json!({"undecodable": 0, "too_broad": 1, "duplicate": 1, "expired": 0})
        );
        assert_eq!((&status["lag"], &status["degraded"]), (&json!(0), &json!(null)));
    }
    // One that starts now has the list from the table.
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    site.agree(&WITH_TABLE, &[&late], &[]);
    assert_eq!(late.status()["rows"], json!({"ipv4": 5, "ipv6": 1}));

    one.end(Signal::SIGTERM);
    two.end(Signal::SIGINT);
    folding.end(Signal::SIGINT);
    projector.end(Signal::SIGINT);
    assert!(site.table(&WITH_TABLE).check().expect("it is whole").released, "for the next one");
}
