use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use portcullis::http::settings::{AdminSettings, HttpSettings, Listen, LookupSettings, SocketMode};
use portcullis::http::{ADMIN_SOCKET, App, Server, StartError};

use crate::client::Client;
use crate::sidecar::{Mode, Settings, Sidecar};

const PATIENCE: Duration = Duration::from_secs(60);

fn any_port() -> Listen {
    Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// What starting with these settings fails with.
fn start_error(app: App, settings: &Settings) -> StartError {
    let directory = tempfile::tempdir().expect("a directory");
    let Settings { lookup, admin, http } = settings;
    let error = Server::start(app, lookup, admin, http, directory.path()).expect_err("it must not start");
    assert!(!directory.path().join(ADMIN_SOCKET).exists(), "nothing is left behind");
    error
}

#[test]
fn a_configuration_that_cannot_be_is_told_from_a_place_that_is_taken() {
    let sidecar = Sidecar::ready();
    let bad = |settings: Settings| match start_error(sidecar.app(), &settings) {
        StartError::Configuration(message) => message,
        error => panic!("{error}"),
    };
    let lookup = LookupSettings { workers: 0, ..Settings::default().lookup };
    assert!(bad(Settings { lookup, ..Settings::default() }).contains("workers"));
    let remote = vec![Listen::Tcp(SocketAddr::from(([0, 0, 0, 0], 0)))];
    let admin = AdminSettings { listen: remote.clone(), ..AdminSettings::default() };
    assert!(bad(Settings { admin: admin.clone(), ..Settings::default() }).contains("allow_remote"));
    let group = AdminSettings { socket_group: Some("no-such-group".to_owned()), ..Settings::default().admin };
    assert!(bad(Settings { admin: group, ..Settings::default() }).contains("no-such-group"));
    let http = HttpSettings { hosts: vec!["a:80".to_owned()] };
    assert!(bad(Settings { http, ..Settings::default() }).contains("a:80"));
    // What is allowed is allowed.
    drop(Sidecar::with(Settings {
        admin: AdminSettings { allow_remote: true, ..admin },
        ..Settings::default()
    }));
}

#[test]
fn a_place_that_cannot_be_listened_on_is_named() {
    let sidecar = Sidecar::ready();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("file"), "").expect("a file");
    let served = directory.path().join("served");
    let _listener = UnixListener::bind(&served).expect("a socket");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    for (listen, reason) in [
        (Listen::Tcp(taken.local_addr().expect("an address")), "in use"),
        (Listen::Unix(served.clone()), "another process listens there"),
        (Listen::Unix(directory.path().join("file")), "no socket"),
        (Listen::Unix(directory.path().join("none/s")), "No such file"),
        (Listen::Unix(directory.path().join("x".repeat(108))), "path must be shorter"),
    ] {
        let lookup = LookupSettings { listen: vec![any_port(), listen.clone()], ..LookupSettings::default() };
        let error = start_error(sidecar.app(), &Settings { lookup, ..Settings::default() });
        let shown = error.to_string();
        assert!(matches!(&error, StartError::Listen { listen: named, .. } if *named == listen), "{shown}");
        assert!(shown.contains(&listen.to_string()) && shown.contains(reason), "{shown}");
    }
    assert!(UnixStream::connect(&served).is_ok(), "the served socket is still there");
}

#[test]
fn a_stale_socket_is_replaced_and_ours_is_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lookup.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "it is stale");
    let lookup = LookupSettings { listen: vec![Listen::Unix(path.clone())], ..LookupSettings::default() };
    let mut sidecar = Sidecar::with(Settings { lookup, ..Settings::default() });
    sidecar.publish();
    assert_eq!(Client::unix(&path).get("/v1/check/1.2.3.4").status, 200);
    assert_eq!(std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o666);
    sidecar.server.take().expect("running").shutdown(PATIENCE);
    assert!(!path.exists() && !sidecar.admin_socket().exists());
}

#[test]
fn a_socket_that_is_another_s_by_now_stays() {
    let mut sidecar = Sidecar::ready();
    let path = sidecar.admin_socket();
    std::fs::remove_file(&path).expect("ours");
    let _other = UnixListener::bind(&path).expect("another one");
    let inode = std::fs::metadata(&path).expect("the socket").ino();
    sidecar.server.take().expect("running").shutdown(PATIENCE);
    assert_eq!(std::fs::metadata(&path).expect("the socket").ino(), inode);
}

#[test]
fn mode_and_group_of_the_admin_sockets_are_those_of_the_settings() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sock");
    let mode = SocketMode::try_from("0660".to_owned()).expect("a mode");
    let own = group();
    let admin = AdminSettings {
        listen: vec![Listen::Unix(path.clone())],
        socket_mode: mode,
        socket_group: Some(own.1.clone()),
        allow_remote: false,
    };
    let sidecar = Sidecar::with(Settings { admin, ..Settings::default() });
    for path in [path, sidecar.admin_socket()] {
        let there = std::fs::metadata(path).expect("the socket");
        assert_eq!((there.permissions().mode() & 0o777, there.gid()), (0o660, own.0));
    }
}

