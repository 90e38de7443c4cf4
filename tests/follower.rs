//! The follower over a log in memory: each step of bootstrap and following, with its failing cases.

#[path = "follower/returning.rs"]
mod returning;
mod support;
#[path = "follower/watching.rs"]
mod watching;

use std::time::Duration;

use portcullis::follower::Source;
use portcullis::log::memory::{Ending, Outage, Tombstones};
use portcullis::log::{Event, Identity, Question, ReadEvent, Request, Session, TableWriter, Topic};
use portcullis::record::{Offset, Position};
use portcullis::status::{Alarm, Degraded, Phase};
use portcullis::table::{ALIVE_KEY, Fingerprint, RowChange, WATERMARK_KEY, Watermark};
use portcullis::view::View;
use proptest::prelude::*;
use support::follower_rig::{
    FollowerRig, TIME, append, folded, identity, memory_log, project, watermark, write_table,
};
use support::{oracle, strategies};

const FUTURE: &str = r#"{"v":2,"action":"REDIRECT"}"#;

#[test]
fn without_a_table_the_commands_are_folded_from_the_first() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7", "nonsense"]);
    let mut rig = FollowerRig::new(&log, Source::Commands);
    assert_eq!((rig.detail().phase, rig.detail().ready), (Phase::Connecting, false));
    rig.tick(Duration::ZERO);
    assert_eq!((rig.detail().phase, rig.detail().ready), (Phase::Following, true));
    assert_eq!((rig.blacklisted("203.0.113.6"), rig.blacklisted("203.0.113.7")), (Some(true), Some(false)));
    assert_eq!(rig.detail().refused.undecodable, 1);
    assert_eq!(rig.undecodable.len(), 1);
    assert_eq!(rig.view(), folded(&log, Position::new(3)));
}

#[test]
fn an_empty_log_is_ready_and_an_unreachable_one_is_not() {
    let log = memory_log();
    log.set_outage(Outage::Down);
    let mut rig = FollowerRig::started(&log, Source::Commands);
    rig.seconds(5);
    assert!(!rig.detail().ready && rig.published.is_empty());
    assert_eq!(rig.detail().message.as_deref(), Some("the log is down"));
    log.set_outage(Outage::Up);
    rig.seconds(2);
    assert!(rig.detail().ready);
    assert_eq!(rig.blacklisted("203.0.113.6"), Some(false));
}

#[test]
fn nothing_is_served_from_topics_that_are_not_set_as_they_must_be() {
    for source in [Source::Commands, Source::Table] {
        let log = memory_log();
        append(&log, &["BLACKLIST 203.0.113.7"]);
        project(&log, Position::new(1));
        log.set_topic_settings(Some("portcullis.commands: cleanup.policy is compact"));
        let mut rig = FollowerRig::started(&log, source);
        rig.seconds(50);
        assert_eq!((rig.detail().phase, rig.detail().ready), (Phase::Alarm, false));
        assert_eq!(rig.detail().alarm, Some(Alarm::TopicSettings));
        assert!(rig.detail().message.as_ref().is_some_and(|it| it.contains("cleanup.policy")));
        assert!(rig.published.is_empty());
        assert!(!rig.port.requests.iter().any(|it| matches!(it, Request::Read(..))), "it read nothing");
        log.set_topic_settings(None);
        rig.seconds(15);
        assert_eq!((rig.detail().phase, rig.detail().alarm), (Phase::Following, None));
        assert_eq!(rig.blacklisted("203.0.113.7"), Some(true));
    }
}

#[test]
fn topics_that_are_set_otherwise_later_degrade_what_goes_on() {
    let (log, mut rig) = following();
    log.set_topic_settings(Some("portcullis.commands: cleanup.policy is compact"));
    rig.seconds(3_601);
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.settle();
    assert_eq!(rig.detail().degraded, Some(Degraded::TopicSettings));
    assert!(rig.detail().message.as_ref().is_some_and(|it| it.contains("cleanup.policy")));
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true), "it goes on");
    log.set_topic_settings(None);
    rig.seconds(61);
    assert_eq!((rig.detail().degraded, rig.detail().message.as_deref()), (None, None));
}

