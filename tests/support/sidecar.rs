//! The HTTP listeners over a log in memory that does what each test tells it to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use portcullis::http::guard::Token;
use portcullis::http::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
use portcullis::http::{ADMIN_SOCKET, App, Server};
use portcullis::log::memory::MemoryLog;
use portcullis::log::{AppendDone, AppendError, CommandSink};
use portcullis::record::{Offset, Position, Record, Timestamp};
use portcullis::served::Served;
use portcullis::snapshot::{Draft, Publisher, Snapshot};
use portcullis::status::{Detail, Phase, Status};
use portcullis::view::View;
use tempfile::TempDir;
use tokio::sync::watch;

use super::client::Client;

/// What the log does with commands.
pub enum Mode {
    /// Keeps, folds and publishes them at once.
    Follow,
    /// Keeps them; nobody folds.
    Keep,
    /// Answers nothing until it is released.
    Hold,
    /// Refuses them.
    Fail(AppendError),
    /// Forgets to answer.
    Forget,
    /// Keeps them where other commands are already.
    Elsewhere,
}

struct Log {
    mode: Mode,
    records: Vec<Record>,
    held: Vec<(Vec<Vec<u8>>, AppendDone)>,
    draft: Draft,
    publisher: Publisher,
}

/// A log, and all that follows it.
pub struct MemorySink {
    log: Mutex<Log>,
    changed: Condvar,
    served: Arc<Served>,
    published: watch::Sender<Position>,
}

impl MemorySink {
    pub fn set(&self, mode: Mode) {
        self.log.lock().expect("no panic").mode = mode;
    }

    /// The values that were appended.
    pub fn values(&self) -> Vec<String> {
        let log = self.log.lock().expect("no panic");
        let text = |record: &Record| String::from_utf8(record.value.clone().unwrap_or_default());
        log.records.iter().map(|record| text(record).expect("UTF-8")).collect()
    }

    /// Waits until a group is held.
    pub fn wait_held(&self) {
        let log = self.log.lock().expect("no panic");
        drop(self.changed.wait_while(log, |log| log.held.is_empty()).expect("no panic"));
    }

    /// Goes on with what is held, and as usual from then on.
    pub fn release(&self) {
        let mut log = self.log.lock().expect("no panic");
        log.mode = Mode::Follow;
        for (values, done) in std::mem::take(&mut log.held) {
            self.follow(&mut log, values, done);
        }
    }

    fn keep(log: &mut Log, values: Vec<Vec<u8>>) -> Vec<Offset> {
        let first = log.records.len();
        let timestamp = Timestamp::from(SystemTime::now());
        let record = |(at, value)| Record {
            offset: Offset::new((first + at) as u64),
            timestamp,
            key: None,
            value: Some(value),
        };
        log.records.extend(values.into_iter().enumerate().map(record));
        log.records[first..].iter().map(|record| record.offset).collect()
    }

    fn follow(&self, log: &mut Log, values: Vec<Vec<u8>>, done: AppendDone) {
        let offsets = Self::keep(log, values);
        self.publish(log);
        done(Ok(offsets));
    }

    fn publish(&self, log: &mut Log) {
        self.served.fold(&log.records, &mut log.draft);
        let position = self.served.totals().position;
        log.publisher.publish(log.draft.snapshot(position));
        self.published.send_replace(position);
    }

