use portcullis::log::AppendError;
use portcullis::status::{Alarm, Detail, Phase};
use serde_json::json;

use crate::client::Reply;
use crate::sidecar::{Mode, Settings, Sidecar};

const COMMANDS: &str = "/v1/commands";
const JSON: &str = "Content-Type: application/json";

fn write(sidecar: &Sidecar, target: &str, headers: &[&str], body: &str) -> Reply {
    sidecar.writer().ask("POST", target, headers, body)
}

fn blacklisted(sidecar: &Sidecar, address: &str) -> bool {
    sidecar.lookup().get(&format!("/v1/check/{address}")).json()["blacklisted"] == json!(true)
}

#[test]
fn a_group_is_written_as_json_with_ids() {
    let sidecar = Sidecar::ready();
    let body = "BLACKLIST 203.0.113.0/24\r\n\n{\"v\":1,\"id\":\"a\",\"action\":\"WHITELIST\",\"range\":\"203.0.113.7\"}";
    let reply = write(&sidecar, COMMANDS, &["Content-Type: text/plain"], body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let answer = reply.json();
    assert_eq!((&answer["offset"], &answer["count"], &answer["ids"][1]), (&json!(1), &json!(2), &json!("a")));
    assert_eq!(reply.header("portcullis-position"), Some("2"));
    let ulid = answer["ids"][0].as_str().expect("an id");
    assert_eq!(ulid.len(), 26);
    let values = sidecar.sink.values();
    assert_eq!(
        values[0],
        format!(r#"{{"v":1,"id":"{ulid}","action":"BLACKLIST","range":"203.0.113.0/24"}}"#)
    );
    assert_eq!(values[1], r#"{"v":1,"id":"a","action":"WHITELIST","range":"203.0.113.7"}"#);
    assert!(blacklisted(&sidecar, "203.0.113.6") && !blacklisted(&sidecar, "203.0.113.7"));
}

#[test]
fn json_is_one_command_on_as_many_lines_as_it_likes() {
    let sidecar = Sidecar::ready();
    let body = "{\n \"v\": 1,\n \"action\": \"BLACKLIST\",\n \"range\": \"203.0.113.7\",\n \"reason\": \"a \\\"b\\\"\"\n}\n";
    let reply = write(&sidecar, COMMANDS, &["Content-Type: Application/JSON; charset=utf-8"], body);
    assert_eq!((reply.status, &reply.json()["count"]), (201, &json!(1)), "{}", reply.text());
    assert!(sidecar.sink.values()[0].contains(r#""reason":"a \"b\"""#));
    for body in ["BLACKLIST 203.0.113.7", "", "[]"] {
        assert_eq!(
            write(&sidecar, COMMANDS, &[JSON], body).error(),
            (400, "command_json".to_owned()),
            "{body}"
        );
    }
}

#[test]
fn one_bad_command_refuses_the_group_and_is_named() {
    let sidecar = Sidecar::ready();
    let object = |rest: &str| format!(r#"{{"v":1,"action":"BLACKLIST","range":"1.2.3.4"{rest}}}"#);
    let long = "x".repeat(5_000);
    for (line, code, field) in [
        ("blacklist 1.2.3.4", "command_invalid", json!(null)),
        ("BLACKLIST 1.2.3.4/24", "range_host_bits", json!("range")),
        ("BLACKLIST 1.2.3.4 ", "address_invalid", json!("range")),
        (&long, "command_too_long", json!(null)),
        (r#"{"v":2}"#, "command_version", json!("v")),
        (r#"{"v":1"#, "command_json", json!(null)),
        (r#"{"v":1,"action":"BLACKLIST"}"#, "field_missing", json!("range")),
        (&object(r#","id":"""#), "field_invalid", json!("id")),
        (&object(r#","id":"a\u0007""#), "field_control_character", json!("id")),
        (&object(&format!(r#","by":"{}""#, "x".repeat(65))), "field_too_long", json!("by")),
        (&object(r#","expires_at":"tomorrow""#), "expires_at_invalid", json!("expires_at")),
        (&object(r#","id":"first""#), "id_twice", json!("id")),
    ] {
        let first = r#"{"v":1,"id":"first","action":"WHITELIST","range":"1.2.3.4"}"#;
        let reply = write(&sidecar, COMMANDS, &[], &format!("{first}\n\n{line}\n{first}"));
        assert_eq!(reply.error(), (400, code.to_owned()), "{line}");
        let error = &reply.json()["error"];
        assert_eq!((&error["field"], &error["line"]), (&field, &json!(3)), "{line}");
    }
    assert_eq!(write(&sidecar, COMMANDS, &[], "\r\n \n").error(), (400, "group_empty".to_owned()));
    assert_eq!(sidecar.sink.values(), [""; 0]);
}

#[test]
fn a_group_has_at_most_a_thousand_commands() {
    let sidecar = Sidecar::ready();
    let group = |count: usize| "BLACKLIST 203.0.113.7\n\n".repeat(count);
    assert_eq!(write(&sidecar, COMMANDS, &[], &group(1_001)).error(), (413, "group_too_long".to_owned()));
    assert_eq!(sidecar.sink.values().len(), 0);
    let key = format!("Idempotency-Key: {}", "k".repeat(58));
    let reply = write(&sidecar, COMMANDS, &[&key], &group(1_000));
    assert_eq!((reply.status, &reply.json()["offset"]), (201, &json!(999)), "{}", reply.text());
    let id = format!("{}/1999", "k".repeat(58));
    assert_eq!(reply.json()["ids"][999], id, "numbered by its line");
}

#[test]
fn a_retry_looks_like_success_and_writes_nothing() {
    let sidecar = Sidecar::ready();
    let key = ["Idempotency-Key: import-7.a_b"];
    let body = "BLACKLIST 203.0.113.7\nBLACKLIST 203.0.113.9";
    let first = write(&sidecar, COMMANDS, &key, body).json();
    assert_eq!(first["ids"], json!(["import-7.a_b/1", "import-7.a_b/2"]));
    sidecar.write("BLACKLIST 10.0.0.1");
    let retry = write(&sidecar, COMMANDS, &key, body);
    assert_eq!((retry.status, retry.json()), (200, json!({"offset": 1, "duplicate": true})));
    let retry = write(&sidecar, &format!("{COMMANDS}?wait=applied"), &key, body);
    assert_eq!(retry.json(), json!({"offset": 1, "duplicate": true, "changed": 2, "refused": 0}));
    let more = write(&sidecar, COMMANDS, &key, &format!("{body}\nBLACKLIST 203.0.113.11"));
    assert_eq!(
        (more.status, more.json()),
        (201, json!({"offset": 3, "count": 1, "ids": ["import-7.a_b/3"]}))
    );
    assert_eq!(sidecar.sink.values().len(), 4);
}

#[test]
fn a_retry_before_the_fold_has_seen_the_first_writes_nothing() {
    let sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Keep);
    let key = ["Idempotency-Key: a"];
    assert_eq!(write(&sidecar, COMMANDS, &key, "BLACKLIST 203.0.113.7").status, 201);
    let (mut retry, mut other) = (sidecar.writer(), sidecar.writer());
    retry.send(
        "POST /v1/commands HTTP/1.1\r\nIdempotency-Key: a\r\nContent-Length: 21\r\n\r\nBLACKLIST 203.0.113.7",
    );
    // Once the worker has answered another one twice, it has seen the retry.
    assert_eq!((other.get("/healthz").status, other.get("/healthz").status), (200, 200));
    sidecar.sink.catch_up();
    let reply = retry.reply();
    assert_eq!((reply.status, reply.json()), (200, json!({"offset": 0, "duplicate": true})));
    assert_eq!(sidecar.sink.values().len(), 1);
}

#[test]
fn a_retry_of_what_would_now_be_refused_looks_like_success_too() {
    let sidecar = Sidecar::ready();
    let wide = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"10.0.0.0/7","force":true}"#;
    sidecar.write(wide);
    let retry = write(&sidecar, COMMANDS, &[], &wide.replace(r#","force":true"#, ""));
    assert_eq!((retry.status, retry.json()), (200, json!({"offset": 0, "duplicate": true})));
}

#[test]
fn a_key_is_short_and_plain() {
    let sidecar = Sidecar::ready();
    let long = format!("Idempotency-Key: {}", "k".repeat(59));
    for headers in [
        vec!["Idempotency-Key: "],
        vec!["Idempotency-Key: a/b"],
        vec!["Idempotency-Key: a b"],
        vec!["Idempotency-Key: a", "Idempotency-Key: a"],
        vec![&long],
    ] {
        let reply = write(&sidecar, COMMANDS, &headers, "BLACKLIST 203.0.113.7");
        assert_eq!(reply.error(), (400, "idempotency_key_invalid".to_owned()), "{headers:?}");
    }
}

#[test]
fn what_the_fold_would_refuse_is_refused_before_it_is_written() {
    let sidecar = Sidecar::ready();
    let expired = r#"{"v":1,"action":"BLACKLIST","range":"1.2.3.4","expires_at":"2020-01-01T00:00:00Z"}"#;
    for (line, code) in [
        (expired, "expired"),
        ("BLACKLIST 10.0.0.0/7", "too_broad"),
        ("WHITELIST 10.0.0.0/7", "too_broad"),
        ("BLACKLIST 2000::/18", "too_broad"),
    ] {
        let reply = write(&sidecar, COMMANDS, &[], &format!("BLACKLIST 203.0.113.7\n{line}"));
        assert_eq!(reply.error(), (422, code.to_owned()), "{line}");
        assert_eq!(reply.json()["error"]["line"], json!(2));
    }
    assert_eq!(sidecar.sink.values().len(), 0);
    let forced = r#"{"v":1,"action":"BLACKLIST","range":"10.0.0.0/7","force":true}"#;
    assert_eq!(write(&sidecar, COMMANDS, &[JSON], forced).status, 201);
}

#[test]
fn a_total_that_is_too_broad_is_found_by_a_preview() {
    let sidecar = Sidecar::ready();
    let eighths: String = (0..64).map(|at| format!("BLACKLIST {at}.0.0.0/8\n")).collect();
    sidecar.write(&eighths);
    let reply = write(&sidecar, COMMANDS, &[], "WHITELIST 200.0.0.1\nBLACKLIST 200.0.0.1");
    assert_eq!(reply.error(), (422, "too_broad".to_owned()));
    assert_eq!(reply.json()["error"]["line"], json!(2));
    // What is blacklisted already adds nothing.
    assert_eq!(write(&sidecar, COMMANDS, &[], "BLACKLIST 63.1.0.0/16").status, 201);
    assert_eq!(write(&sidecar, COMMANDS, &[], "WHITELIST 0.0.0.1\nBLACKLIST 200.0.0.1").status, 201);
}

#[test]
fn waiting_says_what_the_fold_said() {
    let sidecar = Sidecar::ready();
    let target = "/v1/commands?wait=applied";
    let one = write(&sidecar, target, &[], "BLACKLIST 203.0.113.0/24").json();
    assert_eq!((&one["changed"], &one["refused"]), (&json!(1), &json!(null)));
    let split = write(&sidecar, target, &[], "WHITELIST 203.0.113.7").json();
    assert_eq!((&split["changed"], &split["refused"]), (&json!(2), &json!(null)));
    let group =
        write(&sidecar, target, &[], "BLACKLIST 10.0.0.1\nBLACKLIST 10.0.0.3\nBLACKLIST 10.0.0.3").json();
    assert_eq!((&group["changed"], &group["refused"], &group["count"]), (&json!(2), &json!(0), &json!(3)));
    assert!(write(&sidecar, COMMANDS, &[], "WHITELIST 10.0.0.1").json().get("changed").is_none());
}

#[test]
fn waiting_ends_with_202_when_the_time_runs_out() {
    let sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Keep);
    for millis in ["0", "20"] {
        let reply = write(
            &sidecar,
            &format!("/v1/commands?wait=applied&wait_ms={millis}"),
            &[],
            "BLACKLIST 203.0.113.7",
        );
        assert_eq!((reply.status, &reply.json()["count"]), (202, &json!(1)));
        assert!(reply.json().get("changed").is_none());
    }
    // Two writers that do not know of each other: the fold decides.
    let same = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"203.0.113.9"}"#;
    assert_eq!(write(&sidecar, COMMANDS, &[], same).status, 201);
    let waiting = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| write(&sidecar, "/v1/commands?wait=applied&wait_ms=10000", &[], same).json());
        while sidecar.sink.values().len() < 4 {
            std::thread::yield_now();
        }
        sidecar.sink.catch_up();
        waiting.join().expect("an answer")
    });
    assert_eq!((&waiting["changed"], &waiting["refused"]), (&json!(0), &json!("duplicate")));
}

#[test]
fn the_parameters_of_a_write_are_never_guessed() {
    let sidecar = Sidecar::ready();
    for (query, code) in [
        ("dryrun", "parameter_unknown"),
        ("dry_run=maybe", "parameter_invalid"),
        ("dry_run&dry_run", "parameter_invalid"),
        ("wait", "parameter_invalid"),
        ("wait=durable", "parameter_invalid"),
        ("wait_ms=5", "parameter_invalid"),
        ("wait=applied&wait_ms=x", "parameter_invalid"),
        ("wait=applied&wait_ms=-1", "parameter_invalid"),
        ("wait=applied&wait_ms=%2B5", "parameter_invalid"),
        ("wait=applied&wait_ms=+5", "parameter_invalid"),
        ("wait=applied&wait_ms=", "parameter_invalid"),
        ("dry_run&wait=applied", "parameter_invalid"),
        ("wait=applied&wait_ms=10001", "parameter_invalid"),
    ] {
        let reply = write(&sidecar, &format!("/v1/commands?{query}"), &[], "BLACKLIST 203.0.113.7");
        assert_eq!(reply.error(), (400, code.to_owned()), "{query}");
    }
    assert_eq!(sidecar.sink.values().len(), 0);
}

#[test]
fn a_dry_run_says_what_would_happen_and_writes_nothing() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.0/24");
    let dry_run = |body: &str| {
        let reply = write(&sidecar, "/v1/commands?dry_run", &[], body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let shape = |rows, addresses, refused| json!({"rows_changed": rows, "addresses_changed": addresses, "refused": refused});
    assert_eq!(dry_run("WHITELIST 203.0.113.7"), shape(json!(2), json!(1), json!(null)));
    assert_eq!(dry_run("BLACKLIST 10.0.0.0/7"), shape(json!(0), json!(0), json!("too_broad")));
    let group = "BLACKLIST 10.0.0.0/7\nWHITELIST 203.0.113.7\nWHITELIST 203.0.113.9";
    assert_eq!(dry_run(group), shape(json!(4), json!(2), json!(1)));
    let wide = dry_run("BLACKLIST 2001:db8::/32");
    assert_eq!(wide, shape(json!(1), json!((1_u128 << 96).to_string()), json!(null)));
    assert_eq!(sidecar.sink.values().len(), 1);
}

#[test]
fn a_log_that_takes_nothing_and_one_that_does_not_say_differ() {
    let sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Fail(AppendError::Unavailable("the disk is full".to_owned())));
    let body = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"203.0.113.7"}"#;
    let reply = write(&sidecar, COMMANDS, &[JSON], body);
    assert_eq!(reply.error(), (503, "log_unavailable".to_owned()));
    assert!(reply.text().contains("the disk is full"));
    for mode in [Mode::Fail(AppendError::Unknown("the link dropped".to_owned())), Mode::Forget] {
        sidecar.sink.set(mode);
        let reply = write(&sidecar, COMMANDS, &[JSON], body);
        assert_eq!(reply.error(), (504, "outcome_unknown".to_owned()));
        assert_eq!(reply.json()["error"]["ids"], json!(["a"]));
    }
}

#[test]
fn a_client_that_leaves_does_not_take_its_command_back() {
    let sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Hold);
    let mut client = sidecar.writer();
    client.send("POST /v1/commands HTTP/1.1\r\nContent-Length: 21\r\n\r\nBLACKLIST 203.0.113.7");
    sidecar.sink.wait_held();
    drop(client);
    sidecar.sink.release();
    assert!(blacklisted(&sidecar, "203.0.113.7"));
}

#[test]
fn before_the_first_snapshot_nothing_is_written() {
    let sidecar = Sidecar::with(Settings::default());
    for target in [COMMANDS, "/v1/commands?dry_run", "/v1/commands?wait=applied"] {
        let reply = write(&sidecar, target, &["Idempotency-Key: a"], "BLACKLIST 203.0.113.7");
        assert_eq!(reply.error(), (503, "not_ready".to_owned()), "{target}");
    }
    assert_eq!(sidecar.sink.values(), [""; 0]);
    sidecar.publish();
    assert_eq!(write(&sidecar, COMMANDS, &["Idempotency-Key: a"], "BLACKLIST 203.0.113.7").status, 201);
    assert!(blacklisted(&sidecar, "203.0.113.7"));
}

#[test]
fn the_lookup_listener_takes_no_commands() {
    let sidecar = Sidecar::ready();
    assert_eq!(
        sidecar.lookup().post(COMMANDS, "BLACKLIST 203.0.113.7").error(),
        (404, "not_found".to_owned())
    );
}

#[test]
fn a_log_that_must_not_be_followed_takes_no_commands() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.0/24");
    let in_alarm = Detail {
        phase: Phase::Alarm,
        ready: true,
        alarm: Some(Alarm::AnotherLog),
        ..(*sidecar.status.detail()).clone()
    };
    sidecar.status.set_detail(in_alarm);
    let reply = write(&sidecar, COMMANDS, &[], "WHITELIST 203.0.113.7");
    assert_eq!(reply.error(), (503, "alarm".to_owned()));
    assert_eq!(sidecar.sink.values().len(), 1, "nothing of it was written");
}

#[test]
fn an_offset_that_lookups_have_passed_is_of_another_log() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.0/24");
    sidecar.sink.set(Mode::Elsewhere);
    let reply = write(&sidecar, "/v1/commands?wait=applied", &[], "WHITELIST 203.0.113.7");
    assert_eq!(reply.error(), (504, "outcome_unknown".to_owned()));
    assert!(reply.text().contains("another log"), "{}", reply.text());
}
