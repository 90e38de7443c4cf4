//! The fold, naively: a cause per address, in small windows at both ends of both families.
//!
//! Each family is 32 addresses at its low end, everything between as one wide cell, and 32 addresses at its
//! high end. Commands begin and end inside the windows, so that the wide cell is always all or nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::address::{Address, Range};
use portcullis::command::{Action, Command};
use portcullis::record::{Offset, Record, Timestamp};
use portcullis::snapshot::{Draft, Snapshot, Verdict};
use portcullis::table::{Cause, Fingerprint, Row, RowChange};
use portcullis::view::{Refusal, View};

/// The addresses of one window.
pub const WINDOW: usize = 32;
/// The cells of one family: two windows and what lies between them.
pub const CELLS: usize = 2 * WINDOW + 1;

/// The two families, as the oracle numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    V4,
    V6,
}

/// What one record of a random log holds.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command from one cell to another of the same family.
    Edit { family: Family, cells: (usize, usize), ban: Ban, id: Option<u8>, force: bool },
    /// Bytes that are no command.
    Garbage,
}

/// What a command of a random log does.
#[derive(Clone, Copy, Debug)]
pub enum Ban {
    Lifted,
    ForEver,
    /// Until so many minutes after the record's own time; over already if not above 0.
    Minutes(i64),
}

/// A record of a random log: its step, and the minutes by which its clock moved, either way.
pub type TimedStep = (Step, i64);

const MINUTE: i64 = 60_000;

/// Ends of a window cell as addresses; the wide cell's are its own first and last.
fn cell_ends(family: Family, cell: usize) -> (IpAddr, IpAddr) {
    let window = WINDOW as u128;
    let last = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let (first, end) = match cell {
        cell if cell < WINDOW => (cell as u128, cell as u128),
        WINDOW => (window, last - window),
        cell => (last - (CELLS - 1 - cell) as u128, last - (CELLS - 1 - cell) as u128),
    };
    let ip = |bits: u128| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    (ip(first), ip(end))
}

fn range_of(family: Family, (a, b): (usize, usize)) -> Range {
    let (start, end) = (cell_ends(family, a.min(b)).0, cell_ends(family, a.max(b)).1);
    Range::new(start, end).expect("cells are in the order of their addresses")
}

/// The record that a step makes at an offset and a time.
pub fn record_of(step: &Step, offset: u64, time: i64) -> Record {
    let value = match step {
        Step::Garbage => b"BLACKLIST everything".to_vec(),
        Step::Edit { family, cells, ban, id, force } => {
            let action = match ban {
                Ban::Lifted => Action::Whitelist,
                Ban::ForEver => Action::Blacklist { expires_at: None },
                Ban::Minutes(minutes) => {
                    Action::Blacklist { expires_at: Some(Timestamp::from_millis(time + minutes * MINUTE)) }
                }
            };
            let mut command = Command::new(action, range_of(*family, *cells));
            command.id = id.map(|id| format!("id-{id}").parse().expect("a short id"));
            command.force = *force;
            command.encode().into_bytes()
        }
    };
    let timestamp = Timestamp::from_millis(time);
    Record { offset: Offset::new(offset), timestamp, key: None, value: Some(value) }
}

/// The naive fold.
pub struct Oracle {
    cells: [[Option<Cause>; CELLS]; 2],
    ids: Vec<(u64, u8)>,
}

impl Oracle {
    pub fn new() -> Self {
        Self { cells: [[None; CELLS]; 2], ids: Vec::new() }
    }

    fn family(&mut self, family: Family) -> &mut [Option<Cause>; CELLS] {
        &mut self.cells[family as usize]
    }

    fn weight(cell: usize) -> u64 {
        if cell == WINDOW { (1 << 32) - 2 * WINDOW as u64 } else { 1 }
    }

    /// Folds one step the slow way, cell by cell, as the contract's sentences say it.
    pub fn apply(&mut self, step: &Step, offset: u64, time: i64) -> Result<(), Refusal> {
        let long_expired =
            |cause: &Cause| cause.expires_at.is_some_and(|at| at.millis() + 60 * MINUTE <= time);
        self.cells.iter_mut().flatten().for_each(|cell| *cell = cell.filter(|cause| !long_expired(cause)));
        let Step::Edit { family, cells, ban, id, force } = step else { return Err(Refusal::Undecodable) };
        if let Some(id) = id {
            let duplicate = self.ids.iter().any(|(at, known)| known == id && *at + 10_000 >= offset);
            self.ids.push((offset, *id));
            if duplicate {
                return Err(Refusal::Duplicate);
            }
        }
        if matches!(ban, Ban::Minutes(minutes) if *minutes <= 0) {
            return Err(Refusal::Expired);
        }
        let (first, last) = (cells.0.min(cells.1), cells.0.max(cells.1));
        // Both windows of a family are far below the widest range; with the wide cell it is far above.
        if !force && (first..=last).contains(&WINDOW) {
            return Err(Refusal::TooBroad);
        }
        let v4_total: u64 = (0..CELLS).filter(|cell| self.cells[0][*cell].is_some()).map(Self::weight).sum();
        let cells = self.family(*family);
        let free: u64 = (first..=last).filter(|cell| cells[*cell].is_none()).map(Self::weight).sum();
        let adds_v4 = *family == Family::V4 && !matches!(ban, Ban::Lifted) && free > 0;
        if !force && adds_v4 && v4_total + free > 1 << 30 {
            return Err(Refusal::TooBroad);
        }
        let expires_at = match ban {
            Ban::Lifted => {
                cells[first..=last].fill(None);
                return Ok(());
            }
            Ban::ForEver => None,
            Ban::Minutes(minutes) => Some(Timestamp::from_millis(time + minutes * MINUTE)),
        };
        let until = |cause: &Cause| cause.expires_at.map_or(i64::MAX, Timestamp::millis);
        let new = Cause { command: Offset::new(offset), expires_at };
        for cell in &mut cells[first..=last] {
            if cell.is_none_or(|old| until(&old) < until(&new)) {
                *cell = Some(new);
            }
        }
        Ok(())
    }

