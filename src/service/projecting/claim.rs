//! The threads that write the table: one for each claim of the writer's role.
//!
//! ```text
//!   Claims::fence(lease)   a new thread ──► its own writer ──► fence ──► commit, commit, …  until the next claim
//!   Claims::commit(lease, …) ────────────────────────────────────▲
//! ```
//!
//! A producer may take as long as it likes, and letting go of it may block. So a new claim does not wait for
//! the thread of the one before: that one finishes what it is at, if it ever does, drops its producer and
//! ends. What it still says carries a lease that counts for nothing any more.
//!
//! Whatever is asked for is answered once, with its lease. A writer that has failed or panicked is not used
//! again, for nobody knows what it left behind; the projector claims its role anew.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::log::{TableLog, TableWrite, WriteError};
use crate::projector::{Event, Lease};
use crate::service::port::{Teller, caught, spawn};

/// One transaction to write.
type Order = (Lease, Vec<TableWrite>);
/// How many transactions wait for the writer: there is never more than one under way.
const ORDERS_MAX: usize = 1;

/// Claims the writer's role, and writes under the newest claim. Belongs to the projector's thread.
pub(super) struct Claims {
    log: Arc<dyn TableLog>,
    answers: Teller<Event>,
    /// Into the thread of the newest claim; none before the first one.
    orders: Option<SyncSender<Order>>,
}

impl Claims {
    /// Claims nothing yet.
    pub(super) const fn new(log: Arc<dyn TableLog>, answers: Teller<Event>) -> Self {
        Self { log, answers, orders: None }
    }

    /// Fences all others with a new writer, in place of the one so far.
    pub(super) fn fence(&mut self, lease: Lease) {
        let (orders, ordered) = sync_channel(ORDERS_MAX);
        let claim = Claim { lease, ordered, answers: self.answers.clone() };
        let log = Arc::clone(&self.log);
        // The thread of the claim before ends with its orders.
        self.orders = Some(orders);
        if let Err(error) = spawn("table-writer", move || claim.run(&*log)) {
            self.fail(lease, format!("no thread for a writer: {error}"));
        }
    }

    /// Writes under the newest claim.
    pub(super) fn commit(&self, lease: Lease, writes: Vec<TableWrite>) {
        let taken = self.orders.as_ref().is_some_and(|orders| orders.try_send((lease, writes)).is_ok());
        if !taken {
            self.fail(lease, "the writer has ended".to_owned());
        }
    }

    /// Answers in the place of a thread. This is the one that hears the answers, so that it must not wait for
    /// room among them. Without room the projector will notice that no answer comes.
    fn fail(&self, lease: Lease, reason: String) {
        self.answers.tell_if_room(Event::Lost(lease, WriteError::Unknown(reason)));
    }
}

/// What the thread of one claim owns.
struct Claim {
    lease: Lease,
    ordered: Receiver<Order>,
    answers: Teller<Event>,
}

impl Claim {
    /// Fences, then writes what is ordered, until the next claim or the first failure.
    fn run(self, log: &dyn TableLog) {
        let fence = || {
            let mut writer = log.table_writer();
            writer.fence().map(|()| writer)
        };
        let Some(mut writer) = self.answered(self.lease, Event::Fenced, attempt(fence)) else { return };
        for (lease, writes) in &self.ordered {
            let committed = attempt(|| writer.commit(writes));
            if self.answered(lease, Event::Committed, committed).is_none() {
                return;
            }
        }
    }

    /// Answers, and hands on what was done.
    fn answered<T>(
        &self,
        lease: Lease,
        done: fn(Lease) -> Event,
        outcome: Result<T, WriteError>,
    ) -> Option<T> {
        match outcome {
            Ok(outcome) => {
                self.answers.tell(done(lease));
                Some(outcome)
            }
            Err(error) => {
                self.answers.tell(Event::Lost(lease, error));
                None
            }
        }
    }
}

/// Does something with a writer. What becomes of it in a panic is not known.
fn attempt<T>(work: impl FnOnce() -> Result<T, WriteError>) -> Result<T, WriteError> {
    caught(work).unwrap_or_else(|panic| Err(WriteError::Unknown(panic)))
}
