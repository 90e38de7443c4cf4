//! Begins a table: writes its first watermark, which says that it holds nothing.
//!
//! Without it an empty table topic would mean two things, "nothing is blacklisted" and "all was lost", and
//! whoever reads it could not tell which. So nobody but an operator writes it, once.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::table::read;
use crate::log::{Identity, TableLog, TableWriter};
use crate::record::Timestamp;
use crate::table::{RowChange, Table, WATERMARK_KEY, Watermark};

/// How long whoever was quicker may take to begin the table …
const QUICKER_MAX: Duration = Duration::from_secs(5);
/// … and how often it is looked whether it has.
const QUICKER_WAIT: Duration = Duration::from_millis(500);

/// Whether something came to be by this run, or was there before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    Now,
    Before,
}

/// Whether a table has no row and nothing that ought to be one. Signs of life do not count: a projector may
/// give them at any time.
pub(super) fn is_empty(table: &Table) -> bool {
    table.rows().next().is_none() && table.undecodable_keys().next().is_none()
}

/// Begins the table of the log with this identity, unless it is begun. The topic was created by this run or
/// was there before.
pub(super) fn begin(
    log: &dyn TableLog,
    identity: Identity,
    topic_created: When,
    now: Timestamp,
) -> Result<When, String> {
    if topic_created == When::Before && read(log)?.watermark().is_some() {
        return Ok(When::Before);
    }
    let mut writer = log.table_writer();
    // As in a takeover: from the fence on nobody else writes, so that what is read behind it still holds when
    // the watermark is written. Two that begin the same table at once can't both do it.
    let fenced = writer.fence().map_err(|error| error.to_string());
    let begun = fenced.and_then(|()| write(log, &mut *writer, identity, topic_created, now));
    begun.or_else(|reason| if is_begun_soon(log) { Ok(When::Before) } else { Err(reason) })
}

/// Whether somebody else was quicker, who may need a moment more.
fn is_begun_soon(log: &dyn TableLog) -> bool {
    let until = Instant::now() + QUICKER_MAX;
    while Instant::now() < until {
        if read(log).is_ok_and(|table| table.watermark().is_some()) {
            return true;
        }
        thread::sleep(QUICKER_WAIT);
    }
    false
}

/// Writes the first watermark into a table that nobody else writes.
fn write(
    log: &dyn TableLog,
    writer: &mut dyn TableWriter,
    identity: Identity,
    topic_created: When,
    now: Timestamp,
) -> Result<When, String> {
    let table = read(log)?;
    // What a new topic holds is of a projector that ran on when the one before it was deleted.
    let is_ours = topic_created == When::Now;
    if !is_ours && table.watermark().is_some() {
        return Ok(When::Before);
    }
    if !is_ours && !is_empty(&table) {
        let reason = "the table topic holds records and no watermark, so that it is no table, or a part of one: \
                      `portcullis table rebuild` writes it anew";
        return Err(reason.to_owned());
    }
    let rows = table.rows().map(|row| RowChange::Tombstone(row.range.start()).encode());
    let others = table.undecodable_keys().map(|key| (key.to_vec(), None));
    let genesis = Watermark::genesis(identity.cluster_id, identity.commands_topic, now);
    let genesis = (WATERMARK_KEY.to_vec(), Some(genesis.encode()));
    let writes = rows.chain(others).chain([genesis]).collect();
    writer.commit(writes).map_err(|error| error.to_string())?;
    Ok(When::Now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Topic;
    use crate::log::memory::MemoryLog;
    use crate::record::{Offset, Position};
    use crate::table::{Cause, Row};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// A table in memory.
    struct Shared(MemoryLog);

    impl crate::log::Log for Shared {
        fn open(
            &self,
            topic: Topic,
            from: Position,
        ) -> Result<Box<dyn crate::log::Reader>, crate::log::LogError> {
            self.0.open(topic, from)
        }

        fn questioner(&self) -> Box<dyn crate::log::Questioner> {
            self.0.questioner()
        }
    }

    impl TableLog for Shared {
        fn table_writer(&self) -> Box<dyn TableWriter> {
            Box::new(self.0.table_writer(|| NOW))
        }
    }

    fn identity() -> Identity {
        Identity { cluster_id: "cluster".to_owned(), commands_topic: "commands".to_owned() }
    }

    fn log_with(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Shared {
        let log = MemoryLog::new(identity());
        for (key, value) in records {
            log.append_record(Topic::Table, NOW, Some(key), value.as_deref());
        }
        Shared(log)
    }

    fn row() -> (Vec<u8>, Option<Vec<u8>>) {
        let cause = Cause { command: Offset::new(7), expires_at: None };
        RowChange::Put(Row { range: "203.0.113.0/24".parse().expect("a range"), cause }).encode()
    }

    fn begun(log: &Shared, topic_created: When) -> Result<When, String> {
        begin(log, identity(), topic_created, NOW)
    }

    #[test]
    fn a_table_is_begun_once() {
        let log = log_with(&[]);
        assert_eq!(begun(&log, When::Before), Ok(When::Now));
        let table = read(&log).expect("it can be read");
        assert_eq!(table.check().expect("it is whole").position, Position::START);
        assert_eq!(begun(&log, When::Before), Ok(When::Before));
    }

    #[test]
    fn signs_of_life_are_nothing_and_rows_without_a_watermark_are_somebody_elses() {
        let log = log_with(&[(b"@alive".to_vec(), Some(b"{}".to_vec()))]);
        assert_eq!(begun(&log, When::Before), Ok(When::Now));
        let reason = begun(&log_with(&[row()]), When::Before).expect_err("not ours");
        assert!(reason.contains("portcullis table rebuild"), "{reason}");
    }

    #[test]
    fn what_an_old_projector_wrote_into_a_new_topic_is_cleared_away() {
        let stale = Watermark {
            position: Position::new(43),
            rows: 9,
            ..Watermark::genesis(String::new(), String::new(), NOW)
        };
        let stale = (WATERMARK_KEY.to_vec(), Some(stale.encode()));
        let log = log_with(&[row(), (b"no address".to_vec(), Some(b"x".to_vec())), stale]);
        assert_eq!(begun(&log, When::Now), Ok(When::Now));
        let table = read(&log).expect("it can be read");
        assert!(is_empty(&table));
        assert_eq!(table.check().expect("it is whole").position, Position::START);
    }
}