/// The group of the process: its number and its name.
fn group() -> (u32, String) {
    let group = nix::unistd::Group::from_gid(nix::unistd::getgid()).expect("a look-up").expect("a group");
    (group.gid.as_raw(), group.name)
}

#[test]
fn a_request_that_runs_is_finished_before_the_end() {
    let mut sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Hold);
    let (mut running, mut idle, mut fresh) = (sidecar.writer(), sidecar.admin(), sidecar.lookup());
    assert_eq!(idle.get("/healthz").status, 200);
    let mut lookup = sidecar.lookup();
    assert_eq!(lookup.get("/healthz").status, 200);
    running.send("POST /v1/commands HTTP/1.1\r\nContent-Length: 21\r\n\r\nBLACKLIST 203.0.113.7");
    sidecar.sink.wait_held();
    let (address, server) = (sidecar.admin_address(), sidecar.server.take().expect("running"));
    let ending = std::thread::spawn(move || server.shutdown(PATIENCE));
    for client in [&mut idle, &mut fresh, &mut lookup] {
        assert!(client.is_closed(), "without a request nothing is waited for");
    }
    while TcpStream::connect(address).is_ok() {}
    sidecar.sink.release();
    let reply = running.reply();
    assert_eq!(reply.status, 201);
    assert!(running.is_closed());
    ending.join().expect("an end");
    assert!(!sidecar.admin_socket().exists());
}

#[test]
fn a_request_that_does_not_end_is_cut_off() {
    let mut sidecar = Sidecar::ready();
    sidecar.sink.set(Mode::Hold);
    let mut running = sidecar.writer();
    running.send("POST /v1/commands HTTP/1.1\r\nContent-Length: 21\r\n\r\nBLACKLIST 203.0.113.7");
    sidecar.sink.wait_held();
    sidecar.server.take().expect("running").shutdown(Duration::from_millis(50));
    assert!(running.is_closed());
}

#[test]
fn a_header_that_ends_while_draining_is_answered_and_not_ready() {
    let lookup = LookupSettings { workers: 1, ..Settings::default().lookup };
    let mut sidecar = Sidecar::with(Settings { lookup, ..Settings::default() });
    sidecar.publish();
    let mut late = sidecar.lookup();
    late.send("GET /readyz HTTP/1.1\r\nHo");
    let mut other = sidecar.lookup();
    // Once the worker has answered another one twice, it has seen the beginning of the header.
    assert_eq!((other.get("/readyz").status, other.get("/readyz").status), (200, 200));
    let server = sidecar.server.take().expect("running");
    let ending = std::thread::spawn(move || server.shutdown(PATIENCE));
    assert!(other.is_closed());
    late.send("st: localhost\r\n\r\n");
    assert_eq!(late.reply().error(), (503, "draining".to_owned()));
    assert!(late.is_closed());
    ending.join().expect("an end");
}

#[test]
fn a_worker_that_nobody_asks_lets_go_of_replaced_snapshots() {
    let sidecar = Sidecar::ready();
    let held = sidecar.app().readers.reader().hold().expect("a snapshot");
    let replaced = std::sync::Arc::downgrade(&held);
    drop(held);
    for mut client in [sidecar.lookup(), sidecar.lookup(), sidecar.admin()] {
        assert_eq!(client.get("/v1/check/1.2.3.4").status, 200);
    }
    sidecar.sink.wait_until_let_go(&replaced);
}

#[test]
fn a_server_that_is_forgotten_ends_too() {
    let mut sidecar = Sidecar::ready();
    let address = sidecar.lookup_address();
    drop(sidecar.server.take());
    while TcpStream::connect(address).is_ok() {}
}

#[test]
fn workers_that_never_sleep_answer_drain_and_end() {
    let lookup = LookupSettings { workers: 1, spin: true, ..Settings::default().lookup };
    let mut sidecar = Sidecar::with(Settings { lookup, ..Settings::default() });
    let mut early = sidecar.lookup();
    assert_eq!(early.get("/v1/check/203.0.113.7").error(), (503, "not_ready".to_owned()));
    sidecar.publish();
    sidecar.write("BLACKLIST 203.0.113.7");
    let lines = "203.0.113.7\n".repeat(1000);
    for mut client in [early, sidecar.lookup(), sidecar.lookup()] {
        assert_eq!(client.get("/v1/check/203.0.113.7").header("portcullis-blacklisted"), Some("1"));
        assert_eq!(client.post("/v1/check", &lines).text(), "1\n".repeat(1000));
    }
    let mut late = sidecar.lookup();
    late.send("GET /readyz HTTP/1.1\r\nHo");
    let mut idle = sidecar.lookup();
    // Once the worker has answered another one twice, it has seen the beginning of the header.
    assert_eq!((idle.get("/readyz").status, idle.get("/readyz").status), (200, 200));
    let server = sidecar.server.take().expect("running");
    let ending = std::thread::spawn(move || server.shutdown(PATIENCE));
    assert!(idle.is_closed());
    late.send("st: localhost\r\n\r\n");
    assert_eq!(late.reply().error(), (503, "draining".to_owned()));
    assert!(late.is_closed());
    ending.join().expect("an end");
}
