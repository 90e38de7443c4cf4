//! The real program, as processes that share a log on a broker.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portcullis::http::client::{Client, Endpoint, Request};
use portcullis::log::kafka::KafkaLog;
use portcullis::log::settings::{ClientValue, KafkaSettings};
use portcullis::log::{Answer, Log, Question, ReadEvent, Topic};
use portcullis::record::{Offset, Position, Record};
use portcullis::table::{Row, Table};
use portcullis::view::View;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::kafka::Broker;
#[allow(unused_imports, reason = "each test target uses its own part")]
pub(crate) use crate::support::output::{code, stderr, stdout};

/// How long anything may take that has to happen; generous, because a machine may be busy, and because some
/// things are tried again after a minute only.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a process may take to end by a signal: a projector gives its role 10 s.
const END_MAX: Duration = Duration::from_secs(20);

/// What a process is told in its configuration.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Whether it knows the table.
    pub(crate) table: bool,
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// What else is said in `[log.client]`.
    pub(crate) client: Vec<(&'static str, String)>,
    pub(crate) takeover_after: &'static str,
    pub(crate) skip_offsets: &'static [u64],
}

/// With the table, without a user, and soon to take over.
pub(crate) const WITH_TABLE: Settings =
    Settings { table: true, user: None, client: Vec::new(), takeover_after: "10s", skip_offsets: &[] };
/// Folds all commands at its start.
pub(crate) const WITHOUT_TABLE: Settings =
    Settings { table: false, user: None, client: Vec::new(), takeover_after: "10s", skip_offsets: &[] };

impl Settings {
    /// The same as a user of a secured broker.
    pub(crate) fn user(&self, name: &'static str, password: &'static str) -> Self {
        Self { user: Some((name, password)), ..self.clone() }
    }

    fn client(&self) -> BTreeMap<String, String> {
        let others = self.client.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let Some((name, password)) = self.user else { return others.collect() };
        let pairs = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", name),
            ("sasl.password", password),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().chain(others).collect()
    }
}

/// A log of its own on a broker, and what runs on it. Both topics are named after the test.
pub(crate) struct Site {
    bootstrap: String,
    pub(crate) commands_topic: String,
    pub(crate) table_topic: String,
    folder: TempDir,
    processes: Cell<usize>,
}

impl Site {
    pub(crate) fn new(broker: &Broker, name: &str) -> Self {
        Self::at(broker.bootstrap(), name)
    }

    /// The same where clients connect to these.
    pub(crate) fn at(bootstrap: String, name: &str) -> Self {
        Self {
            bootstrap,
            commands_topic: format!("{name}.commands"),
            table_topic: format!("{name}.table"),
            folder: tempfile::tempdir().expect("a folder"),
            processes: Cell::new(0),
        }
    }

    /// The same with topics as `topics create` makes them.
    pub(crate) fn begun(broker: &Broker, name: &str) -> Self {
        let site = Self::new(broker, name);
        site.begin(&WITH_TABLE);
        site
    }

    /// The same log, reached over another address.
    pub(crate) fn over(&self, bootstrap: String) -> Self {
        Self {
            bootstrap,
            commands_topic: self.commands_topic.clone(),
            table_topic: self.table_topic.clone(),
            folder: tempfile::tempdir().expect("a folder"),
            processes: Cell::new(0),
        }
    }

    /// Makes the topics, as `topics create` does.
    pub(crate) fn begin(&self, settings: &Settings) {
        let created = self.topics(settings, &["create"]);
        assert_eq!(code(&created), 0, "{}", stderr(&created));
    }

    /// A folder of its own for a process, with its configuration in it.
    fn configured(&self, settings: &Settings) -> (PathBuf, PathBuf) {
        let Self { bootstrap, commands_topic, table_topic, .. } = self;
        self.processes.set(self.processes.get() + 1);
        let folder = self.folder.path().join(self.processes.get().to_string());
        fs::create_dir(&folder).expect("it is our folder");
        let Settings { table, takeover_after, skip_offsets, .. } = settings;
        let mut text = format!(
            "[log]\nkind = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n\
             commands_topic = \"{commands_topic}\"\nskip_offsets = {skip_offsets:?}\n"
        );
        if *table {
            text += &format!("table_topic = \"{table_topic}\"\n");
        }
        text += "[log.client]\n";
        settings.client().iter().for_each(|(key, value)| text += &format!("\"{key}\" = \"{value}\"\n"));
        text += &format!(
            "[lookup]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = [\"127.0.0.1:0\"]\n\
             [projector]\ntakeover_after = \"{takeover_after}\"\n"
        );
        let file = folder.join("portcullis.toml");
        fs::write(&file, text).expect("it is our folder");
        (folder, file)
    }

