//! The projector over a log in memory: each rule with its failing case, and random histories.

#[path = "projector/histories.rs"]
mod histories;
#[path = "projector/readers.rs"]
mod readers;
#[path = "projector/rebuild.rs"]
mod rebuild;
#[path = "projector/roles.rs"]
mod roles;
mod support;
#[path = "projector/unfinished.rs"]
mod unfinished;

use portcullis::log::memory::{Ending, MemoryLog, Outage, Tombstones};
use portcullis::log::{TableWriter, Topic};
use portcullis::projector::{Event, Reason, Role, TRANSACTION_COMMANDS_MAX, TRANSACTION_ROWS_MAX};
use portcullis::record::{Offset, Position, Timestamp};
use portcullis::status::Degraded;
use portcullis::table::{ALIVE_KEY, Anchor, RowChange, WATERMARK_KEY, Watermark};
use support::projector_rig::*;

const NOW: Timestamp = Timestamp::from_millis(0);

fn last_watermark(log: &MemoryLog) -> Watermark {
    check_whole(log, &table_of(log))
}

// Taking over.

#[test]
fn a_released_table_is_taken_over_at_once_and_a_fence_comes_before_the_table_is_read() {
    let log = begun_log();
    command(&log, "BLACKLIST 203.0.113.0/24");
    let rig = Rig::active(&log);
    assert_eq!(rig.deeds[..4], [Deed::ReadTable, Deed::Fence, Deed::Alive, Deed::ReadTable]);
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows, watermark.released), (Position::new(1), 1, false));
    assert_eq!(watermark.projector, "projector-1");
    assert_eq!((watermark.cluster_id.as_str(), watermark.commands_topic.as_str()), ("cluster", "commands"));
    let status = rig.projector.status();
    assert_eq!((status.position, status.rows), (watermark.position, watermark.rows));
    assert_eq!(status.fingerprint, watermark.fingerprint);
}

#[test]
fn a_table_that_is_alive_is_left_alone_and_a_silent_one_is_taken_over() {
    let log = begun_log();
    let mut first = Rig::active(&log);
    first.pass(seconds(6));
    let mut second = Rig::new(&log, 2);
    for _ in 0..60 {
        first.pass(seconds(1));
        second.pass(seconds(1));
    }
    assert_eq!((first.role(), second.role()), (Role::Active, Role::Standby));
    assert_eq!(second.count(&Deed::Fence), 0);
    second.pass(TAKEOVER_AFTER - seconds(7));
    assert_eq!(second.role(), Role::Standby, "not before takeover_after");
    second.pass(TAKEOVER_SURE);
    assert_eq!(second.role(), Role::Active);
}

#[test]
fn any_sign_of_life_counts_even_one_that_is_not_committed() {
    let log = begun_log();
    write_watermark(&log, &Watermark { released: false, ..genesis() });
    let mut rig = Rig::new(&log, 1);
    let mut other = log.table_writer(|| NOW);
    for turn in 0..12 {
        rig.pass(seconds(10));
        if turn % 2 == 0 {
            log.append_record(Topic::Table, NOW, Some(ALIVE_KEY), Some(b"{}"));
        } else {
            other.fence().expect("the log is up");
            other.write_open(vec![(ALIVE_KEY.to_vec(), None)]).expect("nobody else writes");
        }
    }
    assert_eq!((rig.role(), rig.count(&Deed::Fence)), (Role::Standby, 0));
}

