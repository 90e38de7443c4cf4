use serde_json::json;

use crate::client::Reply;
use crate::sidecar::{Settings, Sidecar};

fn listed() -> Sidecar {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.0/24\nBLACKLIST 2001:db8::7\n");
    sidecar
}

fn verdict(reply: &Reply) -> (u16, &str, Option<&str>) {
    (reply.status, reply.text(), reply.header("portcullis-blacklisted"))
}

const YES: (u16, &str, Option<&str>) = (200, r#"{"blacklisted":true}"#, Some("1"));
const NO: (u16, &str, Option<&str>) = (200, r#"{"blacklisted":false}"#, Some("0"));

#[test]
fn an_address_is_asked_for_in_the_path_or_as_a_parameter() {
    let sidecar = listed();
    for mut client in [sidecar.lookup(), sidecar.admin()] {
        for (address, expected) in [
            ("203.0.113.7", YES),
            ("203.0.114.0", NO),
            ("2001:db8::7", YES),
            ("2001:db8::8", NO),
            ("::ffff:203.0.113.7", YES),
            ("203%2E0.113.7", YES),
            ("2001%3adb8%3A%3A7", YES),
        ] {
            assert_eq!(verdict(&client.get(&format!("/v1/check/{address}"))), expected, "{address}");
            assert_eq!(verdict(&client.get(&format!("/v1/check?ip={address}"))), expected, "{address}");
        }
    }
}

#[test]
fn an_answer_names_its_position_and_age() {
    let sidecar = listed();
    let reply = sidecar.lookup().get("/v1/check/203.0.113.7");
    assert_eq!(reply.header("portcullis-position"), Some("2"));
    reply.header("portcullis-age-ms").expect("an age").parse::<u64>().expect("a number");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let error = sidecar.lookup().get("/v1/check/x");
    assert_eq!(error.header("portcullis-position"), Some("2"));
}

#[test]
fn head_is_get_without_its_body() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for target in
        ["/v1/check/203.0.113.7", "/v1/check?ip=203.0.113.7", "/healthz", "/readyz", "/v1/status", "/x"]
    {
        let get = client.get(target);
        let head = client.ask("HEAD", target, &[], "");
        assert_eq!(head.status, get.status, "{target}");
        for header in ["content-length", "content-type", "portcullis-blacklisted", "portcullis-position"] {
            assert_eq!(head.header(header), get.header(header), "{target} {header}");
        }
    }
}

#[test]
fn plain_text_is_one_digit_if_exactly_that_is_asked_for() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for (accept, body) in [
        ("text/plain", "1"),
        ("*/*", YES.1),
        ("text/plain, */*", YES.1),
        ("text/plain;q=0.5", YES.1),
        ("application/json", YES.1),
    ] {
        let reply = client.ask("GET", "/v1/check/203.0.113.7", &[&format!("Accept: {accept}")], "");
        assert_eq!(verdict(&reply), (200, body, Some("1")), "{accept}");
    }
    assert_eq!(client.ask("GET", "/v1/check/1.2.3.4", &["Accept: text/plain"], "").text(), "0");
}

#[test]
fn an_address_that_is_none_is_refused_with_what_was_meant() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for (target, hint) in [
        ("/v1/check/203.0.113.07", "did you mean 203.0.113.7?"),
        ("/v1/check/fe80::1%25eth0", "did you mean fe80::1?"),
        ("/v1/check/%20203.0.113.7", "did you mean 203.0.113.7?"),
        ("/v1/check/203%252E0.113.7", "write it like 203.0.113.7 or 2001:db8::7"),
        ("/v1/check/203.0.113.0%2F24", "write it like 203.0.113.7 or 2001:db8::7"),
        ("/v1/check/", "write it like 203.0.113.7 or 2001:db8::7"),
        ("/v1/check/%FF", "write it like 203.0.113.7 or 2001:db8::7"),
        ("/v1/check?ip=", "write it like 203.0.113.7 or 2001:db8::7"),
        ("/v1/check?ip=%2B1", "write it like 203.0.113.7 or 2001:db8::7"),
    ] {
        let reply = client.get(target);
        assert_eq!(reply.error(), (400, "address_invalid".to_owned()), "{target}");
        assert_eq!(reply.json()["error"]["hint"], hint, "{target}");
    }
}

#[test]
fn parameters_are_the_known_ones_each_once() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for (target, code) in [
        ("/v1/check", "parameter_invalid"),
        ("/v1/check?ip=1.2.3.4&ip=1.2.3.4", "parameter_invalid"),
        ("/v1/check?ip=%FF", "parameter_invalid"),
        ("/v1/check?ip=1.2.3.4&x=1", "parameter_unknown"),
        ("/v1/check/1.2.3.4?x", "parameter_unknown"),
        ("/v1/status?x", "parameter_unknown"),
        ("/readyz?strict=x", "parameter_invalid"),
    ] {
        assert_eq!(client.get(target).error(), (400, code.to_owned()), "{target}");
    }
}

