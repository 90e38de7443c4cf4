//! A follower over a log, mostly one in memory, with clocks that a test moves.

use std::sync::Arc;
use std::time::Duration;

use portcullis::address::Address;
use portcullis::command::CommandError;
use portcullis::follower::{Effect, Follower, Settings, Source};
use portcullis::log::memory::MemoryLog;
use portcullis::log::{Event, Identity, Log, ReadEvent, TableWriter, Topic};
use portcullis::record::{Offset, Position, Record, Timestamp};
use portcullis::served::Served;
use portcullis::snapshot::{Snapshot, Verdict};
use portcullis::status::{Detail, Status};
use portcullis::table::{Anchor, RowChange, WATERMARK_KEY, Watermark};
use portcullis::view::View;

use super::port::{Clock, Port};

pub struct FollowerRig<L = MemoryLog> {
    pub follower: Follower,
    pub served: Arc<Served>,
    pub status: Arc<Status>,
    pub port: Port<L>,
    pub clock: Clock,
    pub published: Vec<Arc<Snapshot>>,
    pub undecodable: Vec<(Offset, CommandError)>,
    /// How often another tick was wanted at once.
    pub ticks_wanted: usize,
}

impl FollowerRig {
    /// A follower that has done nothing yet.
    pub fn new(log: &MemoryLog, source: Source) -> Self {
        Self::skipping(log, source, [])
    }

    pub fn skipping(log: &MemoryLog, source: Source, offsets: impl IntoIterator<Item = u64>) -> Self {
        let skip_offsets = offsets.into_iter().map(Offset::new).collect();
        Self::over(Port::new(log.clone()), Settings { source, skip_offsets, seed: 1 })
    }

    /// A follower that has done what it could at its first second.
    pub fn started(log: &MemoryLog, source: Source) -> Self {
        let mut rig = Self::new(log, source);
        rig.tick(Duration::ZERO);
        rig
    }
}

impl<L: Log> FollowerRig<L> {
    /// A follower over a log of any kind that has done nothing yet.
    pub fn over(port: Port<L>, settings: Settings) -> Self {
        let clock = Clock::new();
        let (served, status) = (Arc::new(Served::default()), Arc::new(Status::new(clock.now)));
        let follower = Follower::new(settings, Arc::clone(&served), Arc::clone(&status), clock.now);
        let (published, undecodable) = Default::default();
        Self { follower, served, status, port, clock, published, undecodable, ticks_wanted: 0 }
    }

    /// Hands one event over and does what comes of it.
    pub fn handle(&mut self, event: Event) {
        for effect in self.follower.handle(event, self.clock.now, self.clock.wall) {
            match effect {
                Effect::Log(request) => self.port.request(request),
                Effect::Publish(snapshot) => self.published.push(snapshot),
                Effect::Proven(at) => self.status.set_proven(at),
                Effect::Undecodable(offset, error) => self.undecodable.push((offset, error)),
                Effect::TickSoon => self.ticks_wanted += 1,
            }
        }
    }

    /// Lets the log say all that it has to say.
    pub fn settle(&mut self) {
        while let Some(event) = self.port.event() {
            self.handle(event);
        }
    }

    /// Lets time pass at once.
    pub fn tick(&mut self, by: Duration) {
        self.clock.advance(by);
        self.handle(Event::Tick);
        self.settle();
    }

    /// Lets time pass second by second.
    pub fn seconds(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.tick(Duration::from_secs(1)));
    }

    pub fn detail(&self) -> Arc<Detail> {
        self.status.detail()
    }

    pub fn view(&self) -> View {
        self.served.with_view(View::clone)
    }

    /// Whether the newest snapshot blacklists the address; none before the first snapshot.
    pub fn blacklisted(&self, address: &str) -> Option<bool> {
        let address: Address = address.parse().expect(address);
        self.published.last().map(|snapshot| snapshot.lookup(address) == Verdict::Blacklisted)
    }

    pub fn age(&self) -> Option<Duration> {
        self.status.age(self.clock.now)
    }
}

pub fn identity() -> Identity {
    Identity { cluster_id: "cluster-1".into(), commands_topic: "portcullis.commands".into() }
}

pub fn memory_log() -> MemoryLog {
    MemoryLog::new(identity())
}

pub const TIME: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Appends commands as a console producer would.
pub fn append(log: &MemoryLog, values: &[&str]) {
    for value in values {
        log.append_record(Topic::Commands, TIME, None, Some(value.as_bytes()));
    }
}

/// All committed commands from a position on.
pub fn commands(log: &impl Log, from: Position) -> Vec<Record> {
    let mut reader = log.open(Topic::Commands, from).expect("the log is up");
    let mut records = Vec::new();
    loop {
        match reader.poll(Duration::ZERO).expect("a log that is up has an end") {
            ReadEvent::Records(batch) => records.extend(batch),
            ReadEvent::End(_) => return records,
            ReadEvent::Failed(reason) => panic!("{reason}"),
        }
    }
}

/// The view at a position, folded from the beginning.
pub fn folded(log: &impl Log, position: Position) -> View {
    let mut view = View::default();
    for record in commands(log, Position::START).iter().filter(|record| record.offset.next() <= position) {
        view.apply(record).expect("a command of this release");
    }
    view.advance_to(position);
    view
}

pub fn watermark(view: &View) -> Watermark {
    Watermark {
        position: view.position(),
        anchor: view.anchor(),
        rows: view.blacklist().row_counts().total(),
        fingerprint: view.blacklist().fingerprint(),
        skipped: view.skipped().clone(),
        cluster_id: identity().cluster_id,
        commands_topic: identity().commands_topic,
        projector: "test".into(),
        released: true,
        written_at: TIME,
    }
}

/// Writes the table anew: rows that are not in the view get tombstones.
pub fn write_table(log: &MemoryLog, view: &View, watermark: &Watermark) {
    let mut old = portcullis::table::Table::default();
    log.read(Topic::Table, Position::START)
        .expect("the log is up")
        .records
        .iter()
        .for_each(|record| old.apply(record));
    let gone = old.rows().map(|row| RowChange::Tombstone(row.range.start()).encode());
    let rows = view.blacklist().rows().map(|row| RowChange::Put(row).encode());
    let mark = (WATERMARK_KEY.to_vec(), Some(watermark.encode()));
    let mut writer = log.table_writer(|| TIME);
    writer.fence().expect("the log is up");
    writer.commit(gone.chain(rows).chain([mark]).collect()).expect("it is the newest writer");
}

/// Writes the table as a projector at a position would have left it.
pub fn project(log: &MemoryLog, position: Position) {
    let view = folded(log, position);
    write_table(log, &view, &watermark(&view));
}

/// The anchor of the record at an offset.
pub fn anchor_at(log: &MemoryLog, offset: u64) -> Option<Anchor> {
    commands(log, Position::new(offset)).first().map(Anchor::of)
}
