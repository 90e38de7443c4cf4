use portcullis::http::request::{BODIES_BYTES_MAX, BODY_BYTES_MAX};
use portcullis::http::{ADMIN_CONNECTIONS_MAX, HEADER_FIELDS_MAX, LOOKUP_BODY_BYTES_MAX};

use crate::client::{Client, Reply};
use crate::sidecar::Sidecar;

fn asked(client: &mut Client, request: impl AsRef<[u8]>) -> Reply {
    client.send(request);
    client.reply()
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn unknown_paths_and_wrong_methods_are_told_apart() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.writer();
    for path in
        ["/", "/v1", "/v1/check/1.2.3.4/", "/v1/check/1.2.3.0/24", "//v1/check", "/V1/status", "/metrics"]
    {
        assert_eq!(client.get(path).error(), code(404, "not_found"), "{path}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/check/1.2.3.4", "GET, HEAD"),
        ("POST", "/v1/check/1.2.3.4", "GET, HEAD"),
        ("PUT", "/v1/check", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/status", "GET, HEAD"),
        ("GET", "/v1/commands", "POST"),
        ("POST", "/v1/ranges", "GET, HEAD"),
    ] {
        let reply = client.ask(method, path, &[], "");
        assert_eq!(reply.error(), code(405, "method_not_allowed"), "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allowed));
    }
}

#[test]
fn a_target_has_at_most_2_kib() {
    let sidecar = Sidecar::ready();
    let target = |bytes: usize| format!("/v1/check/{}", "1".repeat(bytes - "/v1/check/".len()));
    assert_eq!(sidecar.lookup().get(&target(2048)).error(), code(400, "address_invalid"));
    let mut client = sidecar.lookup();
    assert_eq!(client.get(&target(2049)).error(), code(414, "target_too_long"));
    assert!(client.is_closed());
    let query = format!("/v1/check?ip={}", "1".repeat(2048));
    assert_eq!(sidecar.lookup().get(&query).error(), code(414, "target_too_long"));
}

#[test]
fn a_header_has_at_most_16_kib_and_32_fields() {
    let sidecar = Sidecar::ready();
    let get = |fields: usize| {
        let fields: Vec<String> = (1..fields).map(|at| format!("X-{at}: x")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        sidecar.lookup().ask("GET", "/healthz", &fields, "")
    };
    assert_eq!(get(HEADER_FIELDS_MAX).status, 200);
    assert_eq!(get(HEADER_FIELDS_MAX + 1).error(), code(431, "headers_too_large"));
    let long = |bytes: usize| {
        let field = format!("X: {}", "x".repeat(bytes));
        sidecar.lookup().ask("GET", "/healthz", &[&field], "")
    };
    assert_eq!(long(15 * 1024).status, 200);
    assert_eq!(long(16 * 1024).error(), code(431, "headers_too_large"));
    // What nobody would read to its end is refused by its status alone.
    let mut client = sidecar.lookup();
    client.send_some(format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(100 * 1024)).as_bytes());
    assert_eq!(client.head().status, 431);
}

#[test]
fn a_body_has_at_most_4_mib_and_256_kib_on_a_lookup_listener_however_it_is_sent() {
    let sidecar = Sidecar::ready();
    for bytes_max in [BODY_BYTES_MAX, LOOKUP_BODY_BYTES_MAX] {
        let connect = || if bytes_max == BODY_BYTES_MAX { sidecar.admin() } else { sidecar.lookup() };
        let exact = "\n".repeat(bytes_max);
        assert_eq!(connect().post("/v1/check", &exact).status, 200);
        let mut client = connect();
        assert_eq!(client.post("/v1/check", &format!("{exact}\n")).error(), code(413, "body_too_long"));
        assert!(client.is_closed());
        let mut client = connect();
        client.send("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{:x}\r\n{exact}\n\r\n0\r\n\r\n", bytes_max + 1));
        assert_eq!(client.reply().error(), code(413, "body_too_long"));
        let mut client = connect();
        let announced = format!("Expect: 100-continue\r\nContent-Length: {}", bytes_max + 1);
        client.send(format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\n{announced}\r\n\r\n"));
        assert_eq!(client.reply().error(), code(413, "body_too_long"), "without being sent");
    }
}

#[test]
fn all_bodies_together_have_a_limit_too() {
    let sidecar = Sidecar::ready();
    let head =
        format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_BYTES_MAX}\r\n\r\n");
    let unfinished = format!("{head}{}", "\n".repeat(BODY_BYTES_MAX - 1));
    let full = BODIES_BYTES_MAX / BODY_BYTES_MAX;
    let mut waiting: Vec<Client> = (0..full).map(|_| sidecar.admin()).collect();
    waiting.iter_mut().for_each(|client| client.send(&unfinished));
    // What the others have sent may still be on its way.
    let refused = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let reply = sidecar.admin().post("/v1/check", &"\n".repeat(1024));
        (reply.status != 200).then(|| reply.error())
    });
    assert_eq!(refused, Some(code(503, "busy")));
    assert_eq!(sidecar.admin().get("/v1/check/192.0.2.1").status, 200, "what has no body goes on");
    assert_eq!(sidecar.lookup().post("/v1/check", "192.0.2.1").status, 200, "and so do the lookup listeners");
    drop(waiting);
    let accepted = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        sidecar.admin().post("/v1/check", &"\n".repeat(1024)).status == 200
    });
    assert!(accepted, "there is room again");
}

