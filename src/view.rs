//! The view: everything that a position of the commands log means. A pure function of the log before it.
//!
//! Every reader of the log, however it got there, must hold the same view at the same position. So there
//! is no clock here: time is the log time of the record being folded, and whether a row blocks *now* is
//! the snapshot's business.
//!
//! [`View::apply`] folds one record, in this order:
//!
//! 1. A command of the future stops the fold before anything has changed.
//! 2. Rows that have been over for [`EXPIRY_GRACE`] by the record's log time are dropped, whatever else
//!    the record turns out to be. Log times need not rise, and no maximum of them is kept: a reader that
//!    bootstraps from a table could not recover it.
//! 3. Ids that lie further back than [`DUPLICATE_WINDOW`] are forgotten.
//! 4. The command is judged: undecodable, duplicate, expired, too broad; the first reason counts.
//! 5. If it stands, it acts on the [`blacklist`](crate::blacklist).
//! 6. Anchor and position move on, also when it was refused.
//!
//! What a view needs besides its rows in order to fold on is its ids. A table holds none, so a reader that
//! bootstraps from one reads the records before its position once more, with [`View::remember`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::address::{Ends, Range};
use crate::blacklist::{Blacklist, Changes};
use crate::command::{Action, Command, CommandError, CommandId, DecodeError};
use crate::record::{Offset, Position, Record, Timestamp};
use crate::table::{Anchor, Cause, Row};

/// An id counts as a duplicate while it was carried within this many offsets before. Bounded, because each
/// reader keeps these ids in memory and reads so many commands again when it bootstraps.
pub const DUPLICATE_WINDOW: u64 = 10_000;
/// A row is dropped this long after its expiry, in log time, so that a broker whose clock is wrong by
/// minutes loses no ban.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(3600);
/// The widest IPv4 range without force: a /8.
pub const IPV4_RANGE_ADDRESSES_MAX: u128 = 1 << 24;
/// The widest IPv6 range without force: a /19.
pub const IPV6_RANGE_ADDRESSES_MAX: u128 = 1 << (128 - 19);
/// The most IPv4 addresses that a BLACKLIST without force may bring the total to.
pub const IPV4_ADDRESSES_MAX: u64 = 1 << 30;

/// Why a command has no effect; every reader refuses it alike.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No command, or one whose offset an operator told us to pass over.
    Undecodable,
    /// Its id was carried by another command within [`DUPLICATE_WINDOW`].
    Duplicate,
    /// A BLACKLIST that is over at its own log time.
    Expired,
    /// Too wide without force.
    TooBroad,
}

impl Refusal {
    /// The word for it in answers and status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Duplicate => "duplicate",
            Self::Expired => "expired",
            Self::TooBroad => "too_broad",
        }
    }
}

/// What folding one record did to what lookups see: a [`Draft`](crate::snapshot::Draft) takes it in, and
/// needs to know nothing of rows and causes for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Every address of the range is blacklisted at least until then; some of them maybe were before, and
    /// longer.
    Blacklist {
        /// The addresses.
        range: Range,
        /// Until when at least; [`Timestamp::MAX`] is for ever.
        until: Timestamp,
    },
    /// Every address of the range is free.
    Free(Range),
}

/// What folding one record did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// Whether the command was refused, and why.
    pub outcome: Result<(), Refusal>,
    /// What is wrong with an undecodable record; none for one that an operator told us to pass over.
    pub undecodable: Option<CommandError>,
    /// The rows that changed, the long expired ones that were dropped among them.
    pub changes: Changes,
    /// The same as lookups see it, in order: first what was dropped, then what the command did.
    pub effects: Vec<Effect>,
    /// How many rows the command itself changed, without those that were dropped because they were over.
    pub rows_changed: u64,
    /// How many addresses the command itself blacklisted (or gave a longer ban) or freed; at most
    /// `u128::MAX`.
    pub addresses_changed: u128,
}

/// A record that this release must not fold and must not pass over: it would then hold another view than the
/// releases that understand it, and nobody would notice.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the command at offset {offset} has version {version}; this release knows version 1")]
pub struct FutureCommand {
    /// Where it stands.
    pub offset: Offset,
    /// Its version, shortened.
    pub version: String,
}

/// How many records were refused, by reason. A reader counts those that it folded itself: what was refused
/// before a table's position, the table does not say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct RefusedCounts {
    /// See [`Refusal::Undecodable`].
    pub undecodable: u64,
    /// See [`Refusal::TooBroad`].
    pub too_broad: u64,
    /// See [`Refusal::Duplicate`].
    pub duplicate: u64,
    /// See [`Refusal::Expired`].
    pub expired: u64,
}

