//! The follower on its way to a view: what it says of its progress, and when a new view takes the place of
//! the one that is served.

use std::time::Duration;

use portcullis::follower::Source;
use portcullis::log::memory::{Ending, MemoryLog, Outage};
use portcullis::log::{Event, Question, READ_RECORDS_MAX, ReadEvent, Request, Session, Topic};
use portcullis::record::{Offset, Position};
use portcullis::status::{Degraded, Phase};

use super::support::follower_rig::{
    FollowerRig, TIME, append, commands, folded, memory_log, project, watermark, write_table,
};
use super::{FUTURE, following};

/// A follower that has stopped at a command of the future at offset 3, and its log.
fn stopped() -> (MemoryLog, FollowerRig) {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1", FUTURE, "BLACKLIST 192.0.2.2"]);
    rig.seconds(2);
    assert_eq!(rig.detail().degraded, Some(Degraded::FutureCommand(Offset::new(3))));
    (log, rig)
}

/// Writes the table of a projector that was told to pass over offset 3 and got to position 5.
fn lead_around(log: &MemoryLog) {
    let mut view = folded(log, Position::new(3));
    view.skip(Offset::new(3));
    for record in commands(log, Position::new(3)).iter().take(2) {
        view.apply(record).expect("what is of the future is skipped");
    }
    write_table(log, &view, &watermark(&view));
}

fn sessions(rig: &FollowerRig) -> Vec<Session> {
    let session = |request: &Request| match request {
        Request::Read(Topic::Commands, session, _) => Some(*session),
        _ => None,
    };
    rig.port.requests.iter().filter_map(session).collect()
}

#[test]
fn records_are_counted_on_the_way_to_the_first_snapshot() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7", "BLACKLIST 192.0.2.1"]);
    project(&log, Position::new(2));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.handle(Event::Tick);
    let mut loaded = 0;
    while matches!(rig.detail().phase, Phase::Connecting | Phase::Loading) {
        loaded = rig.detail().records_read;
        let event = rig.port.event().expect("the table is there");
        rig.handle(event);
    }
    assert_eq!(loaded, 3, "two rows and the watermark");
    assert_eq!((rig.detail().phase, rig.detail().records_read), (Phase::CatchingUp, 0));
    rig.settle();
    assert_eq!((rig.detail().phase, rig.detail().records_read), (Phase::Following, 3));
}

#[test]
fn behind_a_command_of_the_future_the_table_is_looked_at_again_after_30_to_90_s() {
    let (_, mut rig) = stopped();
    let tables = |rig: &FollowerRig| {
        let is_table = |request: &&Request| matches!(request, Request::Read(Topic::Table, ..));
        rig.port.requests.iter().filter(is_table).count()
    };
    let (mut last, mut waits) = (None, Vec::new());
    for second in 0..600 {
        let before = tables(&rig);
        rig.seconds(1);
        if tables(&rig) > before {
            waits.extend(last.replace(second).map(|last| second - last));
        }
    }
    assert!(waits.len() > 5 && waits.iter().all(|wait| (30..=91).contains(wait)), "{waits:?}");
}

#[test]
fn a_view_at_the_served_position_takes_its_place() {
    let (log, mut rig) = stopped();
    // The log loses what could not be folded.
    log.truncate(Topic::Commands, Position::new(3));
    project(&log, Position::new(3));
    rig.seconds(200);
    assert_eq!((rig.detail().phase, rig.detail().degraded), (Phase::Following, None));
    append(&log, &["BLACKLIST 192.0.2.3"]);
    rig.seconds(1);
    assert_eq!(rig.blacklisted("192.0.2.3"), Some(true));
}

#[test]
fn a_new_table_leads_from_one_command_of_the_future_to_the_next() {
    let (log, mut rig) = stopped();
    append(&log, &["BLACKLIST 192.0.2.3", FUTURE]);
    lead_around(&log);
    rig.seconds(200);
    assert_eq!(rig.detail().degraded, Some(Degraded::FutureCommand(Offset::new(6))));
    assert_eq!((rig.detail().position, rig.blacklisted("192.0.2.3")), (Position::new(6), Some(true)));
}

#[test]
fn an_end_that_lags_behind_a_new_table_does_not_move_what_is_served() {
    let (log, mut rig) = stopped();
    lead_around(&log);
    let before = sessions(&rig).len();
    for _ in 0..10_000 {
        match rig.port.event() {
            Some(event) => rig.handle(event),
            None => {
                rig.clock.advance(Duration::from_secs(1));
                rig.handle(Event::Tick);
            }
        }
        if sessions(&rig).len() > before {
            break;
        }
    }
    let session = *sessions(&rig).get(before).expect("it reads the commands again");
    rig.handle(Event::Read(Topic::Commands, session, ReadEvent::End(Position::new(4))));
    assert_eq!((rig.detail().position, rig.view().position()), (Position::new(3), Position::new(3)));
    rig.settle();
    assert_eq!((rig.detail().position, rig.blacklisted("192.0.2.2")), (Position::new(5), Some(true)));
}