    /// Runs `portcullis topics`.
    pub(crate) fn topics(&self, settings: &Settings, args: &[&str]) -> Output {
        let (folder, file) = self.configured(settings);
        program(&folder)
            .arg("topics")
            .args(args)
            .arg("--config")
            .arg(file)
            .output()
            .expect("the program runs")
    }

    /// A verb that talks to Kafka itself, as it is to be run.
    pub(crate) fn verb(&self, settings: &Settings, args: &[&str]) -> Command {
        let (folder, file) = self.configured(settings);
        let mut command = program(&folder);
        command.args(args).arg("--config").arg(file);
        command
    }

    /// Starts a sidecar, and waits until it answers.
    pub(crate) fn sidecar(&self, settings: &Settings) -> Process {
        let (folder, file) = self.configured(settings);
        let mut command = program(&folder);
        command.arg("serve").arg("--config").arg(file);
        Process::start(command, folder, "admin.sock")
    }

    /// Starts a projector, and waits until it answers.
    pub(crate) fn projector(&self, settings: &Settings, args: &[&str]) -> Process {
        let (folder, file) = self.configured(settings);
        let mut command = program(&folder);
        command.arg("project").arg("--config").arg(file).args(args);
        command.arg("--listen").arg(format!("unix:{}", folder.join("projector.sock").display()));
        Process::start(command, folder, "projector.sock")
    }

    /// The log as the library reaches it, beside the program.
    pub(crate) fn log(&self, settings: &Settings) -> KafkaLog {
        let settings = KafkaSettings {
            bootstrap_servers: self.bootstrap.clone(),
            commands_topic: self.commands_topic.clone(),
            table_topic: Some(self.table_topic.clone()),
            client: settings.client().into_iter().map(|(key, value)| (key, ClientValue(value))).collect(),
            allow_finite_retention: false,
        };
        KafkaLog::new(settings).expect("right settings")
    }

    /// Where the commands end.
    pub(crate) fn end(&self, settings: &Settings) -> u64 {
        match self.log(settings).questioner().ask(Question::Ends(Topic::Commands)) {
            Answer::Ends(_, ends) => ends.high.number(),
            other => panic!("{other:?}"),
        }
    }

    /// All records of a topic, as far as it goes now.
    pub(crate) fn records(&self, settings: &Settings, topic: Topic) -> Vec<Record> {
        let mut reader = self.log(settings).open(topic, Position::START).expect("it is there");
        let (mut records, began) = (Vec::new(), Instant::now());
        while began.elapsed() < PATIENCE {
            match reader.poll(Duration::from_millis(200)) {
                Some(ReadEvent::Records(more)) => records.extend(more),
                Some(ReadEvent::End(_)) => return records,
                Some(ReadEvent::Failed(reason)) => panic!("{reason}"),
                None => {}
            }
        }
        panic!("no end of {topic:?}")
    }

    /// What the table topic holds.
    pub(crate) fn table(&self, settings: &Settings) -> Table {
        let mut table = Table::default();
        self.records(settings, Topic::Table).iter().for_each(|record| table.apply(record));
        table
    }

    /// What the commands come to, folded by nobody but the library's view.
    pub(crate) fn fold(&self, settings: &Settings, skipped: &[u64]) -> View {
        let skipped: BTreeSet<Offset> = skipped.iter().copied().map(Offset::new).collect();
        let mut view = View::new(skipped);
        for record in self.records(settings, Topic::Commands) {
            view.apply(&record).expect("no command of the future that is not passed over");
        }
        view
    }

    /// Waits until all are at the end of the commands. Then it holds all of them to the same list, and the
    /// table and the fold to the same rows.
    pub(crate) fn agree(&self, settings: &Settings, processes: &[&Process], skipped: &[u64]) {
        let end = self.end(settings);
        let at_end = |process: &&Process| process.wait("the end", |status| status["position"] == end);
        let statuses: Vec<Value> = processes.iter().map(at_end).collect();
        let rows = rows_of(self.fold(settings, skipped).blacklist().rows());
        let table = self.table(settings);
        let watermark = table.check().expect("the table is whole");
        assert_eq!(watermark.position.number(), end);
        assert_eq!(rows_of(table.rows().copied()), rows, "table and fold");
        for (process, status) in processes.iter().zip(&statuses) {
            let facts = (&status["position"], &status["fingerprint"]);
            assert_eq!(facts, (&json!(end), &json!(watermark.fingerprint)), "{status}");
            if process.is_sidecar() {
                assert_eq!(process.ranges(), rows, "what is served, and the fold");
            }
        }
    }
}