#[test]
fn settings_are_asked_for_until_they_are_known() {
    let log = memory_log();
    let mut rig = FollowerRig::new(&log, Source::Commands);
    rig.port.failing = vec![Question::TopicSettings; 3];
    rig.tick(Duration::ZERO);
    assert!(!rig.detail().ready);
    rig.seconds(3);
    assert!(rig.detail().ready, "{:?}", rig.detail());
    rig.port.questions_frozen = true;
    rig.seconds(3_602);
    log.set_topic_settings(Some("they changed"));
    rig.port.questions_frozen = false;
    rig.seconds(31);
    assert_eq!(
        rig.detail().degraded,
        Some(Degraded::TopicSettings),
        "the question was not lost with its client"
    );
}

#[test]
fn following_publishes_what_is_appended() {
    let log = memory_log();
    let mut rig = FollowerRig::started(&log, Source::Commands);
    append(&log, &["BLACKLIST 203.0.113.7"]);
    rig.settle();
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(true));
    append(&log, &["WHITELIST 203.0.113.7"]);
    rig.settle();
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(false));
    let positions: Vec<_> = rig.published.iter().map(|snapshot| snapshot.position().number()).collect();
    assert_eq!(positions, [0, 1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// At every position of a random log, also with transactions and compaction.
    #[test]
    fn a_bootstrapped_view_equals_one_that_lived_all_along(steps in strategies::log(25)) {
        let log = memory_log();
        let mut time = TIME.millis();
        for (at, (step, minutes)) in steps.iter().enumerate() {
            time += minutes * 60_000;
            let record = oracle::record_of(step, 0, time);
            if at % 5 == 3 {
                let foreign = log.begin();
                log.append_to(foreign, Topic::Commands, record.timestamp, (vec![], record.value.clone()));
                log.end(foreign, Topic::Commands, Ending::Abort);
            }
            log.append_record(Topic::Commands, record.timestamp, None, record.value.as_deref());
        }
        let end = log.read(Topic::Commands, Position::START).expect("the log is up").position;
        let lived = FollowerRig::started(&log, Source::Commands).view();
        prop_assert_eq!(&lived, &folded(&log, end));
        for position in 0..=end.number() {
            project(&log, Position::new(position));
            if position % 4 == 0 {
                log.compact(Tombstones::Kept);
            }
            let rig = FollowerRig::started(&log, Source::Table);
            prop_assert!(rig.detail().ready, "{:?}", rig.detail());
            prop_assert_eq!(rig.view(), lived.clone());
        }
    }
}

#[test]
fn ids_from_before_the_table_are_recovered() {
    let log = memory_log();
    let with_id = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"203.0.113.7"}"#;
    append(&log, &[with_id, "WHITELIST 203.0.113.7"]);
    project(&log, Position::new(2));
    append(&log, &[with_id]);
    let rig = FollowerRig::started(&log, Source::Table);
    assert_eq!(rig.detail().refused.duplicate, 1);
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(false));
}

#[test]
fn a_table_without_a_watermark_is_never_ready() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.7"]);
    let mut rig = FollowerRig::started(&log, Source::Table);
    rig.seconds(200);
    assert!(!rig.detail().ready && rig.published.is_empty());
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("no watermark")));
    project(&log, Position::START);
    rig.seconds(61);
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(true));
}

#[test]
fn nothing_is_served_of_a_table_that_contradicts_its_watermark() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "BLACKLIST 198.51.100.0/24"]);
    let view = folded(&log, Position::new(2));
    let wrong = Watermark { fingerprint: Fingerprint::default(), ..watermark(&view) };
    write_table(&log, &view, &wrong);
    let mut rig = FollowerRig::started(&log, Source::Table);
    rig.seconds(100);
    assert!(!rig.detail().ready && rig.published.is_empty());
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("contradicts")));
    let reads =
        rig.port.requests.iter().filter(|request| matches!(request, Request::Read(Topic::Table, ..))).count();
    assert!((3..40).contains(&reads), "{reads} tries in 100 s");
    project(&log, Position::new(2));
    rig.seconds(61);
    assert!(rig.detail().ready);
}