#[test]
fn the_own_outage_is_no_sign_of_the_others_death() {
    let log = begun_log();
    write_watermark(&log, &Watermark { released: false, ..genesis() });
    let mut rig = Rig::new(&log, 1);
    rig.pass(seconds(10));
    rig.set_outage(Outage::Down);
    rig.pass(seconds(120));
    rig.set_outage(Outage::Up);
    rig.pass(seconds(10));
    assert_eq!(rig.count(&Deed::Fence), 0);
    rig.port.questions_frozen = true;
    rig.pass(seconds(29));
    rig.port.questions_frozen = false;
    rig.pass(seconds(10));
    assert_eq!(rig.count(&Deed::Fence), 0, "unanswered questions are an outage too");
    rig.pass(seconds(120));
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn a_release_is_taken_up_once() {
    let log = begun_log();
    let (mut first, mut second) = (Rig::new(&log, 1), Rig::new(&log, 2));
    first.fate = Fate::Slow;
    first.pass(seconds(1));
    first.answer_writes();
    first.fate = Fate::Done;
    second.pass(seconds(1));
    first.pass(seconds(2));
    assert_eq!(
        (first.role(), second.role()),
        (Role::Standby, Role::Active),
        "the second one fenced the first"
    );
    for _ in 0..30 {
        first.pass(seconds(1));
        second.pass(seconds(1));
    }
    assert_eq!((first.count(&Deed::Fence), second.count(&Deed::Fence)), (1, 1), "nobody fences back");
    // A third one sees the same released watermark, but a sign of life behind it.
    let claimed = begun_log();
    claimed.append_record(Topic::Table, NOW, Some(ALIVE_KEY), Some(b"{}"));
    let mut third = Rig::new(&claimed, 3);
    third.pass(seconds(10));
    assert_eq!(third.count(&Deed::Fence), 0);
}

// Tables and logs that are not to be written.

fn stays_stopped(rig: &mut Rig, reason: Reason) {
    let before = all_records(&rig.port.log, Topic::Table, Position::START).0;
    assert_eq!(rig.role(), Role::Stopped(reason), "{}", rig.message());
    rig.pass(seconds(50));
    assert_eq!(rig.role(), Role::Stopped(reason), "{}", rig.message());
    let rows = |records: &[portcullis::record::Record]| {
        records.iter().filter(|record| record.key.as_deref() != Some(ALIVE_KEY)).count()
    };
    let after = all_records(&rig.port.log, Topic::Table, Position::START).0;
    assert_eq!(rows(&after), rows(&before), "it wrote");
    assert_eq!(rig.transactions(), []);
}

#[test]
fn a_table_without_watermark_is_never_written_and_looked_at_again() {
    let log = MemoryLog::new(identity());
    command(&log, "BLACKLIST 203.0.113.0/24");
    let mut rig = Rig::new(&log, 1);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::NoWatermark);
    assert!(rig.message().contains("topics create"));
    rig.pass(seconds(120));
    assert_eq!(rig.deeds.iter().filter(|deed| **deed != Deed::ReadTable).count(), 0);
    // Just after it looked.
    let looks = rig.count(&Deed::ReadTable);
    for _ in 0..100 {
        if rig.count(&Deed::ReadTable) == looks {
            rig.pass(seconds(1));
        }
    }
    rig.pass(seconds(1));
    write_watermark(&log, &genesis());
    // Sooner than after other reasons to stop: whoever starts everything at once should not have to wait.
    rig.pass(seconds(10));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 1));
}

#[test]
fn a_watermark_of_another_release_is_not_even_fenced() {
    for value in [r#"{"v":2}"#, r#"{"v":1,"fold":2}"#, "garbage"] {
        let log = begun_log();
        log.append_record(Topic::Table, NOW, Some(WATERMARK_KEY), Some(value.as_bytes()));
        let mut rig = Rig::new(&log, 1);
        rig.pass(seconds(2));
        stays_stopped(&mut rig, Reason::Watermark);
        assert_eq!(rig.count(&Deed::Fence), 0);
    }
}

#[test]
fn a_table_of_another_cluster_or_topic_is_not_even_fenced() {
    for (cluster_id, topic) in [("other", "commands"), ("cluster", "other")] {
        let log = MemoryLog::new(identity());
        let (cluster_id, commands_topic) = (cluster_id.to_owned(), topic.to_owned());
        write_watermark(&log, &Watermark { cluster_id, commands_topic, ..genesis() });
        let mut rig = Rig::new(&log, 1);
        rig.pass(seconds(2));
        stays_stopped(&mut rig, Reason::AnotherLog);
        assert_eq!(rig.count(&Deed::Fence), 0);
    }
}

#[test]
fn topics_that_are_not_set_as_they_must_be_are_not_even_fenced() {
    let log = begun_log();
    command(&log, "BLACKLIST 203.0.113.0/24");
    log.set_topic_settings(Some("portcullis.table: cleanup.policy is delete"));
    let mut rig = Rig::new(&log, 1);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::TopicSettings);
    assert!(rig.message().contains("cleanup.policy"));
    assert_eq!(rig.count(&Deed::Fence), 0);
    log.set_topic_settings(None);
    rig.pass(seconds(65));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 1));
}

