//! The table's verbs, and `replay`: a table that is whole, one that was damaged by hand, one of a log that is
//! gone, and what a rebuild does to those that run beside it.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use portcullis::log::Topic;
use portcullis::table::{ALIVE_KEY, WATERMARK_KEY};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE, code, stderr, stdout};
use super::support::kafka::shared_broker;

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(60);

fn run(site: &Site, args: &[&str]) -> Output {
    site.verb(&WITH_TABLE, args).output().expect("the program runs")
}

fn verify(site: &Site) -> Output {
    run(site, &["table", "verify"])
}

/// What `table verify` says of a table that is whole.
#[track_caller]
fn assert_holds(site: &Site, position: u64, rows: &str) {
    let output = verify(site);
    let told =
        format!("the table holds exactly the fold of the commands before position {position}: {rows}\n");
    assert_eq!((stdout(&output), code(&output)), (told.as_str(), 0), "{}", stderr(&output));
}

/// Runs `table rebuild`; its line, without what it says of the topic.
#[track_caller]
fn rebuild(site: &Site, args: &[&str]) -> String {
    let output = run(site, &[&["table", "rebuild"], args].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let line = stdout(&output).strip_prefix(&format!("rebuilt {}: ", site.table_topic)).expect("its line");
    line.trim_end().to_owned()
}

/// Writes records as somebody does who is no projector.
fn meddle(topic: &str, writes: &[(&[u8], Option<&[u8]>)]) {
    let config = ClientConfig::new().set("bootstrap.servers", shared_broker().bootstrap()).clone();
    let producer: BaseProducer = config.create().expect("right settings");
    for (key, value) in writes {
        let mut record = BaseRecord::to(topic).key(*key);
        record.payload = *value;
        producer.send(record).expect("there is room");
    }
    producer.flush(LONG).expect("the broker takes it");
}

/// Waits until the table has got there.
fn wait_projected(projector: &Process, position: u64) {
    projector.wait("the table is there", |status| status["position"] == position);
}

#[test]
fn a_table_is_verified_row_by_row_and_rebuilt_beside_those_that_run() {
    let broker = shared_broker();
    let site = Site::begun(broker, "verified");
    assert_holds(&site, 0, "0 rows");
    let projector = site.projector(&WITH_TABLE, &[]);
    projector.wait_role("active");
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    let lines =
        ["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7", "BLACKLIST 2001:db8::/64", "no command"];
    broker.console_produce(&site.commands_topic, &(lines.join("\n") + "\n"));
    wait_projected(&projector, 4);
    assert_holds(&site, 4, "3 rows");
    projector.end(nix::sys::signal::Signal::SIGTERM);

    meddle(
        &site.table_topic,
        &[
            (b"2001:db8::", None),
            (b"203.0.113.0", Some(br#"{"end":"203.0.113.5","command":0}"#)),
            (b"198.51.100.0", Some(br#"{"end":"198.51.100.9","command":7}"#)),
            (b"203.0.113.008", Some(br#"{"end":"203.0.113.9","command":0}"#)),
            (b"\x1b[2Jgarbage", Some(b"x")),
        ],
    );
    let output = verify(&site);
    let told = "\
        watermark: found rows behind it, expected to be the last record\n\
        198.51.100.0: not in the fold; the table has it up to 198.51.100.9 by command 7\n\
        203.0.113.0: differs; the table has it up to 203.0.113.5 by command 0, the fold up to 203.0.113.6 by command 0\n\
        2001:db8::: missing from the table; the fold has it up to 2001:db8::ffff:ffff:ffff:ffff by command 2\n\
        key \"\\u{1b}[2Jgarbage\": holds no row\n\
        key \"203.0.113.008\": holds no row\n";
    assert_eq!((stdout(&output), code(&output)), (told, 1), "{}", stderr(&output));
    let output = run(&site, &["table", "verify", "--json"]);
    let found: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((code(&output), &found["position"], &found["rows"]), (1, &json!(4), &json!(3)));
    let starts: Vec<&Value> =
        found["rows_differing"].as_array().expect("a list").iter().map(|row| &row["start"]).collect();
    assert_eq!(starts, ["198.51.100.0", "203.0.113.0", "2001:db8::"]);

    assert_eq!(rebuild(&site, &[]), "position 4, 3 rows (2 written, 3 taken away)");
    assert_holds(&site, 4, "3 rows");
    assert_eq!(rebuild(&site, &[]), "position 4, 3 rows (0 written, 0 taken away)");
    let table = site.table(&WITH_TABLE);
    assert!(table.check().expect("it is whole").released);

    // Beside one that works and one that stands by.
    let projectors = [site.projector(&WITH_TABLE, &[]), site.projector(&WITH_TABLE, &[])];
    let active = |projectors: &[Process; 2]| {
        let roles = projectors.each_ref().map(|projector| projector.status()["role"].clone());
        roles.iter().filter(|role| *role == "active").count()
    };
    wait_until("one is active", || active(&projectors) == 1);
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\n");
    wait_until("it has written", || {
        site.table(&WITH_TABLE).check().is_ok_and(|it| it.position.number() == 5)
    });
    assert_eq!(rebuild(&site, &[]), "position 5, 4 rows (0 written, 0 taken away)");
    wait_until("one is active again", || active(&projectors) == 1);
    assert_eq!(code(&sidecar.run(&["blacklist", "192.0.2.3", "--wait"])), 0);
    wait_until("it goes on", || site.table(&WITH_TABLE).check().is_ok_and(|it| it.position.number() == 6));
    site.agree(&WITH_TABLE, &[&sidecar], &[]);
    assert_holds(&site, 6, "5 rows");
    let verdict = run(&site, &["replay", "--json"]);
    let replayed: Value = serde_json::from_str(stdout(&verdict)).expect("JSON");
    assert_eq!((&replayed["position"], &replayed["began"]), (&json!(6), &json!(0)), "{}", stderr(&verdict));
    assert_eq!(replayed["fingerprint"], sidecar.status()["fingerprint"]);
}

fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    super::support::kafka::wait_until(what, holds);
}

#[test]
fn a_table_of_another_release_is_left_alone_until_it_is_rebuilt() {
    let broker = shared_broker();
    let site = Site::begun(broker, "later");
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\n{\"v\":2}\nBLACKLIST 192.0.2.3\n");
    meddle(&site.table_topic, &[(WATERMARK_KEY, Some(br#"{"v":9,"position":3}"#))]);
    let projector = site.projector(&WITH_TABLE, &[]);
    let status = projector.wait_role("stopped");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("has version 9") && message.contains("portcullis table rebuild"), "{message}");
    let output = verify(&site);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).starts_with("watermark: found the table's watermark has version 9"));
    let check = run(&site, &["topics", "check"]);
    assert!(code(&check) == 1 && stdout(&check).contains("mend it: portcullis table rebuild"));

    // A command of the future stops a rebuild as it stops everybody.
    let refused = run(&site, &["table", "rebuild"]);
    let said = stderr(&refused);
    assert!(code(&refused) == 4 && said.contains("`table rebuild --skip-offset 1`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let refused = run(&site, &["replay"]);
    assert!(code(&refused) == 4 && stderr(&refused).contains("--skip-offset 1"), "{}", stderr(&refused));
    assert_eq!(code(&run(&site, &["replay", "--until", "1"])), 0);
    assert_eq!(rebuild(&site, &["--skip-offset", "1"]), "position 3, 2 rows (2 written, 0 taken away)");
    assert_holds(&site, 3, "2 rows");
    // What the table says is passed over, every reader passes over.
    let replayed = run(&site, &["replay"]);
    assert!(stdout(&replayed).contains("\nskipped     1\n"), "{}{}", stdout(&replayed), stderr(&replayed));
    assert_eq!(rebuild(&site, &[]), "position 3, 2 rows (0 written, 0 taken away)");
    // It looks again by itself, once a minute.
    projector.wait_role("active");
    assert_holds(&site, 3, "2 rows");
}

#[test]
fn after_the_commands_were_replaced_a_rebuild_leads_everybody_to_the_new_ones() {
    let broker = shared_broker();
    let site = Site::begun(broker, "replaced");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    broker.console_produce(
        &site.commands_topic,
        "BLACKLIST 192.0.2.1\nBLACKLIST 192.0.2.3\nBLACKLIST 192.0.2.5\n",
    );
    wait_projected(&projector, 3);
    sidecar.wait("it follows", |status| status["position"] == 3);
    broker.delete_topic(&site.commands_topic);
    wait_until("it is gone and made anew", || code(&site.topics(&WITH_TABLE, &["create"])) == 0);
    wait_until("it is there", || site.table(&WITH_TABLE).check().is_ok() && site.end(&WITH_TABLE) == 0);
    broker.console_produce(&site.commands_topic, "BLACKLIST 198.51.100.7\n");
    sidecar.wait("alarm", |status| status["alarm"] == "another_log");
    let status = projector.wait_role("stopped");
    assert_eq!(status["reason"], "another_log");
    assert!(status["message"].as_str().is_some_and(|it| it.contains("portcullis table rebuild")), "{status}");
    let output = verify(&site);
    assert_eq!(stdout(&output), "position: found 3, expected at most 1, where the commands end\n");
    assert_eq!(code(&output), 1);
    assert!(sidecar.blocks("192.0.2.1") && !sidecar.blocks("198.51.100.7"), "the last list that was right");

    assert_eq!(rebuild(&site, &[]), "position 1, 1 row (1 written, 3 taken away)");
    assert_holds(&site, 1, "1 row");
    projector.wait_role("active");
    sidecar.wait("the new list", |status| status["alarm"].is_null() && status["position"] == 1);
    assert!(!sidecar.blocks("192.0.2.1") && sidecar.blocks("198.51.100.7"));
    assert_eq!(code(&sidecar.run(&["blacklist", "198.51.100.9", "--wait"])), 0);
    wait_projected(&projector, 2);
    site.agree(&WITH_TABLE, &[&projector, &sidecar], &[]);
    assert_holds(&site, 2, "2 rows");
}

#[test]
fn a_log_without_its_beginning_can_neither_be_verified_nor_rebuilt_from() {
    let broker = shared_broker();
    let site = Site::begun(broker, "shortened");
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\nBLACKLIST 192.0.2.3\n");
    assert_eq!(rebuild(&site, &[]), "position 2, 2 rows (2 written, 0 taken away)");
    let before = site.records(&WITH_TABLE, Topic::Table);
    broker.delete_records(&site.commands_topic, 1);
    let output = verify(&site);
    let said = stderr(&output);
    assert!(code(&output) == 3 && said.contains("the commands log begins at 1"), "{said}");
    let output = run(&site, &["table", "rebuild"]);
    let said = stderr(&output);
    assert!(code(&output) == 4 && said.contains("the commands log begins at 1"), "{said}");
    assert_eq!(site.records(&WITH_TABLE, Topic::Table), before, "nobody was fenced");
    let replayed = site.verb(&WITHOUT_TABLE, &["replay"]).output().expect("it runs");
    let told = "began       1: what came before is gone, and not in it\n";
    assert!(stdout(&replayed).ends_with(told), "{}{}", stdout(&replayed), stderr(&replayed));
    assert!(stderr(&replayed).contains("no list that any reader has"), "{}", stderr(&replayed));
    let check = site.topics(&WITH_TABLE, &["check"]);
    let told = "mend it: while a sidecar still has the list, `portcullis export` it";
    assert!(code(&check) == 1 && stdout(&check).contains(told), "{}", stdout(&check));
    // Not one that can't be reached, nor settings that are refused.
    broker.alter_topic(&site.commands_topic, &[("cleanup.policy", "compact")]);
    let output = run(&site, &["table", "rebuild"]);
    assert!(code(&output) == 4 && stderr(&output).contains("cleanup.policy"), "{}", stderr(&output));
    let absent = Site::new(broker, "absent-table");
    for verb in ["verify", "rebuild"] {
        let output = run(&absent, &["table", verb]);
        let said = stderr(&output);
        assert!(code(&output) == 3 && said.contains("no topic absent-table."), "{verb}: {said}");
        let output = site.verb(&WITHOUT_TABLE, &["table", verb]).output().expect("it runs");
        assert!(code(&output) == 2 && stderr(&output).contains("table_topic"), "{}", stderr(&output));
    }
}

#[test]
fn a_rebuild_that_is_killed_leaves_the_table_as_it_was() {
    let broker = shared_broker();
    let site = Site::begun(broker, "killed");
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\n");
    assert_eq!(rebuild(&site, &[]), "position 1, 1 row (1 written, 0 taken away)");
    // Enough to be killed in the middle of.
    let commands: String = (0..30_000_u32)
        .map(|at| format!("BLACKLIST {}\n", std::net::Ipv4Addr::from_bits((10 << 24) | (at * 2))))
        .collect();
    broker.console_produce(&site.commands_topic, &commands);
    let mut command: Command = site.verb(&WITH_TABLE, &["table", "rebuild"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    // It has fenced, and folds.
    wait_until("its sign of life", || {
        let records = site.records(&WITH_TABLE, Topic::Table);
        records.last().is_some_and(|record| record.key.as_deref() == Some(ALIVE_KEY))
    });
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    // What it may have written is not there, or all of it is.
    let watermark = site.table(&WITH_TABLE).check().expect("the table is whole").clone();
    assert_eq!((watermark.position.number(), watermark.rows), (1, 1), "it was killed before its end");
    assert_holds(&site, 1, "1 row");
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    assert_eq!(rebuild(&site, &[]), "position 30001, 30001 rows (30000 written, 0 taken away)");
    site.agree(&WITH_TABLE, &[&sidecar], &[]);
}
