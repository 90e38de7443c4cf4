//! Snapshots: the immutable structure that lookups read, and how it is published.
//!
//! ```text
//!  one thread: the follower's                       any number of threads
//!
//!  view ─effects─► Draft ─snapshot()─► Publisher ─one atomic swap─► Reader ─► Snapshot::lookup
//!         wall clock ─┘                    │                          │
//!                                  retired snapshots ◄──lets go of────┘
//! ```
//!
//! There is one [`Publisher`] and any number of [`Reader`]s. A lookup takes no lock, allocates nothing and
//! waits for nothing; an edit costs the path that it changes, however long the list is (see `tree.rs`).
//!
//! A snapshot holds verdicts only, no causes and no expiries. So time is worked off here, on the publishing
//! side: a [`Draft`] blocks what its view holds *and* whose expiry the wall clock has not reached, and
//! [`Draft::expire`] has to be called as the clock goes on. The view itself keeps an expired row for another
//! hour of log time; that is no contradiction, because only the draft decides what blocks.
//!
//! ```
//! use portcullis::record::{Offset, Record, Timestamp};
//! use portcullis::snapshot::{Draft, Expiry, Publisher, Snapshot, Verdict};
//! use portcullis::view::View;
//!
//! let at = Timestamp::from_millis;
//! let mut view = View::default();
//! let mut draft = Draft::new(&view, at(0));
//! let (mut publisher, readers) = Publisher::new();
//! let mut reader = readers.reader();
//! assert!(reader.snapshot().is_none(), "not ready is not an empty blacklist");
//!
//! let ban = r#"{"v":1,"action":"BLACKLIST","range":"203.0.113.7","expires_at":"1970-01-01T00:00:10Z"}"#;
//! let value = Some(ban.into());
//! let record = Record { offset: Offset::new(0), timestamp: at(0), key: None, value };
//! draft.apply(&view.apply(&record)?.effects);
//! publisher.publish(draft.snapshot(view.position()));
//! let address = "203.0.113.7".parse()?;
//! let lookup = |snapshot: &Snapshot| snapshot.lookup(address);
//! assert_eq!(reader.snapshot().map(lookup), Some(Verdict::Blacklisted));
//!
//! // Ten seconds later the row is still in the view, and blocks no more.
//! assert_eq!(draft.expire(&view, at(10_000)), Expiry::Done);
//! publisher.publish(draft.snapshot(view.position()));
//! assert_eq!(reader.snapshot().map(lookup), Some(Verdict::Free));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod radix;
mod toggles;
mod tree;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwapOption, Cache};

use self::radix::Radix;
use self::tree::Tree;
use crate::address::{Address, Ends, Number, Range};
use crate::record::{Position, Timestamp};
use crate::table::Cause;
use crate::view::{Effect, View};

/// The most rows whose expiry is worked off at once, so that commands need not wait for the rest: a list
/// whose rows all end at the same moment is not rare.
pub const EXPIRY_SLICE_ROWS: usize = 1024;
/// A wall clock that steps back by no more than this is taken to stand still: a clock that is being slewed
/// must not cost a rebuild with every correction.
pub const CLOCK_STEP_MAX: Duration = Duration::from_secs(1);

/// Whether an address is blacklisted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// No range has it.
    Free,
    /// A range has it.
    Blacklisted,
}

impl Verdict {
    /// The verdict behind so many toggles.
    const fn after(self, toggles: usize) -> Self {
        match (self as usize).wrapping_add(toggles) % 2 {
            0 => Self::Free,
            _ => Self::Blacklisted,
        }
    }
}

/// What is blacklisted, at one position and one moment; never changes. Two that follow each other share
/// everything that did not change between them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    v4: Radix,
    v6: Tree,
    position: Position,
}

impl Snapshot {
    /// Whether the address is blacklisted; O(log n), without a lock or an allocation.
    #[inline]
    pub fn lookup(&self, address: Address) -> Verdict {
        match address.ip() {
            IpAddr::V4(ip) => self.v4.lookup(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.lookup(ip.to_bits()),
        }
    }

    /// The position whose view this snapshot shows.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// What is blacklisted, neighbours merged, IPv4 first, rising. IPv4-mapped addresses are left out of the
    /// IPv6 ranges, because as addresses they are the IPv4 ones.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        let v4 = self.v4.ranges().map(|(start, end)| start.range(end));
        let v6 = self.v6.ranges().map(|(start, end)| start.range(end));
        v4.chain(v6.flat_map(without_mapped))
    }

    fn set(&mut self, range: Range, verdict: Verdict) {
        match range.ends() {
            Ends::V4(start, end) => self.v4.set(start, end, verdict),
            Ends::V6(start, end) => self.v6.set(start, end, verdict),
        }
    }
}

