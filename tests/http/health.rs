use serde_json::json;

use portcullis::record::{Offset, Position};
use portcullis::status::{Alarm, Degraded, Detail, Phase};

use crate::sidecar::{Settings, Sidecar};

#[test]
fn health_is_of_the_process_and_readiness_of_the_list() {
    let sidecar = Sidecar::with(Settings::default());
    sidecar.status.set_detail(Detail { phase: Phase::Loading, records_read: 7, ..Detail::default() });
    let mut client = sidecar.lookup();
    assert_eq!(client.get("/healthz").status, 200);
    let reply = client.get("/readyz");
    assert_eq!(reply.error(), (503, "not_ready".to_owned()));
    assert_eq!((&reply.json()["phase"], &reply.json()["records_read"]), (&json!("loading"), &json!(7)));
    assert_eq!(client.get("/v1/status").json()["ready"], json!(false));
    sidecar.publish();
    let reply = client.get("/readyz");
    assert_eq!((reply.status, &reply.json()["ready"]), (200, &json!(true)));
}

#[test]
fn only_strict_readiness_goes_back() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.lookup();
    assert_eq!(client.get("/readyz?strict").status, 200);
    let unproven = Sidecar::with(Settings::default());
    unproven.sink.catch_up();
    let mut asks = unproven.lookup();
    assert_eq!(asks.get("/readyz").status, 200);
    assert_eq!(asks.get("/readyz?strict").error(), (503, "degraded".to_owned()), "nobody knows its age");
    let degraded = Detail { degraded: Some(Degraded::Gap), ..Detail::default() };
    let alarm = Detail { alarm: Some(Alarm::AnotherLog), phase: Phase::Alarm, ..Detail::default() };
    for (detail, code) in [(degraded, "degraded"), (alarm, "alarm")] {
        sidecar.status.set_detail(detail);
        assert_eq!(client.get("/readyz").status, 200, "{code}");
        assert_eq!(client.get("/readyz?strict=false").status, 200, "{code}");
        assert_eq!(client.get("/readyz?strict").error(), (503, code.to_owned()));
        assert_eq!(client.get("/readyz?strict=true").error(), (503, code.to_owned()));
    }
}

#[test]
fn the_status_says_all_that_it_promises() {
    let sidecar = Sidecar::ready();
    sidecar.status.set_detail(Detail {
        phase: Phase::Following,
        degraded: Some(Degraded::FutureCommand(Offset::new(5))),
        position: Position::new(5),
        ..Detail::default()
    });
    sidecar.status.set_log_end(Position::new(9));
    let mut status = sidecar.lookup().get("/v1/status").json();
    assert!(status["age_ms"].take().is_u64());
    assert_eq!(
        status,
        json!({
            "phase": "following", "ready": true, "stale": false, "degraded": "future_command",
            "degraded_offset": 5, "alarm": null, "message": null, "position": 5, "log_end": 9, "lag": 4,
            "age_ms": null, "rows": {"ipv4": 0, "ipv6": 0}, "fingerprint": "0".repeat(32),
            "refused": {"undecodable": 0, "too_broad": 0, "duplicate": 0, "expired": 0}, "version": "1.2.3",
        })
    );
}
