//! HTTP: lookups for request handlers, and everything else for operators.
//!
//! There are two kinds of listener, each on any number of TCP addresses and Unix sockets. The **lookup**
//! listeners answer checks, on threads that do nothing else. The **admin** listeners answer those too, and
//! take commands.
//!
//! Where things are: [`settings`] says where to listen, `listen` binds, `worker` has the threads, `connection`
//! and [`pace`] serve one connection within its limits, `route` finds who answers, [`guard`] who may ask;
//! `lookup`, `health`, `admin` and `ranges` answer; `answer` and [`codes`] are what answers are made of.

mod admin;
mod answer;
pub mod client;
pub mod codes;
mod connection;
mod group;
pub mod guard;
mod health;
mod listen;
mod lookup;
pub mod pace;
mod ranges;
pub mod request;
mod route;
pub mod settings;
mod worker;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

pub use self::admin::{APPEND_MAX, GROUP_COMMANDS_MAX, SETTLE_MAX, WAIT_DEFAULT, WAIT_MAX};
use self::guard::{Hosts, Token};
use self::listen::{Listener, Rights};
pub use self::lookup::{ADMIN_BATCH_ADDRESSES_MAX, LOOKUP_BATCH_ADDRESSES_MAX};
pub use self::ranges::EXPORT_MAX;
pub use self::route::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX, TARGET_BYTES_MAX};
use self::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
pub use self::worker::{ADMIN_CONNECTIONS_MAX, LOOKUP_CONNECTIONS_MAX};
use self::worker::{Acceptor, Worker};
use crate::live::Live;
use crate::log::CommandSink;
use crate::record::Position;
use crate::snapshot::Readers;
use crate::status::Status;

/// The socket that the admin listener has in any case.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// The most threads that one worker keeps for what takes long: previews and exports.
pub const BLOCKING_THREADS_MAX: usize = 4;

/// What requests are answered from; shared by all listeners.
#[derive(Clone)]
pub struct App {
    /// Makes the readers of the workers.
    pub readers: Readers,
    /// What the sidecar says of itself.
    pub status: Arc<Status>,
    /// The view that is being served.
    pub live: Arc<Live>,
    /// Takes commands.
    pub sink: Arc<dyn CommandSink>,
    /// The position of the newest published snapshot.
    pub published: watch::Receiver<Position>,
    /// What a write over TCP must know.
    pub token: Token,
    /// The version of the program.
    pub version: &'static str,
}

/// The two kinds of listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Lookup,
    Admin,
}

impl Kind {
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
    /// The configuration asks for something that is not to be had.
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
#[derive(Debug)]
pub struct Server {
    lookup: Vec<Listen>,
    admin: Vec<Listen>,
    drain: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds everything, then starts the threads. `directory` is where [`ADMIN_SOCKET`] is put.
    ///
    /// # Errors
    /// When the configuration asks for something that is not to be had, a place can't be listened on, or a
    /// thread can't be had. Nothing listens any more then.
    pub fn start(
        app: App,
        lookup: &LookupSettings,
        admin: &AdminSettings,
        http: &HttpSettings,
        directory: &Path,
    ) -> Result<Self, StartError> {
        let (drain, draining) = watch::channel(None);
        let hosts = Hosts::new(http).map_err(|wrong| {
            StartError::Configuration(format!("`{wrong}` is no host name without a port ([http] hosts)"))
        })?;
        let start = Start { app: Arc::new(app), hosts: Arc::new(hosts), draining };
        let lookup_plan = Plan::lookup(lookup)?;
        let admin_plan = Plan::admin(admin, directory)?;
        let (lookup_bound, admin_bound) = (lookup_plan.bind()?, admin_plan.bind()?);
        let mut server =
            Self { lookup: lookup_bound.places()?, admin: admin_bound.places()?, drain, threads: vec![] };
        start.threads(lookup_bound, &mut server.threads)?;
        start.threads(admin_bound, &mut server.threads)?;
        Ok(server)
    }

    /// Where the lookup listeners listen, in the order of the settings.
    pub fn lookup(&self) -> &[Listen] {
        &self.lookup
    }

    /// Where the admin listeners listen, in the order of the settings, [`ADMIN_SOCKET`] last.
    pub fn admin(&self) -> &[Listen] {
        &self.admin
    }

    /// Stops listening, lets the requests that are running finish for at most `within`, and cuts off the
    /// rest. Blocks until all is closed.
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
    listen: Vec<Listen>,
    rights: Rights,
}

/// One kind of listener, bound.
struct Bound {
    kind: Kind,
    workers: usize,
    listeners: Vec<Listener>,
    runtime: Runtime,
}

impl Plan {
    fn lookup(settings: &LookupSettings) -> Result<Self, StartError> {
        let LookupSettings { listen, workers } = settings.clone();
        if workers == 0 {
            return Err(StartError::Configuration("[lookup] workers must be at least 1".to_owned()));
        }
        Ok(Self { kind: Kind::Lookup, workers, listen, rights: Rights::READ })
    }

    fn admin(settings: &AdminSettings, directory: &Path) -> Result<Self, StartError> {
        let mut listen = settings.listen.clone();
        let is_remote = |listen: &&Listen| match listen {
            Listen::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => false,
        };
        if let Some(remote) = listen.iter().find(is_remote).filter(|_| !settings.allow_remote) {
            return Err(StartError::Configuration(format!(
                "[admin] listen = {remote} is reachable by other hosts, without encryption; allow_remote = true allows it"
            )));
        }
        let always = Listen::Unix(directory.join(ADMIN_SOCKET));
        listen.retain(|listen| *listen != always);
        listen.push(always);
        let rights = Rights::new(settings)
            .map_err(|fault| StartError::Configuration(format!("{fault} ([admin] socket_group)")))?;
        Ok(Self { kind: Kind::Admin, workers: 1, listen, rights })
    }

    fn bind(self) -> Result<Bound, StartError> {
        let runtime = worker::runtime().map_err(StartError::Thread)?;
        let context = runtime.enter();
        let bind = |listen: Listen| {
            Listener::bind(&listen, self.rights).map_err(|source| StartError::Listen { listen, source })
        };
        let listeners = self.listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        drop(context);
        Ok(Bound { kind: self.kind, workers: self.workers, listeners, runtime })
    }
}

impl Bound {
    fn places(&self) -> Result<Vec<Listen>, StartError> {
        self.listeners.iter().map(Listener::place).collect::<io::Result<_>>().map_err(StartError::Thread)
    }
}

/// What every thread is started with.
struct Start {
    app: Arc<App>,
    hosts: Arc<Hosts>,
    draining: worker::Drain,
}

impl Start {
    /// Starts the workers of one kind of listener, then what accepts for them.
    fn threads(&self, bound: Bound, threads: &mut Vec<JoinHandle<()>>) -> Result<(), StartError> {
        let Bound { kind, workers, listeners, runtime } = bound;
        let mut queues = Vec::new();
        for number in 0..workers {
            let (queue, handed) = mpsc::unbounded_channel();
            queues.push(queue);
            let local = worker::runtime().map_err(StartError::Thread)?;
            let (app, hosts, drain) = (Arc::clone(&self.app), Arc::clone(&self.hosts), self.draining.clone());
            let worker = move || Worker::new(app, kind, hosts, drain);
            let run = move || worker::run_local(local, worker, handed);
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