#[test]
fn the_reason_of_a_stop_is_not_hidden_by_what_fails_later() {
    let (log, mut rig) = stopped();
    let reason = rig.detail().message.clone();
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("upgrade portcullis")));
    log.set_outage(Outage::Down);
    rig.seconds(5);
    log.set_outage(Outage::Up);
    rig.seconds(5);
    assert_eq!(rig.detail().message, reason);
}

#[test]
fn a_question_that_fails_for_ever_is_told_without_a_break_and_asked_seldom() {
    let (_, mut rig) = following();
    rig.seconds(3_599);
    rig.port.failing = vec![Question::TopicSettings; 100];
    rig.seconds(2);
    for _ in 0..300 {
        rig.seconds(1);
        assert_eq!(rig.detail().message.as_deref(), Some("no answer this time"));
    }
    assert!((90..99).contains(&rig.port.failing.len()), "{} are left", rig.port.failing.len());
}

/// Its readers are never told of an end: there always is one more command.
#[test]
fn of_a_log_that_never_rests_a_view_is_served_once_it_holds_what_was_there_when_its_reader_began() {
    for source in [Source::Commands, Source::Table] {
        let log = memory_log();
        append(&log, &["BLACKLIST 203.0.113.0/24", "BLACKLIST 192.0.2.1"]);
        project(&log, Position::new(1));
        let mut rig = FollowerRig::new(&log, source);
        rig.port.restless = true;
        rig.tick(Duration::ZERO);
        for _ in 0..3 {
            append(&log, &["WHITELIST 192.0.2.1"]);
            rig.seconds(1);
        }
        assert_eq!((rig.detail().phase, rig.detail().position), (Phase::Following, Position::new(5)));
        assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(2)), "{:?}", rig.age());
        let first = rig.published.first().map(|snapshot| snapshot.position());
        assert!(first >= Some(Position::new(2)), "{first:?}: half of it was served");
    }
}

/// One transaction overlaps the next, so that no view is ever proven to be at the end.
#[test]
fn behind_foreign_transactions_that_never_end_all_that_can_be_seen_is_served() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "BLACKLIST 192.0.2.1"]);
    let mut rig = FollowerRig::new(&log, Source::Commands);
    rig.port.restless = true;
    let mut open = log.begin();
    log.append_to(open, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.2".to_vec())));
    for _ in 0..5 {
        rig.seconds(1);
        let next = log.begin();
        log.append_to(next, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.2".to_vec())));
        log.end(open, Topic::Commands, Ending::Commit);
        open = next;
    }
    assert_eq!((rig.detail().phase, rig.blacklisted("192.0.2.1")), (Phase::Following, Some(true)));
    assert_eq!(rig.age(), None, "nobody knows what stands behind them");
}

/// The end that was told before the reader was opened is not the one of the log that it reads.
#[test]
fn an_end_that_was_asked_for_before_the_reader_was_opened_makes_nobody_ready() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24"]);
    let mut rig = FollowerRig::new(&log, Source::Commands);
    rig.port.restless = true;
    rig.handle(Event::Tick);
    while sessions(&rig).is_empty() {
        let event = rig.port.event().expect("the log is up");
        rig.handle(event);
    }
    // The process stands still, and the topic is made anew and filled.
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 203.0.113.0/24"; READ_RECORDS_MAX]);
    append(&log, &["WHITELIST 203.0.113.0/24"; 2 * READ_RECORDS_MAX]);
    rig.settle();
    rig.seconds(2);
    let first = rig.published.first().map(|snapshot| snapshot.position());
    assert_eq!(first, Some(Position::new(3 * READ_RECORDS_MAX as u64)));
}

#[test]
fn in_alarm_a_new_log_that_is_shorter_is_read_though_its_reader_is_slow() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1"; 20]);
    rig.seconds(2);
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.2"; 3]);
    rig.seconds(15);
    assert_eq!(rig.detail().phase, Phase::Alarm);
    project(&log, Position::new(2));
    let before = sessions(&rig).len();
    // Until the table is read again, and for a while that is no reason for another reader.
    let mut patience = 10;
    while patience > 0 {
        patience -= i32::from(rig.port.readers_frozen);
        rig.clock.advance(Duration::from_secs(1));
        rig.handle(Event::Tick);
        while let Some(event) = rig.port.event() {
            rig.handle(event);
            rig.port.readers_frozen = sessions(&rig).len() > before;
        }
    }
    assert_eq!(sessions(&rig).len(), before + 1, "a reader that is on its way is left alone");
    rig.port.readers_frozen = false;
    rig.seconds(2);
    assert_eq!((rig.detail().phase, rig.detail().position), (Phase::Following, Position::new(3)));
}
