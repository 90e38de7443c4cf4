//! Random histories: commands, crashes, zombies, compactions, outages, in any order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::follower::{self, Follower};
use portcullis::log::memory::{Ending, MemoryLog, Outage, Tombstones};
use portcullis::log::{Event, Topic};
use portcullis::projector::{self, Role};
use portcullis::record::{Position, Timestamp};
use portcullis::served::Served;
use portcullis::status::Status;
use portcullis::table::{RowChange, WATERMARK_KEY};
use portcullis::view::View;
use proptest::prelude::*;
use proptest::sample::Index;

use super::NOW;
use super::support::oracle::{Step, TimedStep, record_of};
use super::support::port::{Clock, Port};
use super::support::projector_rig::*;
use super::support::strategies;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Incident {
    Commands(Vec<TimedStep>),
    /// A foreign producer's command that is never committed.
    Aborted(TimedStep),
    Pass(u64),
    /// A compaction, with tombstones that are old or young.
    Compaction(bool),
    /// The projector dies; in the middle of a transaction or not.
    Crash(bool),
    /// The projector is paused, and another one takes over before it wakes.
    Zombie,
    Release,
    Fate(Fate),
    Outage(u64),
}

fn incident() -> impl Strategy<Value = Incident> {
    let fates = prop_oneof![Just(Fate::DoneUnknown), Just(Fate::OpenUnknown), Just(Fate::Slow)];
    prop_oneof![
        8 => strategies::log(6).prop_map(Incident::Commands),
        2 => strategies::log(1).prop_map(|mut steps| Incident::Aborted(steps.remove(0))),
        8 => (0..3_000_u64).prop_map(Incident::Pass),
        3 => any::<bool>().prop_map(Incident::Compaction),
        2 => any::<bool>().prop_map(Incident::Crash),
        2 => Just(Incident::Zombie),
        1 => Just(Incident::Release),
        3 => fates.prop_map(Incident::Fate),
        1 => (0..20_000_u64).prop_map(Incident::Outage),
    ]
}

/// A log with its projectors, and who checks what they do.
struct History {
    log: MemoryLog,
    rig: Rig,
    /// Projectors that sleep.
    zombies: Vec<Rig>,
    auditor: Auditor,
    projectors: u64,
    time: i64,
}

impl History {
    fn new() -> Self {
        let log = begun_log();
        let rig = Rig::new(&log, 1);
        Self { log, rig, zombies: Vec::new(), auditor: Auditor::default(), projectors: 1, time: 0 }
    }

    fn append(&mut self, (step, minutes): &TimedStep) -> (Timestamp, Vec<u8>) {
        self.time += minutes * 60_000;
        let record = record_of(step, 0, self.time);
        (record.timestamp, record.value.expect("every step is a value"))
    }

    fn successor(&mut self) -> Rig {
        self.projectors += 1;
        Rig::with(&self.log, settings(self.projectors), self.rig.clock)
    }

    fn happen(&mut self, incident: &Incident) {
        match incident {
            Incident::Commands(steps) => {
                for step in steps {
                    let (timestamp, value) = self.append(step);
                    self.log.append_record(Topic::Commands, timestamp, None, Some(&value));
                }
                self.rig.settle();
            }
            Incident::Aborted(step) => {
                let (timestamp, value) = self.append(step);
                let id = self.log.begin();
                self.log.append_to(id, Topic::Commands, timestamp, (Vec::new(), Some(value)));
                self.rig.settle();
                self.log.end(id, Topic::Commands, Ending::Abort);
            }
            Incident::Pass(millis) => self.rig.pass(Duration::from_millis(*millis)),
            Incident::Compaction(kept) => {
                self.auditor.audit(&self.log);
                self.log.compact(if *kept { Tombstones::Kept } else { Tombstones::Dropped });
            }
            Incident::Crash(mid_transaction) => {
                let successor = self.successor();
                let mut dead = std::mem::replace(&mut self.rig, successor);
                if *mid_transaction {
                    let write = RowChange::Put(foreign_row()).encode();
                    // A writer that was fenced, or never came to write, leaves nothing.
                    let _left = dead.writer.write_open(vec![write]);
                }
            }
            Incident::Zombie => {
                let successor = self.successor();
                self.zombies.push(std::mem::replace(&mut self.rig, successor));
                self.rig.pass(TAKEOVER_SURE);
                for zombie in &mut self.zombies {
                    zombie.clock = self.rig.clock;
                    zombie.fate = Fate::Done;
                    zombie.answer_writes();
                    zombie.pass(Duration::from_millis(600));
                }
            }
            Incident::Release => {
                self.rig.handle(projector::Event::Stop);
                self.rig.settle();
                self.rig = self.successor();
            }
            Incident::Fate(fate) => self.rig.fate = *fate,
            Incident::Outage(millis) => {
                self.log.set_outage(Outage::Down);
                self.rig.pass(Duration::from_millis(*millis));
                self.log.set_outage(Outage::Up);
            }
        }
        self.auditor.audit(&self.log);
    }

    /// Lets the last projector come to rest, and checks that it got to the end.
    fn end(&mut self) {
        self.rig.fate = Fate::Done;
        self.rig.answer_writes();
        self.rig.pass(Duration::from_secs(60));
        self.auditor.audit(&self.log);
        let end = all_records(&self.log, Topic::Commands, Position::START).1;
        let reached = self.auditor.watermarks.last().map(|watermark| watermark.position);
        assert_eq!((self.rig.role(), reached), (Role::Active, Some(end)), "{}", self.rig.message());
    }
}