impl RefusedCounts {
    /// Counts one refusal.
    pub fn count(&mut self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Undecodable => &mut self.undecodable,
            Refusal::Duplicate => &mut self.duplicate,
            Refusal::Expired => &mut self.expired,
            Refusal::TooBroad => &mut self.too_broad,
        };
        *counter += 1;
    }
}

/// The ids that were carried lately, each with the last offset that carried it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Ids {
    last: HashMap<CommandId, Offset>,
    /// Every carrying of an id, by rising offset: from which end to forget.
    carried: VecDeque<(Offset, CommandId)>,
}

impl Ids {
    /// Forgets what the window of a record at `position` no longer reaches.
    fn forget_before(&mut self, position: Position) {
        let window = position.back(DUPLICATE_WINDOW).offset();
        while let Some((_, id)) = self.carried.pop_front_if(|(carried, _)| *carried < window) {
            // Carried again since, it counts for longer: only its last carrying ends it.
            if self.last.get(&id).is_some_and(|last| *last < window) {
                self.last.remove(&id);
            }
        }
    }

    /// Remembers that the command at `offset` carried the id; says whether another one did before.
    fn carry(&mut self, id: CommandId, offset: Offset) -> bool {
        self.carried.push_back((offset, id.clone()));
        self.last.insert(id, offset).is_some()
    }
}

/// The blacklist at a position of the commands log, and what folding on from there needs.
///
/// Two views that folded the same log to the same position, passing over the same offsets, are equal in every
/// field, whether they came from a table or from the first record.
///
/// ```
/// use portcullis::record::{Offset, Position, Record, Timestamp};
/// use portcullis::view::{Refusal, View};
///
/// let record = |offset, value: &str| Record {
///     offset: Offset::new(offset),
///     timestamp: Timestamp::from_millis(1_800_000_000_000),
///     key: None,
///     value: Some(value.into()),
/// };
/// let mut view = View::default();
///
/// let applied = view.apply(&record(0, "BLACKLIST 203.0.113.0/24"))?;
/// assert_eq!((applied.outcome, applied.addresses_changed), (Ok(()), 256));
///
/// // Refused by every reader alike, and the position moves on.
/// let applied = view.apply(&record(1, "BLACKLIST 0.0.0.0/0"))?;
/// assert_eq!(applied.outcome, Err(Refusal::TooBroad));
/// assert_eq!(view.position(), Position::new(2));
///
/// // A command of the future stops the fold, and the view stays as it was.
/// let future = view.apply(&record(2, r#"{"v":2}"#)).expect_err("a later version");
/// assert_eq!((future.offset, view.position()), (Offset::new(2), Position::new(2)));
/// # Ok::<(), portcullis::view::FutureCommand>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct View {
    blacklist: Blacklist,
    /// Expiry and start of each row that has an expiry, soonest first.
    expiries: BTreeSet<(Timestamp, IpAddr)>,
    ids: Ids,
    position: Position,
    anchor: Option<Anchor>,
    skipped: BTreeSet<Offset>,
}

impl View {
    /// The view before the first record, which will pass over the `skipped` offsets.
    pub fn new(skipped: BTreeSet<Offset>) -> Self {
        Self { skipped, ..Self::default() }
    }

    /// The view that rows add up to at `position`, still without its ids: see [`View::remember`]. The rows
    /// are disjoint, as those of a table that agrees with its watermark are.
    pub fn from_rows(
        rows: impl IntoIterator<Item = Row>,
        position: Position,
        anchor: Option<Anchor>,
        skipped: BTreeSet<Offset>,
    ) -> Self {
        let mut view = Self { position, anchor, skipped, ..Self::default() };
        for row in rows {
            let changes = view.blacklist.blacklist(row.range, row.cause);
            view.index_expiries(&changes);
        }
        view
    }

    /// Counts IPv4 addresses that are blacklisted by rows which this view does not hold: the breadth rule
    /// then judges a part of a view as it does the whole.
    pub fn count_elsewhere(&mut self, ipv4_addresses: u64) {
        self.blacklist.count_elsewhere(ipv4_addresses);
    }

    /// Recovers the id of a record before the view's position, without applying it: a reader that
    /// bootstraps from a table at position *p* calls this for every record of `[p − 10,000, p)`, in order.
    ///
    /// It asks nothing but whether the record carries an id: an id counts as carried also by a command that
    /// was refused, so that what the rows looked like then, which nobody knows any more, does not matter.
    pub fn remember(&mut self, record: &Record) {
        if self.skipped.contains(&record.offset) {
            return;
        }
        if let Ok(Command { id: Some(id), .. }) = decode(record) {
            self.remember_id(id, record.offset);
        }
    }

