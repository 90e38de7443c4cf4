//! A projector that writes the table anew: what it goes through, what it leaves alone, and how it ends.

use std::collections::BTreeSet;

use portcullis::log::memory::MemoryLog;
use portcullis::log::{Event as LogEvent, Identity, Question, TableWriter, Topic, WriteError};
use portcullis::projector::{CLAIMS_MAX, Event, Projector, Reason, Rebuild, Role};
use portcullis::record::{Offset, Position};
use portcullis::table::Watermark;

use super::readers::opened;
use super::support::projector_rig::*;
use super::{NOW, damage, last_watermark, projected};

/// A rebuild that has done nothing yet.
fn rebuilding(log: &MemoryLog, skip_offsets: &[u64]) -> Rig {
    let mut rig = Rig::new(log, 7);
    let mut told = settings(7);
    told.skip_offsets = skip_offsets.iter().copied().map(Offset::new).collect();
    rig.projector = Projector::rebuilding(told, identity(), rig.clock.now);
    rig
}

fn rebuilt(log: &MemoryLog) -> Rig {
    let mut rig = rebuilding(log, &[]);
    rig.pass(seconds(2));
    rig
}

fn done(rig: &Rig) -> Option<(usize, usize)> {
    match rig.projector.status().rebuild {
        Some(Rebuild::Done { written, taken_away }) => Some((written, taken_away)),
        _ => None,
    }
}

/// A rebuild that has ended without writing a row, for this reason, named in its message.
#[track_caller]
fn gave_up(rig: &Rig, role: Role, told: &str) {
    assert_eq!((rig.role(), rig.stopped, done(rig)), (role, true, None), "{}", rig.message());
    assert!(rig.message().contains(told), "{}", rig.message());
    assert_eq!(rig.transactions(), []);
}

#[test]
fn whatever_the_table_held_it_holds_the_fold_and_is_released() {
    let unbegun = MemoryLog::new(identity());
    command(&unbegun, "BLACKLIST 192.0.2.7");
    let (of_others, later, damaged, recreated) = (projected(), projected(), projected(), projected());
    let moved = Watermark { commands_topic: "others".to_owned(), ..last_watermark(&of_others) };
    write_watermark(&of_others, &moved);
    later.append_record(Topic::Table, NOW, Some(b"@watermark"), Some(br#"{"v":9}"#));
    damage(&damaged);
    recreated.recreate(Topic::Commands);
    command(&recreated, "BLACKLIST 192.0.2.7");
    command(&recreated, "BLACKLIST 198.51.100.0/24");

    // Of the same rows none is written again; what is gone is taken away.
    for (log, rows, changed) in [
        (unbegun, 1, (1, 0)),
        (of_others, 3, (0, 0)),
        (later, 3, (0, 0)),
        (damaged, 3, (2, 3)),
        (recreated, 2, (2, 2)),
    ] {
        let rig = rebuilt(&log);
        assert_eq!((rig.role(), rig.stopped), (Role::Stopped(Reason::Stop), true), "{}", rig.message());
        assert_eq!(rig.deeds[..3], [Deed::Fence, Deed::Alive, Deed::ReadTable], "nothing is read before");
        assert_eq!(rig.transactions().len(), 1);
        assert_eq!(done(&rig), Some(changed));
        let watermark = last_watermark(&log);
        assert!(watermark.released);
        assert_eq!(watermark.rows, rows);
        assert_eq!(watermark.projector, "projector-7");
        assert_eq!(rig.projector.status().position, watermark.position);
        assert_eq!(table_of(&log).undecodable_keys().count(), 0);
        // Whoever stood by takes over at once, and a table that is right is left as it is.
        let mut next = Rig::new(&log, 2);
        next.pass(seconds(2));
        assert_eq!(next.role(), Role::Active);
        assert_eq!(done(&rebuilt(&log)), Some((0, 0)));
    }
}

#[test]
fn an_empty_log_comes_to_an_empty_table() {
    let log = projected();
    log.recreate(Topic::Commands);
    assert_eq!(done(&rebuilt(&log)), Some((0, 3)));
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows), (Position::START, 0));
}

