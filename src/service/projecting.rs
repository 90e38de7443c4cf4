//! The projector's thread: gives it events and clocks, does what it wants done.
//!
//! ```text
//!   Port::next ──► Projecting's thread ──► Projector::handle(event, now, wall)
//!      ▲   ▲               ▲                      │ effects
//!      │   │               └── a tick             ├──► Port::request  read, close, ask
//!      │   │                   every 250 ms       ├──► Claim          fence, commit ─┐
//!      │   │                                      └──► log lines      within limits  │
//!      │   └──────── done, or lost ──────────────────────────────────────────────────┘
//!      └── what readers report, while Projector::wants_records
//! ```
//!
//! This thread waits for neither the log nor the writer: a standby must notice in time that nobody writes,
//! and an active projector that nothing comes.

mod claim;
#[cfg(test)]
pub(super) mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use self::claim::Claims;
use super::port::{Heard, Port, Take, Teller};
use super::undecodable::Undecodable;
use super::{ServeError, no_thread};
use crate::log::{self, TableLog};
use crate::projector::{Effect, Event, Projector, Reason, Role, Status};
use crate::record::Timestamp;
use crate::status::Degraded;

/// How often the projector is told that time passes, if it did not ask to be told sooner. It wants to hear it
/// once a second at least; this leaves room for a busy machine.
const TICK: Duration = Duration::from_millis(250);

/// The thread that projects, until it is stopped. It goes on without this handle: nobody waits for a log.
pub(super) struct Projecting {
    teller: Teller<Event>,
    /// Closed by the end of the thread.
    running: oneshot::Receiver<()>,
}

impl Projecting {
    /// Starts to project. `shown` is told what the projector says of itself, whenever that changes.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(
        projector: Projector,
        log: Arc<dyn TableLog>,
        shown: watch::Sender<Status>,
    ) -> Result<Self, ServeError> {
        let no_thread = |error| no_thread("to project on", &error);
        let port = Port::new(Arc::clone(&log) as _).map_err(no_thread)?;
        let (ended, running) = oneshot::channel();
        let teller = port.teller();
        let work = Work {
            projector,
            claims: Claims::new(log, teller.clone()),
            port,
            tick_at: Instant::now(),
            shown,
            undecodable: Undecodable::default(),
            _ended: ended,
        };
        let thread = thread::Builder::new().name("projector".to_owned()).spawn(move || work.run());
        thread.map(drop).map_err(no_thread)?;
        Ok(Self { teller, running })
    }

    /// Tells it to write what it has, release its role, and end.
    pub(super) fn stop(&self) {
        self.teller.tell(Event::Stop);
    }

    /// Ends when the thread does, which without being told to it never should. A panic counts: it drops the
    /// sender that this waits on.
    pub(super) async fn ended(&mut self) {
        let _closed = (&mut self.running).await;
    }
}

/// What the thread owns. Nothing of it is shared but through its own handles.
struct Work {
    projector: Projector,
    port: Port<Event>,
    claims: Claims,
    tick_at: Instant,
    shown: watch::Sender<Status>,
    undecodable: Undecodable,
    _ended: oneshot::Sender<()>,
}

impl Work {
    /// Handles what comes until the projector has stopped.
    fn run(mut self) {
        while self.step().is_continue() {}
    }

    /// Waits for what comes next, and handles it.
    fn step(&mut self) -> ControlFlow<()> {
        let take = if self.projector.wants_records() { Take::All } else { Take::AllButReports };
        match self.port.next(take, self.tick_at) {
            Some(Heard::Log(event)) => self.handle(Event::Log(event))?,
            Some(Heard::Told(event)) => self.handle(event)?,
            None => {}
        }
        // A busy log must not keep time from passing.
        if Instant::now() >= self.tick_at {
            self.tick_at = Instant::now() + TICK;
            self.handle(Event::Log(log::Event::Tick))?;
        }
        ControlFlow::Continue(())
    }

    /// Hands one event over and does what comes of it; breaks once the projector has stopped.
    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let wall = Timestamp::from(SystemTime::now());
        for effect in self.projector.handle(event, Instant::now(), wall) {
            match effect {
                Effect::Log(request) => self.port.request(request),
                Effect::Fence(lease) => self.claims.fence(lease),
                Effect::Commit(lease, writes) => self.claims.commit(lease, writes),
                Effect::Undecodable(offset, why) => self.undecodable.tell(offset, &why),
                Effect::TickAt(at) => self.tick_at = self.tick_at.min(at),
                Effect::Stopped => flow = ControlFlow::Break(()),
            }
        }
        self.show();
        flow
    }

    /// Shows what changed in the status, and logs it, but for its numbers, which change with every
    /// transaction and have their place in the status.
    fn show(&mut self) {
        let status = self.projector.status();
        let said = |status: &Status| (status.role, status.degraded, status.message.clone());
        let mut news = false;
        self.shown.send_if_modified(|shown| {
            news = said(shown) != said(status);
            let changed = shown != status;
            if changed {
                shown.clone_from(status);
            }
            changed
        });
        if news {
            tell(status);
        }
    }
}

/// Logs what the projector says of itself.
fn tell(status: &Status) {
    let (role, position, message) = (status.role.word(), status.position, status.message.as_deref());
    let (reason, degraded) = (status.role.reason().map(Reason::word), status.degraded.map(Degraded::word));
    let is_well = matches!(status.role, Role::Active | Role::Standby | Role::Stopped(Reason::Stop));
    if is_well && degraded.is_none() && message.is_none() {
        info!(role, reason, %position, "status");
    } else {
        warn!(role, reason, %position, degraded, message, "status");
    }
}
