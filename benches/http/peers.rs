//! Who is measured: each a process of its own, on the core of the servers, with the same list.
//!
//! How a peer is set up stands in its file. Those that Debian packages are used if they are installed. A peer
//! is measured only once it has judged [`PROBED`] addresses as the list does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Place, Question, Server};
use crate::dialect::{Answer, Dialect};
use crate::list::List;
use crate::process::{self, Process};

pub(crate) mod crowdsec;
pub(crate) mod floors;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod portcullis;
pub(crate) mod rbldnsd;
pub(crate) mod redis;

/// How many answers of a peer must be right before it is measured.
const PROBED: usize = 2_000;
/// How long a peer may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running peer.
pub(crate) struct Peer {
    /// What it is and of which version, for the report; empty for a floor.
    pub(crate) about: String,
    pub(crate) servers: Vec<Server>,
    /// Stands before the folders, because it must have ended when they go.
    process: Process,
    folder: TempDir,
    _data: Option<TempDir>,
}

impl Peer {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps a folder of data for as long as it runs.
    fn keeping(self, data: TempDir) -> Self {
        Self { _data: Some(data), ..self }
    }

    /// Waits until all its servers answer, and looks whether they are right.
    fn checked(self) -> Result<Self, String> {
        for server in &self.servers {
            wait(|| server.probe(1))
                .and_then(|()| server.probe(PROBED))
                .map_err(|wrong| format!("{}: {wrong} ({})", server.name, self.process.last_words()))?;
        }
        Ok(self)
    }
}

/// What a peer is started with.
pub(crate) struct Stage<'a> {
    pub(crate) list: &'a List,
    pub(crate) core: usize,
    folder: TempDir,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(list: &'a List, core: usize) -> Self {
        // Open to others, because servers that are started by root become somebody else before they read.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("portcullis-bench-").permissions(permissions).tempdir();
        let folder = folder.expect("the folder for temporary files is everybody's");
        Self { list, core, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the peer's; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    pub(crate) fn start(&self, program: &Path, args: &[&str]) -> Process {
        Process::start(program, args, self.folder(), self.core)
    }

    /// A server that knows the list.
    pub(crate) fn server(&self, name: &'static str, place: Place, dialect: impl Dialect + 'static) -> Server {
        let expected = |listed| if listed { Answer::Blacklisted } else { Answer::Free };
        let question = |address| Question {
            address,
            bytes: dialect.question(address),
            expected: expected(self.list.contains(address)),
        };
        let questions = self.list.asked().into_iter().map(question).collect();
        Server { name, place, dialect: Box::new(dialect), questions }
    }

    pub(crate) fn peer(self, about: String, process: Process, servers: Vec<Server>) -> Result<Peer, String> {
        Peer { about, servers, process, folder: self.folder, _data: None }.checked()
    }
}

/// A peer that Debian has a package of.
struct Packaged {
    package: &'static str,
    program: &'static str,
    start: fn(&Path, Stage<'_>) -> Result<Peer, String>,
}

const PACKAGED: [Packaged; 5] = [
    Packaged { package: "nginx", program: "nginx", start: nginx::start },
    Packaged { package: "haproxy", program: "haproxy", start: haproxy::start },
    Packaged { package: "redis-server", program: "redis-server", start: redis::start },
    Packaged { package: "rbldnsd", program: "rbldnsd", start: rbldnsd::start },
    Packaged { package: "crowdsec", program: "crowdsec", start: crowdsec::start },
];

impl Packaged {
    fn start(&self, list: &List, core: usize) -> Result<Peer, String> {
        let program = process::find(self.program)
            .ok_or_else(|| format!("{} is not installed (Debian package {})", self.program, self.package))?;
        let started = (self.start)(&program, Stage::new(list, core));
        started.map_err(|why| format!("{} is not measured: {}", self.program, why.trim()))
    }
}

/// Everybody, and why those are not there who are not.
pub(crate) fn start(list: &List, core: usize) -> (Vec<Peer>, Vec<String>) {
    let ours = portcullis::start(Stage::new(list, core));
    let ours = ours.unwrap_or_else(|why| panic!("without ours there is nothing to compare: {why}"));
    let mut started = vec![Ok(ours)];
    started.extend(floors::ALL.map(|floor| floors::start(floor, Stage::new(list, core))));
    started.extend(PACKAGED.map(|packaged| packaged.start(list, core)));
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for peer in started {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(why) => absent.push(why),
        }
    }
    (peers, absent)
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("programs and temporary folders have plain names")
}

/// Tries until it succeeds, but not for ever.
pub(crate) fn wait<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
}
