//! The follower while it follows: when it replaces its reader and its client, and what answers prove.

use std::time::Duration;

use portcullis::follower::Source;
use portcullis::log::memory::{Ending, MemoryLog, Outage};
use portcullis::log::{Event, Question, ReadEvent, Request, Topic};
use portcullis::record::{Offset, Position};
use portcullis::snapshot::EXPIRY_SLICE_ROWS;
use portcullis::status::Alarm;

use super::following;
use super::support::follower_rig::{FollowerRig, TIME, append, memory_log, project};

/// The positions that readers of the commands were opened at.
fn opened(rig: &FollowerRig) -> Vec<Position> {
    let position = |request: &Request| match request {
        Request::Read(Topic::Commands, _, from) => Some(*from),
        _ => None,
    };
    rig.port.requests.iter().filter_map(position).collect()
}

/// Lets the newest reader of the commands fail, with the log still there.
fn fail_reader(rig: &mut FollowerRig) {
    fail_reader_only(rig);
    rig.settle();
}

/// The same, with what follows from it still to come.
fn fail_reader_only(rig: &mut FollowerRig) {
    let session = rig.port.requests.iter().rev().find_map(|request| match request {
        Request::Read(Topic::Commands, session, _) => Some(*session),
        _ => None,
    });
    let failed = ReadEvent::Failed("the link broke".to_owned());
    rig.handle(Event::Read(Topic::Commands, session.expect("a reader is open"), failed));
}

/// How often the ends of the commands were asked for.
fn ends_asked(rig: &FollowerRig) -> usize {
    let ends = Request::Ask(Question::Ends(Topic::Commands));
    rig.port.requests.iter().filter(|request| **request == ends).count()
}

/// How often a record was asked for.
fn records_asked(rig: &FollowerRig) -> usize {
    let is_record = |request: &&Request| matches!(request, Request::Ask(Question::RecordAt(_)));
    rig.port.requests.iter().filter(is_record).count()
}

#[test]
fn a_reader_and_a_client_that_do_their_work_are_kept() {
    let (log, mut rig) = following();
    let before = opened(&rig).len();
    for _ in 0..12 {
        append(&log, &["BLACKLIST 192.0.2.1"]);
        rig.seconds(10);
    }
    assert_eq!(opened(&rig).len(), before);
    assert!(!rig.port.requests.contains(&Request::RenewQuestioner));
}

#[test]
fn a_new_reader_begins_with_the_record_that_was_folded_last() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2"]);
    rig.settle();
    fail_reader(&mut rig);
    assert_eq!(opened(&rig).last(), Some(&Position::new(3)));
    // So that retention may take what was folded long ago.
    rig.seconds(5);
    log.delete_before(Topic::Commands, Position::new(3));
    fail_reader(&mut rig);
    rig.seconds(2);
    assert_eq!((opened(&rig).last(), rig.detail().degraded), (Some(&Position::new(3)), None));
    let published = rig.published.len();
    append(&log, &["WHITELIST 192.0.2.1"]);
    rig.settle();
    assert_eq!((rig.published.len(), rig.blacklisted("192.0.2.1")), (published + 1, Some(false)));
}

#[test]
fn a_reader_that_fails_is_replaced_at_once_if_it_had_read_something_and_else_after_a_wait() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.settle();
    let before = opened(&rig).len();
    fail_reader(&mut rig);
    assert_eq!(opened(&rig).len(), before + 1);
    // Its successor has seen the log's end and nothing else.
    fail_reader(&mut rig);
    assert_eq!(opened(&rig).len(), before + 1);
    rig.seconds(1);
    assert_eq!(opened(&rig).len(), before + 2);
}

#[test]
fn the_ends_are_asked_for_once_a_second_and_one_question_at_a_time() {
    let (_, mut rig) = following();
    let before = ends_asked(&rig);
    (0..40).for_each(|_| rig.tick(Duration::from_millis(250)));
    assert_eq!(ends_asked(&rig), before + 10);
    rig.port.questions_frozen = true;
    rig.seconds(10);
    assert_eq!(ends_asked(&rig), before + 11);
}

#[test]
fn a_folded_record_is_asked_for_every_2_s_and_one_at_a_time() {
    let (log, mut rig) = following();
    rig.seconds(2);
    let before = records_asked(&rig);
    rig.seconds(60);
    for _ in 0..60 {
        append(&log, &["BLACKLIST 192.0.2.1"]);
        rig.seconds(1);
    }
    assert!((59..=61).contains(&(records_asked(&rig) - before)), "{}", records_asked(&rig) - before);
    // Without an answer there is no second question.
    rig.port.questions_frozen = true;
    let before = records_asked(&rig);
    rig.seconds(25);
    assert_eq!(records_asked(&rig), before + 1);
}