#[test]
fn an_active_projector_says_that_the_settings_are_wrong_and_goes_on() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    log.set_topic_settings(Some("portcullis.table: cleanup.policy is delete"));
    rig.pass(seconds(3_602));
    assert_eq!((rig.role(), rig.projector.status().degraded), (Role::Active, Some(Degraded::TopicSettings)));
    assert!(rig.message().contains("cleanup.policy"));
    command(&log, "BLACKLIST 203.0.113.0/24");
    rig.pass(seconds(1));
    assert_eq!(last_watermark(&log).rows, 1);
    log.set_topic_settings(None);
    rig.pass(seconds(62));
    assert_eq!((rig.projector.status().degraded, rig.projector.status().message.as_deref()), (None, None));
}

/// A log with a table that a projector made from three commands, and then released.
fn projected() -> MemoryLog {
    let log = begun_log();
    for range in ["203.0.113.0/24", "192.0.2.7", "2001:db8::/32"] {
        command(&log, &format!("BLACKLIST {range}"));
    }
    let mut rig = Rig::active(&log);
    rig.handle(Event::Stop);
    rig.settle();
    assert!(rig.stopped && last_watermark(&log).released);
    log
}

#[test]
fn a_log_that_is_another_one_stops_it() {
    let recreated = projected();
    recreated.recreate(Topic::Commands);
    for _ in 0..5 {
        command(&recreated, "WHITELIST 203.0.113.0/24");
    }
    let shorter = projected();
    shorter.recreate(Topic::Commands);
    // An end that lags is believed only after 10 s.
    for (log, patience) in [(recreated, 2), (shorter, 13)] {
        let mut rig = Rig::new(&log, 2);
        rig.pass(seconds(patience));
        stays_stopped(&mut rig, Reason::AnotherLog);
    }
}

#[test]
fn a_record_where_there_was_none_is_of_another_log() {
    let log = begun_log();
    command(&log, "BLACKLIST 203.0.113.0/24");
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, NOW, (Vec::new(), Some(b"BLACKLIST 192.0.2.9".to_vec())));
    log.end(foreign, Topic::Commands, Ending::Abort);
    let mut rig = Rig::active(&log);
    rig.handle(Event::Stop);
    rig.settle();
    assert_eq!(last_watermark(&log).position, Position::new(3));
    // Restored as it was before the transaction, and written to since: the last record is still the same.
    log.truncate(Topic::Commands, Position::new(1));
    for number in 0..3 {
        command(&log, &format!("BLACKLIST 192.0.2.{number}"));
    }
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::AnotherLog);
}

#[test]
fn a_log_that_was_cut_off_below_the_position_stops_it() {
    let log = projected();
    command(&log, "BLACKLIST 192.0.2.9");
    log.delete_before(Topic::Commands, Position::new(3));
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::Gap);
}

#[test]
fn a_topic_that_is_made_anew_while_it_is_read_is_noticed() {
    let log = begun_log();
    command(&log, "BLACKLIST 203.0.113.0/24");
    let mut rig = Rig::active(&log);
    let before = last_watermark(&log);
    log.recreate(Topic::Commands);
    command(&log, "BLACKLIST 198.51.100.0/24");
    rig.pass(seconds(10));
    assert_eq!(rig.role(), Role::Stopped(Reason::AnotherLog));
    let table = table_of(&log);
    let after = table.check().expect("the table is whole");
    assert_eq!((after.position, after.fingerprint), (before.position, before.fingerprint));
}

// Transactions.

#[test]
fn a_transaction_takes_100_ms_of_commands_and_its_watermark_is_last() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    let before = rig.transactions().len();
    command(&log, "BLACKLIST 203.0.113.0/24");
    rig.settle();
    let due = rig.clock.now + TRANSACTION_COMMANDS_MAX;
    assert_eq!(rig.tick_at.take(), Some(due), "it wants to be woken");
    command(&log, "BLACKLIST 203.0.113.0/25");
    command(&log, "WHITELIST 203.0.113.7");
    rig.settle();
    assert_eq!((rig.transactions().len(), rig.tick_at), (before, None), "once is enough");
    rig.step(std::time::Duration::from_millis(100));
    assert_eq!(rig.transactions().len(), before + 1);
    let keys: Vec<&[u8]> = rig.commits.last().expect("a commit").iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [&b"203.0.113.8"[..], b"203.0.113.0", WATERMARK_KEY]);
    assert_eq!(last_watermark(&log).anchor.map(|anchor| anchor.offset), Some(Offset::new(2)));
}