    /// Takes over an id that a command at an offset before the view's position carried.
    pub fn remember_id(&mut self, id: CommandId, offset: Offset) {
        self.ids.carry(id, offset);
    }

    /// Folds the next record: drops the long expired rows, then lets the command act.
    ///
    /// The caller sees to the order: the record's offset is the view's position, or above it where offsets in
    /// between hold no record. What lies before the position is in already and would be folded twice. Costs
    /// O(log n) and the rows that change.
    ///
    /// # Errors
    /// A [`FutureCommand`], which leaves the view as it was. The caller must not go on to the next record,
    /// unless an operator has allowed it: see [`View::skip`].
    pub fn apply(&mut self, record: &Record) -> Result<Applied, FutureCommand> {
        let offset = record.offset;
        // A skipped record acts like an undecodable one, but nobody needs to be told of it once more.
        let command = match decode(record) {
            _ if self.skipped.contains(&offset) => Err(None),
            Ok(command) => Ok(command),
            Err(DecodeError::Undecodable(error)) => Err(Some(error)),
            Err(DecodeError::Future { version }) => return Err(FutureCommand { offset, version }),
        };
        let dropped = self.drop_expired(record.timestamp);
        self.ids.forget_before(offset.position());
        let outcome = match &command {
            Ok(command) => self.judge(command, record),
            Err(_) => Err(Refusal::Undecodable),
        };
        let mut applied = Applied {
            outcome,
            undecodable: command.as_ref().err().cloned().flatten(),
            changes: Changes::default(),
            effects: dropped.iter().map(|row| Effect::Free(row.range)).collect(),
            rows_changed: 0,
            addresses_changed: 0,
        };
        if let (Ok(command), Ok(())) = (&command, outcome) {
            self.act(command, offset, &mut applied);
        }
        applied.changes = applied.changes.and_removed(dropped);
        self.anchor = Some(Anchor::of(record));
        self.advance_to(offset.next());
        Ok(applied)
    }