    /// Publishes the list again, and waits until nobody holds the snapshot before.
    pub fn wait_until_let_go(&self, replaced: &Weak<Snapshot>) {
        self.catch_up();
        let patience = Instant::now() + Duration::from_secs(60);
        while replaced.strong_count() > 0 {
            assert!(Instant::now() < patience, "somebody still holds it");
            self.log.lock().expect("no panic").publisher.free_retired();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Folds all that was kept, and publishes nothing.
    pub fn fold(&self) {
        let mut log = self.log.lock().expect("no panic");
        let log = &mut *log;
        self.served.fold(&log.records, &mut log.draft);
    }

    /// Folds and publishes all that was kept.
    pub fn catch_up(&self) {
        self.publish(&mut self.log.lock().expect("no panic"));
    }
}

impl CommandSink for MemorySink {
    fn append(&self, values: Vec<Vec<u8>>, done: AppendDone) {
        let mut log = self.log.lock().expect("no panic");
        match &log.mode {
            Mode::Follow => self.follow(&mut log, values, done),
            Mode::Keep => done(Ok(Self::keep(&mut log, values))),
            Mode::Hold => {
                log.held.push((values, done));
                self.changed.notify_all();
            }
            Mode::Fail(error) => done(Err(error.clone())),
            Mode::Forget => drop(done),
            Mode::Elsewhere => done(Ok(values.iter().map(|_| Offset::new(0)).collect())),
        }
    }
}

/// What a sidecar is started with.
pub struct Settings {
    pub lookup: LookupSettings,
    pub admin: AdminSettings,
    pub http: HttpSettings,
}

impl Default for Settings {
    fn default() -> Self {
        let any_port = || vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
        Self {
            lookup: LookupSettings { listen: any_port(), workers: 2, spin: false },
            admin: AdminSettings { listen: any_port(), ..AdminSettings::default() },
            http: HttpSettings::default(),
        }
    }
}

/// The listeners, and what is behind them.
pub struct Sidecar {
    pub server: Option<Server>,
    pub sink: Arc<MemorySink>,
    pub status: Arc<Status>,
    pub directory: TempDir,
    pub token: Token,
    /// What replays read: a log of its own, as the sink keeps none.
    pub behind: MemoryLog,
    app: App,
}

impl Sidecar {
    /// A sidecar that has published an empty list.
    pub fn ready() -> Self {
        let sidecar = Self::with(Settings::default());
        sidecar.publish();
        sidecar
    }

    /// A sidecar without a snapshot.
    pub fn with(settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let served = Arc::new(Served::default());
        let (publisher, readers) = Publisher::new();
        let (published, position) = watch::channel(Position::START);
        let draft = Draft::new(&View::default(), Timestamp::from(SystemTime::now()));
        let log = Log { mode: Mode::Follow, records: vec![], held: vec![], draft, publisher };
        let (log, changed) = (Mutex::new(log), Condvar::new());
        let sink = Arc::new(MemorySink { log, changed, served: Arc::clone(&served), published });
        let status = Arc::new(Status::new(Instant::now()));
        let token = Token::load_or_create(directory.path()).expect("a token");
        let behind = MemoryLog::default();
        let app = App {
            readers,
            status: Arc::clone(&status),
            served,
            sink: Arc::clone(&sink) as Arc<dyn CommandSink>,
            log: Arc::new(behind.clone()),
            published: position,
            token: token.clone(),
            version: "1.2.3",
        };
        let Settings { lookup, admin, http } = settings;
        let server =
            Server::start(app.clone(), &lookup, &admin, &http, directory.path()).expect("free ports");
        Self { server: Some(server), sink, status, directory, token, behind, app }
    }

    /// What another server could be started with.
    pub fn app(&self) -> App {
        self.app.clone()
    }

    /// Publishes the first snapshot, and says so.
    pub fn publish(&self) {
        self.status.set_detail(Detail { phase: Phase::Following, ready: true, ..Detail::default() });
        self.status.set_proven(Instant::now());
        self.sink.catch_up();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("not shut down")
    }

    pub fn lookup_address(&self) -> SocketAddr {
        address(self.server().lookup())
    }

    pub fn admin_address(&self) -> SocketAddr {
        address(self.server().admin())
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join(ADMIN_SOCKET)
    }

    /// A connection to the lookup listener.
    pub fn lookup(&self) -> Client {
        Client::tcp(self.lookup_address())
    }

    /// A connection to the admin listener's address.
    pub fn admin(&self) -> Client {
        Client::tcp(self.admin_address())
    }

    /// A connection that may write.
    pub fn writer(&self) -> Client {
        Client::unix(&self.admin_socket())
    }

    /// Writes commands, a line each.
    pub fn write(&self, commands: &str) {
        let reply = self.writer().post("/v1/commands", commands);
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown(Duration::ZERO);
        }
    }
}

fn address(places: &[Listen]) -> SocketAddr {
    let address = places.iter().find_map(|listen| match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    });
    address.expect("a TCP address")
}