#[test]
fn nothing_is_folded_that_is_read_long_after_the_last_check() {
    let (log, mut rig) = following();
    rig.seconds(2);
    let before = (rig.detail().position, opened(&rig).len());
    // The process stands still while the log is replaced by a longer one, and hears no error of that.
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 198.51.100.1"; 40]);
    rig.clock.advance(Duration::from_secs(7));
    rig.settle();
    rig.seconds(5);
    assert_eq!((rig.detail().position, rig.detail().alarm), (before.0, Some(Alarm::AnotherLog)));
    assert_eq!(opened(&rig).len(), before.1, "nothing of it was read");

    // The same log, it goes on with at once.
    let (log, mut rig) = following();
    rig.seconds(2);
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.clock.advance(Duration::from_secs(7));
    rig.settle();
    assert_eq!((rig.detail().alarm, rig.blacklisted("192.0.2.1")), (None, Some(true)));
}

#[test]
fn nothing_is_folded_after_a_question_that_failed_before_the_log_is_known_again() {
    let (log, mut rig) = following();
    rig.seconds(2);
    let before = rig.detail().position;
    // The topic was away for a moment, and no reader heard of it.
    rig.port.failing = vec![Question::Ends(Topic::Commands)];
    rig.seconds(1);
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 198.51.100.1"; 40]);
    rig.settle();
    rig.seconds(3);
    assert_eq!((rig.detail().position, rig.detail().alarm), (before, Some(Alarm::AnotherLog)));
}

#[test]
fn a_check_after_retention_took_the_watched_record_goes_by_the_newest_one() {
    let (log, mut rig) = following();
    rig.seconds(2);
    append(&log, &["BLACKLIST 192.0.2.1"; 8]);
    rig.settle();
    log.delete_before(Topic::Commands, Position::new(6));
    rig.port.failing = vec![Question::Ends(Topic::Commands)];
    rig.seconds(1);
    append(&log, &["BLACKLIST 192.0.2.2"]);
    rig.seconds(2);
    assert_eq!((rig.detail().degraded, rig.blacklisted("192.0.2.2")), (None, Some(true)));
}

/// A cluster that was restored from a backup has the record that is watched, and not what was folded since.
#[test]
fn after_a_question_that_failed_the_newest_record_shows_which_log_it_is() {
    let (log, mut rig) = following();
    rig.seconds(3);
    append(&log, &["BLACKLIST 192.0.2.1"; 8]);
    rig.settle();
    let before = rig.detail().position;
    rig.port.failing = vec![Question::Ends(Topic::Commands)];
    rig.port.readers_frozen = true;
    rig.seconds(1);
    log.truncate(Topic::Commands, Position::new(2));
    append(&log, &["BLACKLIST 198.51.100.1"; 40]);
    // What is watched is found to be the same before anything more is read.
    let asked = records_asked(&rig);
    while records_asked(&rig) == asked {
        rig.seconds(1);
    }
    rig.port.readers_frozen = false;
    rig.settle();
    assert_eq!(rig.detail().position, before, "nothing of it is folded");
    rig.seconds(3);
    assert_eq!((rig.detail().position, rig.detail().alarm), (before, Some(Alarm::AnotherLog)));
}

#[test]
fn a_watched_record_that_retention_took_is_no_reason_to_read_anew() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1"; 8]);
    rig.settle();
    let before = (opened(&rig).len(), records_asked(&rig));
    log.delete_before(Topic::Commands, Position::new(5));
    rig.seconds(70);
    assert!(records_asked(&rig) > before.1);
    assert_eq!((opened(&rig).len(), rig.detail().alarm, rig.detail().degraded), (before.0, None, None));
}

#[test]
fn a_log_that_is_not_checked_yet_proves_nothing_however_long_it_is() {
    let (log, mut rig) = following();
    rig.seconds(2);
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2"]);
    rig.port.failing = vec![Question::RecordAt(Offset::new(1)); 20];
    fail_reader(&mut rig);
    rig.seconds(5);
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(5)), "{:?}", rig.age());
    rig.seconds(20);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn a_log_that_is_replaced_right_after_the_check_is_noticed_though_it_was_read_at_once() {
    let (log, mut rig) = following();
    let ends = r#"{"v":1,"action":"BLACKLIST","range":"192.0.2.10","expires_at":"2099-01-01T00:00:00.000Z"}"#;
    append(&log, &["BLACKLIST 192.0.2.9", ends]);
    rig.seconds(5);
    let before = rig.view();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1", "WHITELIST 0.0.0.0/1"]);
    append(
        &log,
        &["BLACKLIST 198.51.0.0/16", "BLACKLIST 192.0.2.1", "WHITELIST 192.0.2.10", "WHITELIST 203.0.113.7"],
    );
    rig.settle();
    assert_ne!(rig.view().blacklist(), before.blacklist(), "nobody has noticed yet");
    rig.seconds(61);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    // What was taken in of it is taken back.
    let after = rig.view();
    assert_eq!((after.blacklist(), after.position()), (before.blacklist(), before.position()));
    assert_eq!(rig.detail().position, before.position());
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(true));
    assert_eq!((rig.blacklisted("198.51.0.1"), rig.blacklisted("192.0.2.10")), (Some(false), Some(true)));
}

