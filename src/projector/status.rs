//! What a projector says of itself.

use super::{Projector, Rebuild};
use crate::record::{Offset, Position};
use crate::status::Degraded;
use crate::table::{Fingerprint, Watermark};

/// What a projector is to the table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// It writes the table.
    Active,
    /// It watches another one, or whether there is one.
    #[default]
    Standby,
    /// It writes nothing, for this reason; but for [`Reason::Stop`] it looks again by itself.
    Stopped(Reason),
}

impl Role {
    /// The word for it in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Stopped(_) => "stopped",
        }
    }

    /// Why it writes nothing; none unless it is stopped.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Stopped(reason) => Some(reason),
            Self::Active | Self::Standby => None,
        }
    }
}

/// Why a projector writes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It was told to stop.
    Stop,
    /// The table was never begun.
    NoWatermark,
    /// The table's watermark is of another format or fold, or is none.
    Watermark,
    /// The commands log is not the one that the table was made from.
    AnotherLog,
    /// The commands log no longer holds the commands that are needed.
    Gap,
    /// The table contradicts its watermark, and the log no longer holds all commands.
    Unrepairable,
    /// A command of a later release stands at this offset.
    FutureCommand(Offset),
    /// The topics are not set as they must be.
    TopicSettings,
}

impl Reason {
    /// The word for it in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::NoWatermark => "no_watermark",
            Self::Watermark => "watermark",
            Self::AnotherLog => "another_log",
            Self::Gap => "gap",
            Self::Unrepairable => "unrepairable",
            Self::FutureCommand(_) => "future_command",
            Self::TopicSettings => "topic_settings",
        }
    }
}

/// What a projector says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// What it is to the table.
    pub role: Role,
    /// Whether it has come to know its role. One that has just started is called a standby, too, but may
    /// neither see the table nor watch anybody yet.
    pub looked: bool,
    /// The position that the table holds, by its newest watermark that this projector saw or wrote.
    pub position: Position,
    /// The table's rows.
    pub rows: u64,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// How its rebuild gets on; none of a projector that keeps the table.
    pub rebuild: Option<Rebuild>,
    /// Why it does not work as it should.
    pub degraded: Option<Degraded>,
    /// The newest difficulty in one sentence, for people; none when all is well.
    pub message: Option<String>,
}

impl Projector {
    /// Says what stands in the way. A projector that works goes on though the topics are not set as they must
    /// be; one that does not says why, which is not to be hidden by what could not be found out since.
    pub(super) fn report(&mut self) {
        self.note_progress();
        let refused = self.settings_watch.refused().filter(|_| self.status.role == Role::Active);
        self.status.degraded = refused.map(|_| Degraded::TopicSettings);
        let message = self.difficulty.as_deref().or(refused).or(self.write_failure.as_deref());
        let message = message.or(self.unanswered.reason());
        self.status.message = message.map(str::to_owned);
    }
}

impl Status {
    /// Whether it does what it is there for: it writes the table, or would if nobody else did.
    pub const fn is_ready(&self) -> bool {
        self.looked && !matches!(self.role, Role::Stopped(_))
    }

    /// Takes over what a watermark says.
    pub(super) fn note(&mut self, watermark: &Watermark) {
        self.position = watermark.position;
        self.rows = watermark.rows;
        self.fingerprint = watermark.fingerprint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_and_reason_has_the_word_that_the_status_is_read_by() {
        let roles = [Role::Active, Role::Standby, Role::Stopped(Reason::Gap)];
        assert_eq!(roles.map(Role::word), ["active", "standby", "stopped"]);
        let reasons = [
            (Reason::Stop, "stop"),
            (Reason::NoWatermark, "no_watermark"),
            (Reason::Watermark, "watermark"),
            (Reason::AnotherLog, "another_log"),
            (Reason::Gap, "gap"),
            (Reason::Unrepairable, "unrepairable"),
            (Reason::FutureCommand(Offset::new(1)), "future_command"),
            (Reason::TopicSettings, "topic_settings"),
        ];
        for (reason, word) in reasons {
            assert_eq!(reason.word(), word);
        }
    }
}
