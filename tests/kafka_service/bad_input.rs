//! Records that are no commands, and commands of a later release.

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;
use std::time::Duration;

use super::rig::{Settings, Site, WITH_TABLE, WITHOUT_TABLE, code};
use super::support::kafka::shared_broker;

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(60);

/// Writes records as no command-line tool can.
fn produce(topic: &str, values: &[Option<&[u8]>]) {
    let config = ClientConfig::new().set("bootstrap.servers", shared_broker().bootstrap()).clone();
    let producer: BaseProducer = config.create().expect("right settings");
    for value in values {
        let mut record = BaseRecord::<(), [u8]>::to(topic);
        record.payload = *value;
        producer.send(record).expect("there is room");
    }
    producer.flush(LONG).expect("the broker takes it");
}

#[test]
fn records_that_are_no_commands_are_counted_told_and_passed_over() {
    let broker = shared_broker();
    let site = Site::begun(broker, "garbage");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(|sidecar| sidecar.wait_ready());
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\nblacklist 192.0.2.2\n\n");
    produce(&site.commands_topic, &[None, Some(b""), Some(b"\xff\xfe"), Some(b"BLACKLIST 192.0.2.3")]);

    site.agree(&WITH_TABLE, &[&projector, &sidecars[0], &sidecars[1]], &[]);
    for sidecar in &sidecars {
        assert_eq!(sidecar.status()["refused"]["undecodable"], 5, "{:#}", sidecar.status());
        assert_eq!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|it| sidecar.blocks(it)), [true, false, true]);
    }
    for process in sidecars.iter().chain([&projector]) {
        let log = process.log();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("is no command")).collect();
        assert_eq!(told.len(), 5, "{log}");
        let offsets = (1..=5).map(|offset| format!("offset={offset} "));
        offsets.zip(&told).for_each(|(offset, line)| assert!(line.contains(&offset), "{line}"));
    }
}

#[test]
fn a_command_of_a_later_release_stops_all_until_an_operator_passes_it_over() {
    let broker = shared_broker();
    let site = Site::begun(broker, "future");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(|sidecar| sidecar.wait_ready());
    let lines =
        "BLACKLIST 192.0.2.1\n{\"v\":2,\"action\":\"BLACKLIST\",\"where\":\"mars\"}\nBLACKLIST 192.0.2.3\n";
    broker.console_produce(&site.commands_topic, lines);

    for sidecar in &sidecars {
        let status = sidecar.wait("it stops", |status| status["degraded"] == "future_command");
        assert_eq!((&status["degraded_offset"], &status["position"]), (&json!(1), &json!(1)));
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains("offset 1") && message.contains("upgrade portcullis"), "{message}");
        assert_eq!(["192.0.2.1", "192.0.2.3"].map(|it| sidecar.blocks(it)), [true, false], "lookups go on");
        assert_eq!((sidecar.get("/readyz").0, sidecar.get("/readyz?strict").0), (200, 503));
    }
    let status = projector.wait_role("stopped");
    assert_eq!((&status["reason"], &status["reason_offset"]), (&json!("future_command"), &json!(1)));
    assert_eq!((status["position"].clone(), projector.get("/readyz").0), (json!(1), 503));

    // The one that is told so goes by, and all that read the table after it.
    let skipping = site.projector(&WITH_TABLE, &["--skip-offset", "1"]);
    skipping.wait("the table is beyond", |status| status["position"] == 3);
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    assert!(late.blocks("192.0.2.3"));
    sidecars[0].wait("it is back", |status| status["degraded"].is_null() && status["position"] == 3);
    assert_eq!(code(&sidecars[0].run(&["blacklist", "192.0.2.4", "--wait"])), 0);
    // Without a table it takes a configuration, which says the same.
    assert_eq!(sidecars[1].status()["position"], 1);
    let told = site.sidecar(&Settings { skip_offsets: &[1], ..WITHOUT_TABLE });
    told.wait_ready();
    site.agree(&WITH_TABLE, &[&skipping, &sidecars[0], &late, &told], &[1]);
    let table = site.table(&WITH_TABLE);
    let skipped = &table.check().expect("it is whole").skipped;
    assert_eq!(skipped.iter().map(|offset| offset.number()).collect::<Vec<_>>(), [1]);
}
