//! The watermark: the record that says which position a table holds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Anchor, FOLD, Fingerprint};
use crate::record::{Offset, Position, Timestamp};

/// The version of the watermark's format.
const WATERMARK_VERSION: u64 = 1;

/// The record that says which position the table holds; the last one of every table transaction but a sign
/// of life's.
///
/// Position and rows travel in one transaction, so that no reader ever sees the one without the other.
///
/// ```
/// use portcullis::table::{Watermark, WatermarkError};
///
/// let later = br#"{"v":2,"shape":"unknown"}"#;
/// assert_eq!(Watermark::decode(Some(later)), Err(WatermarkError::Version { v: 2 }));
/// let refolded = br#"{"v":1,"fold":2,"position":814}"#;
/// assert_eq!(Watermark::decode(Some(refolded)), Err(WatermarkError::Fold { fold: 2 }));
/// assert_eq!(Watermark::decode(None), Err(WatermarkError::Undecodable));
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// The table holds exactly the view at this position. A maximum over the rows would not do: a command
    /// without effect leaves no row.
    pub position: Position,
    /// The last record before the position; none when there is none.
    pub anchor: Option<Anchor>,
    /// The number of rows.
    pub rows: u64,
    /// The fingerprint of the rows.
    pub fingerprint: Fingerprint,
    /// Offsets of commands that an operator told the projector to pass over. Every reader of the table
    /// passes over them, too, else its view would be another one.
    #[serde(default)]
    pub skipped: BTreeSet<Offset>,
    /// The cluster that the commands are in.
    pub cluster_id: String,
    /// The topic that they are in.
    pub commands_topic: String,
    /// Who wrote it.
    pub projector: String,
    /// Whether its writer has stopped, so that another may take over at once.
    pub released: bool,
    /// When it was written, by the writer's clock. For people: nothing is decided by it.
    pub written_at: Timestamp,
}

/// A watermark as it is written: with the versions, which the type itself need not carry.
#[derive(Serialize)]
struct VersionedWatermark<'a> {
    v: u64,
    fold: u64,
    #[serde(flatten)]
    watermark: &'a Watermark,
}

/// What is read of a watermark first. A later version may have no `fold`, which must not make it undecodable.
#[derive(Deserialize)]
struct WatermarkVersion {
    v: u64,
    #[serde(default)]
    fold: u64,
}

impl Watermark {
    /// The first one of a table: it holds the view before any command, and nobody writes it yet.
    pub fn genesis(cluster_id: String, commands_topic: String, written_at: Timestamp) -> Self {
        Self {
            position: Position::START,
            anchor: None,
            rows: 0,
            fingerprint: Fingerprint::default(),
            skipped: BTreeSet::new(),
            cluster_id,
            commands_topic,
            projector: "genesis".to_owned(),
            released: true,
            written_at,
        }
    }

    /// Decodes the value of a watermark record.
    ///
    /// # Errors
    /// When it is none, or one of another version or fold, which this release must not build on.
    pub fn decode(value: Option<&[u8]>) -> Result<Self, WatermarkError> {
        let value = value.ok_or(WatermarkError::Undecodable)?;
        let undecodable = |_| WatermarkError::Undecodable;
        // The version is read first and alone: a later format may share nothing else with this one.
        let WatermarkVersion { v, fold } = serde_json::from_slice(value).map_err(undecodable)?;
        if v != WATERMARK_VERSION {
            return Err(WatermarkError::Version { v });
        }
        if fold != FOLD {
            return Err(WatermarkError::Fold { fold });
        }
        serde_json::from_slice(value).map_err(undecodable)
    }

    /// The value of the watermark's record.
    pub fn encode(&self) -> Vec<u8> {
        let watermark = VersionedWatermark { v: WATERMARK_VERSION, fold: FOLD, watermark: self };
        serde_json::to_vec(&watermark).expect("a watermark holds nothing that JSON cannot")
    }
}

/// Why a watermark can't be built on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WatermarkError {
    /// It is no watermark at all.
    #[error("the table's watermark is undecodable")]
    Undecodable,
    /// It has another format.
    #[error("the table's watermark has version {v}; this release knows {WATERMARK_VERSION}")]
    Version {
        /// Its version.
        v: u64,
    },
    /// Its rows were folded by other rules.
    #[error("the table was folded by rules {fold}; this release folds by {FOLD}")]
    Fold {
        /// The number of its rules.
        fold: u64,
    },
}
