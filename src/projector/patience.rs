//! Waiting for progress.
//!
//! An active projector that hears nothing keeps others from the role, although they may hear more. So
//! standing still has two limits: after the first one its reader is replaced, once; after the second it
//! stands back. Progress is what a reader brings, or a proof that there is nothing to bring; never a mere
//! answer.

use std::time::Instant;

use super::{GIVE_UP_PATIENCE, READER_PATIENCE};

/// Watches that an active projector gets on.
#[derive(Debug)]
pub(super) struct Patience {
    /// The last progress.
    since: Instant,
    /// Whether the reader was replaced since.
    renewed: bool,
}

/// What standing still calls for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    /// A new reader.
    Reader,
    /// Somebody else.
    Role,
}

impl Patience {
    /// Begins to wait now.
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, renewed: false }
    }

    /// Notes that records came, or a proof that there are none to come.
    pub(super) fn progress(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// What is called for by now; a new reader only once for each standstill.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Overdue> {
        if now >= self.since + GIVE_UP_PATIENCE {
            return Some(Overdue::Role);
        }
        let renew = now >= self.since + READER_PATIENCE && !self.renewed;
        self.renewed |= renew;
        renew.then_some(Overdue::Reader)
    }
}