/// What is left of a range without the IPv4-mapped addresses: at most one piece on each side of them.
fn without_mapped(range: Range) -> impl Iterator<Item = Range> {
    let (Ends::V6(start, end), Ends::V6(first, last)) = (range.ends(), Range::MAPPED.ends()) else {
        return [Some(range), None].into_iter().flatten();
    };
    let below = first.previous().filter(|below| start <= *below).map(|below| start.range(below.min(end)));
    let above = last.next().filter(|above| *above <= end).map(|above| start.max(above).range(end));
    [below, above].into_iter().flatten()
}

/// The snapshot that the next publish will show: edited in place, sharing all that did not change.
///
/// It shows the rows of its view whose expiry lies above its *horizon*, the wall-clock time up to which
/// expiries have been worked off; and for a moment also those that [`Draft::expire`] has not come to yet.
///
/// The caller keeps it in step with one view: every effect of [`View::apply`], in order, none left out.
/// Cloning it, as making a snapshot does, copies the root of a tree and no more.
#[derive(Clone, Debug)]
pub struct Draft {
    snapshot: Snapshot,
    horizon: Timestamp,
    /// Up to where the expiries before the horizon are worked off: a time, and the last row of that time;
    /// none when all of that time are. Kept beside the horizon, because a slice may end between two rows that
    /// end at the same moment.
    swept: (Timestamp, Option<IpAddr>),
}

impl Draft {
    /// The draft that shows a view at a wall-clock time. Walks all rows: for a view that was loaded, and for
    /// a clock that stepped back.
    pub fn new(view: &View, wall_now: Timestamp) -> Self {
        let blocks = |cause: Cause| cause.until() > wall_now;
        let v4 = view.blacklist().ipv4().filter(|(.., cause)| blocks(*cause));
        let v6 = view.blacklist().ipv6().filter(|(.., cause)| blocks(*cause));
        let snapshot = Snapshot {
            v4: Radix::from_rising(v4.map(|(start, end, _)| (start, end))),
            v6: Tree::from_rising(v6.map(|(start, end, _)| (start, end))),
            position: view.position(),
        };
        Self { snapshot, horizon: wall_now, swept: (wall_now, None) }
    }

    /// Takes in what folding a record did; O(log n) for each effect, and copies the path to what changes if
    /// a snapshot shares it.
    pub fn apply(&mut self, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Blacklist { range, until } if until > self.horizon => {
                    self.snapshot.set(range, Verdict::Blacklisted);
                }
                // It is over already, and what the range holds besides blocks as it did.
                Effect::Blacklist { .. } => {}
                Effect::Free(range) => self.snapshot.set(range, Verdict::Free),
            }
        }
    }

    /// Works off what expired up to `wall_now`, at most [`EXPIRY_SLICE_ROWS`] rows of it.
    ///
    /// To be called every second or more often, with the view that the draft follows; again at once after
    /// [`Expiry::More`]. Anything but [`Expiry::Nothing`] calls for a publish.
    ///
    /// A clock that stepped back by more than [`CLOCK_STEP_MAX`] brings the rows back that are not yet over
    /// by it; within that, what is over stays over.
    pub fn expire(&mut self, view: &View, wall_now: Timestamp) -> Expiry {
        if self.horizon.since(wall_now) > CLOCK_STEP_MAX {
            *self = Self::new(view, wall_now);
            return Expiry::Done;
        }
        self.horizon = self.horizon.max(wall_now);
        let mut rows = 0;
        // No other row has an address of this one, so freeing it whole frees nothing that blocks.
        for row in view.expiring(self.swept, self.horizon).take(EXPIRY_SLICE_ROWS) {
            self.snapshot.set(row.range, Verdict::Free);
            self.swept = (row.cause.until(), Some(row.range.start()));
            rows += 1;
        }
        if rows == EXPIRY_SLICE_ROWS {
            return Expiry::More;
        }
        self.swept = (self.horizon, None);
        if rows == 0 { Expiry::Nothing } else { Expiry::Done }
    }

    /// The snapshot as it stands, at the position that the view has now. Costs two roots and one allocation,
    /// so that also a command without effect can move the position that lookups name.
    pub fn snapshot(&self, position: Position) -> Arc<Snapshot> {
        Arc::new(Snapshot { position, ..self.snapshot.clone() })
    }
}

/// What a look at the clock did to a draft.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// No row expired.
    Nothing,
    /// What expired is worked off.
    Done,
    /// A slice is worked off; more has expired.
    More,
}

