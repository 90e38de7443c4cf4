//! The projector and its readers: when it replaces them, and what it no longer hears of them.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis::log::memory::{Ending, Tombstones};
use portcullis::log::{Event as LogEvent, Question, ReadEvent, Request, Session, Topic};
use portcullis::projector::{Event, Reason, Role};
use portcullis::record::{Offset, Position, Record};
use portcullis::table::{WATERMARK_KEY, Watermark};

use super::support::projector_rig::*;
use super::{NOW, last_watermark, projected};

/// The sessions of the readers that were opened so far, and where they began.
pub(super) fn opened(rig: &Rig, of: Topic) -> Vec<(Session, Position)> {
    let reader = |request: &Request| match request {
        Request::Read(topic, session, from) if *topic == of => Some((*session, *from)),
        _ => None,
    };
    rig.port.requests.iter().filter_map(reader).collect()
}

#[test]
fn what_an_earlier_reader_still_says_is_not_heard() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    let value = Some(b"BLACKLIST 192.0.2.1".to_vec());
    let record = Record { offset: Offset::new(0), timestamp: NOW, key: None, value };
    let late = ReadEvent::Records(vec![record]);
    rig.handle(Event::Log(LogEvent::Read(Topic::Commands, Session::default(), late)));
    rig.pass(seconds(10));
    assert_eq!((last_watermark(&log).position, last_watermark(&log).rows), (Position::START, 0));
}

#[test]
fn a_standby_that_never_gets_to_the_end_reads_anew() {
    let log = begun_log();
    let mut rig = Rig::new(&log, 1);
    rig.port.readers_frozen = true;
    rig.pass(seconds(29));
    assert_eq!((opened(&rig, Topic::Table).len(), rig.role()), (1, Role::Standby));
    rig.pass(seconds(3));
    assert_eq!(opened(&rig, Topic::Table).len(), 2);
    rig.port.readers_frozen = false;
    rig.pass(seconds(2));
    assert_eq!(rig.role(), Role::Active);
}

/// A projector that has fenced the others, and whose readers fail from then on.
fn fenced_without_readers() -> Rig {
    let mut rig = Rig::new(&begun_log(), 1);
    rig.fate = Fate::Slow;
    rig.pass(seconds(1));
    rig.port.readers_fail = true;
    rig.fate = Fate::Done;
    rig.answer_writes();
    rig
}

#[test]
fn a_table_that_cannot_be_read_is_tried_again_after_a_wait() {
    let mut rig = fenced_without_readers();
    rig.settle();
    let tries = opened(&rig, Topic::Table).len();
    (0..5).for_each(|_| rig.step(Duration::ZERO));
    assert_eq!(opened(&rig, Topic::Table).len(), tries);
    rig.pass(seconds(1));
    rig.port.readers_fail = false;
    rig.pass(seconds(5));
    assert_eq!((rig.role(), rig.transactions().is_empty()), (Role::Active, false));
    // As long as it fails it is no tight loop.
    let mut rig = fenced_without_readers();
    rig.pass(seconds(28));
    let tries = opened(&rig, Topic::Table).len();
    assert!((4..20).contains(&tries), "{tries} tries in 28 s");
}