#[test]
fn it_fences_the_one_that_works_which_takes_over_again_once_it_is_done() {
    let log = projected();
    let mut active = Rig::active(&log);
    active.pass(seconds(6));
    let mut standby = Rig::new(&log, 2);
    standby.pass(seconds(2));
    // From here on it holds the role and takes its time, longer than a standby waits for a dead one.
    let mut slow = rebuilding(&log, &[]);
    slow.fate = Fate::Slow;
    slow.pass(seconds(1));
    slow.answer_writes();
    slow.fate = Fate::Done;
    slow.port.failing = vec![Question::Ends(Topic::Commands); 40];
    for second in 0..36 {
        command(&log, &format!("BLACKLIST 198.51.100.{second}"));
        [&mut active, &mut standby, &mut slow].into_iter().for_each(|rig| rig.pass(seconds(1)));
        if second == 34 {
            assert_eq!([active.role(), standby.role()], [Role::Standby; 2]);
            assert_eq!((done(&slow), slow.count(&Deed::Alive) >= 7), (None, true), "{}", slow.message());
        }
    }
    for _ in 0..10 {
        [&mut active, &mut standby, &mut slow].into_iter().for_each(|rig| rig.pass(seconds(1)));
    }
    assert!(done(&slow).is_some(), "{}", slow.message());
    let roles = [active.role(), standby.role()];
    assert!(roles.contains(&Role::Active) && roles.contains(&Role::Standby), "{roles:?}");
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows), (Position::new(39), 39));
}