#[test]
fn a_view_is_taken_back_no_further_than_to_where_it_began() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "BLACKLIST 198.51.100.0/24", "BLACKLIST 192.0.2.9"]);
    project(&log, Position::new(1));
    let mut rig = FollowerRig::started(&log, Source::Table);
    let before = rig.view();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 10.0.0.0/24"; 6]);
    rig.settle();
    assert_eq!(rig.blacklisted("10.0.0.1"), Some(true), "nobody has noticed yet");
    rig.seconds(5);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    assert_eq!((rig.view().blacklist(), rig.view().position()), (before.blacklist(), before.position()));
}

/// Replaces the log by one that has no record where the last one was, only a transaction that was aborted.
fn replace_by_aborted(log: &MemoryLog) {
    log.recreate(Topic::Commands);
    let foreign = log.begin();
    for _ in 0..5 {
        log.append_to(foreign, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.1".to_vec())));
    }
    log.end(foreign, Topic::Commands, Ending::Abort);
}

#[test]
fn a_log_that_is_replaced_between_the_check_and_the_first_record_is_noticed_by_the_reader() {
    let (log, mut rig) = following();
    rig.seconds(2);
    let (before, readers) = (rig.detail().position, opened(&rig).len());
    fail_reader_only(&mut rig);
    while opened(&rig).len() == readers {
        let event = rig.port.event().expect("the log is asked, and answers");
        rig.handle(event);
    }
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"; 5]);
    rig.settle();
    assert_eq!((rig.detail().position, rig.detail().alarm), (before, Some(Alarm::AnotherLog)));
}

#[test]
fn a_log_that_was_folded_from_by_mistake_is_noticed_though_its_reader_fails_at_once() {
    let (log, mut rig) = following();
    rig.seconds(3);
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"; 5]);
    rig.settle();
    // The record that was folded last is the other log's own.
    fail_reader(&mut rig);
    rig.seconds(3);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn a_record_where_there_was_none_is_of_another_log() {
    let (log, mut rig) = following();
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.1".to_vec())));
    log.end(foreign, Topic::Commands, Ending::Abort);
    rig.settle();
    let before = rig.detail().position;
    assert_eq!(before, Position::new(4));
    // Restored as it was before the transaction, and written to since: the last record is still the same.
    log.set_outage(Outage::Down);
    rig.seconds(2);
    log.truncate(Topic::Commands, Position::new(2));
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2", "BLACKLIST 192.0.2.3"]);
    log.set_outage(Outage::Up);
    rig.seconds(5);
    assert_eq!((rig.detail().position, rig.detail().alarm), (before, Some(Alarm::AnotherLog)));
}

#[test]
fn a_log_without_the_record_that_was_folded_last_is_another_one() {
    let (log, mut rig) = following();
    log.set_outage(Outage::Down);
    rig.seconds(2);
    log.set_outage(Outage::Up);
    replace_by_aborted(&log);
    rig.seconds(5);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    // The same without an error.
    let (log, mut rig) = following();
    replace_by_aborted(&log);
    rig.seconds(70);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn another_tick_is_wanted_only_while_more_has_expired_than_one_takes() {
    let (log, mut rig) = following();
    let soon = TIME.after(Duration::from_secs(10));
    for at in 0..=EXPIRY_SLICE_ROWS as u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * at);
        let ban = format!(r#"{{"v":1,"action":"BLACKLIST","range":"{ip}","expires_at":"{soon}"}}"#);
        append(&log, &[&ban]);
    }
    let last = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * EXPIRY_SLICE_ROWS as u32).to_string();
    rig.seconds(9);
    assert_eq!(rig.ticks_wanted, 0);
    rig.seconds(1);
    assert_eq!((rig.ticks_wanted, rig.blacklisted(&last)), (1, Some(true)));
    rig.tick(Duration::ZERO);
    assert_eq!((rig.ticks_wanted, rig.blacklisted(&last)), (1, Some(false)));
    rig.seconds(5);
    assert_eq!(rig.ticks_wanted, 1);
}