#[test]
fn a_table_in_the_middle_of_a_change_is_not_served() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24"]);
    project(&log, Position::new(1));
    let row = folded(&log, Position::new(1)).blacklist().rows().next().expect("a row");
    let (key, value) = RowChange::Put(row).encode();
    log.append_record(Topic::Table, TIME, Some(&key), value.as_deref());
    let rig = FollowerRig::started(&log, Source::Table);
    assert!(!rig.detail().ready);
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("middle of a change")));
}

#[test]
fn a_sign_of_life_behind_the_watermark_changes_nothing() {
    let log = memory_log();
    project(&log, Position::START);
    log.append_record(Topic::Table, TIME, Some(ALIVE_KEY), Some(b"{}"));
    assert!(FollowerRig::started(&log, Source::Table).detail().ready);
}

#[test]
fn a_watermark_of_another_fold_is_not_loaded() {
    let log = memory_log();
    log.append_record(Topic::Table, TIME, Some(b"@watermark"), Some(br#"{"v":1,"fold":2}"#));
    let rig = FollowerRig::started(&log, Source::Table);
    assert!(!rig.detail().ready);
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("rules 2")));
}

#[test]
fn a_table_that_stops_coming_is_read_again() {
    let log = memory_log();
    project(&log, Position::START);
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.port.readers_frozen = true;
    // The first of these seconds begins to read.
    rig.seconds(30);
    assert_eq!((rig.detail().phase, rig.detail().message.as_deref()), (Phase::Loading, None));
    rig.seconds(1);
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("nothing came")));
    rig.port.readers_frozen = false;
    rig.seconds(61);
    assert!(rig.detail().ready);
}

#[test]
fn a_log_that_does_not_reach_back_far_enough_is_a_gap() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.7", "BLACKLIST 203.0.113.8", "BLACKLIST 203.0.113.9"]);
    project(&log, Position::new(2));
    log.delete_before(Topic::Commands, Position::new(1));
    let mut rig = FollowerRig::started(&log, Source::Table);
    assert_eq!((rig.detail().ready, rig.detail().degraded), (false, Some(Degraded::Gap)));
    rig.seconds(120);
    assert!(!rig.detail().ready, "never from the log's own start");
    let rig = FollowerRig::started(&log, Source::Commands);
    assert_eq!((rig.detail().ready, rig.detail().degraded), (false, Some(Degraded::Gap)));
}

#[test]
fn the_window_of_ids_must_be_there_but_no_more() {
    let log = memory_log();
    for _ in 0..10_050 {
        append(&log, &["BLACKLIST 203.0.113.7"]);
    }
    project(&log, Position::new(10_020));
    log.delete_before(Topic::Commands, Position::new(20));
    assert!(FollowerRig::started(&log, Source::Table).detail().ready);
    log.delete_before(Topic::Commands, Position::new(21));
    assert_eq!(FollowerRig::started(&log, Source::Table).detail().degraded, Some(Degraded::Gap));
}

#[test]
fn a_table_of_another_cluster_or_topic_raises_the_alarm() {
    let names = [("cluster-2", "portcullis.commands"), ("cluster-1", "other.commands")];
    for (cluster_id, commands_topic) in names {
        let log = memory_log();
        project(&log, Position::START);
        log.rename(Identity { cluster_id: cluster_id.into(), commands_topic: commands_topic.into() });
        let rig = FollowerRig::started(&log, Source::Table);
        assert_eq!((rig.detail().phase, rig.detail().alarm), (Phase::Alarm, Some(Alarm::AnotherLog)));
        assert!(!rig.detail().ready);
    }
}

/// A follower at position 2 that served its first snapshot, and its log.
fn following() -> (portcullis::log::memory::MemoryLog, FollowerRig) {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "BLACKLIST 198.51.100.0/24"]);
    project(&log, Position::new(1));
    let rig = FollowerRig::started(&log, Source::Table);
    assert!(rig.detail().ready);
    (log, rig)
}

