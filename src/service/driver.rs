//! The follower's thread: gives it events and clocks, does what it wants done.
//!
//! ```text
//!   reader, questions ──► inbox ──► Driver's thread ──► Follower::handle(event, now, wall)
//!                       (bounded)        ▲                      │ effects
//!                                        └── a tick             ├──► Port       read, close, ask
//!                                            every 250 ms       ├──► Publisher  what lookups see
//!                                                               └──► log lines  within limits
//! ```
//!
//! This thread is the only one that folds and publishes. It makes no blocking call to the log, because
//! expiries wait for nobody: a ban ends on time though the log is gone.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::ServeError;
use super::port::{EVENTS_MAX, Message, Port};
use crate::follower::{Effect, Follower};
use crate::log::{Event, Log};
use crate::record::{Position, Timestamp};
use crate::snapshot::Publisher;
use crate::status::{Detail, Status};

/// How often the follower is told that time passes: a ban ends within a second of its expiry, and this leaves
/// room for a busy machine.
const TICK: Duration = Duration::from_millis(250);
const _: () = assert!(TICK.as_millis() <= 500, "a ban ends within a second of its expiry");
/// The most undecodable records that are logged in a minute; the rest is counted. One bad producer must not
/// fill the disk with our words about it.
const UNDECODABLE_LOGGED_PER_MINUTE: u32 = 10;

/// The thread that follows, until it is dropped; dropping waits for its end.
pub(super) struct Driver {
    inbox: SyncSender<Message>,
    /// Closed by the end of the thread.
    running: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
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
        let (inbox, events) = sync_channel(EVENTS_MAX);
        let (ended, running) = oneshot::channel();
        let port = Port::new(log, inbox.clone());
        let work = Work {
            follower,
            port,
            publisher,
            published,
            _ended: ended,
            status,
            shown: Detail::default(),
            undecodable: Limit::default(),
        };
        let thread = thread::Builder::new().name("follower".to_owned()).spawn(move || work.run(&events));
        let thread =
            thread.map_err(|error| ServeError::Unavailable(format!("no thread to follow on: {error}")))?;
        Ok(Self { inbox, running, thread: Some(thread) })
    }

    /// Ends when the thread does, which without being told to it never should. A panic counts: it drops the
    /// sender that this waits on.
    pub(super) async fn ended(&mut self) {
        let _closed = (&mut self.running).await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Waits for room in the inbox, which the thread makes; one that has panicked has dropped its end.
        let _gone = self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What the thread owns. Nothing of it is shared but through its own handles.
struct Work {
    follower: Follower,
    port: Port,
    publisher: Publisher,
    published: watch::Sender<Position>,
    _ended: oneshot::Sender<()>,
    status: Arc<Status>,
    shown: Detail,
    undecodable: Limit,
}

impl Work {
    /// Handles what comes, in order, until it is told to stop.
    fn run(mut self, events: &Receiver<Message>) {
        let mut tick_at = Instant::now();
        loop {
            // Nothing but the next tick bounds the wait, so that this thread wakes four times a second when idle.
            let wait = tick_at.saturating_duration_since(Instant::now());
            let event = match events.recv_timeout(wait) {
                Ok(Message::Event(event)) => event,
                // Asked only now: what stood before it in the inbox may have made the follower give it up.
                Ok(Message::Answer(asking, answer)) if self.port.is_wanted(asking) => Event::Answered(answer),
                Ok(Message::Answer(..)) => continue,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            };
            // A timeout is the tick below, which is handed over in one place only.
            let mut soon = event != Event::Tick && self.handle(event);
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
                Effect::Undecodable(offset, why) => {
                    if self.undecodable.allows(Instant::now()) {
                        warn!(%offset, %why, "passed over a record that is no command");
                    }
                }
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
        let said = |detail: &Detail| (detail.phase, detail.degraded, detail.alarm, detail.message.clone());
        if said(&detail) != said(&self.shown) {
            let (phase, position, records_read) = (detail.phase.word(), detail.position, detail.records_read);
            match (
                detail.alarm.map(crate::status::Alarm::word),
                detail.degraded.map(crate::status::Degraded::word),
            ) {
                (None, None) if detail.message.is_none() => info!(phase, %position, records_read, "status"),
                (alarm, degraded) => {
                    warn!(phase, %position, alarm, degraded, message = detail.message.as_deref(), "status");
                }
            }
            self.shown = (*detail).clone();
        }
    }
}

/// Lets so many through in a minute, counted from the first one.
#[derive(Default)]
struct Limit {
    minute: Option<Instant>,
    passed: u32,
}

impl Limit {
    /// Whether one more may pass now.
    fn allows(&mut self, now: Instant) -> bool {
        if self.minute.is_none_or(|begin| now >= begin + Duration::from_secs(60)) {
            (self.minute, self.passed) = (Some(now), 0);
        }
        self.passed += 1;
        self.passed <= UNDECODABLE_LOGGED_PER_MINUTE
    }
}
