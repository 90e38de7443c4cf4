use serde_json::{Value, json};

use crate::sidecar::{Mode, Settings, Sidecar};

#[test]
fn rows_come_a_line_each_and_ranges_merged() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.0/25\nBLACKLIST 203.0.113.128/25\nBLACKLIST 2001:db8::7");
    sidecar.write(r#"{"v":1,"action":"BLACKLIST","range":"10.0.0.1","expires_at":"2999-01-01T00:00:00Z"}"#);
    let reply = sidecar.admin().get("/v1/ranges");
    assert_eq!((reply.status, reply.header("portcullis-position")), (200, Some("4")));
    let rows: Vec<Value> =
        reply.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let row = |start: &str, end: &str, command: u64, expires_at: Option<&str>| json!({"start": start, "end": end, "command": command, "expires_at": expires_at});
    let expected = [
        row("10.0.0.1", "10.0.0.1", 3, Some("2999-01-01T00:00:00.000Z")),
        row("203.0.113.0", "203.0.113.127", 0, None),
        row("203.0.113.128", "203.0.113.255", 1, None),
        row("2001:db8::7", "2001:db8::7", 2, None),
    ];
    assert_eq!(rows, expected);
    let reply = sidecar.admin().ask("GET", "/v1/ranges", &["Accept: text/plain"], "");
    assert_eq!(
        (reply.header("content-type"), reply.header("portcullis-position")),
        (Some("text/plain"), Some("4"))
    );
    let expected = "10.0.0.1-10.0.0.1\n203.0.113.0-203.0.113.255\n2001:db8::7-2001:db8::7\n";
    assert_eq!(reply.text(), expected);
}

/// The rows are the view's, which may be further than the snapshot that lookups are answered from.
#[test]
fn the_position_is_that_of_the_rows() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.7");
    sidecar.sink.set(Mode::Keep);
    sidecar.write("BLACKLIST 203.0.113.9\nBLACKLIST 203.0.113.11");
    sidecar.sink.fold();
    let mut client = sidecar.admin();
    let reply = client.get("/v1/ranges");
    let commands = reply.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert_eq!(commands.filter_map(|row| row["command"].as_u64()).max(), Some(2));
    assert_eq!(reply.header("portcullis-position"), Some("3"));
    let plain = client.ask("GET", "/v1/ranges", &["Accept: text/plain"], "");
    assert_eq!((plain.text().lines().count(), plain.header("portcullis-position")), (1, Some("1")));
}

#[test]
fn an_empty_list_is_empty_and_one_that_is_not_ready_is_none() {
    let sidecar = Sidecar::with(Settings::default());
    assert_eq!(sidecar.admin().get("/v1/ranges").error(), (503, "not_ready".to_owned()));
    sidecar.publish();
    let mut client = sidecar.admin();
    assert_eq!(client.get("/v1/ranges").text(), "");
    let head = client.ask("HEAD", "/v1/ranges", &[], "");
    assert_eq!((head.status, head.header("portcullis-position")), (200, Some("0")));
    assert_eq!(client.get("/v1/ranges").status, 200, "the connection goes on behind HEAD");
}

/// More than sockets buffer, so that an export waits for its client.
fn long_list(sidecar: &Sidecar) {
    for thousand in 0..100_u32 {
        let line = |at: u32| {
            let number = (thousand * 1_000 + at) * 2;
            format!("BLACKLIST {}\n", std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))
        };
        sidecar.write(&(0..1_000).map(line).collect::<String>());
    }
}

#[test]
fn one_export_runs_at_a_time_and_a_long_one_is_whole() {
    let sidecar = Sidecar::ready();
    long_list(&sidecar);
    let mut first = sidecar.admin();
    first.send("GET /v1/ranges HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = first.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    let busy = sidecar.admin().get("/v1/ranges");
    assert_eq!(busy.error(), (429, "export_busy".to_owned()));
    assert_eq!(sidecar.admin().get("/healthz").status, 200, "all else goes on");
    // A client that leaves makes way for the next one.
    drop(first);
    let mut next = sidecar.admin();
    let reply = loop {
        let reply = next.ask("GET", "/v1/ranges", &["Accept: text/plain"], "");
        if reply.status != 429 {
            break reply;
        }
    };
    assert_eq!(reply.text().lines().count(), 100_000);
    // Whoever has read one to its end may ask for the next.
    for accept in ["Accept: application/json", "Accept: text/plain"].repeat(5) {
        let reply = next.ask("GET", "/v1/ranges", &[accept], "");
        assert_eq!((reply.status, reply.text().lines().count()), (200, 100_000));
    }
}

#[test]
fn the_lookup_listener_has_no_export() {
    let sidecar = Sidecar::ready();
    assert_eq!(sidecar.lookup().get("/v1/ranges").error(), (404, "not_found".to_owned()));
}