#[test]
fn a_shorter_log_is_another_one_after_ten_seconds_and_the_last_snapshot_stays() {
    let (log, mut rig) = following();
    let published = rig.published.len();
    log.recreate(Topic::Commands);
    append(&log, &["WHITELIST 203.0.113.0/24"]);
    rig.seconds(8);
    assert_eq!(rig.detail().alarm, None, "the end of a new leader may lag");
    rig.seconds(6);
    assert_eq!((rig.detail().phase, rig.detail().alarm), (Phase::Alarm, Some(Alarm::AnotherLog)));
    assert!(rig.detail().ready, "ready never goes back");
    assert_eq!((rig.published.len(), rig.blacklisted("203.0.113.7")), (published, Some(true)));
}

#[test]
fn an_end_that_lags_for_a_moment_is_no_alarm() {
    let (log, mut rig) = following();
    log.truncate(Topic::Commands, Position::new(1));
    rig.seconds(6);
    append(&log, &["BLACKLIST 198.51.100.0/24", "BLACKLIST 192.0.2.1"]);
    rig.seconds(6);
    assert_eq!((rig.detail().phase, rig.detail().alarm), (Phase::Following, None));
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true));
}

#[test]
fn a_longer_log_is_recognised_by_its_records_before_anything_of_it_is_folded() {
    let (log, mut rig) = following();
    // A deleted topic errs before its successor can be read.
    log.set_outage(Outage::Down);
    rig.seconds(2);
    log.set_outage(Outage::Up);
    log.recreate(Topic::Commands);
    append(
        &log,
        &["WHITELIST 0.0.0.0/9", "WHITELIST 203.0.113.0/24", "WHITELIST 203.0.113.0/24", "BLACKLIST 8.8.8.8"],
    );
    rig.seconds(20);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    assert_eq!((rig.blacklisted("203.0.113.7"), rig.blacklisted("8.8.8.8")), (Some(true), Some(false)));
}

#[test]
fn a_log_that_was_replaced_without_an_error_is_noticed_within_seconds() {
    let (log, mut rig) = following();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2", "BLACKLIST 192.0.2.3"]);
    rig.seconds(6);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    // The same of a log in which nothing happens.
    let (log, mut rig) = following();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2"]);
    rig.seconds(61);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn in_alarm_a_table_that_was_only_begun_frees_nothing() {
    let (log, mut rig) = following();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.seconds(15);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    let before = (rig.detail().position, rig.detail().rows);
    // An operator makes both topics anew, and nobody projects yet: an empty table agrees with any log.
    log.recreate(Topic::Table);
    let genesis = Watermark::genesis(identity().cluster_id, identity().commands_topic, rig.clock.wall);
    log.append_record(Topic::Table, rig.clock.wall, Some(WATERMARK_KEY), Some(&genesis.encode()));
    rig.seconds(300);
    assert_eq!((rig.detail().position, rig.detail().rows), before);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    // Nor does it once the log is longer than the one before it was.
    append(&log, &["BLACKLIST 192.0.2.1"; 40]);
    rig.seconds(300);
    assert_eq!((rig.detail().position, rig.detail().rows), before);
    // Nor when it stops behind all that was served.
    append(&log, &[FUTURE]);
    rig.seconds(300);
    assert_eq!((rig.detail().position, rig.detail().rows), before);
    assert!(rig.detail().message.as_deref().is_some_and(|text| text.contains("portcullis table rebuild")));
    // Once it holds what is in the new log, it is the operator's word.
    project(&log, Position::new(1));
    rig.seconds(200);
    assert_eq!((rig.detail().alarm, rig.detail().position), (None, Position::new(41)));
    assert_eq!(rig.detail().degraded, Some(Degraded::FutureCommand(Offset::new(41))));
}

#[test]
fn in_alarm_a_rebuilt_table_is_accepted_even_at_a_lower_position() {
    let (log, mut rig) = following();
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.seconds(15);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    rig.seconds(200);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog), "the old table does not match the new log");
    project(&log, Position::new(1));
    rig.seconds(95);
    assert_eq!((rig.detail().phase, rig.detail().alarm), (Phase::Following, None));
    assert_eq!(rig.detail().position, Position::new(1));
    assert_eq!((rig.blacklisted("192.0.2.1"), rig.blacklisted("203.0.113.7")), (Some(true), Some(false)));
}