#[test]
fn what_was_read_of_a_table_is_forgotten_when_its_reader_fails() {
    let log = projected();
    let mut rig = Rig::new(&log, 2);
    rig.handle(Event::Log(LogEvent::Tick));
    rig.settle_until(|rig| opened(rig, Topic::Table).len() == 2);
    while let Some(event) = rig.port.event() {
        let came = matches!(&event, LogEvent::Read(Topic::Table, _, ReadEvent::Records(_)));
        rig.handle(Event::Log(event));
        if came {
            break;
        }
    }
    // A row goes, and a compaction takes its tombstone before the table is read again.
    command(&log, "WHITELIST 192.0.2.7");
    let view = lived(&log, Position::new(4), &BTreeSet::new());
    let watermark = Watermark {
        position: view.position(),
        anchor: view.anchor(),
        rows: view.blacklist().row_counts().total(),
        fingerprint: view.blacklist().fingerprint(),
        ..genesis()
    };
    log.append_record(Topic::Table, NOW, Some(b"192.0.2.7"), None);
    write_watermark(&log, &watermark);
    log.compact(Tombstones::Dropped);
    let (session, _) = *opened(&rig, Topic::Table).last().expect("it reads");
    let failed = ReadEvent::Failed("the link broke".to_owned());
    rig.handle(Event::Log(LogEvent::Read(Topic::Table, session, failed)));
    rig.pass(seconds(10));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 2));
    assert!(rig.transactions().iter().all(|(rows, _)| *rows == 0), "nothing was to be repaired");
}

#[test]
fn a_lost_role_is_claimed_again_after_a_wait() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.fate = Fate::OpenUnknown;
    command(&log, "BLACKLIST 192.0.2.1");
    rig.settle();
    rig.step(Duration::from_millis(100));
    rig.fate = Fate::Done;
    let fences = rig.count(&Deed::Fence);
    (0..5).for_each(|_| rig.step(Duration::ZERO));
    assert_eq!(rig.count(&Deed::Fence), fences);
    rig.pass(seconds(2));
    assert_eq!((rig.count(&Deed::Fence), rig.role()), (fences + 1, Role::Active));
}

#[test]
fn a_new_reader_begins_with_the_record_that_was_folded_last() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    for at in 1..=5 {
        command(&log, &format!("BLACKLIST 192.0.2.{at}"));
    }
    rig.pass(seconds(1));
    let (session, _) = *opened(&rig, Topic::Commands).last().expect("it reads");
    let failed = ReadEvent::Failed("the link broke".to_owned());
    rig.handle(Event::Log(LogEvent::Read(Topic::Commands, session, failed)));
    command(&log, "BLACKLIST 192.0.2.6");
    rig.pass(seconds(2));
    assert_eq!(opened(&rig, Topic::Commands).last().map(|(_, from)| *from), Some(Position::new(4)));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 6));
}

#[test]
fn a_reader_that_fails_before_its_records_are_written_costs_no_more_than_a_moment() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    command(&log, "BLACKLIST 192.0.2.1");
    rig.pass(seconds(1));
    // Folded, and not written yet: the transaction is due while the log is being checked anew.
    command(&log, "BLACKLIST 192.0.2.2");
    rig.settle();
    let (session, _) = *opened(&rig, Topic::Commands).last().expect("it reads");
    let failed = ReadEvent::Failed("the link broke".to_owned());
    rig.handle(Event::Log(LogEvent::Read(Topic::Commands, session, failed)));
    rig.step(Duration::from_millis(100));
    command(&log, "BLACKLIST 192.0.2.4");
    rig.pass(seconds(3));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 3));
    assert!(rig.projector.wants_records());
}

#[test]
fn nothing_that_comes_behind_a_command_of_the_future_is_folded() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.fate = Fate::Slow;
    command(&log, "BLACKLIST 192.0.2.1");
    rig.pass(seconds(1));
    // A transaction is under way, so that the last one has to wait while records still come.
    command(&log, r#"{"v":2}"#);
    rig.settle();
    command(&log, "BLACKLIST 192.0.2.2");
    rig.settle();
    rig.fate = Fate::Done;
    rig.answer_writes();
    rig.pass(seconds(1));
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows, watermark.released), (Position::new(1), 1, true));
}

/// How often a question of a kind was asked.
fn asked(rig: &Rig, kind: fn(&Question) -> bool) -> usize {
    let is_asked = |request: &&Request| matches!(request, Request::Ask(question) if kind(question));
    rig.port.requests.iter().filter(is_asked).count()
}

