//! HTTP: lookups for request handlers, and everything else for operators.
//!
//! There are two kinds of listener, each on any number of TCP addresses and Unix sockets. The **lookup**
//! listeners answer checks, on threads that do nothing else. The **admin** listeners answer those too, and
//! take commands. A projector has a listener of its own, which tells how it is.
//!
//! The path of a lookup, from its connection to the one write of its answer:
//!
//! ```text
//!   lookup-accept            lookup-0, lookup-1, …  (a runtime, a reader of snapshots, many connections)
//!   ─────────────            ──────────────────────────────────────────────────────────────────────────
//!   accept                   connection   one task; bytes pass the pace, hyper makes requests of them
//!     │ a place              Worker::answer   size ─► `Host` ─► Sidecar::route  path ─► method
//!     ▼                        └─► check      address ─► snapshot.lookup ─► verdict
//!   worker in turn ────────► verdict      an answer made beforehand: position, age ─► one write
//! ```
//!
//! Between its header and the write a lookup takes no lock, awaits nothing and waits for no other thread:
//! the reader is the worker's own, and so is all that a lookup changes. From the address to the verdict it
//! allocates nothing, and for its answer no more than hyper does for any answer with as many headers, unless
//! position or age are others than in the one before (`tests/allocations.rs`). A batch yields to the other
//! connections of its thread after each slice. What may take long (copies of the list, previews) is done for
//! the admin listener only, on further threads.
//!
//! Whatever comes from outside has a named limit, at the top of the file that enforces it: connections, bytes
//! and fields of a header, bytes of a body, addresses, commands, and the time that each of them may take.
//! There is no TLS: the ports are for the host itself, and [`guard`] tells what keeps web pages out.
//!
//! Where things are: [`settings`] says where to listen, `listen` binds, `worker` has the threads,
//! `connection` and [`pace`] serve one connection within its limits, `route` finds who answers, [`guard`]
//! who may ask; `sidecar`, with `lookup`, `batch`, `health`, `admin`, `ranges` and `replay`, and `projector`
//! answer; `answer`, `verdict` and [`codes`] are what answers are made of. [`handler`] is a worker without
//! sockets, for benches and tests. [`client`] is the other side, for the command line.

mod admin;
mod answer;
mod batch;
pub mod client;
pub mod codes;
mod connection;
mod group;
pub mod guard;
pub mod handler;
mod health;
mod listen;
mod lookup;
pub mod pace;
mod projector;
mod ranges;
mod replay;
pub mod request;
mod route;
pub mod settings;
mod sidecar;
mod verdict;
mod worker;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

pub use self::admin::{APPEND_MAX, GROUP_COMMANDS_MAX, SETTLE_MAX, WAIT_DEFAULT, WAIT_MAX};
pub use self::answer::exact;
pub use self::batch::{ADMIN_BATCH_ADDRESSES_MAX, LOOKUP_BATCH_ADDRESSES_MAX, LOOKUP_BODY_BYTES_MAX};
use self::guard::{Hosts, Token};
use self::listen::{Listener, Rights};
pub use self::ranges::EXPORT_MAX;
pub use self::replay::{REPLAY_MAX, summary};
pub use self::route::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX, TARGET_BYTES_MAX};
use self::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
pub use self::worker::{ADMIN_CONNECTIONS_MAX, LOOKUP_CONNECTIONS_MAX};
use self::worker::{Acceptor, Idle, Worker};
use crate::log::{CommandSink, Log};
use crate::priority::give_way;
use crate::record::Position;
use crate::served::Served;
use crate::snapshot::Readers;
use crate::status::Status;

/// The socket that the admin listener has in any case, so that the command line needs neither port nor token.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// The most threads that one worker keeps for what takes long: previews, exports, a replay. More of it waits.
pub const BLOCKING_THREADS_MAX: usize = 4;

/// What requests to a sidecar are answered from; shared by all listeners.
///
/// The listeners only read it, but for `sink`. They start before there is a snapshot, and say so until then.
#[derive(Clone)]
pub struct App {
    /// Makes the readers of the workers.
    pub readers: Readers,
    /// What the sidecar says of itself.
    pub status: Arc<Status>,
    /// The view that is being served.
    pub served: Arc<Served>,
    /// Takes commands.
    pub sink: Arc<dyn CommandSink>,
    /// Where the commands are read from, beside the follower.
    pub log: Arc<dyn Log>,
    /// The position of the newest published snapshot, for writers that wait until lookups know their
    /// commands.
    pub published: watch::Receiver<Position>,
    /// What a write over TCP must know.
    pub token: Token,
    /// The version of the program, as the status names it.
    pub version: &'static str,
}

