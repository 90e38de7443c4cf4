//! The threads: one that accepts for each kind of listener, and those that answer.
//!
//! ```text
//!   <kind>-accept      a task for each listener ── place free? ──┬──► queue ──► <kind>-0
//!                                                                └──► queue ──► <kind>-1  …
//! ```
//!
//! Each thread that answers has a runtime and a reader of snapshots of its own and shares nothing with the
//! others that changes per request. So lookups scale with the threads, and a slow client of one worker is
//! nothing to another. A connection stays with the worker that got it; they are handed out in turn and
//! never moved.
//!
//! At the drain the acceptors close their listeners, and each worker tells its connections to end and waits
//! for them until the time that the drain names. What is left is cut off with the runtime.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{Id, JoinSet, LocalSet};
use tokio::time::{self, MissedTickBehavior};

use super::connection::serve;
use super::guard::Hosts;
use super::listen::{Connected, Listener, Socket};
use super::pace::Pace;
use super::projector::Projector;
use super::sidecar::Sidecar;
use super::{Kind, Source};

/// The most connections that the lookup listeners hold over TCP, and as many over Unix sockets; while there
/// are as many, accepting waits.
pub const LOOKUP_CONNECTIONS_MAX: usize = 16_384;
/// The most connections that the admin listeners hold over TCP, and as many over Unix sockets: whoever fills
/// the port must not keep the operator from the socket.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Files that are kept for all else: the log, the runtimes, the listeners.
const DESCRIPTORS_RESERVED: usize = 64;
/// The least number of connections that a listener takes, however few files may be open.
const CONNECTIONS_MIN: usize = 4;
/// How often a worker lets go of replaced snapshots though nobody asks it anything: else an idle worker would
/// keep one in memory for as long as it is idle.
const REFRESH: Duration = Duration::from_secs(1);
/// How long to wait after a connection could not be accepted, at first and at most. Without descriptors
/// accepting fails at once, over and over, and would take a whole core.
const ACCEPT_BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How often it is logged that a listener has no place left.
const FULL_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// When all connections must have ended; none while there is no shutdown.
pub(super) type Drain = watch::Receiver<Option<Instant>>;

/// A connection that was accepted, and its place among those that may be open.
#[derive(Debug)]
pub(super) struct Handed {
    socket: Socket,
    permit: OwnedSemaphorePermit,
}

/// Hands connections to the workers, each its turn. Holds no more of them than may be open.
/// Connections over TCP and over Unix sockets have places of their own, so that neither can use up the
/// other's.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    workers: Vec<mpsc::UnboundedSender<Handed>>,
    tcp: Arc<Semaphore>,
    unix: Arc<Semaphore>,
}

/// The most connections of one kind of listener over TCP, and as many over Unix sockets, in a process that
/// may have so many files open. Fewer than the named limits where these would use them all up: then accepting
/// would fail for everybody, the operator included.
fn connections_max(kind: Kind, descriptors_max: u64) -> usize {
    let free = usize::try_from(descriptors_max).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_RESERVED);
    // Twice each of both is seven eighths.
    let (limit, share) = match kind {
        Kind::Lookup => (LOOKUP_CONNECTIONS_MAX, free / 16 * 6),
        Kind::Admin => (ADMIN_CONNECTIONS_MAX, free / 16),
    };
    limit.min(share.max(CONNECTIONS_MIN))
}

/// How many files the process may have open.
fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

impl Acceptor {
    /// What accepts for these workers; all its listeners share its places.
    pub(super) fn new(kind: Kind, workers: Vec<mpsc::UnboundedSender<Handed>>) -> Self {
        let connections_max = connections_max(kind, descriptors_max());
        let places = || Arc::new(Semaphore::new(connections_max));
        Self { workers, tcp: places(), unix: places() }
    }

    /// Accepts at all listeners until the drain begins, then closes them.
    pub(super) async fn run(self, listeners: Vec<Listener>, mut drain: Drain) {
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(self.clone().accept(listener));
        }
        // An error means that nobody is left who could tell us to stop: the same as being told.
        let _ = drain.changed().await;
        tasks.shutdown().await;
    }

    /// Hands on what one listener accepts, until it is aborted. No error of accepting ends it.
    async fn accept(self, listener: Listener) {
        let mut places = Places::of(&self, &listener);
        let mut back_off = ACCEPT_BACK_OFF.0;
        for worker in self.workers.iter().cycle() {
            let socket = loop {
                match listener.accept().await {
                    Ok(socket) => break socket,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        time::sleep(back_off).await;
                        back_off = (back_off * 2).min(ACCEPT_BACK_OFF.1);
                    }
                }
            };
            back_off = ACCEPT_BACK_OFF.0;
            // One connection per listener waits here, accepted; those behind it wait with the kernel.
            let permit = places.take().await;
            // A worker that is gone takes its connections with it; the others go on.
            let _ = worker.send(Handed { socket, permit });
        }
    }
}

/// The places for the connections of one listener, which it may share with others of its sort. A place is
/// given back when its connection ends.
struct Places {
    free: Arc<Semaphore>,
    listen: String,
    told: Option<Instant>,
}

impl Places {
    /// The places of the sort that this listener's connections take.
    fn of(acceptor: &Acceptor, listener: &Listener) -> Self {
        let free = match listener {
            Listener::Tcp(_) => &acceptor.tcp,
            Listener::Unix(..) => &acceptor.unix,
        };
        let listen = listener.place().map(|place| place.to_string()).unwrap_or_default();
        Self { free: Arc::clone(free), listen, told: None }
    }

