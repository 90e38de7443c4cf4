use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn now() -> Timestamp {
    NOW
}

fn write(key: &str, value: Option<&str>) -> TableWrite {
    (key.into(), value.map(Into::into))
}

fn values(log: &MemoryLog, topic: Topic) -> Vec<String> {
    let records = log.read(topic, Position::START).expect("the log is up").records;
    let show = |record: Record| String::from_utf8(record.value.unwrap_or_default()).expect("text");
    records.into_iter().map(show).collect()
}

#[test]
fn an_open_transaction_hides_what_is_behind_it() {
    let log = MemoryLog::default();
    log.append_record(Topic::Commands, NOW, None, Some(b"a"));
    let id = log.begin();
    log.append_to(id, Topic::Commands, NOW, write("", Some("b")));
    log.append_record(Topic::Commands, NOW, None, Some(b"c"));
    assert_eq!(values(&log, Topic::Commands), ["a"]);
    let Answer::Ends(_, ends) = log.answer(Question::Ends(Topic::Commands)) else { panic!("no ends") };
    assert_eq!((ends.high, ends.stable), (Position::new(3), Position::new(1)));
    log.end(id, Topic::Commands, Ending::Abort);
    assert_eq!(values(&log, Topic::Commands), ["a", "c"]);
    let delivery = log.read(Topic::Commands, Position::START).expect("the log is up");
    assert_eq!(delivery.position, Position::new(4), "the mark is passed over");
}

#[test]
fn a_new_writer_fences_the_old_one_and_aborts_what_it_left() {
    let log = MemoryLog::default();
    let (mut old, mut new) = (log.table_writer(now), log.table_writer(now));
    old.fence().expect("the log is up");
    old.commit(vec![write("k", Some("1"))]).expect("it is the newest");
    old.write_open(vec![write("k", Some("2"))]).expect("it is the newest");
    new.fence().expect("the log is up");
    assert_eq!(old.commit(vec![write("k", Some("3"))]), Err(WriteError::Fenced));
    new.commit(vec![write("k", Some("4"))]).expect("it is the newest");
    assert_eq!(values(&log, Topic::Table), ["1", "4"]);
}

#[test]
fn compaction_keeps_the_newest_of_each_key_and_every_offset() {
    let log = MemoryLog::default();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", ""), ("c", "5"), ("a", "6")] {
        let value = Some(value.as_bytes()).filter(|value| !value.is_empty());
        log.append_record(Topic::Table, NOW, Some(key.as_bytes()), value);
    }
    log.compact(Tombstones::Kept);
    assert_eq!(values(&log, Topic::Table), ["", "5", "6"]);
    log.compact(Tombstones::Dropped);
    let offsets: Vec<u64> = log
        .read(Topic::Table, Position::START)
        .expect("the log is up")
        .records
        .iter()
        .map(|record| record.offset.number())
        .collect();
    assert_eq!(offsets, [4, 5]);
}

#[test]
fn a_reader_reports_each_end_once_and_fails_outside_the_log() {
    let log = MemoryLog::default();
    let mut reader = MemoryReader {
        log: log.clone(),
        topic: Topic::Commands,
        position: Position::START,
        end_reported: None,
        failed: false,
    };
    assert_eq!(reader.report(), Some(ReadEvent::End(Position::START)));
    assert_eq!(reader.report(), None);
    log.append_record(Topic::Commands, NOW, None, Some(b"a"));
    assert!(matches!(reader.report(), Some(ReadEvent::Records(records)) if records.len() == 1));
    assert_eq!(reader.report(), Some(ReadEvent::End(Position::new(1))));
    log.recreate(Topic::Commands);
    assert!(matches!(reader.report(), Some(ReadEvent::Failed(_))));
}

#[test]
fn retention_and_truncation_move_the_ends() {
    let log = MemoryLog::default();
    for _ in 0..5 {
        log.append_record(Topic::Commands, NOW, None, Some(b"a"));
    }
    log.delete_before(Topic::Commands, Position::new(2));
    log.truncate(Topic::Commands, Position::new(4));
    assert!(log.read(Topic::Commands, Position::new(1)).is_err());
    assert_eq!(log.read(Topic::Commands, Position::new(2)).expect("it is there").records.len(), 2);
    assert!(log.read(Topic::Commands, Position::new(5)).is_err());
    assert_eq!(log.answer(Question::RecordAt(Offset::new(1))), Answer::RecordAt(Offset::new(1), None));
}

#[test]
fn what_is_decided_is_not_seen_before_its_mark_and_no_fence_undoes_it() {
    let log = MemoryLog::default();
    let (mut old, mut new) = (log.table_writer(now), log.table_writer(now));
    old.fence().expect("the log is up");
    let decided = old.write_open(vec![write("k", Some("1"))]).expect("it is the newest");
    old.decide(decided).expect("it is the newest");
    let open = old.write_open(vec![write("k", Some("2"))]).expect("it is the newest");
    assert!(values(&log, Topic::Table).is_empty());
    new.fence().expect("the log is up");
    assert_eq!(values(&log, Topic::Table), ["1"]);
    assert_eq!(old.decide(open), Err(WriteError::Fenced));
    log.end(decided, Topic::Table, Ending::Abort);
    assert_eq!(values(&log, Topic::Table), ["1"], "it has ended already");
}