#[test]
fn a_key_is_written_once_with_its_last_value() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    for value in [
        "BLACKLIST 192.0.2.1",
        "WHITELIST 192.0.2.1",
        "BLACKLIST 192.0.2.1",
        "BLACKLIST 192.0.2.5",
        "WHITELIST 192.0.2.5",
    ] {
        command(&log, value);
    }
    rig.pass(seconds(1));
    let (rows, watermark) = rig.transactions().pop().expect("a transaction");
    assert_eq!((rows, watermark.rows), (2, 1));
    let (key, value) = &rig.commits.last().expect("a commit")[0];
    assert_eq!(key, b"192.0.2.1");
    assert!(String::from_utf8_lossy(value.as_deref().expect("a row")).contains("\"command\":2"));
    last_watermark(&log);
}

#[test]
fn fifty_thousand_rows_are_one_transaction_and_so_is_one_command_of_more() {
    let log = begun_log();
    let rows = TRANSACTION_ROWS_MAX + 10;
    for at in 0..rows {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * at as u32);
        command(&log, &format!("BLACKLIST {ip}"));
    }
    let mut rig = Rig::new(&log, 1);
    rig.pass(seconds(1));
    rig.fate = Fate::Slow;
    rig.pass(seconds(1));
    command(&log, "WHITELIST 10.0.0.0/8");
    rig.answer_writes();
    rig.fate = Fate::Done;
    rig.pass(seconds(1));
    let sizes: Vec<usize> =
        rig.transactions().iter().map(|(rows, _)| *rows).filter(|rows| *rows > 0).collect();
    assert_eq!(sizes, [TRANSACTION_ROWS_MAX, 10, rows]);
    assert_eq!(table_of(&log).check().expect("the table is whole").rows, 0);
}

#[test]
fn a_refused_command_and_what_leaves_no_record_move_the_position() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    command(&log, "BLACKLIST everything");
    rig.pass(seconds(1));
    let garbage = last_watermark(&log);
    assert_eq!((garbage.position, garbage.rows), (Position::new(1), 0));
    assert_eq!(rig.undecodable, [Offset::new(0)]);
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, NOW, (Vec::new(), Some(b"BLACKLIST 192.0.2.1".to_vec())));
    log.end(foreign, Topic::Commands, Ending::Abort);
    rig.pass(seconds(1));
    let aborted = last_watermark(&log);
    assert_eq!((aborted.position, aborted.anchor), (Position::new(3), garbage.anchor));
}

#[test]
fn while_a_transaction_is_under_way_at_most_one_more_is_filled() {
    for heedless in [false, true] {
        let log = begun_log();
        let mut rig = Rig::active(&log);
        rig.heedless = heedless;
        rig.fate = Fate::Slow;
        command(&log, "BLACKLIST 192.0.2.1");
        rig.pass(seconds(1));
        // One command fills the batch twice over; the one behind it has to wait.
        command(&log, "BLACKLIST 10.0.0.0/8");
        for at in 0..TRANSACTION_ROWS_MAX {
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * at as u32 + 1);
            command(&log, &format!("WHITELIST {ip}"));
        }
        let opened = readers::opened(&rig, Topic::Commands).len();
        rig.pass(seconds(3));
        assert!(!rig.projector.wants_records());
        let anew = readers::opened(&rig, Topic::Commands).len() > opened;
        assert_eq!(anew, heedless, "what is not wanted is not kept, and must be read again");
        let before = rig.port.requests.len();
        rig.pass(seconds(10));
        assert!(rig.port.requests.len() - before < 100, "no tight loop");
        rig.fate = Fate::Done;
        rig.answer_writes();
        rig.pass(seconds(4));
        assert!(rig.projector.wants_records());
        let table = table_of(&log);
        let watermark = table.check().expect("the table is whole");
        assert_eq!(watermark.position, Position::new(2 + TRANSACTION_ROWS_MAX as u64));
    }
}

