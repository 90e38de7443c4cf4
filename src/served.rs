//! The view that is being served, shared: the follower folds into it, everybody else asks it.
//!
//! It stands behind one mutex that lookups never take. Whoever must see every row copies them slice by
//! slice, and what changes meanwhile is written down and applied at the end, so that a publish never waits
//! for a walk over the whole list.
//!
//! ```text
//! walk    begin   slice 1           slice 2            changes, position   apply the changes
//! mutex    ███      ███     ▒▒▒▒      ███     ▒▒▒▒            ███
//! fold                     change            change            ▲
//!                            └─ written down ──┴───────────────┘
//! ```
//!
//! A slice may show rows as they were before a change or as they are after it. That does no harm: a change
//! says what a row's start holds from then on, and the last one wins, as in a table. So the copy is exactly
//! the view at the position that was taken together with the changes.
//!
//! Beside the view stand the outcomes of the newest commands, for writers that wait for theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::address::Range;
use crate::blacklist::{Changes, RowCounts};
use crate::command::{Command, CommandError, CommandId};
use crate::record::{Offset, Position, Record, Timestamp};
use crate::snapshot::Draft;
use crate::table::{Anchor, Fingerprint, Row, RowChange};
use crate::view::{Applied, FutureCommand, Refusal, RefusedCounts, View};

/// The most rows that are copied under the mutex at once: what a fold waits for at most, but for other folds.
pub const WALK_SLICE_ROWS: usize = 4096;
/// How many of the newest commands' outcomes are remembered, for writers that wait for them.
pub const OUTCOMES_MAX: usize = 16_384;

/// What folding one command did, as its sender is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Why it was refused, if it was.
    pub refused: Option<Refusal>,
    /// How many rows it changed.
    pub rows_changed: u64,
    /// How many addresses it blacklisted (or gave a longer ban) or freed.
    pub addresses_changed: u128,
}

impl From<&Applied> for Outcome {
    fn from(applied: &Applied) -> Self {
        Self {
            refused: applied.outcome.err(),
            rows_changed: applied.rows_changed,
            addresses_changed: applied.addresses_changed,
        }
    }
}

/// A copy of rows, as of one position; of all of them where it comes from [`Served::copy_rows`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RowsCopy {
    /// The rows, IPv4 first, by rising start.
    pub rows: Vec<Row>,
    /// The position that they are the view's at.
    pub position: Position,
}

/// What the follower reports of the view after folding.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// The next offset to fold.
    pub position: Position,
    /// How many rows there are.
    pub rows: RowCounts,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// Records that were refused on the way to this view, and since.
    pub refused: RefusedCounts,
}

/// What folding some records met that its caller has to tell people, or to act on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Folded {
    /// The records that are no commands, and why.
    pub undecodable: Vec<(Offset, CommandError)>,
    /// The command of the future that stopped the fold.
    pub future: Option<FutureCommand>,
}

#[derive(Debug, Default)]
struct Inner {
    view: View,
    refused: RefusedCounts,
    /// By rising offset, at most [`OUTCOMES_MAX`].
    outcomes: VecDeque<(Offset, Outcome)>,
    /// What changed since the walk under way began; none while there is no walk.
    changed_since: Option<Vec<RowChange>>,
    /// The last record in the view when it took the place of another one.
    began: Option<Anchor>,
    /// What the newest records changed, by rising offset: those of which it is not known yet that they are of
    /// the log.
    unproven: VecDeque<(Offset, Changes)>,
}

/// The view that is being served.
///
/// The follower alone calls [`Served::replace`], [`Served::fold`] and [`Served::advance_to`], and publishes what
/// comes of them: the mutex keeps readers from half a fold, not two folds from each other.
///
/// ```
/// use portcullis::command::{Action, Command};
/// use portcullis::served::Served;
/// use portcullis::record::{Offset, Record, Timestamp};
/// use portcullis::snapshot::Draft;
/// use portcullis::view::View;
///
/// let now = Timestamp::from_millis(1_800_000_000_000);
/// let served = Served::default();
/// let mut draft = Draft::new(&View::default(), now);
/// let value = Some(b"BLACKLIST 203.0.113.0/24".to_vec());
/// served.fold(&[Record { offset: Offset::new(0), timestamp: now, key: None, value }], &mut draft);
/// assert_eq!(served.outcome(Offset::new(0)).map(|outcome| outcome.rows_changed), Some(1));
///
/// // What would a command do? The view stays as it is.
/// let free = Command::new(Action::Whitelist, "203.0.113.7".parse()?);
/// assert_eq!(served.preview(&[free], now)[0].rows_changed, 2);
/// assert_eq!(served.copy_rows().rows.len(), 1);
/// # Ok::<(), portcullis::address::RangeError>(())
/// ```
#[derive(Debug, Default)]
pub struct Served {
    inner: Mutex<Inner>,
    /// Held for as long as a walk over all rows takes: there is one at a time.
    walk: Mutex<()>,
}

