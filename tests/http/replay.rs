use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::http::{ADMIN_SOCKET, App, Server};
use portcullis::log::memory::{MemoryLog, Outage};
use portcullis::log::{Log, LogError, Questioner, Reader, Topic};
use portcullis::record::{Position, Timestamp};
use serde_json::{Value, json};

use crate::client::Client;
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
    sidecar.behind.set_outage(Outage::Down);
    assert_eq!(sidecar.admin().get("/v1/replay").error(), (503, "log_unavailable".to_owned()));
}

/// A log that is not opened before the test lets go of it.
struct Held(MemoryLog, Arc<Mutex<()>>);

impl Log for Held {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        let _let_go = self.1.lock().expect("no panic");
        self.0.open(topic, from)
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        self.0.questioner()
    }
}

#[test]
fn one_replay_runs_at_a_time() {
    let sidecar = with_log(&COMMANDS);
    let held = Arc::new(Mutex::new(()));
    let app = App { log: Arc::new(Held(sidecar.behind.clone(), Arc::clone(&held))), ..sidecar.app() };
    let (settings, folder) = (Settings::default(), tempfile::tempdir().expect("a folder"));
    let Settings { lookup, admin, http } = &settings;
    let server = Server::start(app, lookup, admin, http, folder.path()).expect("free ports");
    let connect = || Client::unix(&folder.path().join(ADMIN_SOCKET));
    let (mut one, mut other) = (connect(), connect());
    let holding = held.lock().expect("no panic");
    one.send("GET /v1/replay HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // The one that is first has the place; which one that is, is not for us to say.
    other.send("GET /v1/replay HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut second, mut first) = loop {
        assert!(Instant::now() < deadline, "neither is answered");
        match (one.is_silent(), other.is_silent()) {
            (true, false) => break (other, one),
            (false, true) => break (one, other),
            _ => {}
        }
    };
    assert_eq!(second.reply().error(), (503, "busy".to_owned()));
    drop(holding);
    assert_eq!(first.reply().status, 200);
    assert_eq!(second.get("/v1/replay").status, 200, "the place is free again");
    server.shutdown(Duration::ZERO);
}