/// Makes snapshots visible; there is one for all readers.
///
/// A reader lets go of a replaced snapshot whenever it next looks. So that a lookup never pays for freeing
/// one, the publisher keeps each until nobody else holds it.
///
/// It is not `Clone`: one thread publishes, so that snapshots become visible in the order they were made in.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwapOption<Snapshot>>,
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// A publisher that has not published anything, and what readers are made from. Until the first publish
    /// every reader sees none.
    pub fn new() -> (Self, Readers) {
        let current = Arc::new(ArcSwapOption::empty());
        (Self { current: Arc::clone(&current), retired: Vec::new() }, Readers { current })
    }

    /// Makes the snapshot the one that every later lookup sees: one atomic swap. A lookup under way finishes
    /// with the one that it began with.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.retired.extend(self.current.swap(Some(snapshot)));
        self.free_retired();
    }

    /// Frees the replaced snapshots that no reader holds any more. To be called now and then, because
    /// without a publish nothing else does; a reader that never looks again keeps one alive.
    pub fn free_retired(&mut self) {
        // A count of one is ours alone: nobody can get a new reference to a replaced snapshot.
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

/// Makes [`Reader`]s, one for each thread that looks up. It can be sent to wherever readers are needed.
#[derive(Clone, Debug)]
pub struct Readers {
    current: Arc<ArcSwapOption<Snapshot>>,
}

impl Readers {
    /// A reader of its own for the calling thread.
    pub fn reader(&self) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }
}

/// Sees the newest snapshot.
///
/// It remembers the snapshot that it saw last, and compares one pointer to learn whether there is a newer
/// one: the counter that all readers would share is touched only when there is. So each thread has its own.
#[derive(Clone, Debug)]
pub struct Reader {
    cache: Cache<Arc<ArcSwapOption<Snapshot>>, Option<Arc<Snapshot>>>,
}

impl Reader {
    /// The newest snapshot; none before the first, which is not the same as an empty blacklist. Several
    /// lookups that must agree with each other use one snapshot.
    #[inline]
    pub fn snapshot(&mut self) -> Option<&Snapshot> {
        self.cache.load().as_deref()
    }

    /// The newest snapshot, to be held over what waits in between. The publisher frees it once it is let go.
    pub fn hold(&mut self) -> Option<Arc<Snapshot>> {
        self.cache.load().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, Record};

    fn record(offset: u64, value: &str) -> Record {
        let timestamp = Timestamp::from_millis(0);
        Record { offset: Offset::new(offset), timestamp, key: None, value: Some(value.into()) }
    }

    fn ban(offset: u64, range: &str, second: u32) -> Record {
        let expires_at = Timestamp::from_millis(i64::from(second) * 1_000);
        let value = format!(
            r#"{{"v":1,"action":"BLACKLIST","range":"{range}","expires_at":"{expires_at}","force":true}}"#
        );
        record(offset, &value)
    }

    fn at(second: u32) -> Timestamp {
        Timestamp::from_millis(i64::from(second) * 1_000)
    }

    fn shown(draft: &Draft) -> Vec<String> {
        draft.snapshot.ranges().map(|range| range.to_string()).collect()
    }

    fn fold(view: &mut View, draft: &mut Draft, record: &Record) {
        draft.apply(&view.apply(record).expect("a command of this release").effects);
    }

