//! What a sidecar says of itself: phase, positions, age. Written by the follower, read by everybody,
//! without a lock.
//!
//! What belongs together stands in one [`Detail`], which is replaced whole, so that no reader sees a phase
//! with the position of another one. Beside it stand two numbers that change every second although nothing
//! else does: where the log ends, and when the view was last proven to be there. Each of them means something
//! by itself, so no order is needed between them.
//!
//! Four questions are kept apart, because they call for different actions:
//!
//! - *ready*: may it be asked at all? Never goes back, so that one bad record or one outage does not take
//!   every sidecar out of service at once.
//! - *age*: how old is what it says? Grows in an outage; whether that is too old is for policy to decide.
//! - *degraded*: it serves, and something keeps it from following as it should.
//! - *alarm*: it must not go on, because what it would fold may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::blacklist::RowCounts;
use crate::record::{Offset, Position};
use crate::table::Fingerprint;
use crate::view::RefusedCounts;

/// How far a sidecar has got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No contact with the log yet.
    #[default]
    Connecting,
    /// Reading the table.
    Loading,
    /// Folding commands up to the log's end.
    CatchingUp,
    /// Serves a view and goes on from it, at the log's end or towards it; also while an outage lasts.
    Following,
    /// Not following, until an operator or a new table mends it; see [`Alarm`].
    Alarm,
}

impl Phase {
    /// The word for it in status and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Loading => "loading",
            Self::CatchingUp => "catching_up",
            Self::Following => "following",
            Self::Alarm => "alarm",
        }
    }
}

/// Why a sidecar that serves does not follow as it should.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Degraded {
    /// A command of a later release stands at this offset.
    FutureCommand(Offset),
    /// Another producer's open transaction hides the newest commands.
    OpenTransaction,
    /// The log no longer holds the commands that come next.
    Gap,
    /// The topics are no longer set as they must be.
    TopicSettings,
}

impl Degraded {
    /// The word for it in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FutureCommand(_) => "future_command",
            Self::OpenTransaction => "open_transaction",
            Self::Gap => "gap",
            Self::TopicSettings => "topic_settings",
        }
    }
}

/// Why a sidecar must not follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alarm {
    /// The log is not the one that the view was folded from.
    AnotherLog,
    /// The topics are not set as they must be, and nothing was served yet.
    TopicSettings,
}

impl Alarm {
    /// The word for it in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AnotherLog => "another_log",
            Self::TopicSettings => "topic_settings",
        }
    }
}

/// All of the status that changes together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Detail {
    /// How far it has got.
    pub phase: Phase,
    /// Whether a first snapshot was published; never goes back.
    pub ready: bool,
    /// Why it does not follow as it should.
    pub degraded: Option<Degraded>,
    /// Why it must not follow.
    pub alarm: Option<Alarm>,
    /// The newest difficulty in one sentence, for people; none when all is well.
    pub message: Option<String>,
    /// Records that were read in this phase, on the way to a snapshot: from the table while loading, from the
    /// commands while catching up. Shows progress before there is a position.
    pub records_read: u64,
    /// The position that is served; the beginning before the first snapshot.
    pub position: Position,
    /// Rows of the view that is served, expired ones included.
    pub rows: RowCounts,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// Records that were refused on the way to the view that is served, and since.
    pub refused: RefusedCounts,
}

/// The status of one sidecar. One writer, the follower; any number of readers, none of which ever waits.
#[derive(Debug)]
pub struct Status {
    detail: ArcSwap<Detail>,
    epoch: Instant,
    log_end: AtomicU64,
    /// Microseconds from the epoch to the last proof of being at the log's end, plus one; 0 before any.
    proven: AtomicU64,
}

impl Status {
    /// The status of a sidecar that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            detail: ArcSwap::new(Arc::default()),
            epoch: now,
            log_end: AtomicU64::new(0),
            proven: AtomicU64::new(0),
        }
    }

    /// What it says at the moment.
    pub fn detail(&self) -> Arc<Detail> {
        self.detail.load_full()
    }

    /// Replaces what it says. Only the follower does.
    pub fn set_detail(&self, detail: Detail) {
        self.detail.store(Arc::new(detail));
    }

    /// Notes where the log ends.
    pub fn set_log_end(&self, end: Position) {
        self.log_end.store(end.number(), Ordering::Relaxed);
    }

    /// Where the log ended when it was last asked, or what is folded if that is more: a fold that is ahead of
    /// the last answer must not make the lag negative. The beginning before any answer.
    pub fn log_end(&self) -> Position {
        Position::new(self.log_end.load(Ordering::Relaxed)).max(self.detail.load().position)
    }

    /// Notes a proof of having been at the log's end at `proven`: the moment when the question was sent, not
    /// the one when its answer came.
    pub fn set_proven(&self, proven: Instant) {
        // Plus one keeps 0 free for "never", so that one atomic number is enough.
        let micros = proven.saturating_duration_since(self.epoch).as_micros();
        self.proven.store(u64::try_from(micros).unwrap_or(u64::MAX - 1).saturating_add(1), Ordering::Relaxed);
    }

    /// The time since the view was last known to be at the end of the log; none before any such proof.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let proven = self.proven.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.epoch + Duration::from_micros(proven)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_the_word_that_the_status_is_read_by() {
        let phases = [Phase::Connecting, Phase::Loading, Phase::CatchingUp, Phase::Following, Phase::Alarm];
        let words = ["connecting", "loading", "catching_up", "following", "alarm"];
        assert_eq!(phases.map(Phase::word), words);
        let degraded = [
            Degraded::FutureCommand(Offset::new(1)),
            Degraded::OpenTransaction,
            Degraded::Gap,
            Degraded::TopicSettings,
        ];
        let words = ["future_command", "open_transaction", "gap", "topic_settings"];
        assert_eq!(degraded.map(Degraded::word), words);
        assert_eq!(
            [Alarm::AnotherLog, Alarm::TopicSettings].map(Alarm::word),
            ["another_log", "topic_settings"]
        );
    }

    #[test]
    fn age_counts_from_the_last_proof() {
        let start = Instant::now();
        let status = Status::new(start);
        assert_eq!(status.age(start), None);
        status.set_proven(start);
        assert_eq!(status.age(start + Duration::from_secs(3)), Some(Duration::from_secs(3)));
        status.set_proven(start + Duration::from_secs(2));
        assert_eq!(status.age(start + Duration::from_secs(3)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_log_never_ends_before_what_is_folded() {
        let status = Status::new(Instant::now());
        status.set_log_end(Position::new(3));
        assert_eq!(status.log_end(), Position::new(3));
        status.set_detail(Detail { position: Position::new(5), ..Detail::default() });
        assert_eq!(status.log_end(), Position::new(5));
    }
}
