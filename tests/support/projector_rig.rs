//! A projector with a transport of its own over a log in memory, and what its table must hold.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use portcullis::log::memory::{MemoryLog, MemoryTableWriter, Outage};
use portcullis::log::{self, Identity, Request, TableWrite, TableWriter, Topic, WriteError};
use portcullis::projector::{Effect, Event, Lease, Projector, Role, Settings};
use portcullis::record::{Offset, Position, Record, Timestamp};
use portcullis::table::{Fingerprint, Row, Table, WATERMARK_KEY, Watermark};
use portcullis::view::{DUPLICATE_WINDOW, View};

use super::port::{Clock, Port};

pub const TAKEOVER_AFTER: Duration = Duration::from_secs(15);
/// After it a standby has taken over, whatever its jitter.
pub const TAKEOVER_SURE: Duration = Duration::from_secs(24);
const STEP: Duration = Duration::from_millis(500);

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What becomes of the writes of a rig.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Done,
    /// Not answered before [`Rig::answer_writes`].
    Slow,
    /// Written, but that is not known.
    DoneUnknown,
    /// Left open, and that is not known.
    OpenUnknown,
}

/// What a projector did about the table, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deed {
    Fence,
    ReadTable,
    Alive,
    /// The rows written, and the watermark behind them.
    Transaction(usize, Box<Watermark>),
}

pub struct Rig {
    pub port: Port,
    pub projector: Projector,
    pub writer: MemoryTableWriter,
    pub clock: Clock,
    pub fate: Fate,
    pub deeds: Vec<Deed>,
    pub commits: Vec<Vec<TableWrite>>,
    pub undecodable: Vec<Offset>,
    pub stopped: bool,
    /// Whether records are delivered that are not wanted.
    pub heedless: bool,
    /// When the projector asked for a tick, if none came since.
    pub tick_at: Option<Instant>,
    slow: VecDeque<Effect>,
    answers: VecDeque<Event>,
}

fn epoch() -> Timestamp {
    Timestamp::from_millis(0)
}

pub fn identity() -> Identity {
    Identity { cluster_id: "cluster".to_owned(), commands_topic: "commands".to_owned() }
}

pub fn settings(seed: u64) -> Settings {
    Settings {
        projector: format!("projector-{seed}"),
        takeover_after: TAKEOVER_AFTER,
        skip_offsets: BTreeSet::new(),
        seed,
    }
}

pub fn genesis() -> Watermark {
    Watermark {
        position: Position::START,
        anchor: None,
        rows: 0,
        fingerprint: Fingerprint::default(),
        skipped: BTreeSet::new(),
        cluster_id: "cluster".to_owned(),
        commands_topic: "commands".to_owned(),
        projector: "topics create".to_owned(),
        released: true,
        written_at: epoch(),
    }
}

pub fn write_watermark(log: &MemoryLog, watermark: &Watermark) {
    log.append_record(Topic::Table, epoch(), Some(WATERMARK_KEY), Some(&watermark.encode()));
}

/// A log whose table was just begun.
pub fn begun_log() -> MemoryLog {
    let log = MemoryLog::new(identity());
    write_watermark(&log, &genesis());
    log
}

pub fn command(log: &MemoryLog, value: &str) -> Offset {
    log.append_record(Topic::Commands, epoch(), None, Some(value.as_bytes()))
}

pub fn all_records(log: &MemoryLog, topic: Topic, from: Position) -> (Vec<Record>, Position) {
    let (mut records, mut position) = (Vec::new(), from);
    loop {
        let delivery = log.read(topic, position).expect("the position is in the log");
        records.extend(delivery.records);
        position = delivery.position;
        if delivery.at_end {
            return (records, position);
        }
    }
}

pub fn table_of(log: &MemoryLog) -> Table {
    let mut table = Table::default();
    all_records(log, Topic::Table, Position::START).0.iter().for_each(|record| table.apply(record));
    table
}

/// The view at a position of a reader that lived all along.
pub fn lived(log: &MemoryLog, position: Position, skipped: &BTreeSet<Offset>) -> View {
    let mut view = View::new(skipped.clone());
    for record in all_records(log, Topic::Commands, Position::START).0 {
        if record.offset.position() < position {
            view.apply(&record).expect("no command of the future is before the position");
        }
    }
    view.advance_to(position);
    view
}

/// The table's watermark, after its rows, ids and anchor were compared with the fold.
pub fn check_whole(log: &MemoryLog, table: &Table) -> Watermark {
    let watermark = table.check().expect("the table is whole").clone();
    let expected = lived(log, watermark.position, &watermark.skipped);
    let mut view = View::from_rows(
        table.rows().copied(),
        watermark.position,
        watermark.anchor,
        watermark.skipped.clone(),
    );
    let from = watermark.position.back(DUPLICATE_WINDOW);
    for record in all_records(log, Topic::Commands, from).0 {
        if record.offset.position() < watermark.position {
            view.remember(&record);
        }
    }
    assert_eq!(view, expected);
    assert_eq!(watermark.rows, expected.blacklist().row_counts().total());
    assert_eq!(watermark.fingerprint, expected.blacklist().fingerprint());
    watermark
}

/// Checks the table at each of its watermarks, also at those that a compaction takes later.
#[derive(Default)]
pub struct Auditor {
    table: Table,
    next: Position,
    pub watermarks: Vec<Watermark>,
}

impl Auditor {
    pub fn audit(&mut self, log: &MemoryLog) {
        let (records, next) = all_records(log, Topic::Table, self.next);
        self.next = next;
        for record in records {
            self.table.apply(&record);
            if record.key.as_deref() == Some(WATERMARK_KEY) {
                let watermark = check_whole(log, &self.table);
                if let Some(before) = self.watermarks.last() {
                    assert!(before.position <= watermark.position, "a position went back");
                }
                self.watermarks.push(watermark);
            }
        }
        let watermark = check_whole(log, &table_of(log));
        assert_eq!(Some(&watermark), self.watermarks.last(), "a new reader sees the same");
    }
}