#[test]
fn the_ends_are_asked_for_every_second_and_the_last_record_every_2_s() {
    let log = projected();
    let mut rig = Rig::active(&log);
    let ends = |rig: &Rig| asked(rig, |question| *question == Question::Ends(Topic::Commands));
    let records = |rig: &Rig| asked(rig, |question| matches!(question, Question::RecordAt(_)));
    let before = (ends(&rig), records(&rig));
    (0..240).for_each(|_| rig.step(Duration::from_millis(250)));
    let (ends_asked, records_asked) = (ends(&rig) - before.0, records(&rig) - before.1);
    assert!((58..=61).contains(&ends_asked), "{ends_asked} times in 60 s");
    assert!((20..=31).contains(&records_asked), "{records_asked} times in 60 s");
    // Without an answer there is no second question.
    rig.port.questions_frozen = true;
    let before = (ends(&rig), records(&rig));
    (0..80).for_each(|_| rig.step(Duration::from_millis(250)));
    assert!(ends(&rig) <= before.0 + 1 && records(&rig) <= before.1 + 1);
}

#[test]
fn nothing_is_written_of_a_log_that_was_replaced_without_an_error() {
    let log = projected();
    let mut rig = Rig::active(&log);
    rig.pass(seconds(2));
    let before = last_watermark(&log);
    log.recreate(Topic::Commands);
    for _ in 0..40 {
        command(&log, "BLACKLIST 198.51.100.1");
    }
    rig.pass(seconds(5));
    assert_eq!(rig.projector.status().role, Role::Stopped(Reason::AnotherLog));
    let table = table_of(&log);
    let after = table.check().expect("the table is whole");
    assert_eq!((after.position, after.fingerprint), (before.position, before.fingerprint));
}

#[test]
fn what_somebody_else_writes_to_the_table_is_found_and_mended_and_what_we_write_is_no_reason() {
    let log = projected();
    let mut rig = Rig::active(&log);
    let read = |rig: &Rig| opened(rig, Topic::Table).len();
    let before = read(&rig);
    for _ in 0..40 {
        command(&log, "BLACKLIST 192.0.2.1\n");
        rig.pass(seconds(1));
    }
    assert_eq!(read(&rig), before, "all of it was ours");
    // A single record, which takes no more offsets than a sign of life.
    let row = br#"{"end":"10.255.255.255","command":0}"#;
    log.append_record(Topic::Table, NOW, Some(b"10.0.0.0"), Some(row));
    assert!(table_of(&log).check().is_err());
    (0..80).for_each(|_| rig.step(Duration::from_millis(250)));
    assert_eq!(read(&rig), before + 1);
    check_whole(&log, &table_of(&log));
    (0..120).for_each(|_| rig.step(Duration::from_millis(250)));
    assert_eq!(read(&rig), before + 1, "once is enough");
    // A watermark that is taken away comes again before the table is read.
    log.append_record(Topic::Table, NOW, Some(WATERMARK_KEY), None);
    (0..120).for_each(|_| rig.step(Duration::from_millis(250)));
    assert_eq!((read(&rig), rig.role()), (before + 2, Role::Active));
    check_whole(&log, &table_of(&log));
}

/// A large table takes long to read, and signs of life are given meanwhile: some are read, some stand behind.
#[test]
fn a_foreign_row_is_found_however_many_signs_of_life_were_given_while_the_table_was_read() {
    for frozen in [seconds(0), seconds(7), seconds(23)] {
        let log = projected();
        let mut rig = Rig::new(&log, 3);
        rig.handle(Event::Log(LogEvent::Tick));
        rig.settle_until(|rig| rig.deeds.contains(&Deed::Alive));
        rig.port.readers_frozen = true;
        rig.pass(frozen);
        rig.port.readers_frozen = false;
        rig.pass(seconds(30));
        let before = opened(&rig, Topic::Table).len();
        rig.pass(seconds(30));
        assert_eq!(opened(&rig, Topic::Table).len(), before, "what we write is no reason");
        let row = br#"{"end":"10.255.255.255","command":0}"#;
        log.append_record(Topic::Table, NOW, Some(b"10.0.0.0"), Some(row));
        rig.pass(seconds(30));
        assert_eq!(opened(&rig, Topic::Table).len(), before + 1);
        check_whole(&log, &table_of(&log));
    }
}

