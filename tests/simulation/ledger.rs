//! What really is in the commands log, and was: the truth that everybody else is judged by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portcullis::log::memory::{Ending, TransactionId};
use portcullis::record::{Offset, Position, Record};
use portcullis::table::{Anchor, Fingerprint};
use portcullis::view::View;

/// What one offset holds.
#[derive(Clone, Debug)]
enum Slot {
    Committed(Record),
    /// Nobody knows yet whether it will be read.
    Open(Record),
    /// An aborted record, or a mark.
    Nothing,
}

/// What a view at one position must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fold {
    pub fingerprint: Fingerprint,
    pub rows: u64,
}

/// What somebody claims to have folded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    pub position: Position,
    pub anchor: Option<Anchor>,
    pub fold: Fold,
}

impl State {
    pub fn of(view: &View) -> Self {
        Self { position: view.position(), anchor: view.anchor(), fold: fold_of(view) }
    }
}

/// One log from its beginning; another one takes its place when the topic is made anew or loses its end.
#[derive(Clone, Debug)]
struct Life {
    slots: Vec<Slot>,
    open: BTreeMap<TransactionId, Vec<usize>>,
    /// The fold as far as everything before it is decided, and what it was at each position on the way.
    view: View,
    folds: Vec<Fold>,
    /// When the log took its place, and when it grew to which end.
    highs: Vec<(Duration, Position)>,
}

impl Life {
    fn new(now: Duration) -> Self {
        let view = View::default();
        Self {
            slots: Vec::new(),
            open: BTreeMap::new(),
            folds: vec![fold_of(&view)],
            view,
            highs: vec![(now, Position::START)],
        }
    }

    fn high(&self) -> Position {
        Position::new(self.slots.len() as u64)
    }

    /// Everything before it is decided, and can be read.
    fn stable(&self) -> Position {
        let first = self.open.values().filter_map(|offsets| offsets.first()).min();
        first.map_or(self.high(), |first| Position::new(*first as u64))
    }

    fn advance(&mut self, now: Duration, passed_over: &BTreeSet<Offset>) {
        self.highs.push((now, self.high()));
        let stable = usize::try_from(self.stable().number()).expect("a short log");
        while let Some(slot) = self.slots.get(self.folds.len() - 1).filter(|_| self.folds.len() <= stable) {
            if let Slot::Committed(record) = slot {
                if passed_over.contains(&record.offset) {
                    self.view.skip(record.offset);
                }
                if self.view.apply(record).is_err() {
                    return;
                }
            }
            self.view.advance_to(Position::new(self.folds.len() as u64));
            self.folds.push(fold_of(&self.view));
        }
    }

    fn holds(&self, anchor: Anchor) -> bool {
        let offset = usize::try_from(anchor.offset.number()).expect("a short log");
        matches!(self.slots.get(offset), Some(Slot::Committed(record)) if Anchor::of(record) == anchor)
    }
}

fn fold_of(view: &View) -> Fold {
    let blacklist = view.blacklist();
    Fold { fingerprint: blacklist.fingerprint(), rows: blacklist.row_counts().total() }
}

/// How a log is replaced.
#[derive(Clone, Copy, Debug)]
pub enum Replacement {
    /// By an empty one.
    Empty,
    /// By what it was before it grew beyond this position.
    Cut(Position),
}

/// All logs that there were, the last one being there.
#[derive(Clone, Debug)]
pub struct Ledger {
    lives: Vec<Life>,
    passed_over: BTreeSet<Offset>,
}

/// Logs, by their numbers in the ledger.
pub type Lives = BTreeSet<usize>;

impl Ledger {
    pub fn new() -> Self {
        Self { lives: vec![Life::new(Duration::ZERO)], passed_over: BTreeSet::new() }
    }

    fn last(&self) -> &Life {
        self.lives.last().expect("there is a first one")
    }

    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Life)) {
        let life = self.lives.last_mut().expect("there is a first one");
        change(life);
        life.advance(now, &self.passed_over);
    }

    pub fn append(&mut self, now: Duration, record: Record) {
        self.change(now, |life| {
            assert_eq!(record.offset.position(), life.high(), "the ledger counts like the log");
            life.slots.push(Slot::Committed(record));
        });
    }

    pub fn append_open(&mut self, now: Duration, id: TransactionId, record: Record) {
        self.change(now, |life| {
            life.open.entry(id).or_default().push(life.slots.len());
            life.slots.push(Slot::Open(record));
        });
    }

    pub fn end(&mut self, now: Duration, id: TransactionId, ending: Ending) {
        self.change(now, |life| {
            for offset in life.open.remove(&id).unwrap_or_default() {
                let slot = &mut life.slots[offset];
                *slot = match (ending, std::mem::replace(slot, Slot::Nothing)) {
                    (Ending::Commit, Slot::Open(record)) => Slot::Committed(record),
                    _ => Slot::Nothing,
                };
            }
            life.slots.push(Slot::Nothing);
        });
    }

    /// The transactions that are open.
    pub fn open(&self) -> Vec<TransactionId> {
        self.last().open.keys().copied().collect()
    }

    pub fn replace(&mut self, now: Duration, replacement: Replacement) {
        let mut life = Life::new(now);
        if let Replacement::Cut(position) = replacement {
            let kept = usize::try_from(position.number()).expect("a short log");
            life.slots = self.last().slots[..kept].to_vec();
            life.advance(now, &self.passed_over);
        }
        self.lives.push(life);
    }

    /// Lets everybody pass over a command of the future.
    pub fn pass_over(&mut self, now: Duration, offset: Offset) {
        self.passed_over.insert(offset);
        self.change(now, |_| {});
    }

    pub fn passed_over(&self) -> &BTreeSet<Offset> {
        &self.passed_over
    }

    /// The command of the future before which every fold stops.
    pub fn stopped_at(&self) -> Option<Offset> {
        let life = self.last();
        let next = Position::new(life.folds.len() as u64 - 1);
        (next < life.stable()).then(|| next.offset())
    }

    pub fn high(&self) -> Position {
        self.last().high()
    }

    pub fn stable(&self) -> Position {
        self.last().stable()
    }

    /// What a view at the end of the log that is there must be.
    pub fn end_fold(&self) -> (Position, Fold) {
        let folds = &self.last().folds;
        (Position::new(folds.len() as u64 - 1), *folds.last().expect("there is one of the empty log"))
    }

    /// How often the log was replaced.
    pub fn replacements(&self) -> usize {
        self.lives.len() - 1
    }

    /// The logs that this was folded from: one, or several that are the same up to there.
    pub fn lives_with(&self, state: State) -> Lives {
        let at = usize::try_from(state.position.number()).expect("a short log");
        let fits = |life: &Life| {
            life.folds.get(at) == Some(&state.fold) && state.anchor.is_none_or(|anchor| life.holds(anchor))
        };
        self.lives.iter().enumerate().filter(|(_, life)| fits(life)).map(|(number, _)| number).collect()
    }

    /// Which log was there at a time, and where it ended.
    pub fn end_at(&self, time: Duration) -> (usize, Position) {
        let began = |life: &Life| life.highs.first().is_some_and(|(began, _)| *began <= time);
        let (number, life) =
            self.lives.iter().enumerate().rfind(|(_, life)| began(life)).expect("the first one began at 0");
        let before = life.highs.partition_point(|(at, _)| *at <= time);
        (number, life.highs[before - 1].1)
    }
}