    /// The rows that the cells add up to: the longest runs of one cause.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for family in [Family::V4, Family::V6] {
            let cells = &self.cells[family as usize];
            let mut at = 0;
            while at < CELLS {
                let run = cells[at..].iter().take_while(|cell| **cell == cells[at]).count();
                if let Some(cause) = cells[at] {
                    rows.push(Row { range: range_of(family, (at, at + run - 1)), cause });
                }
                at += run;
            }
        }
        rows
    }

    /// Whether the cell is blacklisted by a row that has not expired at `time`.
    pub fn blocks(&self, family: Family, cell: usize, time: i64) -> bool {
        self.cells[family as usize][cell].is_some_and(|cause| cause.until().millis() > time)
    }
}

/// An address inside each cell, to look up.
pub fn cells() -> impl Iterator<Item = (Family, usize, IpAddr)> {
    let of = |family| (0..CELLS).map(move |cell| (family, cell, cell_ends(family, cell).0));
    of(Family::V4).chain(of(Family::V6))
}

/// Folds a random log with the real view and with the oracle, and compares everything after each step.
pub fn check(steps: &[TimedStep]) {
    let (mut view, mut oracle, mut time) = (View::default(), Oracle::new(), 0);
    let mut table: BTreeMap<IpAddr, Row> = BTreeMap::new();
    let mut draft = Draft::new(&view, Timestamp::from_millis(0));
    for (offset, (step, minutes)) in (0_u64..).zip(steps) {
        time += minutes * MINUTE;
        let record = record_of(step, offset, time);
        let before = table.clone();
        let applied = view.apply(&record).expect("no command is of the future");
        assert_eq!(applied.outcome, oracle.apply(step, offset, time), "offset {offset}");

        let rows = oracle.rows();
        assert!(view.blacklist().rows().eq(rows.iter().copied()), "offset {offset}");
        assert_eq!(view.blacklist().fingerprint(), rows.iter().collect::<Fingerprint>(), "offset {offset}");
        assert_eq!(view.blacklist().row_counts().total(), rows.len() as u64);

        let after: BTreeMap<IpAddr, Row> = rows.iter().map(|row| (row.range.start(), *row)).collect();
        for change in applied.changes.in_safe_order() {
            fold(&mut table, change);
            check_half_written(&before, &table, &after);
        }
        assert_eq!(table, after, "offset {offset}");

        draft.apply(&applied.effects);
        // The wall clock is some minutes off, now to one side, now to the other.
        let wall = time + (offset as i64 % 7 - 3) * MINUTE;
        draft.expire(&view, Timestamp::from_millis(wall));
        check_snapshot(&draft.snapshot(view.position()), &oracle, wall);
        check_twice(&view, step, offset, time);
    }
}

/// Lookups see exactly the rows that are not over by the wall clock.
fn check_snapshot(snapshot: &Snapshot, oracle: &Oracle, wall: i64) {
    for (family, cell, ip) in cells() {
        let expected = oracle.blocks(family, cell, wall);
        let found = snapshot.lookup(Address::from(ip)) == Verdict::Blacklisted;
        assert_eq!(found, expected, "{ip} at position {}", snapshot.position());
    }
}

fn fold(table: &mut BTreeMap<IpAddr, Row>, change: RowChange) {
    match change {
        RowChange::Put(row) => table.insert(row.range.start(), row),
        RowChange::Tombstone(start) => table.remove(&start),
    };
}

/// After each single write, what is blacklisted before and after is covered, what is free before and after
/// is not.
fn check_half_written(
    before: &BTreeMap<IpAddr, Row>,
    table: &BTreeMap<IpAddr, Row>,
    after: &BTreeMap<IpAddr, Row>,
) {
    let covered = |rows: &BTreeMap<IpAddr, Row>, ip: IpAddr| {
        rows.values().any(|row| (row.range.start()..=row.range.end()).contains(&ip))
    };
    for (_, _, ip) in cells() {
        match (covered(before, ip), covered(after, ip)) {
            (true, true) => assert!(covered(table, ip), "{ip} is lost on the way"),
            (false, false) => assert!(!covered(table, ip), "{ip} is blacklisted on the way"),
            _ => {}
        }
    }
}

/// A command that is folded again, without its id, changes no row.
fn check_twice(view: &View, step: &Step, offset: u64, time: i64) {
    let Step::Edit { family, cells, ban, id: _, force } = step else { return };
    let again = Step::Edit { family: *family, cells: *cells, ban: *ban, id: None, force: *force };
    let mut view = view.clone();
    let first = view.apply(&record_of(&again, offset + 1, time)).expect("no command is of the future");
    let second = view.apply(&record_of(&again, offset + 2, time)).expect("no command is of the future");
    assert!(first.outcome.is_err() || second.changes.is_empty());
}