#[test]
fn an_outage_is_no_error_the_list_stays_and_following_goes_on() {
    let (log, mut rig) = following();
    log.set_outage(Outage::Down);
    rig.seconds(30);
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(true));
    assert!(rig.detail().ready && rig.detail().alarm.is_none());
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(30)));
    log.set_outage(Outage::Up);
    append(&log, &["WHITELIST 203.0.113.0/24"]);
    rig.seconds(3);
    assert_eq!(rig.blacklisted("203.0.113.7"), Some(false));
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(2)), "{:?}", rig.age());
    assert_eq!(rig.detail().message, None);
}

#[test]
fn a_gap_while_following_keeps_the_list_until_the_window_of_ids_is_whole_again() {
    let (log, mut rig) = following();
    log.set_outage(Outage::Down);
    rig.seconds(2);
    append(&log, &["BLACKLIST 192.0.2.1"; 3]);
    log.delete_before(Topic::Commands, Position::new(4));
    log.set_outage(Outage::Up);
    rig.seconds(5);
    assert_eq!((rig.detail().degraded, rig.blacklisted("203.0.113.7")), (Some(Degraded::Gap), Some(true)));
    let mut view = View::default();
    view.advance_to(Position::new(4));
    write_table(&log, &view, &watermark(&view));
    rig.seconds(120);
    assert_eq!(rig.detail().degraded, Some(Degraded::Gap), "the ids before the table are gone too");
}

#[test]
fn a_position_below_the_served_one_is_not_published_without_an_alarm() {
    let (log, mut rig) = following();
    log.set_outage(Outage::Down);
    rig.seconds(2);
    log.set_outage(Outage::Up);
    let positions: Vec<_> = rig.published.iter().map(|snapshot| snapshot.position()).collect();
    assert!(positions.is_sorted());
    rig.seconds(3);
    let published = rig.published.len();
    // The log lost its end, and the table with it: that is the alarm's business, not a way back.
    log.truncate(Topic::Commands, Position::new(1));
    rig.seconds(9);
    assert_eq!(rig.published.len(), published);
}

#[test]
fn a_command_of_the_future_stops_the_fold_and_not_the_service() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1", FUTURE, "BLACKLIST 192.0.2.2"]);
    rig.seconds(200);
    assert_eq!(rig.detail().degraded, Some(Degraded::FutureCommand(Offset::new(3))));
    assert_eq!((rig.detail().ready, rig.detail().position), (true, Position::new(3)));
    assert_eq!((rig.blacklisted("192.0.2.1"), rig.blacklisted("192.0.2.2")), (Some(true), Some(false)));
    // A projector that was told to pass over it leads on.
    let mut view = folded(&log, Position::new(3));
    view.skip(Offset::new(3));
    let record = support::follower_rig::commands(&log, Position::new(3)).remove(0);
    view.apply(&record).expect("it is skipped");
    write_table(&log, &view, &watermark(&view));
    rig.seconds(200);
    assert_eq!((rig.detail().degraded, rig.detail().position), (None, Position::new(5)));
    assert_eq!(rig.blacklisted("192.0.2.2"), Some(true));
}

#[test]
fn a_reader_that_starts_before_a_command_of_the_future_serves_what_is_before_it() {
    let log = memory_log();
    append(&log, &["BLACKLIST 192.0.2.1", FUTURE]);
    let rig = FollowerRig::started(&log, Source::Commands);
    assert_eq!(rig.detail().degraded, Some(Degraded::FutureCommand(Offset::new(1))));
    assert_eq!((rig.detail().ready, rig.blacklisted("192.0.2.1")), (true, Some(true)));
    let mut rig = FollowerRig::skipping(&log, Source::Commands, [1]);
    rig.tick(Duration::ZERO);
    assert_eq!((rig.detail().degraded, rig.detail().position), (None, Position::new(2)));
}