#[test]
fn of_a_body_that_is_refused_no_more_is_read_than_of_one_that_is_taken() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.lookup();
    client.send("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mebibyte = format!("100000\r\n{}\r\n", "x".repeat(1024 * 1024));
    // What the kernel holds on the way comes on top.
    let taken = (0..64).take_while(|_| client.is_taken(mebibyte.as_bytes())).count();
    assert!(taken < 32, "{taken} MiB");
}

#[test]
fn a_client_may_ask_whether_to_send_its_body() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.lookup();
    client.send(
        "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n",
    );
    assert_eq!(client.head().status, 100);
    assert_eq!(asked(&mut client, "1.2.3.4").text(), "0\n");
}

#[test]
fn a_slow_body_is_answered_and_a_slow_header_is_not() {
    let sidecar = Sidecar::ready();
    let mut slow_body = sidecar.lookup();
    slow_body.send("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n1.2");
    let mut slow_header = sidecar.lookup();
    slow_header.send("GET /healthz HTTP/1.1\r\nHo");
    let mut idle = sidecar.lookup();
    assert_eq!(idle.get("/healthz").status, 200);
    assert!(slow_header.is_closed());
    assert_eq!(slow_body.reply().error(), code(408, "body_timeout"));
    assert!(slow_body.is_closed());
    assert_eq!(idle.get("/healthz").status, 200, "being idle is not being slow");
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let sidecar = Sidecar::ready();
    let mut open: Vec<Client> = (0..ADMIN_CONNECTIONS_MAX).map(|_| sidecar.admin()).collect();
    assert!(open.iter_mut().all(|client| client.get("/healthz").status == 200));
    let mut late = sidecar.admin();
    late.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(late.is_silent());
    assert_eq!(sidecar.lookup().get("/healthz").status, 200, "the lookup listener has its own");
    assert_eq!(sidecar.writer().get("/healthz").status, 200, "and so has the operator's socket");
    open.pop();
    assert_eq!(late.reply().status, 200);
}

#[test]
fn requests_may_follow_each_other_at_once() {
    let sidecar = Sidecar::ready();
    sidecar.write("BLACKLIST 203.0.113.7");
    let mut client = sidecar.lookup();
    let get = |address: &str| format!("GET /v1/check/{address} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n203.0.113.7";
    client.send([get("203.0.113.7"), get("1.2.3.4"), post.to_owned(), get("x"), get("203.0.113.7")].concat());
    let replies: Vec<(u16, String)> =
        (0..5).map(|_| client.reply()).map(|reply| (reply.status, reply.text()[..2].to_owned())).collect();
    let statuses: Vec<u16> = replies.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 400, 200]);
    assert_eq!(replies[2].1, "1\n");
    assert_eq!(client.get("/healthz").status, 200, "the connection stays open");
}

#[test]
fn a_client_that_closes_its_half_gets_its_answer() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.lookup();
    client.send("GET /v1/check/1.2.3.4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.close_write();
    assert_eq!(client.reply().status, 200);
    assert!(client.is_closed());
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let sidecar = Sidecar::ready();
    let mut client = sidecar.lookup();
    assert_eq!(asked(&mut client, "GET /v1/check/1.2.3.4 HTTP/1.0\r\nHost: localhost\r\n\r\n").status, 200);
    assert!(client.is_closed());
}

#[test]
fn nothing_is_read_as_another_request_than_it_may_be() {
    let sidecar = Sidecar::ready();
    let second = "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        "GET /heal\0thz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = sidecar.lookup();
        client.send_some(format!("{request}{second}").as_bytes());
        assert_eq!(client.head().status, 400, "{request:?}");
        assert!(client.is_closed(), "{request:?}");
    }
    let mut client = sidecar.lookup();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.is_closed(), "HTTP/2 has no answer in HTTP/1");
    let both = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n1.2.3.4\r\n0\r\n\r\n";
    let mut client = sidecar.lookup();
    client.send(format!("{both}{second}"));
    assert_eq!(client.reply().text(), "0\n", "read as chunked");
    assert!(client.is_closed(), "answered once");
}