    /// Takes a place, as soon as there is one.
    async fn take(&mut self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return permit;
        }
        if self.told.is_none_or(|told| told.elapsed() >= FULL_LOGGED_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                listen = self.listen,
                "all places are taken; new connections wait until others end"
            );
        }
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// What answers on a thread.
pub(super) struct Worker {
    pub(super) hosts: Arc<Hosts>,
    pub(super) answers: Answers,
}

/// What a worker answers from.
#[allow(clippy::large_enum_variant, reason = "there is one for each thread, and none is ever moved")]
pub(super) enum Answers {
    Sidecar(Sidecar),
    Projector(Projector),
}

impl Worker {
    pub(super) fn new(source: Source, kind: Kind, hosts: Arc<Hosts>, drain: Drain) -> Self {
        let answers = match source {
            Source::Sidecar(app) => Answers::Sidecar(Sidecar::new(app, kind, drain)),
            Source::Projector(app) => Answers::Projector(Projector::new(app, drain)),
        };
        Self { hosts, answers }
    }

    /// Lets go of what nobody needs to answer from any more.
    fn refresh(&self) {
        match &self.answers {
            Answers::Sidecar(sidecar) => drop(sidecar.with_snapshot(|_| ())),
            Answers::Projector(_) => {}
        }
    }

    /// Serves the connections that are handed to it until the drain begins, then those that it has until
    /// they are done or the time is up.
    async fn run(self, mut handed: mpsc::UnboundedReceiver<Handed>, mut drain: Drain) {
        let worker = Rc::new(self);
        let mut connections = Connections::default();
        let mut refresh = time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = handed.recv() => match next {
                    Some(next) => connections.begin(next, &worker),
                    // The acceptor is gone, which ends the worker as a drain does.
                    None => break,
                },
                () = connections.end_one() => {}
                _ = refresh.tick() => worker.refresh(),
                _ = drain.changed() => break,
            }
        }
        // None when the server was dropped rather than shut down: then nobody waits for the requests.
        let until = *drain.borrow();
        connections.drain(until.unwrap_or_else(Instant::now)).await;
    }
}

/// The connections of one worker. Each has a task, and a pace by which it is told to drain.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    paces: HashMap<Id, Rc<Pace>>,
}

impl Connections {
    /// Serves a connection in a task of its own, which gives the place back at its end.
    fn begin(&mut self, handed: Handed, worker: &Rc<Worker>) {
        let Handed { socket, permit } = handed;
        let (worker, pace) = (Rc::clone(worker), Pace::new());
        let serving = {
            let pace = Rc::clone(&pace);
            async move {
                match socket.connect() {
                    Ok(Connected::Tcp(stream, peer)) => serve(stream, peer, worker, pace).await,
                    Ok(Connected::Unix(stream, peer)) => serve(stream, peer, worker, pace).await,
                    Err(error) => tracing::warn!(%error, "a connection could not be served"),
                }
                drop(permit);
            }
        };
        self.paces.insert(self.tasks.spawn_local(serving).id(), pace);
    }

    /// Waits for a connection to end, for ever while there is none.
    async fn end_one(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = match ended {
            Ok((id, ())) => id,
            // It ends its own connection only; the worker goes on.
            Err(error) => {
                tracing::error!(%error, "a connection ended in a panic");
                error.id()
            }
        };
        self.paces.remove(&id);
    }

    /// Tells all to end and waits for them, but no longer than until then.
    async fn drain(mut self, until: Instant) {
        self.paces.values().for_each(|pace| pace.drain());
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is not done by then is cut off when the runtime ends.
        let _ = time::timeout_at(until.into(), all).await;
    }
}

/// What a worker does while there is nothing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Idle {
    /// The kernel wakes it.
    Sleep,
    /// It asks the kernel over and over.
    Spin,
}

/// Keeps the thread that it runs on from sleeping: there always is a task that wants its turn, and between
/// two turns the runtime asks for news without waiting for any.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// Runs a worker on the calling thread until it is done, then cuts off what is left of its connections.
pub(super) fn run_local(
    runtime: tokio::runtime::Runtime,
    idle: Idle,
    worker: impl FnOnce() -> Worker + 'static,
    handed: mpsc::UnboundedReceiver<Handed>,
    drain: Drain,
) {
    // As a task of its own, because the future of a local set is polled whenever any of its tasks is, which
    // here would be at each request.
    let local = LocalSet::new();
    let task = local.spawn_local(async { worker().run(handed, drain).await });
    if idle == Idle::Spin {
        local.spawn_local(spin());
    }
    if let Err(error) = local.block_on(&runtime, task) {
        tracing::error!(%error, "a worker ended in a panic");
    }
    drop(local);
    // An export may still be at work on a thread of its own; nobody waits for what it makes.
    runtime.shutdown_background();
}

/// A runtime for one thread. Its further threads are made only when something long is to be done.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(super::BLOCKING_THREADS_MAX)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest_of_the_process() {
        for descriptors in [256, 1_024, 4_096, 65_536, u64::MAX] {
            let (lookup, admin) =
                (connections_max(Kind::Lookup, descriptors), connections_max(Kind::Admin, descriptors));
            assert!(
                2 * (lookup + admin) + DESCRIPTORS_RESERVED
                    <= usize::try_from(descriptors).unwrap_or(usize::MAX)
            );
            assert!(admin >= 12 && lookup > admin, "{descriptors}: {lookup} and {admin}");
        }
        let enough = (connections_max(Kind::Lookup, 65_536), connections_max(Kind::Admin, 65_536));
        assert_eq!(enough, (LOOKUP_CONNECTIONS_MAX, ADMIN_CONNECTIONS_MAX));
        assert_eq!(connections_max(Kind::Admin, 60), CONNECTIONS_MIN);
    }
}