#[test]
fn what_keeps_it_from_all_commands_ends_it_and_leaves_the_table() {
    let cut = projected();
    cut.delete_before(Topic::Commands, Position::new(1));
    gave_up(&rebuilt(&cut), Role::Stopped(Reason::Unrepairable), "begins at 1");

    let future = projected();
    command(&future, r#"{"v":2}"#);
    command(&future, "BLACKLIST 198.51.100.0/24");
    let told = Role::Stopped(Reason::FutureCommand(Offset::new(3)));
    gave_up(&rebuilt(&future), told, "offset 3");
    let mut allowed = rebuilding(&future, &[3]);
    allowed.pass(seconds(2));
    assert_eq!(done(&allowed), Some((1, 0)), "{}", allowed.message());
    assert_eq!(last_watermark(&future).skipped, BTreeSet::from([Offset::new(3)]));

    let renamed = projected();
    renamed.rename(Identity { cluster_id: "another".to_owned(), ..identity() });
    gave_up(&rebuilt(&renamed), Role::Stopped(Reason::AnotherLog), "another");

    let silent = projected();
    let mut rig = rebuilding(&silent, &[]);
    rig.port.readers_frozen = true;
    rig.pass(seconds(65));
    gave_up(&rig, Role::Standby, "nothing came of the log for 60 s");

    for log in [cut, future, silent] {
        table_of(&log).check().expect("the table is what it was");
    }
}

#[test]
fn one_that_is_fenced_ends_and_does_not_fence_back() {
    let log = projected();
    let mut rig = rebuilding(&log, &[]);
    rig.port.failing = vec![Question::Ends(Topic::Commands); 3];
    rig.pass(seconds(1));
    log.table_writer(|| NOW).fence().expect("the log is up");
    rig.port.failing.clear();
    rig.pass(seconds(20));
    gave_up_after_its_commit(&rig);
    assert_eq!(rig.count(&Deed::Fence), 1);
    assert_eq!(last_watermark(&log).projector, "projector-1");
}

/// Like `gave_up`, but it tried to write.
#[track_caller]
fn gave_up_after_its_commit(rig: &Rig) {
    assert_eq!((rig.role(), rig.stopped, done(rig)), (Role::Standby, true, None));
    assert!(rig.message().contains(&WriteError::Fenced.to_string()), "{}", rig.message());
}

#[test]
fn an_unknown_outcome_is_tried_again_and_not_for_ever() {
    let log = projected();
    damage(&log);
    let mut rig = rebuilding(&log, &[]);
    rig.fate = Fate::Slow;
    rig.pass(seconds(1));
    rig.fate = Fate::Done;
    rig.answer_writes();
    rig.fate = Fate::OpenUnknown;
    rig.pass(seconds(1));
    rig.fate = Fate::Done;
    rig.pass(seconds(10));
    assert_eq!((done(&rig), rig.stopped), (Some((2, 3)), true), "{}", rig.message());
    assert_eq!(last_watermark(&log).rows, 3);

    let mut rig = rebuilding(&log, &[]);
    rig.fate = Fate::OpenUnknown;
    rig.pass(seconds(30));
    gave_up(&rig, Role::Standby, "no answer");
    assert_eq!(rig.count(&Deed::Fence), 1 + CLAIMS_MAX as usize);
}

#[test]
fn told_to_stop_before_it_has_read_all_it_writes_nothing() {
    let log = projected();
    damage(&log);
    let mut rig = rebuilding(&log, &[]);
    rig.port.failing = vec![Question::Ends(Topic::Commands); 9];
    rig.pass(seconds(3));
    assert_eq!(rig.role(), Role::Active);
    rig.handle(Event::Stop);
    rig.settle();
    assert_eq!((rig.stopped, done(&rig), rig.transactions()), (true, None, vec![]));
}

/// A table that passes over a command of this log.
fn skipping() -> MemoryLog {
    let log = begun_log();
    command(&log, r#"{"v":2}"#);
    command(&log, "BLACKLIST 192.0.2.7");
    let mut told = settings(1);
    told.skip_offsets = [Offset::new(0)].into();
    let mut rig = Rig::with(&log, told, Rig::new(&log, 1).clock);
    rig.pass(seconds(2));
    rig.handle(Event::Stop);
    rig.settle();
    assert_eq!(last_watermark(&log).skipped, BTreeSet::from([Offset::new(0)]));
    log
}

#[test]
fn what_the_table_passed_over_is_passed_over_again_but_not_in_another_log() {
    let log = skipping();
    damage_a_row(&log);
    assert_eq!(done(&rebuilt(&log)), Some((1, 0)));
    assert_eq!(last_watermark(&log).skipped, BTreeSet::from([Offset::new(0)]));

    // A shorter log is known for another one only after its end was told for a while.
    for (commands, patience) in [(&["BLACKLIST 192.0.2.9"; 4][..], 2), (&["BLACKLIST 192.0.2.9"][..], 14)] {
        let log = skipping();
        log.recreate(Topic::Commands);
        for value in commands {
            command(&log, value);
        }
        let mut rig = rebuilding(&log, &[]);
        rig.pass(seconds(patience));
        assert_eq!(done(&rig), Some((1, 1)), "{}", rig.message());
        let watermark = last_watermark(&log);
        assert_eq!((watermark.skipped, watermark.rows), (BTreeSet::new(), 1), "its first command counts");
    }
}

fn damage_a_row(log: &MemoryLog) {
    log.append_record(Topic::Table, NOW, Some(b"192.0.2.7"), None);
}

/// The end that counts is the one that the log had when it began.
#[test]
fn what_comes_behind_the_end_is_left_to_others() {
    let log = projected();
    damage_a_row(&log);
    let mut rig = rebuilding(&log, &[]);
    rig.handle(Event::Log(LogEvent::Tick));
    rig.settle_until(|rig| !opened(rig, Topic::Commands).is_empty());
    command(&log, r#"{"v":2}"#);
    rig.settle();
    assert_eq!((done(&rig), rig.role()), (Some((1, 0)), Role::Stopped(Reason::Stop)), "{}", rig.message());
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.released), (Position::new(3), true));
}

#[test]
fn it_ends_though_the_log_never_rests() {
    let log = projected();
    damage_a_row(&log);
    let mut rig = rebuilding(&log, &[]);
    rig.port.restless = true;
    rig.pass(seconds(2));
    assert_eq!((done(&rig), rig.role()), (Some((1, 0)), Role::Stopped(Reason::Stop)), "{}", rig.message());
    check_whole(&log, &table_of(&log));
}

#[test]
fn it_tells_how_far_it_is() {
    let log = projected();
    let mut rig = rebuilding(&log, &[]);
    rig.handle(Event::Log(LogEvent::Tick));
    rig.settle_until(|rig| !opened(rig, Topic::Commands).is_empty());
    let folding = Rebuild::Folding { position: Position::START, end: Position::new(3) };
    assert_eq!(rig.projector.status().rebuild, Some(folding));
    rig.settle();
    assert_eq!(done(&rig), Some((0, 0)));
}
