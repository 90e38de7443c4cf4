use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use portcullis::http::settings::{HttpSettings, Listen};
use portcullis::http::{ProjectorApp, Server, StartError};
use portcullis::projector::{Reason, Role, Status};
use portcullis::record::{Offset, Position};
use portcullis::status::Degraded;

use crate::client::Client;

/// The listener of a projector, and what the projector says.
struct Projector {
    server: Option<Server>,
    status: watch::Sender<Status>,
}

impl Projector {
    fn new() -> Self {
        Self::at(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))))
    }

    fn at(listen: Listen) -> Self {
        let (status, shown) = watch::channel(Status::default());
        let app = ProjectorApp { status: shown, version: "1.2.3" };
        let server = Server::start_projector(app, &[listen], &HttpSettings::default()).expect("a free port");
        Self { server: Some(server), status }
    }

    fn client(&self) -> Client {
        let Some([Listen::Tcp(address)]) = self.server.as_ref().map(Server::admin) else {
            panic!("it listens at one address")
        };
        Client::tcp(*address)
    }

    /// A projector that has looked at its table says this.
    fn says(&self, role: Role, degraded: Option<Degraded>) {
        self.status.send_replace(Status { role, degraded, looked: true, ..Status::default() });
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown(Duration::ZERO);
        }
    }
}

#[test]
fn it_is_ready_while_it_is_active_or_would_be() {
    let projector = Projector::new();
    let mut client = projector.client();
    assert_eq!(client.get("/healthz").status, 200);
    let reply = client.get("/readyz");
    assert_eq!(reply.error(), (503, "not_ready".to_owned()), "it has looked at nothing");
    assert_eq!((&reply.json()["role"], &reply.json()["ready"]), (&json!("standby"), &json!(false)));
    for role in [Role::Active, Role::Standby] {
        projector.says(role, None);
        let reply = client.get("/readyz");
        assert_eq!((reply.status, &reply.json()["role"]), (200, &json!(role.word())));
        assert_eq!(client.get("/readyz?strict").status, 200);
    }
    projector.says(Role::Active, Some(Degraded::TopicSettings));
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.get("/readyz?strict").error(), (503, "degraded".to_owned()));
    for reason in [Reason::AnotherLog, Reason::FutureCommand(Offset::new(7)), Reason::Stop] {
        projector.says(Role::Stopped(reason), None);
        let reply = client.get("/readyz");
        assert_eq!(reply.error(), (503, "stopped".to_owned()));
        assert_eq!(reply.json()["reason"], json!(reason.word()));
        assert_eq!(client.get("/healthz").status, 200, "it lives");
    }
}

#[test]
fn its_status_says_all_that_it_promises() {
    let projector = Projector::new();
    let mut client = projector.client();
    let zero = "0".repeat(32);
    assert_eq!(
        client.get("/v1/status").json(),
        json!({
            "role": "standby", "ready": false, "reason": null, "position": 0, "rows": 0,
            "fingerprint": zero, "degraded": null, "message": null, "version": "1.2.3",
        })
    );
    projector.status.send_replace(Status {
        role: Role::Stopped(Reason::FutureCommand(Offset::new(7))),
        looked: true,
        position: Position::new(7),
        rows: 2,
        message: Some("upgrade portcullis".to_owned()),
        ..Status::default()
    });
    assert_eq!(
        client.get("/v1/status").json(),
        json!({
            "role": "stopped", "ready": false, "reason": "future_command", "reason_offset": 7, "position": 7,
            "rows": 2, "fingerprint": zero, "degraded": null, "message": "upgrade portcullis",
            "version": "1.2.3",
        })
    );
    projector.says(Role::Active, Some(Degraded::TopicSettings));
    let status = client.get("/v1/status").json();
    assert_eq!(
        (&status["role"], &status["reason"], &status["degraded"]),
        (&json!("active"), &json!(null), &json!("topic_settings"))
    );
}

#[test]
fn it_answers_nothing_else_and_nobody_else() {
    let projector = Projector::new();
    let mut client = projector.client();
    for path in ["/v1/check/192.0.2.1", "/v1/commands", "/v1/ranges", "/", "/readyz/"] {
        assert_eq!(client.get(path).error(), (404, "not_found".to_owned()), "{path}");
    }
    for path in ["/healthz", "/readyz", "/v1/status"] {
        let reply = client.post(path, "BLACKLIST 192.0.2.1");
        assert_eq!(reply.error(), (405, "method_not_allowed".to_owned()), "{path}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    }
    assert_eq!(client.ask("HEAD", "/v1/status", &[], "").status, 200);
    for path in ["/v1/status?x", "/readyz?strict=maybe"] {
        assert_eq!(client.get(path).status, 400, "{path}");
    }
    let long = format!("/v1/status?{}", "x".repeat(3_000));
    assert_eq!(client.get(&long).error(), (414, "target_too_long".to_owned()));
    for (path, status) in [("/v1/status", 421), ("/healthz", 200), ("/readyz", 503)] {
        let mut client = projector.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
        assert_eq!(client.reply().status, status, "{path}");
    }
}

#[test]
fn it_listens_where_it_is_told_to_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("projector.sock");
    let projector = Projector::at(Listen::Unix(path.clone()));
    assert_eq!(Client::unix(&path).get("/healthz").status, 200);
    assert_eq!(std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o666);
    assert_eq!(std::fs::read_dir(directory.path()).expect("the folder").count(), 1);
    let (_status, shown) = watch::channel(Status::default());
    let app = ProjectorApp { status: shown, version: "1.2.3" };
    let error = Server::start_projector(app, &[Listen::Unix(path.clone())], &HttpSettings::default());
    assert!(matches!(error, Err(StartError::Listen { .. })), "it is taken");
    drop(projector);
    assert!(!path.exists());
}
