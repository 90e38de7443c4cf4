//! A commands log whose first records were removed.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::shared_broker;

/// More commands than ids are remembered of.
const MANY: usize = 10_500;
/// In which nothing may happen that would happen within seconds.
const WHILE: Duration = Duration::from_secs(8);

pub(crate) fn a_log_that_lost_its_beginning_is_a_gap_if_that_is_needed() {
    let broker = shared_broker();
    let site = Site::begun(broker, "beginning");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    let lines = |from: usize, count: usize| -> String {
        (from..from + count).map(|it| format!("BLACKLIST 10.{}.{}.1\n", it / 250, it % 250)).collect()
    };
    broker.console_produce(&site.commands_topic, &lines(0, MANY));
    let all = [&projector, &sidecars[0], &sidecars[1]];
    site.agree(&WITH_TABLE, &all, &[]);

    // What lies before the window of ids is needed by nobody who has the table.
    broker.delete_records(&site.commands_topic, 400);
    std::thread::sleep(WHILE);
    let is_well = |process: &Process| {
        let status = process.status();
        status["degraded"].is_null() && status["alarm"].is_null() && status["message"].is_null()
    };
    assert!(all.iter().all(|process| is_well(process)));
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    assert_eq!(late.status()["fingerprint"], sidecars[0].status()["fingerprint"]);
    // Without a table, the list would be made from the rest only.
    let folding = site.sidecar(&WITHOUT_TABLE);
    let status = folding.wait("it is said", |status| status["degraded"] == "gap");
    assert_eq!((&status["ready"], folding.get("/v1/check/10.0.0.1").0), (&false.into(), 503), "{status:#}");

    // One sleeps while the log loses what it would have to read next. Those that follow go on; it can't, and
    // neither can anybody begin.
    late.signal(Signal::SIGSTOP);
    broker.console_produce(&site.commands_topic, &lines(MANY, 100));
    all.iter().for_each(|process| drop(process.wait("the end", |it| it["position"] == MANY + 100)));
    broker.delete_records(&site.commands_topic, (MANY + 50) as u64);
    late.signal(Signal::SIGCONT);
    assert_eq!(sidecars[0].post("?wait=applied", "BLACKLIST 192.0.2.1").0, 201);
    assert!(all.iter().all(|process| is_well(process)));
    let later = site.sidecar(&WITH_TABLE);
    for (sidecar, ready) in [(&late, true), (&later, false)] {
        let status = sidecar.wait("it is said", |status| status["degraded"] == "gap");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("begins at {}", MANY + 50)), "{message}");
        assert_eq!((&status["ready"], sidecar.get("/v1/check/10.0.0.1").0 == 200), (&ready.into(), ready));
    }
    assert_eq!(late.status()["position"], MANY);
    assert!(late.blocks("10.0.0.1") && !late.blocks("192.0.2.1"), "what it had is served");

    // Once the window is whole again, behind the new beginning, they begin by themselves.
    broker.console_produce(&site.commands_topic, &lines(MANY + 100, 10_000));
    later.wait_ready();
    let end = site.end(&WITH_TABLE);
    let fingerprints = [&sidecars[0], &sidecars[1], &late, &later, &projector]
        .map(|process| process.wait("the end", |it| it["position"] == end)["fingerprint"].clone());
    assert!(fingerprints.iter().all(|it| *it == fingerprints[0]), "{fingerprints:?}");
    let table = site.table(&WITH_TABLE);
    assert_eq!(serde_json::json!(table.check().expect("it is whole").fingerprint), fingerprints[0]);
}