#[test]
fn a_check_goes_on_with_the_client_that_replaces_a_silent_one() {
    let log = projected();
    let mut rig = Rig::active(&log);
    // The client falls silent right after it was asked for the last record.
    let asked_before = asked(&rig, |question| matches!(question, Question::RecordAt(_)));
    let is_asked =
        |rig: &Rig| asked(rig, |question| matches!(question, Question::RecordAt(_))) > asked_before;
    for _ in 0..20 {
        rig.clock.advance(seconds(1));
        rig.handle(Event::Log(LogEvent::Tick));
        rig.settle_until(is_asked);
        if is_asked(&rig) {
            break;
        }
    }
    rig.port.questions_frozen = true;
    let keep_busy = |rig: &mut Rig, seconds_busy: u32| {
        for _ in 0..seconds_busy {
            command(&log, "BLACKLIST 192.0.2.1");
            rig.pass(seconds(1));
        }
    };
    keep_busy(&mut rig, 28);
    assert_eq!(asked_anew(&rig), 0);
    keep_busy(&mut rig, 5);
    assert_eq!(asked_anew(&rig), 1);
    rig.port.questions_frozen = false;
    log.recreate(Topic::Commands);
    for _ in 0..100 {
        command(&log, "BLACKLIST 192.0.2.2");
    }
    rig.pass(seconds(10));
    assert_eq!(rig.role(), Role::Stopped(Reason::AnotherLog));
}

#[test]
fn a_log_that_is_not_checked_yet_proves_nothing_however_long_it_is() {
    let log = projected();
    let mut rig = Rig::active(&log);
    log.recreate(Topic::Commands);
    for _ in 0..3 {
        command(&log, "BLACKLIST 192.0.2.1");
    }
    rig.port.failing = vec![Question::RecordAt(Offset::new(2)); 200];
    // By then the check is due that nobody answers.
    rig.pass(seconds(6));
    let before = rig.transactions().len();
    rig.pass(seconds(15));
    assert_eq!((rig.transactions().len(), rig.role()), (before, Role::Active));
    rig.port.failing.clear();
    rig.pass(seconds(2));
    assert_eq!(rig.role(), Role::Stopped(Reason::AnotherLog));
}

/// How often the client that answers questions was replaced.
fn asked_anew(rig: &Rig) -> usize {
    rig.port.requests.iter().filter(|request| **request == Request::RenewQuestioner).count()
}

#[test]
fn what_leaves_no_record_is_progress_too() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.port.questions_frozen = true;
    for _ in 0..10 {
        let foreign = log.begin();
        log.append_to(foreign, Topic::Commands, NOW, (Vec::new(), Some(b"BLACKLIST 192.0.2.1".to_vec())));
        log.end(foreign, Topic::Commands, Ending::Abort);
        rig.pass(seconds(10));
    }
    assert_eq!((opened(&rig, Topic::Commands).len(), rig.role()), (1, Role::Active));
}

#[test]
fn a_client_that_falls_silent_in_a_quiet_log_is_replaced_before_the_role_is_given_up() {
    let log = projected();
    let mut rig = Rig::active(&log);
    rig.pass(seconds(3));
    rig.port.questions_frozen = true;
    let before = rig.port.requests.len();
    rig.pass(seconds(34));
    assert!(rig.port.requests[before..].contains(&Request::RenewQuestioner), "the client was kept");
    rig.port.questions_frozen = false;
    rig.pass(seconds(40));
    assert_eq!(rig.role(), Role::Active, "{:?}", rig.projector.status());
}