    /// Takes back what the newest records did, newest first, up to the one of the anchor, which was applied
    /// before them. Their ids stay: a view that had to be taken back is not folded on from.
    pub fn take_back<'a>(&mut self, newest_first: impl IntoIterator<Item = &'a Changes>, anchor: Anchor) {
        for changes in newest_first {
            for row in changes.put() {
                let gone = self.blacklist.whitelist(row.range);
                self.index_expiries(&gone);
            }
            for row in changes.removed() {
                let back = self.blacklist.blacklist(row.range, row.cause);
                self.index_expiries(&back);
            }
        }
        (self.position, self.anchor) = (anchor.offset.next(), Some(anchor));
    }

    /// Moves the position on, also over offsets that hold no record, such as transaction markers; never
    /// back. Only for a caller who knows that no record is left before it: the reader came to an end there.
    pub fn advance_to(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.ids.forget_before(self.position);
    }

    /// Drops the rows whose expiry lies an hour or more before the log time. Their ranges are freed exactly,
    /// because no other row overlaps them.
    fn drop_expired(&mut self, log_time: Timestamp) -> Vec<Row> {
        let mut dropped = Vec::new();
        while let Some((expires_at, start)) = self.expiries.first().copied() {
            if expires_at.after(EXPIRY_GRACE) > log_time {
                break;
            }
            let row = self.row_at(start).expect("every expiry has its row");
            let changes = self.blacklist.whitelist(row.range);
            self.index_expiries(&changes);
            dropped.push(row);
        }
        dropped
    }

    /// The row that starts at or covers `start`, which may be an IPv4-mapped address of an IPv6 row.
    fn row_at(&self, start: IpAddr) -> Option<Row> {
        let point = Range::new(start, start).expect("an address is a range of one");
        self.blacklist.overlapping(point).next()
    }

    /// Whether the command stands. The order of the reasons is part of the fold.
    fn judge(&mut self, command: &Command, record: &Record) -> Result<(), Refusal> {
        // Carried is carried, also by a command that is refused for one of the reasons below.
        if command.id.clone().is_some_and(|id| self.ids.carry(id, record.offset)) {
            return Err(Refusal::Duplicate);
        }
        if let Action::Blacklist { expires_at: Some(expires_at) } = command.action
            && expires_at <= record.timestamp
        {
            return Err(Refusal::Expired);
        }
        if !command.force && (is_too_wide(command.range) || self.would_overflow(command)) {
            return Err(Refusal::TooBroad);
        }
        Ok(())
    }

    /// Whether a BLACKLIST would add IPv4 addresses to a total that is then above the limit.
    fn would_overflow(&self, command: &Command) -> bool {
        let (Action::Blacklist { .. }, Ends::V4(..)) = (command.action, command.range.ends()) else {
            return false;
        };
        let total = self.blacklist.ipv4_addresses();
        // The count of free addresses walks the rows of the range, so the cheap bound is tried first.
        u128::from(total) + command.range.addresses() > u128::from(IPV4_ADDRESSES_MAX)
            && match self.blacklist.ipv4_addresses_free(command.range) {
                // Nothing new: a list that is repeated while the total is above the limit is no harm.
                0 => false,
                added => total + added > IPV4_ADDRESSES_MAX,
            }
    }

    /// Lets a command that stands act, and counts what that changed.
    fn act(&mut self, command: &Command, offset: Offset, applied: &mut Applied) {
        let range = command.range;
        let addresses = |sum: u128, range: Range| sum.saturating_add(range.addresses());
        applied.changes = match command.action {
            Action::Blacklist { expires_at } => {
                let cause = Cause { command: offset, expires_at };
                let changes = self.blacklist.blacklist(range, cause);
                // The other rows that are put are remains of those that were cut.
                let claimed = changes.put().iter().filter(|row| row.cause == cause);
                applied.addresses_changed = claimed.map(|row| row.range).fold(0, addresses);
                applied.effects.push(Effect::Blacklist { range, until: cause.until() });
                changes
            }
            Action::Whitelist => {
                let changes = self.blacklist.whitelist(range);
                let freed = changes.removed().iter().filter_map(|row| row.range.intersection(range));
                applied.addresses_changed = freed.fold(0, addresses);
                applied.effects.push(Effect::Free(range));
                changes
            }
        };
        applied.rows_changed = applied.changes.in_safe_order().count() as u64;
        self.index_expiries(&applied.changes);
    }

    /// Keeps the expiries in step with the rows. What is gone goes first: a row may be back at its own start.
    fn index_expiries(&mut self, changes: &Changes) {
        let key = |row: &Row| row.cause.expires_at.map(|expires_at| (expires_at, row.range.start()));
        for gone in changes.removed().iter().filter_map(key) {
            self.expiries.remove(&gone);
        }
        self.expiries.extend(changes.put().iter().filter_map(key));
    }

    /// The next offset to fold.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The last record that was folded or passed over; none before the first.
    pub const fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }

    /// The rows.
    pub const fn blacklist(&self) -> &Blacklist {
        &self.blacklist
    }

    /// The offsets that this view passes over because an operator said so.
    pub const fn skipped(&self) -> &BTreeSet<Offset> {
        &self.skipped
    }

    /// Passes over one more offset, which must not have been folded yet. It becomes part of what the view is
    /// a function of, so that it has to travel with the rows, in the watermark.
    pub fn skip(&mut self, offset: Offset) {
        self.skipped.insert(offset);
    }

    /// The offset of the command that carried this id last, if the id counts as a duplicate at the view's
    /// position.
    pub fn carried(&self, id: &CommandId) -> Option<Offset> {
        self.ids.last.get(id).copied()
    }

    /// The rows whose expiry lies above `after` and not above `until`, soonest first.
    ///
    /// `after` is where an earlier call left off: a time, and the start of the last row of that time that
    /// was worked off; without a start, all rows of that time were.
    pub fn expiring(
        &self,
        after: (Timestamp, Option<IpAddr>),
        until: Timestamp,
    ) -> impl Iterator<Item = Row> {
        use std::ops::Bound::{Excluded, Included};
        let last = IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX));
        let from = (after.0, after.1.unwrap_or(last));
        let until = (until, last);
        let keys = (from < until).then(|| self.expiries.range((Excluded(from), Included(until))));
        keys.into_iter().flatten().map(|(_, start)| self.row_at(*start).expect("every expiry has its row"))
    }
}

/// A record without a value is no command; a record with an empty one neither, for another reason.
fn decode(record: &Record) -> Result<Command, DecodeError> {
    Command::decode(record.value.as_deref().ok_or(CommandError::Empty)?)
}

/// Whether a range is wider than a command may be without force.
pub const fn is_too_wide(range: Range) -> bool {
    match range.ends() {
        Ends::V4(..) => range.addresses() > IPV4_RANGE_ADDRESSES_MAX,
        Ends::V6(..) => range.addresses() > IPV6_RANGE_ADDRESSES_MAX,
    }
}