#[test]
fn a_batch_is_answered_in_its_own_form() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for (body, expected) in [
        ("203.0.113.7\n1.2.3.4\n2001:db8::7\n", "1\n0\n1\n"),
        ("203.0.113.7\r\n\r\n \n1.2.3.4", "1\n0\n"),
        ("", ""),
        (r#"["203.0.113.7","1.2.3.4"]"#, "[true,false]"),
        ("\n [ \"203\\u002e0.113.7\" ] \n", "[true]"),
        ("[]", "[]"),
    ] {
        let reply = client.post("/v1/check", body);
        assert_eq!((reply.status, reply.text()), (200, expected), "{body}");
        assert_eq!(reply.header("portcullis-position"), Some("2"));
        let json = expected.starts_with('[');
        assert_eq!(reply.header("content-type"), Some(if json { "application/json" } else { "text/plain" }));
    }
}

#[test]
fn a_long_batch_keeps_its_order() {
    let sidecar = listed();
    let addresses = |count: usize| (0..count).map(|at| format!("203.0.{}.{}", 112 + at % 3, at % 256));
    let expected: String = (0..4096).map(|at| if at % 3 == 1 { "1\n" } else { "0\n" }).collect();
    let lines: String = addresses(4096).map(|address| address + "\n").collect();
    assert_eq!(sidecar.lookup().post("/v1/check", &lines).text(), expected);
    let array = json!(addresses(65_536).collect::<Vec<_>>()).to_string();
    let reply = sidecar.admin().post("/v1/check", &array);
    let verdicts: Vec<bool> = serde_json::from_slice(&reply.body).expect("an array");
    assert!(verdicts.len() == 65_536 && verdicts.iter().enumerate().all(|(at, yes)| *yes == (at % 3 == 1)));
}

#[test]
fn one_bad_address_refuses_the_batch_and_is_named() {
    let sidecar = listed();
    let mut client = sidecar.lookup();
    for (body, code, index, line) in [
        ("1.2.3.4\r\n\r\n1.2.3\n", "address_invalid", json!(1), json!(3)),
        ("1.2.3.4\n1.2.3.4 \n", "address_invalid", json!(1), json!(2)),
        (r#"["1.2.3.4","1.2.3.4","x"]"#, "address_invalid", json!(2), json!(null)),
        (r#"["1.2.3.4",7]"#, "address_invalid", json!(1), json!(null)),
        (r#"["1.2.3.4""#, "body_invalid", json!(null), json!(null)),
        (r#"["1.2.3.4"] x"#, "body_invalid", json!(null), json!(null)),
    ] {
        let reply = client.post("/v1/check", body);
        assert_eq!(reply.error(), (400, code.to_owned()), "{body}");
        let error = &reply.json()["error"];
        assert_eq!((&error["index"], &error["line"]), (&index, &line), "{body}");
    }
    client.send(
        "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n\u{e9}"
            .as_bytes()
            .split_at(64)
            .0,
    );
    assert_eq!(client.reply().error(), (400, "body_invalid".to_owned()));
}

#[test]
fn a_batch_has_a_limit_that_the_listener_sets() {
    let sidecar = listed();
    let lines = |count: usize| "1.2.3.4\n".repeat(count);
    let array = |count: usize| json!(vec!["1.2.3.4"; count]).to_string();
    let too_long = (413, "batch_too_long".to_owned());
    assert_eq!(sidecar.lookup().post("/v1/check", &lines(4096)).status, 200);
    assert_eq!(sidecar.lookup().post("/v1/check", &array(4096)).status, 200);
    assert_eq!(sidecar.lookup().post("/v1/check", &lines(4097)).error(), too_long);
    assert_eq!(sidecar.lookup().post("/v1/check", &array(4097)).error(), too_long);
    assert_eq!(sidecar.admin().post("/v1/check", &lines(65_536)).status, 200);
    assert_eq!(sidecar.admin().post("/v1/check", &lines(65_537)).error(), too_long);
    assert_eq!(sidecar.admin().post("/v1/check", &array(65_537)).error(), too_long);
}

#[test]
fn not_ready_is_not_free() {
    let sidecar = Sidecar::with(Settings::default());
    let mut client = sidecar.lookup();
    let not_ready = (503, "not_ready".to_owned());
    let reply = client.get("/v1/check/1.2.3.4");
    assert_eq!(reply.error(), not_ready);
    assert_eq!((reply.header("portcullis-position"), reply.header("portcullis-age-ms")), (None, None));
    assert_eq!(client.post("/v1/check", "1.2.3.4").error(), not_ready);
    assert_eq!(client.get("/v1/check/x").error(), (400, "address_invalid".to_owned()));
    sidecar.publish();
    assert_eq!(verdict(&client.get("/v1/check/1.2.3.4")), NO);
}
