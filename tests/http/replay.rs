use portcullis::log::Topic;
use portcullis::record::Timestamp;
use serde_json::{Value, json};

use crate::sidecar::{Settings, Sidecar};

/// A sidecar whose log holds a command a second.
fn with_log(commands: &[&str]) -> Sidecar {
    let sidecar = Sidecar::ready();
    for (second, command) in (0..).zip(commands) {
        let time = Timestamp::from_millis(second * 1_000);
        sidecar.behind.append_record(Topic::Commands, time, None, Some(command.as_bytes()));
    }
    sidecar
}

const COMMANDS: [&str; 4] =
    ["BLACKLIST 203.0.113.0/24", "BLACKLIST 2001:db8::/32", "WHITELIST 203.0.113.7", "no command"];

#[test]
fn a_replay_tells_what_the_log_comes_to() {
    let sidecar = with_log(&COMMANDS);
    let mut client = sidecar.admin();
    let reply = client.get("/v1/replay");
    assert_eq!((reply.status, reply.header("portcullis-position")), (200, Some("4")));
    let all: Value = serde_json::from_str(reply.text()).expect("JSON");
    let expected = json!({
        "position": 4, "time": "1970-01-01T00:00:03.000Z", "began": 0,
        "rows": {"ipv4": 2, "ipv6": 1},
        "addresses": {"ipv4": 255, "ipv6": "79228162514264337593543950336"},
        "fingerprint": all["fingerprint"],
        "refused": {"undecodable": 1, "too_broad": 0, "duplicate": 0, "expired": 0},
        "skipped": [],
    });
    assert_eq!(all, expected);
    for (until, position, rows) in
        [("0", 0, 0), ("1", 1, 1), ("1970-01-01T00:00:01.999Z", 2, 1), ("2999-01-01T00:00:00Z", 4, 2)]
    {
        let reply = client.get(&format!("/v1/replay?until={until}"));
        let told: Value = serde_json::from_str(reply.text()).expect("JSON");
        assert_eq!((&told["position"], &told["rows"]["ipv4"]), (&json!(position), &json!(rows)), "{until}");
    }
    // The list that is served has nothing to do with it.
    assert_eq!(client.get("/v1/check/203.0.113.8").text(), r#"{"blacklisted":false}"#);
}

#[test]
fn what_cannot_be_replayed_is_told_with_a_code_of_its_own() {
    let sidecar = with_log(&[COMMANDS[0], r#"{"v":2}"#, COMMANDS[1]]);
    let mut client = sidecar.admin();
    let mut error = |query: &str| client.get(&format!("/v1/replay?{query}")).error();
    assert_eq!(error("until=4"), (400, "beyond_log".to_owned()));
    assert_eq!(error("until=1969-12-31T23:59:59Z"), (410, "before_log".to_owned()));
    assert_eq!(error("until=3"), (422, "future_command".to_owned()));
    for query in [
        "until=tomorrow",
        "until=-1",
        "until=1&until=2",
        "skip_offsets=x",
        "skip_offsets=1,",
        "skip_offsets=+1",
    ] {
        assert_eq!(error(query), (400, "parameter_invalid".to_owned()), "{query}");
    }
    assert_eq!(error("from=1"), (400, "parameter_unknown".to_owned()));
    assert_eq!(client.get("/v1/replay?until=1").status, 200, "it stands behind the position");
    let passed: Value = serde_json::from_str(client.get("/v1/replay?skip_offsets=0,1").text()).expect("JSON");
    assert_eq!((&passed["skipped"], &passed["rows"]), (&json!([1]), &json!({"ipv4": 1, "ipv6": 1})));
    assert_eq!(client.ask("HEAD", "/v1/replay", &[], "").status, 405);
    assert_eq!(sidecar.lookup().get("/v1/replay").status, 404);
    let unready = Sidecar::with(Settings::default());
    assert_eq!(unready.admin().get("/v1/replay").error(), (503, "not_ready".to_owned()));
}

#[test]
fn a_log_that_cannot_be_read_is_an_outage() {
    let sidecar = with_log(&COMMANDS);
    sidecar.behind.set_outage(portcullis::log::memory::Outage::Down);
    assert_eq!(sidecar.admin().get("/v1/replay").error(), (503, "log_unavailable".to_owned()));
}

/// Enough of it to fold for some moments.
#[test]
fn one_replay_runs_at_a_time() {
    let sidecar = Sidecar::ready();
    for at in 0..40_000_u32 {
        let command = format!("BLACKLIST 10.{}.{}.{}", at >> 16, (at >> 8) & 0xff, at & 0xff);
        sidecar.behind.append_record(
            Topic::Commands,
            Timestamp::from_millis(0),
            None,
            Some(command.as_bytes()),
        );
    }
    let (mut one, mut other) = (sidecar.admin(), sidecar.admin());
    let replies = std::thread::scope(|scope| {
        let both = [&mut one, &mut other].map(|client| scope.spawn(|| client.get("/v1/replay")));
        both.map(|reply| reply.join().expect("an answer"))
    });
    let statuses = replies.each_ref().map(|reply| reply.status);
    assert!(statuses == [200, 503] || statuses == [503, 200], "{statuses:?}");
    let refused = replies.iter().find(|reply| reply.status == 503).expect("one of them");
    assert_eq!(refused.error(), (503, "busy".to_owned()));
    assert_eq!(sidecar.admin().get("/v1/replay").status, 200, "the place is free again");
}
