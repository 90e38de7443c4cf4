//! Does a table hold exactly the fold of the commands? Every difference is named.
//!
//! ```text
//!   table topic, to its end ──► watermark: position p ──► commands 0 … p, folded anew
//!                           └─► rows ◄────── compared ────── rows
//! ```
//!
//! A reader that bootstraps trusts rows that agree with the fingerprint of their watermark. That notices rows
//! that were lost or damaged, and cannot notice a watermark that is wrong together with its rows: what a
//! projector wrote that folded by other rules, or from another log. Here nothing in the table is trusted but
//! the position that it names, and the offsets that it says were passed over.
//!
//! The table may go on being written meanwhile: what is compared is what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::log::{Answer, Identity, Log, Question};
use crate::record::{Offset, Position, Timestamp};
use crate::replay::{Plan, ReplayError, Until, Watch, ends, replay};
use crate::table::{Anchor, Row, Table, TableError, Watermark};
use crate::view::View;

/// All that was found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Findings {
    /// The position that the table says it holds; none if it says none that can be believed.
    pub position: Option<Position>,
    /// How many rows the fold has there; none if the rows could not be judged.
    pub rows: Option<u64>,
    /// What is wrong with the watermark.
    pub watermark: Vec<WatermarkFault>,
    /// The rows that differ, in the order of their addresses.
    pub rows_differing: Vec<RowFault>,
    /// The keys that hold no row, with what is no text in them replaced.
    pub keys_undecodable: Vec<String>,
}

impl Findings {
    /// How many there are.
    pub const fn count(&self) -> usize {
        self.watermark.len() + self.rows_differing.len() + self.keys_undecodable.len()
    }

    /// A line for each, for people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let keys = self.keys_undecodable.iter().map(|key| format!("key {key:?}: holds no row"));
        let watermark = self.watermark.iter().map(ToString::to_string);
        watermark.chain(self.rows_differing.iter().map(ToString::to_string)).chain(keys)
    }
}

/// Something that the watermark says, and that is not so.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct WatermarkFault {
    /// What it is about: a key of the watermark, or `watermark` for all of it.
    pub field: &'static str,
    /// What it says.
    pub found: String,
    /// What is so.
    pub expected: String,
}

impl fmt::Display for WatermarkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, found, expected } = self;
        write!(f, "{field}: found {found}, expected {expected}")
    }
}

/// A row that the table has and the fold has not, or the other way round, or that both have and differ in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct RowFault {
    /// Where it starts.
    pub start: IpAddr,
    /// What the table has there.
    pub table: Option<RowSeen>,
    /// What the fold has there.
    pub fold: Option<RowSeen>,
}

/// A row, but for its start.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct RowSeen {
    /// Its last address.
    pub end: IpAddr,
    /// The command that caused it.
    pub command: Offset,
    /// When it ends; none is never.
    pub expires_at: Option<Timestamp>,
}

impl From<&Row> for RowSeen {
    fn from(Row { range, cause }: &Row) -> Self {
        Self { end: range.end(), command: cause.command, expires_at: cause.expires_at }
    }
}

impl fmt::Display for RowSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {} by command {}", self.end, self.command)?;
        self.expires_at.map_or(Ok(()), |time| write!(f, " until {time}"))
    }
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, table, fold } = self;
        match (table, fold) {
            (Some(table), Some(fold)) => {
                write!(f, "{start}: differs; the table has it {table}, the fold {fold}")
            }
            (Some(table), None) => write!(f, "{start}: not in the fold; the table has it {table}"),
            (None, Some(fold)) => write!(f, "{start}: missing from the table; the fold has it {fold}"),
            (None, None) => write!(f, "{start}: in neither"),
        }
    }
}

/// What is left to do once commands are gone.
pub const BEGIN_ANEW: &str =
    "while a sidecar still has the list, `portcullis export` it, and import that into new topics";

/// Why a table could not be judged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// The commands that the table was made from are not all there any more.
    #[error(
        "the commands log begins at {0}: what came before is gone, and with it what the table should hold; {BEGIN_ANEW}"
    )]
    BeginsAt(Position),
    /// The commands can't be folded.
    #[error("{0}")]
    Replay(#[from] ReplayError),
}