#[test]
fn an_open_transaction_is_reported_and_stops_the_age_from_being_proven() {
    let (log, mut rig) = following();
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.1".to_vec())));
    append(&log, &["BLACKLIST 192.0.2.2"]);
    rig.seconds(4);
    assert_eq!(rig.detail().degraded, None);
    rig.seconds(4);
    assert_eq!(rig.detail().degraded, Some(Degraded::OpenTransaction));
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(7)), "{:?}", rig.age());
    for _ in 0..10 {
        rig.seconds(1);
        assert_eq!(rig.detail().degraded, Some(Degraded::OpenTransaction), "it does not flicker");
    }
    log.end(foreign, Topic::Commands, Ending::Abort);
    rig.seconds(2);
    assert_eq!((rig.detail().degraded, rig.detail().position), (None, Position::new(5)));
    assert_eq!((rig.blacklisted("192.0.2.1"), rig.blacklisted("192.0.2.2")), (Some(false), Some(true)));
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(1)));
}

#[test]
fn the_position_moves_over_what_is_no_record() {
    let (log, mut rig) = following();
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, TIME, (vec![], Some(b"BLACKLIST 192.0.2.1".to_vec())));
    log.end(foreign, Topic::Commands, Ending::Abort);
    rig.seconds(2);
    assert_eq!((rig.detail().position, rig.view().position()), (Position::new(4), Position::new(4)));
    assert_eq!(rig.published.last().map(|snapshot| snapshot.position()), Some(Position::new(4)));
}

#[test]
fn a_reader_that_stands_still_below_the_end_is_replaced() {
    let (log, mut rig) = following();
    rig.port.readers_frozen = true;
    append(&log, &["BLACKLIST 192.0.2.1"]);
    let readers = |rig: &FollowerRig| {
        rig.port
            .requests
            .iter()
            .filter(|request| matches!(request, Request::Read(Topic::Commands, ..)))
            .count()
    };
    let before = readers(&rig);
    rig.seconds(12);
    assert_eq!(readers(&rig), before);
    rig.seconds(6);
    assert_eq!(readers(&rig), before + 1);
    rig.seconds(28);
    assert_eq!(readers(&rig), before + 1, "its successor gets more time");
    rig.port.readers_frozen = false;
    rig.seconds(1);
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true));
}

#[test]
fn a_client_that_answers_nothing_is_replaced() {
    let (_, mut rig) = following();
    rig.port.questions_frozen = true;
    rig.seconds(29);
    assert!(!rig.port.requests.contains(&Request::RenewQuestioner));
    rig.seconds(2);
    assert!(rig.port.requests.contains(&Request::RenewQuestioner));
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(30)), "no answer, no proof");
    rig.port.questions_frozen = false;
    rig.seconds(2);
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(1)));
}

#[test]
fn what_an_earlier_reader_still_says_is_not_heard() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1"]);
    let records = support::follower_rig::commands(&log, Position::new(2));
    rig.handle(Event::Read(Topic::Commands, Session::default(), ReadEvent::Records(records)));
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(false));
}

#[test]
fn a_ban_ends_by_the_wall_clock_without_any_command() {
    let log = memory_log();
    let soon = TIME.after(Duration::from_secs(10));
    append(&log, &[&format!(r#"{{"v":1,"action":"BLACKLIST","range":"192.0.2.1","expires_at":"{soon}"}}"#)]);
    let mut rig = FollowerRig::started(&log, Source::Commands);
    rig.seconds(9);
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true));
    rig.seconds(1);
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(false));
    assert_eq!(rig.view().blacklist().row_counts().ipv4, 1, "the view keeps it for an hour of log time");
}

