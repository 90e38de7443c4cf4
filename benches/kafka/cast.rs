//! Who plays in the bench: a broker with its two topics, sidecars, a projector.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis::http::client::{Client, Endpoint, Request};
use portcullis::log::kafka::KafkaLog;
use portcullis::log::settings::KafkaSettings;
use portcullis::record::Position;
use portcullis::table::Fingerprint;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::kafka::Broker;

pub(crate) const COMMANDS: &str = "portcullis.commands";
pub(crate) const TABLE: &str = "portcullis.table";
/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// A broker with the two topics, and a table that is begun.
pub(crate) struct Scene {
    pub(crate) broker: Broker,
    pub(crate) log: KafkaLog,
    folder: TempDir,
}

/// What a sidecar begins with.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Table,
}

impl Scene {
    /// Begins on a broker; these settings of the table topic are other ones than usual.
    pub(crate) fn new(broker: Broker, table: &[(&str, &str)]) -> Self {
        let settings = KafkaSettings {
            bootstrap_servers: broker.bootstrap(),
            commands_topic: COMMANDS.to_owned(),
            table_topic: Some(TABLE.to_owned()),
            client: BTreeMap::new(),
            allow_finite_retention: false,
        };
        let log = KafkaLog::new(settings).expect("right settings");
        let scene = Self { broker, log, folder: tempfile::tempdir().expect("a folder") };
        let config = format!(
            "[log]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncommands_topic = \"{COMMANDS}\"\n\
             table_topic = \"{TABLE}\"\n",
            scene.broker.bootstrap()
        );
        std::fs::write(scene.config(), config).expect("our folder");
        let created = scene.program(&["topics", "create"]).status().expect("it runs");
        assert!(created.success(), "the topics can't be created");
        if !table.is_empty() {
            scene.broker.alter_topic(TABLE, table);
        }
        scene
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("portcullis.toml")
    }

    fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .env_clear()
            .env("RUST_LOG", "error,librdkafka=off")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.args(args).arg("--config").arg(self.config());
        command
    }

    /// Writes lines as fast as the broker takes them, and waits for that.
    pub(crate) fn produce(&self, lines: &str) {
        self.broker.produce(COMMANDS, lines.lines().map(|line| (None, line.as_bytes().to_vec())));
    }
}

/// A process of ours; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A sidecar.
pub(crate) struct Sidecar {
    _process: Process,
    data: TempDir,
}

impl Sidecar {
    pub(crate) fn start(scene: &Scene, source: Source) -> Self {
        let Source::Table = source;
        let data = tempfile::tempdir().expect("a folder");
        let mut command = scene.program(&["serve", "--lookup", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data").arg(data.path());
        Self { _process: Process(command.spawn().expect("it starts")), data }
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> Client {
        connect(&Endpoint::Unix(self.data.path().join("admin.sock")))
    }

    /// Waits until it has a list.
    pub(crate) fn wait_ready(&self) {
        let mut client = self.client();
        wait(|| status(&mut client)["ready"] == Value::Bool(true));
    }

    /// Waits until it is at this position.
    pub(crate) fn wait_for(&self, position: Position) {
        let mut client = self.client();
        wait(|| status(&mut client)["position"].as_u64() >= Some(position.number()));
    }

    /// Its position, and the fingerprint there.
    pub(crate) fn status(&self) -> (Position, Fingerprint) {
        let status = status(&mut self.client());
        let position = status["position"].as_u64().expect("a number");
        let fingerprint = serde_json::from_value(status["fingerprint"].clone()).expect("a fingerprint");
        (Position::new(position), fingerprint)
    }
}

/// A projector.
pub(crate) struct Projecting {
    process: Process,
    socket: TempDir,
}

impl Projecting {
    pub(crate) fn start(scene: &Scene) -> Self {
        let socket = tempfile::tempdir().expect("a folder");
        let listen = format!("unix:{}", socket.path().join("projector.sock").display());
        let process = scene.program(&["project", "--listen", &listen]).spawn().expect("it starts");
        Self { process: Process(process), socket }
    }

    /// Waits until it has this role.
    pub(crate) fn wait_role(&self, role: &str) {
        let mut client = self.client();
        wait(|| status(&mut client)["role"] == role && status(&mut client)["ready"] == Value::Bool(true));
    }

    /// The most memory that it ever had, as the system says it.
    pub(crate) fn memory(&self) -> String {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.expect("Linux tells").trim().to_owned()
    }

    fn client(&self) -> Client {
        connect(&Endpoint::Unix(self.socket.path().join("projector.sock")))
    }

    /// Waits until its table is at this position.
    pub(crate) fn wait_for(&self, position: Position) {
        let mut client = self.client();
        wait(|| status(&mut client)["position"].as_u64() >= Some(position.number()));
    }
}

fn connect(endpoint: &Endpoint) -> Client {
    let until = Instant::now() + PATIENCE;
    loop {
        match Client::connect(endpoint) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn status(client: &mut Client) -> Value {
    serde_json::from_str(&get(client, "/v1/status")).expect("JSON")
}

/// The body of an answer.
pub(crate) fn get(client: &mut Client, path: &str) -> String {
    let request = Request { path: path.to_owned(), ..Request::default() };
    let answer = client.send(&request).expect("it answers");
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Writes a command; the status of the answer.
pub(crate) fn post(client: &mut Client, command: &str) -> u16 {
    let body = Some(command.to_owned().into());
    let request = Request { path: "/v1/commands".to_owned(), body, ..Request::default() };
    client.send(&request).expect("it answers").status
}