impl Served {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while folding ends the follower; what others may still read is whole up to then.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the view by one that was loaded and caught up elsewhere, with what was refused on its way.
    /// Outcomes are forgotten: offsets may mean other commands now.
    pub fn replace(&self, view: View, refused: RefusedCounts) {
        let mut inner = self.lock();
        // A walk under way would mix two views; this tells it to begin again.
        inner.changed_since = None;
        inner.outcomes.clear();
        inner.unproven.clear();
        inner.began = view.anchor();
        inner.refused = refused;
        let old = std::mem::replace(&mut inner.view, view);
        drop(inner);
        // Letting go of a large view takes longer than anybody should wait for the mutex.
        drop(old);
    }

    /// Folds records in order and lets the draft follow. Records before the view's position are passed over;
    /// a command of the future stops the fold, with everything before it folded.
    pub fn fold(&self, records: &[Record], draft: &mut Draft) -> Folded {
        let mut inner = self.lock();
        let mut folded = Folded::default();
        for record in records {
            if record.offset.position() < inner.view.position() {
                continue;
            }
            match inner.view.apply(record) {
                Ok(applied) => {
                    draft.apply(&applied.effects);
                    inner.note(record.offset, &applied);
                    folded.undecodable.extend(applied.undecodable.map(|error| (record.offset, error)));
                    if !applied.changes.is_empty() {
                        inner.unproven.push_back((record.offset, applied.changes));
                    }
                }
                Err(future) => {
                    folded.future = Some(future);
                    break;
                }
            }
        }
        folded
    }

    /// Notes that the log was known to be the one once the record at this offset was folded.
    pub fn prove(&self, offset: Offset) {
        let mut inner = self.lock();
        let proven = inner.unproven.partition_point(|(changed, _)| *changed <= offset);
        let rest = inner.unproven.split_off(proven);
        let proven = std::mem::replace(&mut inner.unproven, rest);
        drop(inner);
        // There may be many, and nobody should wait for the mutex meanwhile.
        drop(proven);
    }

    /// Takes back what was folded since the record that is known to be of the log, or since the view was
    /// replaced.
    pub fn take_back(&self, known: Anchor) {
        self.prove(known.offset);
        let mut inner = self.lock();
        let anchor = inner.began.filter(|began| began.offset > known.offset).unwrap_or(known);
        // A walk under way begins again.
        inner.changed_since = None;
        inner.outcomes.retain(|(offset, _)| *offset <= anchor.offset);
        let unproven = std::mem::take(&mut inner.unproven);
        inner.view.take_back(unproven.iter().rev().map(|(_, changes)| changes), anchor);
    }