/// Rows as `/v1/ranges` shows them.
fn rows_of(rows: impl IntoIterator<Item = Row>) -> Vec<Value> {
    let row = |Row { range, cause }: Row| {
        let expires_at = cause.expires_at.map(|time| time.to_string());
        json!({"start": range.start(), "end": range.end(), "command": cause.command.number(), "expires_at": expires_at})
    };
    rows.into_iter().map(row).collect()
}

/// The program with nothing of this machine's environment.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.env_clear().env("STATE_DIRECTORY", folder).stdin(Stdio::null());
    command
}

/// A process of ours that goes on until it is told to end; killed when dropped.
pub(crate) struct Process {
    command: Command,
    child: Child,
    folder: PathBuf,
    socket: PathBuf,
}

impl Process {
    fn start(mut command: Command, folder: PathBuf, socket: &str) -> Self {
        let log = File::create(folder.join("log")).expect("it is our folder");
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let socket = folder.join(socket);
        let child = command.spawn().expect("the program starts");
        let mut process = Self { command, child, folder, socket };
        process.wait_listening();
        process
    }

    fn wait_listening(&mut self) {
        let began = Instant::now();
        while self.connect().is_none() {
            let ended = self.child.try_wait().expect("it is ours");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again in the same folder after [`Process::kill`], and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.child = self.command.spawn().expect("the program starts");
        self.wait_listening();
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn connect(&self) -> Option<Client> {
        Client::connect(&Endpoint::Unix(self.socket.clone())).ok()
    }

    fn is_sidecar(&self) -> bool {
        self.socket.ends_with("admin.sock")
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("it is our file")
    }

    /// The answer to a request: its status and its body.
    pub(crate) fn send(&self, request: &Request) -> (u16, String) {
        let answer = self.connect().map(|mut client| client.send(request));
        let answer = answer.unwrap_or_else(|| panic!("nobody listens\n{}", self.log()));
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}\n{}", request.path, self.log()));
        (answer.status, String::from_utf8(answer.body.into()).expect("UTF-8"))
    }

    /// Asks for a path, and reads the answer as JSON.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.send(&Request { path: path.to_owned(), ..Request::default() });
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// Sends commands; the path is followed by this query.
    pub(crate) fn post(&self, query: &str, body: &str) -> (u16, Value) {
        self.post_as(None, query, body)
    }

    /// The same with an `Idempotency-Key`.
    pub(crate) fn post_as(&self, key: Option<&str>, query: &str, body: &str) -> (u16, Value) {
        let (path, body) = (format!("/v1/commands{query}"), Some(body.to_owned().into()));
        let request = Request { path, body, key: key.map(str::to_owned), ..Request::default() };
        let (status, body) = self.send(&request);
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    pub(crate) fn status(&self) -> Value {
        self.get("/v1/status").1
    }

    /// Waits until its status is as it has to be, and returns that.
    pub(crate) fn wait(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "not in time: {what}\n{status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has a list, or a role.
    pub(crate) fn wait_ready(&self) {
        self.wait("it is ready", |status| status["ready"] == true);
    }

    /// Waits until its message says this, and returns the status.
    pub(crate) fn wait_message(&self, part: &str) -> Value {
        self.wait(part, |status| status["message"].as_str().is_some_and(|message| message.contains(part)))
    }

    /// Waits until a projector has this role.
    pub(crate) fn wait_role(&self, role: &str) -> Value {
        self.wait(role, |status| status["role"] == role && status["ready"] == (role != "stopped"))
    }

    /// Runs a verb against it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = program(&self.folder);
        let url = format!("unix:{}", self.socket.display());
        command.args(["--url", &url]).args(args).output().expect("the program runs")
    }

    /// Whether an address is blacklisted.
    pub(crate) fn blocks(&self, address: &str) -> bool {
        let (status, answer) = self.get(&format!("/v1/check/{address}"));
        assert_eq!(status, 200, "{answer}");
        answer["blacklisted"] == true
    }

    /// The list, a row each.
    pub(crate) fn ranges(&self) -> Vec<Value> {
        let (status, body) = self.send(&Request { path: "/v1/ranges".to_owned(), ..Request::default() });
        assert_eq!(status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Whether it still is the process that was started.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("ids of processes are small"));
        kill(pid, signal).expect("it runs");
    }

    /// Sends a signal, and holds it to ending well and in time.
    pub(crate) fn end(mut self, signal: Signal) {
        self.signal(signal);
        let began = Instant::now();
        let ended: ExitStatus = loop {
            if let Some(ended) = self.child.try_wait().expect("it is ours") {
                break ended;
            }
            assert!(began.elapsed() < END_MAX, "it does not end by {signal}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(ended.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, as the test wanted it to.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Tells threads to stop, also when the test fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