impl Rig {
    pub fn new(log: &MemoryLog, seed: u64) -> Self {
        Self::with(log, settings(seed), Clock::new())
    }

    pub fn with(log: &MemoryLog, settings: Settings, clock: Clock) -> Self {
        Self {
            port: Port::new(log.clone()),
            projector: Projector::new(settings, clock.now),
            writer: log.table_writer(epoch),
            clock,
            fate: Fate::Done,
            deeds: Vec::new(),
            commits: Vec::new(),
            undecodable: Vec::new(),
            stopped: false,
            heedless: false,
            tick_at: None,
            slow: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// A projector that has taken over an empty table.
    pub fn active(log: &MemoryLog) -> Self {
        let mut rig = Self::new(log, 1);
        rig.pass(seconds(2));
        assert_eq!(rig.role(), Role::Active);
        rig
    }

    pub fn role(&self) -> Role {
        self.projector.status().role
    }

    pub fn handle(&mut self, event: Event) {
        for effect in self.projector.handle(event, self.clock.now, self.clock.wall) {
            match effect {
                Effect::Log(request) => {
                    if let Request::Read(Topic::Table, ..) = request {
                        self.deeds.push(Deed::ReadTable);
                    }
                    self.port.request(request);
                }
                Effect::Fence(_) | Effect::Commit(..) => {
                    assert!(!self.stopped, "it stopped");
                    self.note(&effect);
                    self.slow.push_back(effect);
                    if self.fate != Fate::Slow {
                        self.answer_writes();
                    }
                }
                Effect::Undecodable(offset, _) => self.undecodable.push(offset),
                Effect::TickAt(at) => self.tick_at = Some(at),
                Effect::Stopped => self.stopped = true,
            }
        }
    }

    fn note(&mut self, effect: &Effect) {
        let Effect::Commit(_, writes) = effect else { return self.deeds.push(Deed::Fence) };
        self.commits.push(writes.clone());
        let (last, rows) = writes.split_last().expect("no transaction is empty");
        self.deeds.push(match Watermark::decode(last.1.as_deref()) {
            Ok(watermark) if last.0 == WATERMARK_KEY => Deed::Transaction(rows.len(), Box::new(watermark)),
            _ => Deed::Alive,
        });
    }

    /// Does the writes that are waiting, each with the fate of the day.
    pub fn answer_writes(&mut self) {
        while let Some(effect) = self.slow.pop_front() {
            let (lease, outcome, done): (Lease, _, fn(Lease) -> Event) = match effect {
                Effect::Fence(lease) => (lease, self.writer.fence(), Event::Fenced),
                Effect::Commit(lease, writes) => (lease, self.commit(writes), Event::Committed),
                _ => continue,
            };
            self.answers.push_back(match outcome {
                Ok(()) => done(lease),
                Err(error) => Event::Lost(lease, error),
            });
        }
    }

    fn commit(&mut self, writes: Vec<TableWrite>) -> Result<(), WriteError> {
        let unknown = Err(WriteError::Unknown("no answer".to_owned()));
        match self.fate {
            Fate::Done | Fate::Slow => self.writer.commit(writes),
            Fate::DoneUnknown => self.writer.commit(writes).and(unknown),
            Fate::OpenUnknown => self.writer.write_open(writes).and(unknown),
        }
    }

    /// Works off everything that is there to be done.
    pub fn settle(&mut self) {
        self.settle_until(|_| false);
    }

    /// Works off what is there to be done, one thing at a time, until it has come so far.
    pub fn settle_until(&mut self, reached: impl Fn(&Self) -> bool) {
        let frozen = self.port.readers_frozen;
        while !reached(self) {
            self.port.readers_frozen = frozen || !(self.heedless || self.projector.wants_records());
            let event = self.answers.pop_front().or_else(|| self.port.event().map(Event::Log));
            let Some(event) = event else { break };
            self.handle(event);
        }
        self.port.readers_frozen = frozen;
    }

    /// Lets time pass, with all that happens in it.
    pub fn pass(&mut self, time: Duration) {
        let until = self.clock.now + time;
        while self.clock.now < until {
            let asked = self.tick_at.take_if(|at| *at <= self.clock.now + STEP);
            let next = asked.unwrap_or(self.clock.now + STEP).min(until);
            self.step(next.saturating_duration_since(self.clock.now));
        }
    }

    /// One tick, after so long.
    pub fn step(&mut self, time: Duration) {
        self.clock.advance(time);
        self.handle(Event::Log(log::Event::Tick));
        self.settle();
    }

    pub fn set_outage(&self, outage: Outage) {
        self.port.log.set_outage(outage);
    }

    pub fn transactions(&self) -> Vec<(usize, Watermark)> {
        let transaction = |deed: &Deed| match deed {
            Deed::Transaction(rows, watermark) => Some((*rows, (**watermark).clone())),
            _ => None,
        };
        self.deeds.iter().filter_map(transaction).collect()
    }

    pub fn count(&self, kind: &Deed) -> usize {
        self.deeds.iter().filter(|deed| *deed == kind).count()
    }

    pub fn message(&self) -> String {
        self.projector.status().message.clone().unwrap_or_default()
    }
}

/// A row that no command ever made.
pub fn foreign_row() -> Row {
    use portcullis::table::Cause;
    let cause = Cause { command: Offset::new(77), expires_at: None };
    Row { range: "198.51.100.0/24".parse().expect("a range"), cause }
}