    /// Looks at the view, briefly: the follower waits for as long as `look` takes. It must not call this
    /// view again, which would wait for itself.
    pub fn with_view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.lock().view)
    }

    /// Moves the position over offsets that hold no record; never back.
    pub fn advance_to(&self, position: Position) {
        self.lock().view.advance_to(position);
    }

    /// Position, row counts, fingerprint and refusals.
    pub fn totals(&self) -> Totals {
        let inner = self.lock();
        let blacklist = inner.view.blacklist();
        Totals {
            position: inner.view.position(),
            rows: blacklist.row_counts(),
            fingerprint: blacklist.fingerprint(),
            refused: inner.refused,
        }
    }

    /// How many IPv4 addresses are blacklisted, as the breadth rule counts them.
    pub fn ipv4_addresses(&self) -> u64 {
        self.lock().view.blacklist().ipv4_addresses()
    }

    /// The offset of the command that carried this id, while it counts as a duplicate.
    pub fn carried(&self, id: &CommandId) -> Option<Offset> {
        self.lock().view.carried(id)
    }

    /// What folding the command at this offset did; none when it is not folded yet, or more than
    /// [`OUTCOMES_MAX`] records ago, or before the view was replaced.
    pub fn outcome(&self, offset: Offset) -> Option<Outcome> {
        let inner = self.lock();
        let at = inner.outcomes.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        inner.outcomes.get(at).map(|(_, outcome)| *outcome)
    }

    /// What each command would do if they were folded next, in order, at this time. Folds them for real, into
    /// a view of their own with the rows that they overlap, so that a preview and the fold cannot disagree.
    ///
    /// # Panics
    /// Never: a [`Command`] is written as version 1, which this release folds.
    pub fn preview(&self, commands: &[Command], now: Timestamp) -> Vec<Outcome> {
        let mut view = self.scratch(commands);
        let fold = |command: &Command| {
            let value = Some(command.encode().into_bytes());
            let record = Record { offset: view.position().offset(), timestamp: now, key: None, value };
            let applied = view.apply(&record).expect("this release writes no command of the future");
            Outcome::from(&applied)
        };
        commands.iter().map(fold).collect()
    }

    /// A view of its own to try commands on, with the rows that they can touch. Of the rows elsewhere only
    /// the number of their IPv4 addresses matters, and of the ids only those that the commands carry.
    fn scratch(&self, commands: &[Command]) -> View {
        let ranges = Range::merged(commands.iter().map(|command| command.range).collect());
        let (copy, mut ids) = self.walk(&ranges, |view| {
            let id = |command: &Command| Some((view.carried(command.id.as_ref()?)?, command.id.clone()?));
            let ids: Vec<(Offset, CommandId)> = commands.iter().filter_map(id).collect();
            (ids, view.blacklist().ipv4_addresses())
        });
        let RowsCopy { rows, position } = copy;
        let mut view = View::from_rows(rows, position, None, BTreeSet::new());
        view.count_elsewhere(ids.1.saturating_sub(view.blacklist().ipv4_addresses()));
        ids.0.sort_unstable();
        ids.0.into_iter().for_each(|(offset, id)| view.remember_id(id, offset));
        view
    }

    /// Copies all rows, holding the mutex for [`WALK_SLICE_ROWS`] at a time. Blocks for as long as that
    /// takes, and for a walk that is under way.
    pub fn copy_rows(&self) -> RowsCopy {
        self.walk(&[Range::ALL_IPV4, Range::ALL_IPV6], |_| ()).0
    }

    /// Copies the rows that overlap the ranges, which are disjoint and rise, and looks at the view at the
    /// very position of the copy.
    fn walk<T>(&self, ranges: &[Range], look: impl Fn(&View) -> T) -> (RowsCopy, T) {
        let _one_walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.lock().changed_since = Some(Vec::new());
            let mut rows = BTreeMap::new();
            ranges.iter().for_each(|range| self.copy_slices(*range, &mut rows));
            let mut inner = self.lock();
            // Nothing is there when the view was replaced on the way: the copy mixes two views.
            let Some(changes) = inner.changed_since.take() else { continue };
            let (position, seen) = (inner.view.position(), look(&inner.view));
            drop(inner);
            for change in changes {
                match change {
                    RowChange::Put(row) if overlaps(ranges, row.range) => {
                        rows.insert(row.range.start(), row);
                    }
                    // It shrank, and no longer reaches the ranges. Its start may still be among the copies.
                    RowChange::Put(Row { range, .. }) => drop(rows.remove(&range.start())),
                    RowChange::Tombstone(start) => drop(rows.remove(&start)),
                }
            }
            return (RowsCopy { rows: rows.into_values().collect(), position }, seen);
        }
    }

    /// Copies the rows of one range, one slice for each time that it has the mutex. It goes on behind the
    /// last row it has; rows that appear before that place are among the changes.
    fn copy_slices(&self, range: Range, rows: &mut BTreeMap<IpAddr, Row>) {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let slice: Vec<Row> =
                self.lock().view.blacklist().overlapping(range).take(WALK_SLICE_ROWS).collect();
            rest = match slice.last() {
                Some(last) if slice.len() == WALK_SLICE_ROWS => range.after(last.range),
                _ => None,
            };
            rows.extend(slice.into_iter().map(|row| (row.range.start(), row)));
        }
    }
}