#[test]
fn a_sign_of_life_is_given_while_there_is_nothing_to_commit_yet() {
    let log = begun_log();
    let mut rig = Rig::new(&log, 1);
    rig.fate = Fate::Slow;
    rig.pass(seconds(1));
    rig.fate = Fate::Done;
    rig.port.readers_frozen = true;
    rig.answer_writes();
    rig.pass(seconds(21));
    assert_eq!(rig.count(&Deed::Alive), 5);
    rig.port.readers_frozen = false;
    rig.pass(seconds(60));
    assert_eq!(rig.role(), Role::Active);
    assert!(rig.count(&Deed::Alive) <= 7);
}

// Being at the end.

#[test]
fn with_no_commands_a_watermark_is_written_every_5_s_by_proof_only() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    assert_eq!(rig.transactions(), [], "to have taken over is no news");
    rig.pass(seconds(60));
    let count = rig.transactions().len();
    assert!((10..=13).contains(&count), "{count}");
    rig.port.questions_frozen = true;
    rig.pass(seconds(20));
    assert!(rig.transactions().len() <= count + 1, "without a proof it says nothing");
    rig.port.questions_frozen = false;
    rig.pass(seconds(20));
    assert!(rig.transactions().len() > count + 1, "{}", rig.message());
    assert_eq!(rig.role(), Role::Active);
}

#[test]
fn without_a_proof_the_reader_is_replaced_and_then_the_role_given_up() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    let foreign = log.begin();
    log.append_to(foreign, Topic::Commands, NOW, (Vec::new(), Some(b"BLACKLIST 192.0.2.1".to_vec())));
    let opened = |rig: &Rig| {
        let is_open = |request: &&portcullis::log::Request| {
            matches!(request, portcullis::log::Request::Read(Topic::Commands, ..))
        };
        rig.port.requests.iter().filter(is_open).count()
    };
    assert_eq!(opened(&rig), 1);
    rig.pass(seconds(28));
    assert_eq!((opened(&rig), rig.role()), (1, Role::Active));
    rig.pass(seconds(6));
    assert_eq!((opened(&rig), rig.role()), (2, Role::Active));
    rig.pass(seconds(20));
    assert_eq!((opened(&rig), rig.role()), (2, Role::Active));
    rig.pass(seconds(8));
    assert_eq!(rig.role(), Role::Standby);
    log.end(foreign, Topic::Commands, Ending::Commit);
    rig.pass(TAKEOVER_SURE);
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 1));
}

#[test]
fn a_reader_that_swallows_everything_is_replaced() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.port.readers_frozen = true;
    command(&log, "BLACKLIST 192.0.2.1");
    rig.pass(seconds(35));
    rig.port.readers_frozen = false;
    rig.pass(seconds(2));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 1));
}

// Losing the role.

#[test]
fn a_fenced_projector_is_a_standby_again() {
    let log = begun_log();
    let mut first = Rig::active(&log);
    log.table_writer(|| NOW).fence().expect("the log is up");
    command(&log, "BLACKLIST 192.0.2.1");
    first.pass(seconds(1));
    assert_eq!((first.role(), first.count(&Deed::Fence)), (Role::Standby, 1));
    first.pass(TAKEOVER_SURE);
    assert_eq!((first.role(), first.count(&Deed::Fence)), (Role::Active, 2));
    assert_eq!(last_watermark(&log).rows, 1);
}

#[test]
fn an_unknown_outcome_means_a_new_producer_and_a_table_read_again() {
    for fate in [Fate::DoneUnknown, Fate::OpenUnknown] {
        let log = begun_log();
        let mut rig = Rig::active(&log);
        command(&log, "BLACKLIST 192.0.2.1");
        rig.fate = fate;
        rig.settle();
        rig.step(std::time::Duration::from_millis(100));
        rig.fate = Fate::Done;
        rig.deeds.clear();
        command(&log, "BLACKLIST 192.0.2.2");
        rig.pass(seconds(10));
        assert_eq!(rig.deeds[..3], [Deed::Fence, Deed::Alive, Deed::ReadTable], "{fate:?}");
        assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 2));
    }
}

