//! How a projector comes by its role, and how it loses it: what a standby waits for, and how often it tries.

use std::time::Duration;

use portcullis::log::memory::{MemoryLog, Outage};
use portcullis::log::{Question, Request, TableWriter, Topic};
use portcullis::projector::{CLAIMS_MAX, Reason, Role};
use portcullis::table::Watermark;

use super::readers::opened;
use super::support::projector_rig::*;
use super::{NOW, last_watermark, projected};

/// A log whose table somebody writes, or did.
fn claimed_log() -> MemoryLog {
    let log = begun_log();
    write_watermark(&log, &Watermark { released: false, ..genesis() });
    log
}

#[test]
fn a_silent_table_is_taken_over_after_takeover_after_and_at_most_half_of_it_more() {
    for seed in 1..=8 {
        let mut rig = Rig::new(&claimed_log(), seed);
        rig.pass(TAKEOVER_AFTER);
        assert_eq!(rig.role(), Role::Standby, "seed {seed}");
        rig.pass(TAKEOVER_SURE - TAKEOVER_AFTER);
        assert_eq!(rig.role(), Role::Active, "seed {seed}");
    }
}

#[test]
fn a_question_that_fails_begins_the_silence_anew() {
    let mut rig = Rig::new(&claimed_log(), 1);
    rig.pass(TAKEOVER_AFTER - seconds(1));
    rig.port.failing = vec![Question::Ends(Topic::Table)];
    rig.pass(TAKEOVER_AFTER - seconds(1));
    assert_eq!((rig.role(), rig.port.failing.len()), (Role::Standby, 0));
    rig.pass(TAKEOVER_SURE);
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_standby_tells_what_the_table_holds() {
    let log = projected();
    let released = last_watermark(&log);
    write_watermark(&log, &Watermark { released: false, ..released.clone() });
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    let status = rig.projector.status();
    assert_eq!(
        (status.role, status.position, status.rows, status.fingerprint),
        (Role::Standby, released.position, released.rows, released.fingerprint)
    );
}

#[test]
fn a_release_that_is_new_is_taken_up_at_once() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    log.table_writer(|| NOW).fence().expect("the log is up");
    command(&log, "BLACKLIST 192.0.2.1");
    rig.pass(seconds(1));
    assert_eq!(rig.role(), Role::Standby);
    write_watermark(&log, &genesis());
    rig.pass(seconds(2));
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_role_that_was_given_up_in_an_outage_is_taken_up_again_unless_somebody_else_has_it() {
    let given_up = || {
        let log = projected();
        let mut rig = Rig::active(&log);
        command(&log, "BLACKLIST 192.0.2.1");
        rig.pass(seconds(6));
        rig.set_outage(Outage::Down);
        rig.pass(seconds(75));
        assert_eq!(rig.role(), Role::Standby, "it gave up its role");
        rig.set_outage(Outage::Up);
        (log, rig)
    };
    let (_, mut rig) = given_up();
    rig.pass(TAKEOVER_AFTER - seconds(3));
    assert_eq!(rig.role(), Role::Active);

    let (log, mut rig) = given_up();
    let others = Watermark { projector: "another".to_owned(), released: false, ..last_watermark(&log) };
    write_watermark(&log, &others);
    rig.pass(TAKEOVER_AFTER - seconds(3));
    assert_eq!(rig.role(), Role::Standby);
}

#[test]
fn a_role_is_said_to_be_ours_once_the_table_shows_it_and_not_before() {
    let log = begun_log();
    let mut first = Rig::new(&log, 1);
    first.fate = Fate::Slow;
    first.pass(seconds(1));
    first.answer_writes();
    first.settle();
    assert_eq!((first.deeds.last(), first.role()), (Some(&Deed::ReadTable), Role::Standby));
    first.answer_writes();
    first.settle();
    assert_eq!((first.count(&Deed::Alive), first.role()), (1, Role::Active));
    // It has committed no watermark yet, and whoever starts now sees the one that released the table.
    assert!(first.transactions().is_empty() && last_watermark(&log).released);
    let mut second = Rig::new(&log, 2);
    for _ in 0..30 {
        first.answer_writes();
        first.pass(seconds(1));
        second.pass(seconds(1));
    }
    assert_eq!((first.role(), second.role()), (Role::Active, Role::Standby));
    assert_eq!(second.count(&Deed::Fence), 0);
}

#[test]
fn a_difficulty_on_the_way_to_the_role_is_forgotten_with_it() {
    let mut rig = Rig::new(&begun_log(), 1);
    rig.port.readers_fail = true;
    rig.pass(seconds(1));
    assert!(!rig.message().is_empty());
    rig.port.readers_fail = false;
    rig.fate = Fate::Slow;
    rig.pass(seconds(15));
    assert_eq!((rig.count(&Deed::Fence), rig.message().as_str()), (1, ""));
}

#[test]
fn a_role_that_cannot_be_held_is_claimed_a_few_times_and_then_left_to_others() {
    let mut rig = Rig::new(&begun_log(), 1);
    rig.fate = Fate::OpenUnknown;
    rig.pass(seconds(12));
    assert_eq!(rig.count(&Deed::Fence), 1 + CLAIMS_MAX as usize);
    assert_eq!(rig.role(), Role::Standby, "the release was taken up already");
}

#[test]
fn what_was_written_in_between_makes_new_tries() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    for at in 0..2 * CLAIMS_MAX {
        rig.fate = Fate::DoneUnknown;
        command(&log, &format!("BLACKLIST 192.0.2.{at}"));
        rig.settle();
        rig.step(Duration::from_millis(100));
        rig.fate = Fate::Done;
        rig.pass(seconds(3));
        assert_eq!(rig.role(), Role::Active, "after {at} others");
    }
}

#[test]
fn a_question_that_failed_or_was_never_answered_is_asked_again() {
    let mut rig = Rig::new(&begun_log(), 1);
    rig.port.failing =
        vec![Question::Identity, Question::Ends(Topic::Table), Question::Ends(Topic::Commands)];
    rig.pass(seconds(4));
    assert_eq!(rig.role(), Role::Active);

    let mut rig = Rig::new(&begun_log(), 1);
    rig.port.questions_frozen = true;
    rig.pass(seconds(29));
    assert!(!rig.port.requests.contains(&Request::RenewQuestioner));
    rig.pass(seconds(3));
    assert!(rig.port.requests.contains(&Request::RenewQuestioner));
    assert_eq!(rig.role(), Role::Standby);
    rig.port.questions_frozen = false;
    rig.pass(seconds(4));
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_standby_whose_readers_fail_waits_between_them() {
    let mut rig = Rig::new(&begun_log(), 1);
    rig.port.readers_fail = true;
    rig.pass(seconds(60));
    let tries = opened(&rig, Topic::Table).len();
    assert!((4..40).contains(&tries), "{tries} tries in 60 s");
}

#[test]
fn the_status_keeps_to_what_is_known_while_nothing_is_heard() {
    let mut rig = Rig::active(&begun_log());
    (rig.port.readers_frozen, rig.port.questions_frozen) = (true, true);
    rig.pass(seconds(65));
    assert_eq!(rig.role(), Role::Standby, "it gave up its role");

    let mut rig = Rig::new(&MemoryLog::new(identity()), 1);
    rig.pass(seconds(2));
    rig.port.readers_frozen = true;
    rig.pass(seconds(65));
    assert_eq!(rig.role(), Role::Stopped(Reason::NoWatermark), "the table may still have none");
}
