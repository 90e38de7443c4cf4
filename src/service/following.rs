//! The follower's thread: gives it events and clocks, does what it wants done.
//!
//! ```text
//!   Port::next ──► Following's thread ──► Follower::handle(event, now, wall)
//!                          ▲                     │ effects
//!                          └── a tick            ├──► Port::request  read, close, ask
//!                              every 250 ms      ├──► Publisher      what lookups see
//!                                                └──► log lines      within limits
//! ```
//!
//! This thread is the only one that folds and publishes. It makes no blocking call to the log, because
//! expiries wait for nobody: a ban ends on time though the log is gone.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::port::{Heard, Port, Take, Teller};
use super::undecodable::Undecodable;
use super::{ServeError, no_thread};
use crate::follower::{Effect, Follower};
use crate::log::{Event, Log};
use crate::record::{Position, Timestamp};
use crate::snapshot::Publisher;
use crate::status::{Alarm, Degraded, Detail, Status};

/// How often the follower is told that time passes: a ban ends within a second of its expiry, and this leaves
/// room for a busy machine.
const TICK: Duration = Duration::from_millis(250);
const _: () = assert!(TICK.as_millis() <= 500, "a ban ends within a second of its expiry");
/// Tells the thread to end.
#[derive(Debug)]
struct Stop;

/// The thread that follows, until it is dropped; dropping waits for its end.
pub(super) struct Following {
    teller: Teller<Stop>,
    /// Closed by the end of the thread.
    running: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Starts to follow the log. `published` is told the position of each snapshot that lookups can see.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(
        follower: Follower,
        log: Arc<dyn Log>,
        publisher: Publisher,
        published: watch::Sender<Position>,
        status: Arc<Status>,
    ) -> Result<Self, ServeError> {
        let port = Port::new(log).map_err(|error| no_thread("to follow on", &error))?;
        let (ended, running) = oneshot::channel();
        let teller = port.teller();
        let work = Work {
            follower,
            port,
            publisher,
            published,
            _ended: ended,
            status,
            shown: Detail::default(),
            undecodable: Undecodable::default(),
        };
        let thread = thread::Builder::new().name("follower".to_owned()).spawn(move || work.run());
        let thread = thread.map_err(|error| no_thread("to follow on", &error))?;
        Ok(Self { teller, running, thread: Some(thread) })
    }

    /// Ends when the thread does, which without being told to it never should. A panic counts: it drops the
    /// sender that this waits on.
    pub(super) async fn ended(&mut self) {
        let _closed = (&mut self.running).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.teller.tell(Stop);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What the thread owns. Nothing of it is shared but through its own handles.
struct Work {
    follower: Follower,
    port: Port<Stop>,
    publisher: Publisher,
    published: watch::Sender<Position>,
    _ended: oneshot::Sender<()>,
    status: Arc<Status>,
    shown: Detail,
    undecodable: Undecodable,
}

impl Work {
    /// Handles what comes, in order, until it is told to stop.
    fn run(mut self) {
        let mut tick_at = Instant::now();
        loop {
            // Nothing but the next tick bounds the wait, so that this thread wakes four times a second when idle.
            let mut soon = match self.port.next(Take::All, tick_at) {
                Some(Heard::Log(event)) => self.handle(event),
                Some(Heard::Told(Stop)) => break,
                None => false,
            };
            // A busy log must not keep time from passing.
            if soon || Instant::now() >= tick_at {
                soon = self.handle(Event::Tick);
                // Here and not on the threads that look up, which must never pay for freeing a snapshot.
                self.publisher.free_retired();
                tick_at = Instant::now() + if soon { Duration::ZERO } else { TICK };
            }
        }
    }

    /// Hands one event over and does what comes of it; says whether there is more to do at once.
    fn handle(&mut self, event: Event) -> bool {
        let mut soon = false;
        let wall = Timestamp::from(SystemTime::now());
        for effect in self.follower.handle(event, Instant::now(), wall) {
            match effect {
                Effect::Log(request) => self.port.request(request),
                Effect::Publish(snapshot) => {
                    let position = snapshot.position();
                    self.publisher.publish(snapshot);
                    // After the publish: whoever is woken by it must see the snapshot.
                    self.published.send_replace(position);
                }
                Effect::Proven(at) => self.status.set_proven(at),
                Effect::Undecodable(offset, why) => self.undecodable.tell(offset, &why),
                Effect::TickSoon => soon = true,
            }
        }
        self.tell();
        soon
    }

    /// Logs what changed in the status, but for its numbers.
    /// Numbers change with every record and have their place in the status.
    fn tell(&mut self) {
        let detail = self.status.detail();
        // Over an alarm like this, only the list of another log leads.
        let was_another = self.shown.alarm == Some(Alarm::AnotherLog) && detail.alarm.is_none();
        if detail.position < self.shown.position || was_another {
            let (before, rows_before) = (self.shown.position, self.shown.rows.total());
            let (position, rows) = (detail.position, detail.rows.total());
            warn!(%before, rows_before, %position, rows, "the list was replaced by that of another log");
        }
        let said = |detail: &Detail| (detail.phase, detail.degraded, detail.alarm, detail.message.clone());
        if said(&detail) != said(&self.shown) {
            let (phase, position, records_read) = (detail.phase.word(), detail.position, detail.records_read);
            match (detail.alarm.map(Alarm::word), detail.degraded.map(Degraded::word)) {
                (None, None) if detail.message.is_none() => info!(phase, %position, records_read, "status"),
                (alarm, degraded) => {
                    warn!(phase, %position, alarm, degraded, message = detail.message.as_deref(), "status");
                }
            }
            self.shown = (*detail).clone();
        }
    }
}
