//! The projector before its view is whole: it holds the role and writes no rows.

use portcullis::log::memory::MemoryLog;
use portcullis::log::{Event as LogEvent, Question, ReadEvent, Topic};
use portcullis::projector::{Event, Reason, Role};
use portcullis::record::{Offset, Position};

use super::readers::opened;
use super::support::projector_rig::*;
use super::{damage, last_watermark, projected};

/// Tells an active projector to stop, and expects that it leaves the table as it found it.
fn stops_without_writing(mut rig: Rig) {
    assert_eq!((rig.role(), rig.transactions()), (Role::Active, vec![]));
    rig.handle(Event::Stop);
    rig.settle();
    assert!(rig.stopped);
    assert_eq!(rig.transactions(), [], "not even a release");
}

/// A projector that reads the table and opens the commands, of which nothing comes.
fn without_commands(log: &MemoryLog) -> Rig {
    let mut rig = Rig::new(log, 2);
    rig.handle(Event::Log(LogEvent::Tick));
    rig.settle_until(|rig| !opened(rig, Topic::Commands).is_empty());
    rig.port.readers_frozen = true;
    rig
}

#[test]
fn before_the_log_is_known_to_be_the_one_there_are_signs_of_life_only() {
    let mut rig = Rig::new(&projected(), 2);
    rig.port.failing = vec![Question::RecordAt(Offset::new(2)); 200];
    rig.pass(seconds(22));
    assert!((4..=6).contains(&rig.count(&Deed::Alive)), "{}", rig.count(&Deed::Alive));
    stops_without_writing(rig);
    // The same of a table without an anchor, and a log whose ends are not told.
    let mut rig = Rig::new(&begun_log(), 2);
    rig.port.failing = vec![Question::Ends(Topic::Commands); 200];
    rig.pass(seconds(22));
    stops_without_writing(rig);
}

#[test]
fn before_the_ids_are_recovered_there_are_signs_of_life_only() {
    let log = projected();
    let mut rig = without_commands(&log);
    rig.pass(seconds(22));
    assert!((4..=6).contains(&rig.count(&Deed::Alive)), "{}", rig.count(&Deed::Alive));
    stops_without_writing(rig);
}

#[test]
fn a_repair_that_has_not_reached_what_the_table_claims_writes_nothing() {
    let log = projected();
    damage(&log);
    let mut rig = without_commands(&log);
    let (session, from) = *opened(&rig, Topic::Commands).last().expect("it reads");
    assert_eq!(from, Position::START);
    // The end of a log whose new leader lags.
    let early = ReadEvent::End(Position::new(1));
    rig.handle(Event::Log(LogEvent::Read(Topic::Commands, session, early)));
    rig.pass(seconds(12));
    stops_without_writing(rig);

    let mut rig = Rig::new(&log, 3);
    rig.pass(TAKEOVER_SURE);
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 3));
}

#[test]
fn a_repair_does_not_forget_what_the_table_was_made_from() {
    let log = projected();
    damage(&log);
    log.recreate(Topic::Commands);
    for _ in 0..9 {
        command(&log, "BLACKLIST 192.0.2.1");
    }
    let mut rig = Rig::new(&log, 2);
    // Its reader is replaced meanwhile, and the log asked about again.
    rig.port.failing = vec![Question::RecordAt(Offset::new(2)); 105];
    rig.pass(seconds(50));
    assert_eq!((rig.role(), rig.transactions()), (Role::Stopped(Reason::AnotherLog), vec![]));
}

#[test]
fn what_has_stopped_stays_so_whatever_comes() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.handle(Event::Stop);
    rig.settle();
    assert!(rig.stopped);
    let clock = rig.clock;
    for event in [Event::Stop, Event::Log(LogEvent::Tick)] {
        assert_eq!(rig.projector.handle(event, clock.now + seconds(300), clock.wall), []);
    }
}
