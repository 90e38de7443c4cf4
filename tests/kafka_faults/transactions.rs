//! Transactions of a foreign producer on the commands topic.

use std::time::Duration;

use rdkafka::producer::Producer as _;
use serde_json::{Value, json};

use super::foreign::{transactional, write_values};
use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::{shared_broker, wait_until};

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(60);
/// When the broker aborts a transaction that hangs.
const HANGS: Duration = Duration::from_secs(15);

pub(crate) fn a_foreign_transaction_hides_what_is_behind_it_and_that_is_said() {
    let broker = shared_broker();
    let site = Site::begun(broker, "transactions");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    let all = [&projector, &sidecars[0], &sidecars[1]];
    assert_eq!(sidecars[0].post("", "BLACKLIST 192.0.2.1").0, 201);

    // Aborted, and nothing behind it: only marks and what is hidden lie before the end.
    let bootstrap = broker.bootstrap();
    let aborted = transactional(&bootstrap, "aborts", HANGS);
    aborted.begin_transaction().expect("it may");
    write_values(&aborted, &site.commands_topic, &[b"BLACKLIST 192.0.2.2", b"garbage"]);
    aborted.abort_transaction(LONG).expect("it may");
    // Its mark may be written a moment later.
    wait_until("the mark is there", || site.end(&WITH_TABLE) == 4);
    site.agree(&WITH_TABLE, &all, &[]);
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    let all = [&projector, &sidecars[0], &sidecars[1], &late];
    site.agree(&WITH_TABLE, &all, &[]);

    // Committed: read as any other.
    aborted.begin_transaction().expect("it may");
    write_values(&aborted, &site.commands_topic, &[b"BLACKLIST 192.0.2.3"]);
    aborted.commit_transaction(LONG).expect("it may");
    wait_until("the mark is there", || site.end(&WITH_TABLE) == 6);
    site.agree(&WITH_TABLE, &all, &[]);
    assert_eq!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|it| late.blocks(it)), [true, false, true]);

    hangs(&site, &bootstrap, &all);
}

/// A transaction that is left open, with an acknowledged command behind it, until the broker aborts it.
fn hangs(site: &Site, bootstrap: &str, all: &[&Process; 4]) {
    let [_, sidecars @ ..] = all;
    let hanging = transactional(bootstrap, "hangs", HANGS);
    hanging.begin_transaction().expect("it may");
    write_values(&hanging, &site.commands_topic, &[b"BLACKLIST 192.0.2.4"]);
    assert_eq!(sidecars[0].post("", "BLACKLIST 192.0.2.5").0, 201);
    for sidecar in sidecars {
        let status = sidecar.wait("it is said", |status| status["degraded"] == "open_transaction");
        assert!(status["age_ms"].as_u64() > Some(3_000), "{status:#}");
        assert!(!sidecar.blocks("192.0.2.5"), "nobody can read it");
        assert_eq!((sidecar.get("/readyz").0, sidecar.get("/readyz?strict").0), (200, 503));
    }
    // One that starts now takes what can be read for the list, and says the same.
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    assert!(late.blocks("192.0.2.3") && !late.blocks("192.0.2.5"));
    late.wait("it is said", |status| status["degraded"] == "open_transaction");
    for sidecar in sidecars.iter().copied().chain([&late]) {
        let status = sidecar.wait("it follows again", |status| status["degraded"].is_null());
        assert_eq!(status["alarm"], Value::Null, "{status:#}");
    }
    site.agree(&WITH_TABLE, &[all[0], all[1], all[2], all[3], &late], &[]);
    assert_eq!(["192.0.2.4", "192.0.2.5"].map(|it| late.blocks(it)), [false, true]);
    assert_eq!(late.status()["refused"]["undecodable"], json!(0));
}