/// Whether one of the ranges, which are disjoint and rise, has an address of this one.
fn overlaps(ranges: &[Range], range: Range) -> bool {
    let below = ranges.partition_point(|other| other.end() < range.start());
    ranges.get(below).is_some_and(|other| other.intersection(range).is_some())
}

impl Inner {
    /// Writes down what a record did, for whoever counts, walks or waits.
    fn note(&mut self, offset: Offset, applied: &Applied) {
        if let Err(refusal) = applied.outcome {
            self.refused.count(refusal);
        }
        if let Some(changed) = &mut self.changed_since {
            changed.extend(applied.changes.in_safe_order());
        }
        if self.outcomes.len() == OUTCOMES_MAX {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((offset, Outcome::from(applied)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::address::{Address, Number};
    use crate::command::Action;

    fn record(offset: u64, value: &str) -> Record {
        let timestamp = Timestamp::from_millis(0);
        Record { offset: Offset::new(offset), timestamp, key: None, value: Some(value.into()) }
    }

    fn fold(served: &Served, draft: &mut Draft, records: &[Record]) -> Folded {
        served.fold(records, draft)
    }

    fn draft() -> Draft {
        Draft::new(&View::default(), Timestamp::from_millis(0))
    }

    fn blacklist(range: &str) -> Command {
        Command::new(Action::Blacklist { expires_at: None }, range.parse().expect(range))
    }

    #[test]
    fn a_fold_stops_at_a_command_of_the_future_and_passes_over_what_it_has() {
        let (served, mut draft) = (Served::default(), draft());
        let records = [
            record(0, "BLACKLIST 10.0.0.1"),
            record(1, "?"),
            record(2, r#"{"v":2}"#),
            record(3, "BLACKLIST 10.0.0.3"),
        ];
        let folded = fold(&served, &mut draft, &records);
        assert_eq!(folded.future.map(|future| future.offset), Some(Offset::new(2)));
        assert_eq!(folded.undecodable.len(), 1);
        assert_eq!(fold(&served, &mut draft, &records[..1]), Folded::default());
        assert_eq!((served.totals().position, served.totals().rows.ipv4), (Position::new(2), 1));
        assert_eq!(
            served.outcome(Offset::new(1)).and_then(|outcome| outcome.refused),
            Some(Refusal::Undecodable)
        );
        assert_eq!(served.outcome(Offset::new(2)), None);
    }

    #[test]
    fn the_newest_outcomes_are_remembered() {
        let (served, mut draft) = (Served::default(), draft());
        let records: Vec<Record> = (0..=OUTCOMES_MAX as u64).map(|at| record(at, "?")).collect();
        fold(&served, &mut draft, &records);
        assert_eq!(served.outcome(Offset::new(0)), None);
        for offset in [1, 2, OUTCOMES_MAX as u64] {
            assert!(served.outcome(Offset::new(offset)).is_some(), "{offset}");
        }
    }

    #[test]
    fn a_range_overlaps_others_if_it_shares_an_address_with_one_of_them() {
        let range = |text: &str| text.parse::<Range>().expect(text);
        let ranges = ["10.0.0.4-10.0.0.9", "10.0.0.20", "2001:db8::4/126"].map(range);
        for text in ["10.0.0.9-10.0.0.10", "10.0.0.0-10.0.0.4", "10.0.0.0/8", "10.0.0.20", "2001:db8::7"] {
            assert!(overlaps(&ranges, range(text)), "{text}");
        }
        for text in ["10.0.0.0/30", "10.0.0.10-10.0.0.19", "10.0.0.21", "2001:db8::3", "2001:db8::8"] {
            assert!(!overlaps(&ranges, range(text)), "{text}");
        }
    }

    #[test]
    fn a_preview_says_what_the_fold_would_and_changes_nothing() {
        let (served, mut draft) = (Served::default(), draft());
        let first = Command { id: Some("a".parse().expect("an id")), ..blacklist("10.0.0.0/24") };
        fold(&served, &mut draft, &[record(0, &first.encode()), record(1, "BLACKLIST 192.0.2.0/24")]);
        let free = Command::new(Action::Whitelist, "10.0.0.7".parse().expect("an address"));
        let group = [first, free, blacklist("10.0.0.0-10.0.1.255"), blacklist("10.0.0.0/7")];
        let outcomes = served.preview(&group, Timestamp::from_millis(0));
        let shown: Vec<_> =
            outcomes.iter().map(|it| (it.refused, it.rows_changed, it.addresses_changed)).collect();
        let expected =
            [(Some(Refusal::Duplicate), 0, 0), (None, 2, 1), (None, 2, 257), (Some(Refusal::TooBroad), 0, 0)];
        assert_eq!(shown, expected);
        assert_eq!(served.totals().rows.ipv4, 2);
        let [a, b] = ["a", "b"].map(|id| served.carried(&id.parse().expect("an id")));
        assert_eq!((a, b), (Some(Offset::new(0)), None));
    }

    #[test]
    fn a_preview_counts_the_addresses_of_rows_that_it_does_not_copy() {
        let (served, mut draft) = (Served::default(), draft());
        let records: Vec<Record> = (0..64).map(|at| record(at, &format!("BLACKLIST {at}.0.0.0/8"))).collect();
        fold(&served, &mut draft, &records);
        let outcomes =
            served.preview(&[blacklist("200.0.0.1"), blacklist("1.2.3.4")], Timestamp::from_millis(0));
        assert_eq!(outcomes[0].refused, Some(Refusal::TooBroad));
        assert_eq!(outcomes[1].refused, None);
        // Half of them leave room for more.
        let (served, mut draft) = (Served::default(), self::draft());
        fold(&served, &mut draft, &records[..32]);
        assert_eq!(served.ipv4_addresses(), 32 << 24);
        let outcomes = served.preview(&[blacklist("31.255.255.255-32.0.0.0")], Timestamp::from_millis(0));
        assert_eq!((outcomes[0].refused, outcomes[0].addresses_changed), (None, 1));
    }

    #[test]
    fn a_copy_never_mixes_two_views() {
        let view = |offset: u64| {
            let rows = (0..2 * WALK_SLICE_ROWS as u32).map(|at| Row {
                range: (4 * at + offset as u32).range(4 * at + offset as u32),
                cause: crate::table::Cause { command: Offset::new(offset), expires_at: None },
            });
            View::from_rows(rows, Position::new(offset + 1), None, BTreeSet::new())
        };
        let (first, second) = (view(0), view(1));
        let served = Served::default();
        served.replace(first.clone(), RefusedCounts::default());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for view in [&second, &first].into_iter().cycle() {
                    served.replace(view.clone(), RefusedCounts::default());
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Time for some copies to come through in between.
                    std::thread::sleep(std::time::Duration::from_millis(fastrand::u64(1..30)));
                }
            });
            for _ in 0..10 {
                let copy = served.copy_rows();
                let expected = if copy.position == first.position() { &first } else { &second };
                assert!(expected.blacklist().rows().eq(copy.rows));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_copy_of_all_rows_is_whole_while_the_list_changes() {
        /// Scatters addresses over 64 Ki, so that bans are often lifted again.
        fn nth(offset: u64) -> Record {
            let scattered = (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
            let verb = if offset.is_multiple_of(3) { "WHITELIST" } else { "BLACKLIST" };
            record(offset, &format!("{verb} {}", Address::from((scattered * 2).ip())))
        }
        let (served, mut draft) = (Served::default(), draft());
        let stop = AtomicBool::new(false);
        // More rows than one slice has, so that the list changes in the middle of a walk.
        let prefilled = 4 * WALK_SLICE_ROWS as u64;
        fold(&served, &mut draft, &(0..prefilled).map(nth).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for offset in prefilled.. {
                    fold(&served, &mut draft, &[nth(offset)]);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut view = View::default();
            for _ in 0..20 {
                let copy = served.copy_rows();
                for offset in view.position().number()..copy.position.number() {
                    view.apply(&nth(offset)).expect("a command");
                }
                assert!(view.blacklist().rows().eq(copy.rows), "at {}", copy.position);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
