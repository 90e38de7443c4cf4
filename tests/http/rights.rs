use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use portcullis::http::settings::HttpSettings;

use crate::client::{Client, Reply};
use crate::sidecar::{Settings, Sidecar};

const COMMAND: &str = "BLACKLIST 203.0.113.7";

#[test]
fn writing_over_tcp_takes_the_token() {
    let sidecar = Sidecar::ready();
    let token = sidecar.token.as_str();
    let right = format!("Authorization: Bearer {token}");
    let refused = [
        vec![],
        vec!["Authorization: Bearer ".to_owned()],
        vec![format!("Authorization: Bearer {}", "0".repeat(64))],
        vec![format!("Authorization: Bearer {}", &token[..63])],
        vec![format!("Authorization: Bearer {token}0")],
        vec![format!("Authorization: Basic {token}")],
        vec![right.clone(), right.clone()],
    ];
    let write = |headers: &[String]| {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        sidecar.admin().ask("POST", "/v1/commands", &headers, COMMAND)
    };
    for headers in refused {
        let reply = write(&headers);
        assert_eq!(reply.error(), (401, "token_invalid".to_owned()), "{headers:?}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(sidecar.sink.values().len(), 0);
    assert_eq!(write(&[right]).status, 201);
    assert_eq!(write(&[format!("authorization: bearer {token}")]).status, 201);
}

#[test]
fn who_is_refused_is_told_so_however_much_is_sent() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.admin();
    let body = "BLACKLIST 203.0.113.7\n".repeat(150_000);
    assert_eq!(client.post("/v1/commands", &body).error(), (401, "token_invalid".to_owned()));
    assert_eq!(client.post("/v1/nothing", &body).error(), (404, "not_found".to_owned()));
}

#[test]
fn a_dry_run_takes_the_same_rights() {
    let sidecar = Sidecar::ready();
    let reply = sidecar.admin().post("/v1/commands?dry_run", COMMAND);
    assert_eq!(reply.error(), (401, "token_invalid".to_owned()));
}

#[test]
fn a_web_page_may_not_write_even_over_the_socket() {
    let sidecar = Sidecar::ready();
    let token = format!("Authorization: Bearer {}", sidecar.token.as_str());
    for mut client in [sidecar.admin(), sidecar.writer()] {
        for origin in ["Origin: http://localhost:8182", "Origin: null"] {
            let reply = client.ask("POST", "/v1/commands", &[origin, &token], COMMAND);
            assert_eq!(reply.error(), (403, "origin_refused".to_owned()));
        }
    }
    assert_eq!(sidecar.sink.values().len(), 0);
    assert_eq!(sidecar.lookup().ask("POST", "/v1/check", &["Origin: null"], "1.2.3.4").status, 200);
}

fn asked(client: &mut Client, request: &str) -> Reply {
    client.send(request);
    client.reply()
}

#[test]
fn over_tcp_there_is_exactly_one_host_and_it_is_ours() {
    let http = HttpSettings { hosts: vec!["blacklist.internal".to_owned()] };
    let sidecar = Sidecar::with(Settings { http, ..Settings::default() });
    sidecar.publish();
    let port = sidecar.lookup_address().port();
    for (target, host, status) in [
        ("/v1/check/1.2.3.4", "Host: localhost\r\n".to_owned(), 200),
        ("/v1/check/1.2.3.4", format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("/v1/check/1.2.3.4", "Host: [::1]:80\r\n".to_owned(), 200),
        ("/v1/check/1.2.3.4", "Host: blacklist.internal\r\n".to_owned(), 200),
        ("http://localhost/v1/check/1.2.3.4", "Host: localhost\r\n".to_owned(), 200),
        ("/v1/check/1.2.3.4", "Host: evil.example\r\n".to_owned(), 421),
        ("/v1/check/1.2.3.4", format!("Host: evil.example:{port}\r\n"), 421),
        ("/v1/check/1.2.3.4", "Host: \r\n".to_owned(), 421),
        ("http://evil.example/v1/check/1.2.3.4", "Host: localhost\r\n".to_owned(), 421),
        ("http://localhost/v1/check/1.2.3.4", "Host: evil.example\r\n".to_owned(), 421),
        ("/v1/check/1.2.3.4", String::new(), 400),
        ("/v1/check/1.2.3.4", "Host: localhost\r\nHost: localhost\r\n".to_owned(), 400),
        ("/healthz", "Host: evil.example\r\n".to_owned(), 200),
        ("/readyz", String::new(), 200),
        ("/v1/status", "Host: evil.example\r\n".to_owned(), 421),
    ] {
        let reply = asked(&mut sidecar.lookup(), &format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(reply.status, status, "{target} {host:?} {}", reply.text());
        match status {
            421 => assert_eq!(reply.error().1, "host_foreign"),
            400 => assert_eq!(reply.error().1, "host_invalid"),
            _ => {}
        }
    }
    let write = format!(
        "POST /v1/commands HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {}\r\nContent-Length: 21\r\n\r\n{COMMAND}",
        sidecar.token.as_str()
    );
    assert_eq!(asked(&mut sidecar.admin(), &write).error().1, "host_foreign");
}

#[test]
fn over_a_unix_socket_no_host_is_needed() {
    let sidecar = Sidecar::ready();
    assert_eq!(asked(&mut sidecar.writer(), "GET /v1/check/1.2.3.4 HTTP/1.1\r\n\r\n").status, 200);
    assert_eq!(
        asked(&mut sidecar.writer(), "GET /v1/check/1.2.3.4 HTTP/1.1\r\nHost: any\r\n\r\n").status,
        200
    );
}

#[test]
fn the_admin_socket_is_its_owner_s_alone() {
    let sidecar = Sidecar::ready();
    let metadata = std::fs::metadata(sidecar.admin_socket()).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(sidecar.directory.path()).expect("the folder").collect();
    assert_eq!(names.len(), 2, "nothing but the socket and the token is left: {names:?}");
}