#[test]
fn a_table_may_be_written_while_it_is_read() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7", "BLACKLIST 192.0.2.0/24"]);
    project(&log, Position::new(1));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.handle(Event::Tick);
    if let Some(event) = rig.port.event() {
        rig.handle(event);
    }
    let mut zombie = log.table_writer(|| TIME);
    zombie.fence().expect("the log is up");
    zombie.write_open(vec![(b"203.0.113.0".to_vec(), None)]).expect("it is the newest writer");
    project(&log, Position::new(3));
    rig.settle();
    rig.seconds(3);
    assert!(rig.detail().ready);
    assert_eq!(rig.view(), folded(&log, Position::new(3)));
}

#[test]
fn the_age_counts_from_the_sending_of_the_question() {
    let (_, mut rig) = following();
    rig.port.answers_held = true;
    rig.seconds(6);
    rig.port.answers_held = false;
    rig.settle();
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(5)), "{:?}", rig.age());
}

#[test]
fn two_answers_are_not_enough_to_call_it_another_log() {
    let (log, mut rig) = following();
    log.truncate(Topic::Commands, Position::new(1));
    rig.seconds(1);
    rig.port.questions_frozen = true;
    rig.seconds(12);
    rig.port.questions_frozen = false;
    rig.settle();
    assert_eq!(rig.detail().alarm, None);
    rig.seconds(4);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn a_log_that_lost_its_end_is_noticed_without_its_reader() {
    let (log, mut rig) = following();
    rig.seconds(2);
    rig.port.readers_frozen = true;
    log.truncate(Topic::Commands, Position::new(1));
    rig.seconds(15);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn a_view_behind_the_served_one_is_not_published_after_a_command_of_the_future() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.1", FUTURE]);
    rig.seconds(2);
    assert_eq!(rig.detail().position, Position::new(3));
    log.truncate(Topic::Commands, Position::new(2));
    rig.seconds(200);
    let positions: Vec<_> = rig.published.iter().map(|snapshot| snapshot.position()).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert_eq!((rig.detail().position, rig.blacklisted("192.0.2.1")), (Position::new(3), Some(true)));
}

#[test]
fn the_id_of_a_skipped_command_is_not_recovered() {
    let log = memory_log();
    let with_id = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"203.0.113.7"}"#;
    append(&log, &[with_id]);
    let mut view = View::new([Offset::new(0)].into());
    let first = support::follower_rig::commands(&log, Position::START).remove(0);
    view.apply(&first).expect("it is skipped");
    write_table(&log, &view, &watermark(&view));
    append(&log, &[with_id]);
    let rig = FollowerRig::started(&log, Source::Table);
    assert_eq!((rig.detail().refused.duplicate, rig.blacklisted("203.0.113.7")), (0, Some(true)));
}

#[test]
fn a_question_that_failed_is_asked_again() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.7"]);
    project(&log, Position::new(1));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.port.failing =
        vec![Question::RecordAt(Offset::new(0)), Question::Identity, Question::Ends(Topic::Commands)];
    rig.seconds(4);
    assert!(rig.detail().ready, "{:?}", rig.detail());
}

#[test]
fn a_check_goes_on_with_the_client_that_replaces_a_silent_one() {
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.7"]);
    project(&log, Position::new(1));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.port.questions_frozen = true;
    rig.seconds(32);
    assert!(rig.port.requests.contains(&Request::RenewQuestioner));
    rig.port.questions_frozen = false;
    rig.seconds(3);
    assert!(rig.detail().ready, "{:?}", rig.detail());
}

#[test]
fn a_reader_that_always_fails_is_not_opened_in_a_loop() {
    let (log, mut rig) = following();
    rig.port.readers_fail = true;
    log.set_outage(Outage::Down);
    rig.seconds(1);
    log.set_outage(Outage::Up);
    let before = rig.port.requests.len();
    rig.seconds(300);
    let readers = rig.port.requests[before..].iter().filter(|it| matches!(it, Request::Read(..))).count();
    assert!((5..60).contains(&readers), "{readers} readers in 300 s");
    rig.port.readers_fail = false;
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.seconds(61);
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true));
}