/// Compares a table that was read to its end with the fold of the commands. Blocks for as long as that fold
/// takes, or until `watch` ends it.
///
/// # Errors
/// When the commands can't be folded from the first one on.
pub fn verify(table: &Table, log: &dyn Log, watch: Watch<'_>) -> Result<Findings, VerifyError> {
    let start = ends(log)?.start;
    if start > Position::START {
        return Err(VerifyError::BeginsAt(start));
    }
    let mut findings = Findings { keys_undecodable: keys_of(table), ..Findings::default() };
    let watermark = match table.watermark() {
        Some(Ok(watermark)) => watermark,
        other => {
            let error = other.and_then(|watermark| watermark.as_ref().err());
            let found = error.map_or_else(|| "none".to_owned(), ToString::to_string);
            findings.watermark.push(fault("watermark", found, "one of this release"));
            return Ok(findings);
        }
    };
    findings.position = Some(watermark.position);
    if table.check() == Err(TableError::Unfinished) {
        findings.watermark.push(fault("watermark", "rows behind it", "to be the last record"));
    }
    findings.watermark.extend(names(watermark, &identity(log)?));
    let until = Until::Position(watermark.position);
    let plan = Plan { until, skipped: watermark.skipped.clone(), ..Plan::default() };
    match replay(log, &plan, watch) {
        Ok(replayed) => compare(table, watermark, &replayed.view, &mut findings),
        Err(ReplayError::BeyondEnd { position, end }) => {
            let expected = format!("at most {end}, where the commands end");
            findings.watermark.push(fault("position", position, expected));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(findings)
}

fn fault(field: &'static str, found: impl ToString, expected: impl ToString) -> WatermarkFault {
    WatermarkFault { field, found: found.to_string(), expected: expected.to_string() }
}

fn keys_of(table: &Table) -> Vec<String> {
    table.undecodable_keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

fn identity(log: &dyn Log) -> Result<Identity, ReplayError> {
    match log.questioner().ask(Question::Identity) {
        Answer::Identity(identity) => Ok(identity),
        Answer::Failed(_, reason) => Err(ReplayError::Log(reason)),
        _ => Err(ReplayError::Log("the log did not say what it is called".to_owned())),
    }
}

/// Whether the watermark names the log that is there.
fn names(watermark: &Watermark, identity: &Identity) -> Vec<WatermarkFault> {
    let pairs = [
        ("cluster_id", &watermark.cluster_id, &identity.cluster_id),
        ("commands_topic", &watermark.commands_topic, &identity.commands_topic),
    ];
    let differing = pairs.into_iter().filter(|(_, found, expected)| found != expected);
    differing.map(|(field, found, expected)| fault(field, found, expected)).collect()
}

/// Compares with the fold at the watermark's position.
fn compare(table: &Table, watermark: &Watermark, view: &View, findings: &mut Findings) {
    let (rows, fingerprint) = (view.blacklist().row_counts().total(), view.blacklist().fingerprint());
    findings.rows = Some(rows);
    if watermark.anchor != view.anchor() {
        let shown = |anchor| match anchor {
            Some(Anchor { offset, hash }) => format!("{hash} at offset {offset}"),
            None => "none".to_owned(),
        };
        findings.watermark.push(fault("anchor", shown(watermark.anchor), shown(view.anchor())));
    }
    if watermark.rows != rows {
        findings.watermark.push(fault("rows", watermark.rows, rows));
    }
    if watermark.fingerprint != fingerprint {
        findings.watermark.push(fault("fingerprint", watermark.fingerprint, fingerprint));
    }
    findings.rows_differing = differing(table, view);
}

/// The rows that differ, by start.
fn differing(table: &Table, view: &View) -> Vec<RowFault> {
    let mut seen: BTreeMap<IpAddr, (Option<Row>, Option<Row>)> =
        table.rows().map(|row| (row.range.start(), (Some(*row), None))).collect();
    for row in view.blacklist().rows() {
        seen.entry(row.range.start()).or_default().1 = Some(row);
    }
    let fault = |(start, (table, fold)): (IpAddr, (Option<Row>, Option<Row>))| RowFault {
        start,
        table: table.as_ref().map(RowSeen::from),
        fold: fold.as_ref().map(RowSeen::from),
    };
    seen.into_iter().filter(|(_, (table, fold))| table != fold).map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Topic;
    use crate::log::memory::MemoryLog;
    use crate::record::Record;
    use crate::table::{RowChange, WATERMARK_KEY};

    const COMMANDS: [&str; 3] =
        ["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7", "BLACKLIST 2001:db8::/64"];

    fn epoch() -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn log() -> MemoryLog {
        let name = Identity { cluster_id: "cluster".to_owned(), commands_topic: "commands".to_owned() };
        let log = MemoryLog::new(name);
        for command in COMMANDS {
            log.append_record(Topic::Commands, epoch(), None, Some(command.as_bytes()));
        }
        log
    }

    fn folded(log: &MemoryLog) -> View {
        replay(log, &Plan::default(), &mut |_| Ok(())).expect("it can be read").view
    }

    fn watermark(view: &View) -> Watermark {
        Watermark {
            position: view.position(),
            anchor: view.anchor(),
            rows: view.blacklist().row_counts().total(),
            fingerprint: view.blacklist().fingerprint(),
            ..Watermark::genesis("cluster".to_owned(), "commands".to_owned(), epoch())
        }
    }

    fn write(table: &mut Table, key: &[u8], value: Option<&[u8]>) {
        table.apply(&Record {
            offset: Offset::new(0),
            timestamp: epoch(),
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
        });
    }

    /// The table of a log with this watermark, after something was done to its rows.
    fn table(log: &MemoryLog, watermark: &Watermark, damage: impl FnOnce(&mut Table)) -> Table {
        let mut table = Table::default();
        for row in folded(log).blacklist().rows() {
            let (key, value) = RowChange::Put(row).encode();
            write(&mut table, &key, value.as_deref());
        }
        damage(&mut table);
        write(&mut table, WATERMARK_KEY, Some(&watermark.encode()));
        table
    }

    fn verified(table: &Table, log: &MemoryLog) -> Result<Findings, VerifyError> {
        verify(table, log, &mut |_| Ok(()))
    }

    fn lines(table: &Table, log: &MemoryLog) -> Vec<String> {
        verified(table, log).expect("it can be judged").lines().collect()
    }

    #[test]
    fn a_table_that_holds_the_fold_has_no_findings_and_its_rows_are_counted() {
        let log = log();
        let table = table(&log, &watermark(&folded(&log)), |_| ());
        let findings = verified(&table, &log).expect("it can be judged");
        assert_eq!((findings.position, findings.rows), (Some(Position::new(3)), Some(3)));
        assert_eq!(findings.count(), 0);
    }

    #[test]
    fn rows_that_differ_are_named_in_the_order_of_their_addresses() {
        let log = log();
        let damaged = table(&log, &watermark(&folded(&log)), |table| {
            write(table, b"2001:db8::", None);
            write(table, b"203.0.113.0", Some(br#"{"end":"203.0.113.5","command":0}"#));
            let ending = br#"{"end":"198.51.100.9","command":7,"expires_at":"2030-01-01T00:00:00.000Z"}"#;
            write(table, b"198.51.100.0", Some(ending));
            write(table, b"no address", Some(b"x"));
            write(table, b"203.0.113.008", Some(br#"{"end":"203.0.113.9","command":0}"#));
        });
        let named = [
            "198.51.100.0: not in the fold; the table has it up to 198.51.100.9 by command 7 until 2030-01-01T00:00:00.000Z",
            "203.0.113.0: differs; the table has it up to 203.0.113.5 by command 0, the fold up to 203.0.113.6 by command 0",
            "2001:db8::: missing from the table; the fold has it up to 2001:db8::ffff:ffff:ffff:ffff by command 2",
            "key \"203.0.113.008\": holds no row",
            "key \"no address\": holds no row",
        ];
        assert_eq!(lines(&damaged, &log), named);
        let findings = verified(&damaged, &log).expect("it can be judged");
        assert_eq!((findings.count(), findings.watermark.len()), (5, 0), "the watermark is right");
    }

    #[test]
    fn what_the_watermark_gets_wrong_is_named_though_the_rows_agree_with_it() {
        let log = log();
        let view = folded(&log);
        let right = watermark(&view);
        let wrong = Watermark {
            rows: 9,
            fingerprint: Default::default(),
            anchor: None,
            cluster_id: "other".to_owned(),
            commands_topic: "others".to_owned(),
            ..right.clone()
        };
        let found = verified(&table(&log, &wrong, |_| ()), &log).expect("it can be judged");
        let fields: Vec<_> = found.watermark.iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["cluster_id", "commands_topic", "anchor", "rows", "fingerprint"]);
        assert_eq!(found.rows_differing, []);
        let beyond = Watermark { position: Position::new(4), ..right.clone() };
        let told = "position: found 4, expected at most 3, where the commands end";
        assert_eq!(lines(&table(&log, &beyond, |_| ()), &log), [told]);
        // A position that is too low has the wrong rows, too.
        let behind = Watermark { position: Position::new(1), ..right.clone() };
        let found = verified(&table(&log, &behind, |_| ()), &log).expect("it can be judged");
        assert_eq!((found.rows, found.rows_differing.len()), (Some(1), 3));
        // It says what was passed over, and so decides what the fold is.
        let skipped = Watermark { skipped: [Offset::new(1)].into(), ..right };
        let found = verified(&table(&log, &skipped, |_| ()), &log).expect("it can be judged");
        assert_eq!((found.rows, found.rows_differing.len()), (Some(2), 2));
    }

    #[test]
    fn a_table_without_a_watermark_to_build_on_says_so() {
        let log = log();
        assert_eq!(lines(&Table::default(), &log), ["watermark: found none, expected one of this release"]);
        let mut later = Table::default();
        write(&mut later, WATERMARK_KEY, Some(br#"{"v":9}"#));
        let told = "watermark: found the table's watermark has version 9; this release knows 1, expected one of this release";
        assert_eq!(lines(&later, &log), [told]);
        let mut unfinished = table(&log, &watermark(&folded(&log)), |_| ());
        write(&mut unfinished, b"203.0.113.0", None);
        let told = lines(&unfinished, &log);
        assert_eq!(told[0], "watermark: found rows behind it, expected to be the last record");
        assert!(told.len() == 2 && told[1].starts_with("203.0.113.0: missing"), "{told:?}");
    }

    #[test]
    fn without_all_commands_there_is_no_verdict() {
        let log = log();
        let table = table(&log, &watermark(&folded(&log)), |_| ());
        log.delete_before(Topic::Commands, Position::new(1));
        assert_eq!(verified(&table, &log), Err(VerifyError::BeginsAt(Position::new(1))));
    }
}
