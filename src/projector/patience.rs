//! Waiting for progress.

use std::time::Instant;

use super::{GIVE_UP_PATIENCE, READER_PATIENCE};

/// Watches that an active projector gets on.
#[derive(Debug)]
pub(super) struct Patience {
    since: Instant,
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
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, renewed: false }
    }

    /// Notes that records came, or a proof that there are none to come.
    pub(super) fn progress(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    pub(super) fn tick(&mut self, now: Instant) -> Option<Overdue> {
        if now >= self.since + GIVE_UP_PATIENCE {
            return Some(Overdue::Role);
        }
        let renew = now >= self.since + READER_PATIENCE && !self.renewed;
        self.renewed |= renew;
        renew.then_some(Overdue::Reader)
    }
}
