//! Writing the table anew: an operator's way through everything that a projector stops at.
//!
//! A rebuild is a projector with another purpose. It claims the role at once instead of standing by, it
//! believes nothing that the table says but what must be taken away, and it ends with its first transaction,
//! which releases the role:
//!
//! ```text
//!             Effect::Fence      our sign of life     the log's end
//!             is done            was read             was reached
//! Claiming ──────────► Loading ─────────────► Folding ────────────► one transaction ──► Stopped
//! ```
//!
//! The fence, the sign of life behind it, the check of the log, the one transaction, and how often what is
//! tried: all of it is the projector's. Where that would stand by, or wait and look again, a rebuild ends and
//! says why: somebody waits for it. Until its transaction is committed the table is what it was.

use std::time::Instant;

use super::{Clocks, Projector, Role, Settings, Stage};
use crate::log::Identity;
use crate::record::Position;

/// What a projector is there for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To keep the table, for as long as it has the role.
    Keep,
    /// To write it anew from the log with this name, once.
    Rebuild(Identity),
}

/// How a rebuild is getting on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rebuild {
    /// It folds the commands.
    Folding {
        /// As far as this …
        position: Position,
        /// … of so far.
        end: Position,
    },
    /// The table is written. Its position, rows and fingerprint stand in the [`Status`](super::Status).
    Done {
        /// How many rows were written, in the try that is known to have come through.
        written: usize,
        /// How many keys were taken away.
        taken_away: usize,
    },
}

impl Projector {
    /// A projector that writes the table anew from the commands log that is called `identity`, and then stops.
    /// It begins with the first event. [`Status::rebuild`](super::Status::rebuild) tells how it gets on; if it
    /// stops before that is [`Rebuild::Done`], the status says why.
    pub fn rebuilding(settings: Settings, identity: Identity, now: Instant) -> Self {
        Self { purpose: Purpose::Rebuild(identity), ..Self::new(settings, now) }
    }

    /// Whether it ends where others would wait.
    pub(super) const fn is_rebuild(&self) -> bool {
        matches!(self.purpose, Purpose::Rebuild(_))
    }

    /// The log that the table is to be made from, if that is not for the table to say.
    pub(super) fn made_from(&self) -> Option<Identity> {
        match &self.purpose {
            Purpose::Keep => None,
            Purpose::Rebuild(identity) => Some(identity.clone()),
        }
    }

    /// The first thing to do.
    pub(super) fn begin(&mut self, clocks: Clocks) {
        if self.is_rebuild() { self.fence(clocks) } else { self.stand_by(clocks) }
    }

    /// Ends a rebuild that lost the role, or never had it. What stood in its way is told already.
    pub(super) fn give_up(&mut self) {
        self.end(Role::Standby);
    }

    /// Notes that a transaction is committed: a rebuild has no other than the one.
    pub(super) fn note_rebuilt(&mut self) {
        if let (true, Stage::Folding(folding)) = (self.is_rebuild(), &self.stage) {
            let (written, taken_away) = folding.repaired();
            self.status.rebuild = Some(Rebuild::Done { written, taken_away });
        }
    }

    /// Says how far a rebuild has got.
    pub(super) fn note_progress(&mut self) {
        if let (true, Stage::Folding(folding)) = (self.is_rebuild(), &self.stage)
            && let Some((position, end)) = folding.repair_progress()
        {
            self.status.rebuild = Some(Rebuild::Folding { position, end });
        }
    }
}