#[test]
fn unknown_outcomes_never_make_a_tight_loop_and_end_as_a_standby() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.fate = Fate::OpenUnknown;
    rig.pass(seconds(600));
    let fences = rig.count(&Deed::Fence);
    assert!((4..=200).contains(&fences), "{fences}");
    // A standby that may not write looks like any other, but for this.
    for _ in 0..60 {
        rig.pass(seconds(1));
        assert_ne!(rig.message(), "", "it says what keeps it from writing");
    }
    rig.set_outage(Outage::Down);
    rig.fate = Fate::Done;
    rig.pass(seconds(600));
    rig.set_outage(Outage::Up);
    rig.pass(seconds(120));
    assert_eq!((rig.role(), rig.message()), (Role::Active, String::new()));
    last_watermark(&log);
}

#[test]
fn a_write_that_is_never_answered_is_lost() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    rig.fate = Fate::Slow;
    command(&log, "BLACKLIST 192.0.2.1");
    rig.pass(seconds(119));
    assert_eq!(rig.count(&Deed::Fence), 1);
    rig.pass(seconds(10));
    assert_eq!(rig.count(&Deed::Fence), 2);
    rig.answer_writes();
    rig.fate = Fate::Done;
    rig.pass(seconds(60));
    assert_eq!((rig.role(), last_watermark(&log).rows), (Role::Active, 1));
}

// Repair.

/// Damages the table of a projected log behind its last watermark.
fn damage(log: &MemoryLog) -> Watermark {
    let watermark = last_watermark(log);
    let (key, value) = RowChange::Put(foreign_row()).encode();
    for (key, value) in [
        (&key[..], value.as_deref()),
        (b"192.0.2.7", None),
        (b"203.0.113.0", Some(&b"{}"[..])),
        (b"203.000.113.0", Some(b"x")),
        (b"\xff", Some(b"x")),
    ] {
        log.append_record(Topic::Table, NOW, Some(key), value);
    }
    write_watermark(log, &watermark);
    assert!(table_of(log).check().is_err());
    watermark
}

#[test]
fn a_table_that_contradicts_its_watermark_is_repaired_in_one_transaction() {
    let log = projected();
    let before = damage(&log);
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    let (rows, after) = rig.transactions().remove(0);
    assert_eq!(rows, 5);
    assert_eq!((after.rows, after.fingerprint), (before.rows, before.fingerprint));
    assert_eq!(last_watermark(&log).anchor, before.anchor);
    assert_eq!(table_of(&log).undecodable_keys().count(), 0);
}

/// Its readers are never told of an end: there always is one more command.
#[test]
fn a_table_is_repaired_though_its_log_never_rests() {
    let log = projected();
    let before = damage(&log);
    let mut rig = Rig::new(&log, 2);
    rig.port.restless = true;
    rig.pass(seconds(1));
    let (rows, after) = rig.transactions().remove(0);
    assert_eq!((rows, after.fingerprint), (5, before.fingerprint));
    command(&log, "WHITELIST 192.0.2.7");
    rig.pass(seconds(1));
    assert_eq!(check_whole(&log, &table_of(&log)).position, Position::new(4));
}

#[test]
fn a_repair_needs_the_whole_log_and_the_right_one() {
    let log = projected();
    damage(&log);
    log.delete_before(Topic::Commands, Position::new(1));
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::Unrepairable);

    let log = projected();
    damage(&log);
    log.recreate(Topic::Commands);
    for _ in 0..9 {
        command(&log, "BLACKLIST 192.0.2.1");
    }
    let mut rig = Rig::new(&log, 2);
    rig.pass(seconds(2));
    stays_stopped(&mut rig, Reason::AnotherLog);
}

// Commands of the future.

#[test]
fn a_command_of_the_future_stops_it_behind_what_is_before_it() {
    let log = begun_log();
    command(&log, "BLACKLIST 192.0.2.1");
    command(&log, r#"{"v":2}"#);
    command(&log, "BLACKLIST 192.0.2.2");
    let mut rig = Rig::new(&log, 1);
    rig.pass(seconds(2));
    assert_eq!(rig.role(), Role::Stopped(Reason::FutureCommand(Offset::new(1))));
    assert!(rig.message().contains("--skip-offset 1"));
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows), (Position::new(1), 1));
    rig.pass(seconds(300));
    assert!(rig.count(&Deed::Fence) <= 6, "no tight loop");

    let mut told = settings(2);
    told.skip_offsets = [Offset::new(0), Offset::new(1)].into();
    let mut rig = Rig::with(&log, told, rig.clock);
    rig.pass(seconds(2));
    let watermark = last_watermark(&log);
    assert_eq!((watermark.position, watermark.rows), (Position::new(3), 2));
    assert_eq!(watermark.skipped, [Offset::new(1)].into(), "only what is of the future is passed over");

    // Whoever comes after need not be told, and a repair honours it.
    rig.handle(Event::Stop);
    rig.settle();
    damage_nothing_but_a_row(&log);
    let mut rig = Rig::new(&log, 3);
    rig.pass(seconds(2));
    assert_eq!(last_watermark(&log).skipped, [Offset::new(1)].into());
    assert_eq!(rig.role(), Role::Active);
}

