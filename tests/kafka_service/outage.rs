//! A broker that is stopped, killed, frozen, or not there yet.

use nix::sys::signal::Signal;
use portcullis::command::Command;
use portcullis::log::Topic;
use serde_json::{Value, json};

use super::rig::{Process, Site, WITH_TABLE, code, stderr};
use super::support::kafka::{Broker, BrokerOptions};

/// Waits until it is known for a while that the log is not to be had.
fn wait_outage(sidecar: &Process) -> u64 {
    let status = sidecar.wait("its age grows", |status| status["age_ms"].as_u64() > Some(3_000));
    status["age_ms"].as_u64().expect("it is a number")
}

/// Waits until it is at the end of the log again, and takes commands.
fn wait_back(sidecar: &mut Process, address: &str) {
    sidecar.wait("it follows again", |status| status["age_ms"].as_u64() < Some(3_000));
    let edit = sidecar.run(&["blacklist", address, "--wait"]);
    assert_eq!(code(&edit), 0, "{}", stderr(&edit));
    assert!(sidecar.runs() && sidecar.blocks(address));
}

#[test]
fn an_outage_of_the_broker_is_waited_out_while_lookups_go_on() {
    // A broker that was killed is let in again when it counts as gone.
    let session = [("broker.session.timeout.ms", "3000"), ("broker.heartbeat.interval.ms", "500")];
    let options = session.iter().fold(BrokerOptions::default(), |all, (key, value)| all.property(key, value));
    let mut broker = options.start();
    let site = Site::begun(&broker, "outage");
    let projector = site.projector(&WITH_TABLE, &[]);
    let mut sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    assert_eq!(code(&sidecar.run(&["blacklist", "192.0.2.1", "--wait"])), 0);

    broker.stop();
    let age = wait_outage(&sidecar);
    sidecar.wait("it goes on to grow", |status| status["age_ms"].as_u64() > Some(age + 1_000));
    assert!(sidecar.blocks("192.0.2.1") && !sidecar.blocks("192.0.2.2"));
    assert_eq!((sidecar.get("/readyz").0, sidecar.status()["phase"].clone()), (200, json!("following")));
    let (status, answer) = sidecar.post("", "BLACKLIST 192.0.2.2");
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("log_unavailable")));
    let reason = format!("nothing was written: no answer from Kafka at {}: ", broker.bootstrap());
    assert!(answer["error"]["message"].as_str().is_some_and(|it| it.starts_with(&reason)), "{answer}");
    let message = sidecar.status()["message"].clone();
    let reason = format!("no answer from Kafka at {}: ", broker.bootstrap());
    assert!(message.as_str().is_some_and(|it| it.starts_with(&reason)), "{message}");
    let create = site.topics(&WITH_TABLE, &["create"]);
    let said = stderr(&create);
    assert!(code(&create) == 3 && said.contains(&reason) && said.lines().count() == 1, "{said}");
    // One that starts now has nothing to serve, and says why.
    let mut late = site.sidecar(&WITH_TABLE);
    let status = late.wait_message(&format!("no answer from Kafka at {}: ", broker.bootstrap()));
    assert_eq!((&status["ready"], late.get("/readyz").0), (&json!(false), 503));
    projector.wait_message("no answer from Kafka");
    // It has a list, and does not follow.
    let status = sidecar.wait("it is old", |status| status["age_ms"].as_u64() > Some(10_500));
    assert_eq!((sidecar.get("/readyz").0, sidecar.get("/readyz?strict").0), (200, 503), "{status}");
    // What runs can be ended without a broker, too.
    site.sidecar(&WITH_TABLE).end(Signal::SIGINT);
    site.projector(&WITH_TABLE, &[]).end(Signal::SIGINT);

    broker.restart();
    late.wait_ready();
    wait_back(&mut late, "192.0.2.2");
    wait_back(&mut sidecar, "192.0.2.3");
    assert_eq!(sidecar.get("/readyz?strict").0, 200);
    broker.kill();
    wait_outage(&sidecar);
    broker.restart();
    wait_back(&mut sidecar, "192.0.2.4");

    frozen(&broker, &sidecar);
    wait_back(&mut sidecar, "192.0.2.6");
    assert_once(&site, "frozen/1");
    site.agree(&WITH_TABLE, &[&projector, &sidecar, &late], &[]);

    broker.kill();
    wait_outage(&sidecar);
    sidecar.end(Signal::SIGTERM);
    late.end(Signal::SIGINT);
    projector.end(Signal::SIGTERM);
}

/// A command that is under way while the broker stands still, and its repetition once it goes on.
fn frozen(broker: &Broker, sidecar: &Process) {
    let post = || sidecar.post_as(Some("frozen"), "", "BLACKLIST 192.0.2.5");
    broker.freeze();
    let (status, answer) = post();
    let code = answer["error"]["code"].as_str();
    match status {
        503 => assert_eq!(code, Some("log_unavailable"), "{answer}"),
        504 => assert_eq!((code, &answer["error"]["ids"]), (Some("outcome_unknown"), &json!(["frozen/1"]))),
        other => panic!("{other}: {answer}"),
    }
    // The outage before this one was another.
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("no answer from Kafka at ") && !message.contains("refused"), "{message}");
    assert!(sidecar.blocks("192.0.2.4"), "lookups go on");
    wait_outage(sidecar);
    broker.thaw();
    let taken = |(status, _): &(u16, Value)| matches!(status, 200 | 201);
    sidecar.wait("the same is taken", |_| taken(&post()));
    sidecar.wait("it is applied", |_| sidecar.blocks("192.0.2.5"));
}

/// Holds the log to a command that had an effect once, however often it is there.
fn assert_once(site: &Site, id: &str) {
    let carries =
        |value: &[u8]| Command::decode(value).is_ok_and(|it| it.id.is_some_and(|it| it.as_str() == id));
    let records = site.records(&WITH_TABLE, Topic::Commands);
    let carrying: Vec<_> =
        records.iter().filter(|record| record.value.as_deref().is_some_and(carries)).collect();
    let rows = site.fold(&WITH_TABLE, &[]);
    let causes =
        rows.blacklist().rows().filter(|row| carrying.iter().any(|it| it.offset == row.cause.command));
    assert!(!carrying.is_empty() && causes.count() == 1, "{carrying:?}");
}