/// What requests to a projector are answered from.
#[derive(Clone, Debug)]
pub struct ProjectorApp {
    /// What the projector says of itself.
    pub status: watch::Receiver<crate::projector::Status>,
    /// The version of the program, as the status names it.
    pub version: &'static str,
}

/// What all workers of a server answer from.
#[derive(Clone)]
enum Source {
    Sidecar(Arc<App>),
    Projector(Arc<ProjectorApp>),
}

/// The two kinds of listener: they differ in paths, limits, and the rights of their sockets. A projector's is
/// an admin one: few ask it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Lookup,
    Admin,
}

impl Kind {
    /// What its threads are named after.
    const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Admin => "admin",
        }
    }
}

/// Why the listeners could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration asks for something that can never be had. Trying again does not help.
    #[error("{0}")]
    Configuration(String),
    /// A place can't be listened on: it is taken, not permitted, or no such place.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The place.
        listen: Listen,
        /// The reason.
        source: io::Error,
    },
    /// A thread or its runtime can't be had.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// The running listeners.
///
/// To be ended by [`shutdown`](Self::shutdown). Dropping it ends its threads too, but cuts off the requests
/// that are running and does not wait.
#[derive(Debug)]
pub struct Server {
    lookup: Vec<Listen>,
    admin: Vec<Listen>,
    drain: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds everything, then starts the threads. `directory` is where [`ADMIN_SOCKET`] is put; it must
    /// exist.
    ///
    /// In this order a place that is taken ends the start before a single connection was accepted. Once it
    /// returns, connections are taken everywhere, and requests are answered, if only by "not ready".
    ///
    /// # Errors
    /// [`Configuration`](StartError::Configuration) for a host name or group that is none, no workers, or an
    /// admin address that other hosts reach without leave; [`Listen`](StartError::Listen) for a place that
    /// can't be listened on; [`Thread`](StartError::Thread) when a thread or runtime can't be had. Nothing
    /// listens any more then.
    pub fn start(
        app: App,
        lookup: &LookupSettings,
        admin: &AdminSettings,
        http: &HttpSettings,
        directory: &Path,
    ) -> Result<Self, StartError> {
        let plans = vec![Plan::lookup(lookup)?, Plan::admin(admin, directory)?];
        Self::run(Source::Sidecar(Arc::new(app)), plans, http)
    }

    /// The same for a projector, which has one kind of listener, and no places but these.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_projector(
        app: ProjectorApp,
        listen: &[Listen],
        http: &HttpSettings,
    ) -> Result<Self, StartError> {
        Self::run(Source::Projector(Arc::new(app)), vec![Plan::projector(listen)], http)
    }

    fn run(source: Source, plans: Vec<Plan>, http: &HttpSettings) -> Result<Self, StartError> {
        let (drain, draining) = watch::channel(None);
        let hosts = Hosts::new(http).map_err(|wrong| {
            StartError::Configuration(format!("`{wrong}` is no host name without a port ([http] hosts)"))
        })?;
        let start = Start { source, hosts: Arc::new(hosts), draining };
        let bound: Vec<Bound> = plans.into_iter().map(Plan::bind).collect::<Result<_, _>>()?;
        let mut server = Self { lookup: vec![], admin: vec![], drain, threads: vec![] };
        for bound in &bound {
            match bound.kind {
                Kind::Lookup => server.lookup = bound.places()?,
                Kind::Admin => server.admin = bound.places()?,
            }
        }
        for bound in bound {
            start.threads(bound, &mut server.threads)?;
        }
        Ok(server)
    }

    /// Where the lookup listeners listen, in the order of the settings; port 0 is replaced by the one found.
    pub fn lookup(&self) -> &[Listen] {
        &self.lookup
    }

    /// Where the admin listeners listen, in the order of the settings, a sidecar's [`ADMIN_SOCKET`] last.
    pub fn admin(&self) -> &[Listen] {
        &self.admin
    }

    /// Stops listening, lets the requests that are running finish for at most `within`, and cuts off the
    /// rest. Blocks until all is closed.
    ///
    /// Idle connections end at once, the others behind the answer that is being made for them. So within that
    /// time no client loses an answer.
    pub fn shutdown(self, within: Duration) {
        self.drain.send_replace(Some(Instant::now() + within));
        for thread in self.threads {
            // A thread that panicked has no connections any more either.
            let _ = thread.join();
        }
    }
}