fn damage_nothing_but_a_row(log: &MemoryLog) {
    let watermark = last_watermark(log);
    log.append_record(Topic::Table, NOW, Some(b"192.0.2.1"), None);
    write_watermark(log, &watermark);
}

// Stopping.

#[test]
fn a_stop_commits_what_is_pending_and_releases_the_table() {
    let log = begun_log();
    let mut rig = Rig::active(&log);
    command(&log, "BLACKLIST 192.0.2.1");
    rig.settle();
    rig.handle(Event::Stop);
    rig.settle();
    assert!(rig.stopped);
    assert_eq!(rig.role(), Role::Stopped(Reason::Stop));
    let watermark = last_watermark(&log);
    assert_eq!((watermark.rows, watermark.released), (1, true));
    let mut next = Rig::new(&log, 2);
    next.pass(seconds(1));
    assert_eq!(next.role(), Role::Active);
}

#[test]
fn a_stop_waits_for_a_transaction_under_way_and_no_longer() {
    for fate in [Fate::Done, Fate::OpenUnknown] {
        let log = begun_log();
        let mut rig = Rig::active(&log);
        rig.fate = Fate::Slow;
        command(&log, "BLACKLIST 192.0.2.1");
        rig.pass(seconds(1));
        rig.handle(Event::Stop);
        assert!(!rig.stopped);
        rig.fate = fate;
        rig.answer_writes();
        rig.settle();
        assert!(rig.stopped);
        assert_eq!(last_watermark(&log).rows, u64::from(fate == Fate::Done));
    }
    // Nor for a log that can't be asked any more, or turns out to be another one.
    for replaced in [false, true] {
        let log = begun_log();
        let mut rig = Rig::active(&log);
        command(&log, "BLACKLIST 192.0.2.1");
        rig.pass(seconds(1));
        command(&log, "BLACKLIST 192.0.2.2");
        rig.settle();
        if replaced {
            log.recreate(Topic::Commands);
            (0..9).for_each(|_| assert!(command(&log, "BLACKLIST 192.0.2.3").number() < 9));
        } else {
            log.set_outage(Outage::Down);
        }
        rig.handle(Event::Stop);
        rig.pass(seconds(70));
        assert!(rig.stopped, "{:?}", rig.role());
        log.set_outage(Outage::Up);
        assert_eq!(table_of(&log).check().expect("it is whole").rows, 1);
    }
    let mut standby = Rig::new(&MemoryLog::default(), 1);
    standby.handle(Event::Stop);
    assert!(standby.stopped);
    assert_eq!(standby.deeds, []);
}

#[test]
fn an_old_table_is_not_believed_before_the_own_sign_of_life_is_read() {
    let log = projected();
    let mut rig = Rig::new(&log, 2);
    rig.fate = Fate::Slow;
    rig.pass(seconds(1));
    // The fence is answered, the sign of life is under way: the table's end is not the end yet.
    rig.answer_writes();
    rig.fate = Fate::Slow;
    rig.pass(seconds(3));
    assert_eq!((rig.role(), rig.count(&Deed::Fence)), (Role::Standby, 1));
    let asks_commands = |rig: &Rig| {
        use portcullis::log::{Question, Request};
        rig.port.requests.contains(&Request::Ask(Question::Ends(Topic::Commands)))
    };
    assert!(!asks_commands(&rig));
    rig.fate = Fate::Done;
    rig.answer_writes();
    rig.pass(seconds(3));
    assert!(asks_commands(&rig));
    let anchor = last_watermark(&log).anchor.expect("three commands");
    let last = all_records(&log, Topic::Commands, Position::START).0.pop().expect("three commands");
    assert_eq!(anchor, Anchor::of(&last));
    log.compact(Tombstones::Kept);
}