/// The view of a follower that bootstraps from the table, once it has caught up.
fn bootstrapped(log: &MemoryLog) -> View {
    let (served, start) = (Arc::new(Served::default()), Instant::now());
    let status = Arc::new(Status::new(start));
    let settings = follower::Settings { source: follower::Source::Table, skip_offsets: [].into(), seed: 3 };
    let mut follower = Follower::new(settings, Arc::clone(&served), Arc::clone(&status), start);
    let (mut port, mut clock) = (Port::new(log.clone()), Clock { now: start, ..Clock::new() });
    for _ in 0..5 {
        let mut next = Some(Event::Tick);
        while let Some(event) = next {
            for effect in follower.handle(event, clock.now, clock.wall) {
                if let follower::Effect::Log(request) = effect {
                    port.request(request);
                }
            }
            next = port.event();
        }
        clock.advance(Duration::from_secs(1));
    }
    assert!(status.detail().ready, "{:?}", status.detail());
    served.with_view(View::clone)
}

/// What an accident did to the table.
#[derive(Clone, Debug)]
enum Damage {
    Lost(Index),
    Changed(Index),
    Undecodable(Index),
    Foreign,
    Garbage(Vec<u8>),
    /// The rows are right, and the watermark is not.
    Watermark,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Lost),
        any::<Index>().prop_map(Damage::Changed),
        any::<Index>().prop_map(Damage::Undecodable),
        Just(Damage::Foreign),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Damage::Garbage),
        Just(Damage::Watermark),
    ]
}

fn inflict(log: &MemoryLog, damage: &Damage) {
    let table = table_of(log);
    let rows: Vec<_> = table.rows().copied().collect();
    let key = |index: &Index| {
        (!rows.is_empty()).then(|| RowChange::Tombstone(index.get(&rows).range.start()).encode().0)
    };
    let write = |key: Option<Vec<u8>>, value: Option<&[u8]>| {
        if let Some(key) = key {
            log.append_record(Topic::Table, NOW, Some(&key), value);
        }
    };
    match damage {
        Damage::Lost(index) => write(key(index), None),
        Damage::Changed(index) => {
            let row = (!rows.is_empty()).then(|| *index.get(&rows));
            if let Some(mut row) = row {
                row.cause.command = row.cause.command.next().offset();
                let (key, value) = RowChange::Put(row).encode();
                write(Some(key), value.as_deref());
            }
        }
        Damage::Undecodable(index) => write(key(index), Some(b"{}")),
        Damage::Foreign => {
            let (key, value) = RowChange::Put(foreign_row()).encode();
            write(Some(key), value.as_deref());
        }
        Damage::Garbage(key) if key.starts_with(b"@") => {}
        Damage::Garbage(key) => write(Some(key.clone()), Some(b"?")),
        Damage::Watermark => {
            if let Some(Ok(mut watermark)) = table.watermark().cloned() {
                watermark.rows += 1;
                write_watermark(log, &watermark);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn at_every_watermark_of_any_history_the_table_is_the_view(
        incidents in prop::collection::vec(incident(), 1..25),
    ) {
        let mut history = History::new();
        incidents.iter().for_each(|incident| history.happen(incident));
        history.end();
        let end = all_records(&history.log, Topic::Commands, Position::START).1;
        prop_assert_eq!(bootstrapped(&history.log), lived(&history.log, end, &[].into()));
    }

    #[test]
    fn a_reader_that_bootstraps_at_any_moment_equals_one_that_lived_all_along(
        steps in prop::collection::vec(strategies::log(5), 1..10),
    ) {
        let mut history = History::new();
        for steps in steps {
            history.happen(&Incident::Commands(steps));
            history.happen(&Incident::Pass(1_000));
            // These the table does not hold yet.
            history.happen(&Incident::Commands(vec![(Step::Garbage, 1)]));
            let end = all_records(&history.log, Topic::Commands, Position::START).1;
            prop_assert_eq!(bootstrapped(&history.log), lived(&history.log, end, &[].into()));
        }
    }

    #[test]
    fn any_damage_is_repaired(
        before in strategies::log(30),
        accidents in prop::collection::vec(damage(), 1..6),
        compacted in any::<bool>(),
        after in strategies::log(5),
    ) {
        let mut history = History::new();
        history.happen(&Incident::Commands(before));
        history.happen(&Incident::Pass(1_000));
        let watermark = check_whole(&history.log, &table_of(&history.log));
        accidents.iter().for_each(|accident| inflict(&history.log, accident));
        if !accidents.iter().any(|accident| matches!(accident, Damage::Watermark)) {
            history.log.append_record(Topic::Table, NOW, Some(WATERMARK_KEY), Some(&watermark.encode()));
        }
        let contradictory = table_of(&history.log).check().is_err();
        if compacted {
            history.log.compact(Tombstones::Dropped);
        }
        let mut rig = Rig::new(&history.log, 9);
        for (step, _) in &after {
            let record = record_of(step, 0, history.time);
            let value = record.value.as_deref();
            history.log.append_record(Topic::Commands, record.timestamp, None, value);
        }
        rig.pass(Duration::from_secs(40));
        let table = table_of(&history.log);
        let mended = check_whole(&history.log, &table);
        // A key that no row can have contradicts nothing; a repair takes it away with all else.
        prop_assert!(!contradictory || table.undecodable_keys().count() == 0);
        let end = all_records(&history.log, Topic::Commands, Position::START).1;
        prop_assert_eq!((rig.role(), mended.position), (Role::Active, end));
    }
}
