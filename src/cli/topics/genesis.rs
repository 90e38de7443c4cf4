//! Begins a table: writes its first watermark, which says that it holds nothing.
//!
//! Without it an empty table topic would mean two things, "nothing is blacklisted" and "all was lost", and
//! whoever reads it could not tell which. So nobody but an operator writes it, once.

use std::time::{Duration, Instant};

use crate::log::{Identity, ReadEvent, TableLog, TableWriter, Topic};
use crate::record::{Position, Timestamp};
use crate::table::{Table, WATERMARK_KEY, Watermark};

/// How long the table topic may say nothing while it is read.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is in a table topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TableState {
    /// Nothing.
    Empty,
    /// A watermark, of whatever kind.
    Begun,
    /// Records, and no watermark.
    Foreign,
}

/// Whether a table had to be begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Begun {
    Now,
    Before,
}

/// Looks what is in the table topic. Reads all of it.
pub(super) fn look(log: &dyn TableLog) -> Result<TableState, String> {
    let mut reader = log.open(Topic::Table, Position::START).map_err(|error| error.0)?;
    let (mut table, mut state) = (Table::default(), TableState::Empty);
    let mut silent_since = Instant::now();
    loop {
        match reader.poll(Duration::from_millis(200)) {
            Some(ReadEvent::Records(records)) => {
                silent_since = Instant::now();
                state = TableState::Foreign;
                records.iter().for_each(|record| table.apply(record));
            }
            Some(ReadEvent::End(_)) if table.watermark().is_some() => return Ok(TableState::Begun),
            Some(ReadEvent::End(_)) => return Ok(state),
            Some(ReadEvent::Failed(reason)) => return Err(reason),
            None if silent_since.elapsed() > SILENCE_MAX => {
                return Err(format!("the table topic said nothing for {} s", SILENCE_MAX.as_secs()));
            }
            None => {}
        }
    }
}

/// Begins the table of the log with this identity, unless it is begun.
pub(super) fn begin(log: &dyn TableLog, identity: Identity, now: Timestamp) -> Result<Begun, String> {
    if look(log)? == TableState::Begun {
        return Ok(Begun::Before);
    }
    let mut writer = log.table_writer();
    // As in a takeover: from the fence on nobody else writes, so that what is read behind it still holds when
    // the watermark is written. Two that begin the same table at once can't both do it.
    let fenced = writer.fence().map_err(|error| error.to_string());
    let begun = fenced.and_then(|()| write(log, &mut *writer, identity, now));
    // Whoever was quicker has begun it.
    begun.or_else(|reason| if look(log)? == TableState::Begun { Ok(Begun::Before) } else { Err(reason) })
}

/// Writes the first watermark into a table that nobody else writes.
fn write(
    log: &dyn TableLog,
    writer: &mut dyn TableWriter,
    identity: Identity,
    now: Timestamp,
) -> Result<Begun, String> {
    match look(log)? {
        TableState::Begun => Ok(Begun::Before),
        TableState::Foreign => {
            Err("the table topic holds records and no watermark, so that it is no table, or a \
             part of one: set a new table_topic in [log]"
                .to_owned())
        }
        TableState::Empty => {
            let genesis = Watermark::genesis(identity.cluster_id, identity.commands_topic, now);
            let write = (WATERMARK_KEY.to_vec(), Some(genesis.encode()));
            writer.commit(vec![write]).map_err(|error| error.to_string())?;
            Ok(Begun::Now)
        }
    }
}