/// What one kind of listener is to be.
struct Plan {
    kind: Kind,
    workers: usize,
    idle: Idle,
    listen: Vec<Listen>,
    rights: Rights,
}

/// One kind of listener, bound.
struct Bound {
    kind: Kind,
    workers: usize,
    idle: Idle,
    listeners: Vec<Listener>,
    runtime: Runtime,
}

impl Plan {
    /// The lookup listeners, as the settings want them.
    fn lookup(settings: &LookupSettings) -> Result<Self, StartError> {
        let LookupSettings { listen, workers, spin } = settings.clone();
        if workers == 0 {
            return Err(StartError::Configuration("[lookup] workers must be at least 1".to_owned()));
        }
        let idle = if spin { Idle::Spin } else { Idle::Sleep };
        Ok(Self { kind: Kind::Lookup, workers, idle, listen, rights: Rights::READ })
    }

    /// The admin listeners with their own socket behind the others. They have one worker: it alone then knows
    /// all that was acknowledged.
    fn admin(settings: &AdminSettings, directory: &Path) -> Result<Self, StartError> {
        let mut listen = settings.listen.clone();
        // Asked here as well as by the configuration, because a library user may come without one.
        if let Some(remote) = settings.forbidden_remote() {
            return Err(StartError::Configuration(format!(
                "[admin] listen = {remote} is reachable by other hosts, without encryption; allow_remote = true allows it"
            )));
        }
        let always = Listen::Unix(directory.join(ADMIN_SOCKET));
        // It may be named in the settings too, and can be bound only once.
        listen.retain(|listen| *listen != always);
        listen.push(always);
        let rights = Rights::new(settings)
            .map_err(|fault| StartError::Configuration(format!("{fault} ([admin] socket_group)")))?;
        Ok(Self { kind: Kind::Admin, workers: 1, idle: Idle::Sleep, listen, rights })
    }

    /// The listeners of a projector. They take nothing and show nothing that is secret, so that whoever
    /// reaches them may ask.
    fn projector(listen: &[Listen]) -> Self {
        let (kind, idle, rights) = (Kind::Admin, Idle::Sleep, Rights::READ);
        Self { kind, workers: 1, idle, listen: listen.to_vec(), rights }
    }

    /// Binds every place, or none: those that were bound are closed again when a later one fails.
    fn bind(self) -> Result<Bound, StartError> {
        let runtime = worker::runtime().map_err(StartError::Thread)?;
        // A listener belongs to the runtime that it was bound in, which will be the acceptor's.
        let context = runtime.enter();
        let bind = |listen: Listen| {
            Listener::bind(&listen, self.rights).map_err(|source| StartError::Listen { listen, source })
        };
        let listeners = self.listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        drop(context);
        Ok(Bound { kind: self.kind, workers: self.workers, idle: self.idle, listeners, runtime })
    }
}

impl Bound {
    /// Where it listens, with the ports that were found.
    fn places(&self) -> Result<Vec<Listen>, StartError> {
        self.listeners.iter().map(Listener::place).collect::<io::Result<_>>().map_err(StartError::Thread)
    }
}

/// What every thread is started with.
struct Start {
    source: Source,
    hosts: Arc<Hosts>,
    draining: worker::Drain,
}

impl Start {
    /// Starts the workers of one kind of listener, then what accepts for them.
    fn threads(&self, bound: Bound, threads: &mut Vec<JoinHandle<()>>) -> Result<(), StartError> {
        let Bound { kind, workers, idle, listeners, runtime } = bound;
        let mut queues = Vec::new();
        for number in 0..workers {
            // Needs no bound of its own: whatever is in it holds one of the acceptor's places.
            let (queue, handed) = mpsc::unbounded_channel();
            queues.push(queue);
            let local = worker::runtime().map_err(StartError::Thread)?;
            let (source, hosts, drain) =
                (self.source.clone(), Arc::clone(&self.hosts), self.draining.clone());
            let drained = drain.clone();
            let worker = move || Worker::new(source, kind, hosts, drained);
            let run = move || {
                if kind == Kind::Admin {
                    // A service says once that it may not; it is the same for all of its threads.
                    let _ = give_way();
                }
                worker::run_local(local, idle, worker, handed, drain);
            };
            threads.push(spawn(format!("{}-{number}", kind.name()), run)?);
        }
        let (acceptor, drain) = (Acceptor::new(kind, queues), self.draining.clone());
        let run = move || runtime.block_on(acceptor.run(listeners, drain));
        threads.push(spawn(format!("{}-accept", kind.name()), run)?);
        Ok(())
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)
}