    #[test]
    fn a_row_blocks_until_its_expiry_by_the_wall_clock() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        fold(&mut view, &mut draft, &ban(0, "10.0.0.1", 10));
        fold(&mut view, &mut draft, &ban(1, "10.0.0.3", 20));
        fold(&mut view, &mut draft, &record(2, "BLACKLIST 10.0.0.5"));
        assert_eq!(draft.expire(&view, at(9)), Expiry::Nothing);
        assert_eq!(shown(&draft), ["10.0.0.1", "10.0.0.3", "10.0.0.5"]);
        assert_eq!(draft.expire(&view, at(10)), Expiry::Done);
        assert_eq!(shown(&draft), ["10.0.0.3", "10.0.0.5"]);
        assert_eq!(shown(&Draft::new(&view, at(10))), shown(&draft));
    }

    #[test]
    fn a_clock_that_steps_back_brings_bans_back() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        fold(&mut view, &mut draft, &ban(0, "10.0.0.1", 10));
        assert_eq!(draft.expire(&view, at(15)), Expiry::Done);
        assert_eq!(draft.expire(&view, at(5)), Expiry::Done);
        assert_eq!(shown(&draft), ["10.0.0.1"]);
        assert_eq!(draft.expire(&view, at(10)), Expiry::Done);
        assert!(shown(&draft).is_empty());
    }

    #[test]
    fn a_clock_that_steps_back_by_a_second_stands_still() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        fold(&mut view, &mut draft, &ban(0, "10.0.0.1", 10));
        assert_eq!(draft.expire(&view, at(10)), Expiry::Done);
        assert_eq!(draft.expire(&view, at(9)), Expiry::Nothing);
        assert!(shown(&draft).is_empty());
        assert_eq!(draft.expire(&view, Timestamp::from_millis(8_999)), Expiry::Done);
        assert_eq!(shown(&draft), ["10.0.0.1"]);
    }

    #[test]
    fn a_ban_that_is_over_by_the_wall_clock_leaves_longer_ones_blocked() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(100));
        fold(&mut view, &mut draft, &ban(0, "10.0.0.1", 200));
        fold(&mut view, &mut draft, &ban(1, "10.0.0.0/30", 50));
        assert_eq!(shown(&draft), ["10.0.0.1"]);
        assert_eq!(shown(&Draft::new(&view, at(100))), ["10.0.0.1"]);
    }

    #[test]
    fn many_expiries_are_worked_off_in_slices() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        let rows = 100_000;
        for row in 0..rows {
            fold(&mut view, &mut draft, &ban(row, &Address::from((2 * row as u32).ip()).to_string(), 10));
        }
        let slices = rows / EXPIRY_SLICE_ROWS as u64;
        for slice in 1..=slices {
            assert_eq!(draft.expire(&view, at(11)), Expiry::More);
            let left = draft.snapshot.ranges().count() as u64;
            assert_eq!(left, rows - slice * EXPIRY_SLICE_ROWS as u64);
        }
        // A command in between takes over a row that is still to come, and one that is done.
        fold(&mut view, &mut draft, &ban(rows, "0.0.0.0/0", 11));
        assert_eq!(draft.expire(&view, at(12)), Expiry::Done);
        assert!(shown(&draft).is_empty());
        assert_eq!(draft.expire(&view, at(13)), Expiry::Nothing);
    }

    #[test]
    fn a_small_step_back_in_the_middle_of_a_sweep_loses_no_expiry() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        let rows = 2 * EXPIRY_SLICE_ROWS;
        for row in 0..rows {
            let second = if row % 2 == 0 { 9 } else { 10 };
            fold(
                &mut view,
                &mut draft,
                &ban(row as u64, &Address::from((2 * row as u32).ip()).to_string(), second),
            );
        }
        assert_eq!(draft.expire(&view, at(11)), Expiry::More);
        let mut wall = Timestamp::from_millis(10_999);
        while draft.expire(&view, wall) != Expiry::Nothing {
            wall = Timestamp::from_millis(wall.millis() - 1);
        }
        assert!(shown(&draft).is_empty(), "{} are left", shown(&draft).len());
        // A large step in the middle of a sweep brings back just what is not over.
        let mut draft = Draft::new(&view, at(8));
        assert_eq!(draft.expire(&view, at(11)), Expiry::More);
        draft.expire(&view, at(9));
        assert_eq!(shown(&draft), shown(&Draft::new(&view, at(9))));
    }

    #[test]
    fn mapped_addresses_are_shown_as_what_they_are() {
        let mut view = View::default();
        let mut draft = Draft::new(&view, at(0));
        fold(&mut view, &mut draft, &ban(0, "::/0", 10));
        let all = ["::-::fffe:ffff:ffff", "::1:0:0:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
        assert_eq!(shown(&draft), all);
        assert_eq!(draft.snapshot.lookup("::ffff:10.0.0.1".parse().expect("an address")), Verdict::Free);
    }

    #[test]
    fn not_ready_is_not_an_empty_blacklist() {
        let (mut publisher, readers) = Publisher::new();
        let mut reader = readers.reader();
        assert!(reader.snapshot().is_none());
        publisher.publish(Arc::default());
        assert!(reader.snapshot().is_some());
    }

    #[test]
    fn a_snapshot_that_is_held_stays_as_it_is() {
        let (mut publisher, readers) = Publisher::new();
        let mut reader = readers.reader();
        assert!(reader.hold().is_none());
        let draft = Draft::new(&View::default(), at(0));
        publisher.publish(draft.snapshot(Position::new(1)));
        let held = reader.hold().expect("one was published");
        publisher.publish(draft.snapshot(Position::new(2)));
        assert_eq!(reader.snapshot().map(Snapshot::position), Some(Position::new(2)));
        assert_eq!((held.position(), publisher.retired.len()), (Position::new(1), 1));
        drop(held);
        publisher.free_retired();
        assert!(publisher.retired.is_empty());
    }

    #[test]
    fn a_replaced_snapshot_is_freed_by_the_publisher_and_not_by_the_last_reader() {
        let (mut publisher, readers) = Publisher::new();
        let mut reader = readers.reader();
        publisher.publish(Arc::default());
        assert!(reader.snapshot().is_some());
        publisher.publish(Arc::default());
        assert_eq!(publisher.retired.len(), 1, "the reader's cache still holds it");
        assert!(reader.snapshot().is_some());
        assert_eq!(Arc::strong_count(&publisher.retired[0]), 1, "the reader let go without freeing it");
        publisher.free_retired();
        assert!(publisher.retired.is_empty());
    }
}