#[test]
fn outages_of_long_ago_do_not_make_the_next_one_longer() {
    let (log, mut rig) = following();
    // Nothing is written meanwhile, so that no reader ever gets a record.
    for _ in 0..10 {
        log.set_outage(Outage::Down);
        rig.seconds(1);
        log.set_outage(Outage::Up);
        rig.seconds(60);
    }
    log.set_outage(Outage::Down);
    rig.seconds(1);
    log.set_outage(Outage::Up);
    append(&log, &["BLACKLIST 192.0.2.1"]);
    rig.seconds(5);
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(true));
}

#[test]
fn an_answer_from_before_an_error_proves_nothing_after_it() {
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.9"]);
    // So that the newest record is the one that the next watch asks for.
    rig.seconds(10);
    rig.port.answers_held = true;
    // The watch asks for the record of the log that is still the one …
    rig.seconds(61);
    // … and is answered after that log was replaced and its reader failed.
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"; 5]);
    log.set_outage(Outage::Down);
    rig.settle();
    log.set_outage(Outage::Up);
    rig.port.answers_held = false;
    rig.seconds(5);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    assert_eq!(rig.blacklisted("192.0.2.1"), Some(false), "nothing of it was folded");
}

#[test]
fn a_replaced_log_is_noticed_though_a_watch_failed_and_though_there_was_none_yet() {
    // The one question that asks for an old record fails once.
    let (log, mut rig) = following();
    append(&log, &["BLACKLIST 192.0.2.9"]);
    rig.seconds(6);
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"; 5]);
    rig.port.failing = (0..8).map(|offset| Question::RecordAt(Offset::new(offset))).collect();
    rig.seconds(30);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
    // A follower without a table, whose log is replaced before the first watch.
    let log = memory_log();
    append(&log, &["BLACKLIST 203.0.113.7"]);
    let mut rig = FollowerRig::started(&log, Source::Commands);
    rig.tick(Duration::from_millis(250));
    log.recreate(Topic::Commands);
    append(&log, &["BLACKLIST 192.0.2.1"; 2]);
    rig.seconds(70);
    assert_eq!(rig.detail().alarm, Some(Alarm::AnotherLog));
}

#[test]
fn an_end_that_lags_behind_the_table_does_not_cut_the_ids_short() {
    let log = memory_log();
    let with_id = r#"{"v":1,"id":"a","action":"BLACKLIST","range":"203.0.113.7"}"#;
    append(&log, &["BLACKLIST 192.0.2.1", with_id]);
    project(&log, Position::new(2));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.port.readers_frozen = true;
    rig.tick(Duration::ZERO);
    rig.port.readers_frozen = false;
    let session = |rig: &FollowerRig| {
        let mut reads = rig.port.requests.iter().rev();
        reads.find_map(|request| match request {
            Request::Read(Topic::Commands, session, _) => Some(*session),
            _ => None,
        })
    };
    // Only the table is read, until the reader of the commands is open.
    while session(&rig).is_none() {
        let event = rig.port.event().expect("the log answers");
        rig.handle(event);
    }
    let early = ReadEvent::End(Position::new(1));
    let session = session(&rig).expect("it is open");
    rig.handle(Event::Read(Topic::Commands, session, early));
    assert!(!rig.detail().ready);
    rig.settle();
    assert!(rig.detail().ready);
    append(&log, &["WHITELIST 203.0.113.7", with_id]);
    rig.seconds(1);
    assert_eq!(rig.detail().refused.duplicate, 1);
}

#[test]
fn retention_while_the_log_is_checked_is_a_gap_and_no_alarm() {
    let log = memory_log();
    append(&log, &["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2"]);
    project(&log, Position::new(1));
    let mut rig = FollowerRig::new(&log, Source::Table);
    rig.handle(Event::Tick);
    while !rig.port.requests.contains(&Request::Ask(Question::RecordAt(Offset::new(0)))) {
        let event = rig.port.event().expect("the log answers");
        rig.handle(event);
    }
    log.delete_before(Topic::Commands, Position::new(1));
    rig.seconds(3);
    assert_eq!((rig.detail().alarm, rig.detail().degraded), (None, Some(Degraded::Gap)));
}
