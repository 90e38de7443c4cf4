//! Why a projector must not write for now.

use super::Reason;
use crate::check::Trouble;
use crate::log::Identity;
use crate::table::{TableError, Watermark};

/// Why the table is not to be written for now. The projector stays, says why, and looks again after
/// [`HALT_WAIT`](super::HALT_WAIT).
#[derive(Clone, Debug)]
pub(super) struct Halt {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Halt {
    pub(super) fn of_table(error: &TableError) -> Self {
        let (reason, way) = match error {
            TableError::NoWatermark => {
                (Reason::NoWatermark, "`portcullis table rebuild` brings back one that was lost")
            }
            _ => (Reason::Watermark, "`portcullis table rebuild` writes it anew by this release"),
        };
        Self { reason, message: format!("{error}; {way}") }
    }
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::AnotherLog(reason) => Self {
                reason: Reason::AnotherLog,
                message: format!(
                    "{reason}; if the log was replaced on purpose, `portcullis table rebuild` makes the table \
                     from it"
                ),
            },
            Trouble::Gap(message) | Trouble::Again(message) => Self { reason: Reason::Gap, message },
        }
    }
}

/// The log that a table was made from.
pub(super) fn identity_of(watermark: &Watermark) -> Identity {
    let Watermark { cluster_id, commands_topic, .. } = watermark.clone();
    Identity { cluster_id, commands_topic }
}
