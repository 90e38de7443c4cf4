use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;

use redb::backends::InMemoryBackend;

use super::*;
use crate::log::{Answer, AppendError, Ends, Question, READ_RECORDS_MAX, ReadEvent};
use crate::record::{Offset, Record, Timestamp};

/// So long that only a log that hangs gets there.
const LONG: Duration = Duration::from_secs(60);
const NOT_AT_ALL: Duration = Duration::ZERO;

type Outcome = Result<Vec<Offset>, AppendError>;

fn in_memory() -> Arc<EmbeddedLog> {
    EmbeddedLog::with_backend(Path::new("memory"), || Ok(InMemoryBackend::new())).expect("memory is enough")
}

fn send(log: &EmbeddedLog, values: &[&str]) -> Receiver<Outcome> {
    let (told, outcome) = channel();
    let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    log.append(values, Box::new(move |outcome| told.send(outcome).unwrap_or_default()));
    outcome
}

fn append(log: &EmbeddedLog, values: &[&str]) -> Outcome {
    send(log, values).recv_timeout(LONG).expect("every append has an outcome")
}

fn reader(log: &EmbeddedLog, from: u64) -> Box<dyn Reader> {
    Log::open(log, Topic::Commands, Position::new(from)).expect("the position is in the log")
}

fn end(position: u64) -> Option<ReadEvent> {
    Some(ReadEvent::End(Position::new(position)))
}

fn values(report: Option<ReadEvent>) -> Vec<(u64, String)> {
    let Some(ReadEvent::Records(records)) = report else { panic!("no records: {report:?}") };
    let text = |record: Record| String::from_utf8(record.value.expect("a command has a value"));
    records.into_iter().map(|r| (r.offset.number(), text(r).expect("the test wrote text"))).collect()
}

#[test]
fn a_reader_is_told_of_the_end_once_each_time_it_gets_there() {
    let log = in_memory();
    let mut reader = reader(&log, 0);
    assert_eq!(reader.poll(NOT_AT_ALL), end(0));
    assert_eq!(reader.poll(NOT_AT_ALL), None);
    assert_eq!(append(&log, &["a", "b"]), Ok(vec![Offset::new(0), Offset::new(1)]));
    assert_eq!(values(reader.poll(NOT_AT_ALL)), [(0, "a".to_owned()), (1, "b".to_owned())]);
    assert_eq!(reader.poll(NOT_AT_ALL), end(2));
    assert_eq!(reader.poll(NOT_AT_ALL), None);
}

#[test]
fn a_reader_that_waits_is_woken_by_an_append() {
    let log = in_memory();
    let mut reader = reader(&log, 0);
    let (told, woken) = channel();
    // It would wait far longer than the test does for it.
    thread::spawn(move || while told.send(reader.poll(LONG * 10)).is_ok() {});
    let report = || woken.recv_timeout(LONG).expect("a reader is woken");
    assert_eq!(report(), end(0));
    // Often enough that it has begun to wait before some of the appends.
    for number in 0..100 {
        assert_eq!(append(&log, &["a"]), Ok(vec![Offset::new(number)]));
        assert_eq!(values(report()), [(number, "a".to_owned())]);
        assert_eq!(report(), end(number + 1));
    }
}

#[test]
fn a_reader_begins_anywhere_and_reads_in_batches() {
    let log = in_memory();
    let texts: Vec<String> = (0..READ_RECORDS_MAX + 3).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert!(append(&log, &texts).is_ok());
    let mut reader = reader(&log, 1);
    let first = values(reader.poll(NOT_AT_ALL));
    assert_eq!((first.len(), first[0].0), (READ_RECORDS_MAX, 1));
    assert_eq!(values(reader.poll(NOT_AT_ALL)), [(1_001, "1001".to_owned()), (1_002, "1002".to_owned())]);
    assert_eq!(reader.poll(NOT_AT_ALL), end(1_003));
}

#[test]
fn what_is_not_there_can_not_be_opened() {
    let log = in_memory();
    assert!(append(&log, &["a"]).is_ok());
    assert!(Log::open(&*log, Topic::Table, Position::START).is_err());
    assert!(Log::open(&*log, Topic::Commands, Position::new(1)).is_ok());
    assert!(Log::open(&*log, Topic::Commands, Position::new(2)).is_err());
}

#[test]
fn questions_are_answered_from_the_file() {
    let before = Timestamp::from(SystemTime::now());
    let log = in_memory();
    assert!(append(&log, &["a", "b"]).is_ok());
    let after = Timestamp::from(SystemTime::now());
    let mut questioner = log.questioner();
    let high = Position::new(2);
    let ends = Ends { start: Position::START, high, stable: high };
    assert_eq!(questioner.ask(Question::Ends(Topic::Commands)), Answer::Ends(Topic::Commands, ends));
    assert!(matches!(questioner.ask(Question::Ends(Topic::Table)), Answer::Failed(..)));
    let nothing = Answer::RecordAt(Offset::new(2), None);
    assert_eq!(questioner.ask(Question::RecordAt(Offset::new(2))), nothing);
    let Answer::RecordAt(_, Some(record)) = questioner.ask(Question::RecordAt(Offset::new(1))) else {
        panic!("there is a record at offset 1")
    };
    assert_eq!((record.offset, record.key, record.value), (Offset::new(1), None, Some(b"b".to_vec())));
    assert!((before..=after).contains(&record.timestamp));
}

fn identity(log: &EmbeddedLog) -> Identity {
    match log.questioner().ask(Question::Identity) {
        Answer::Identity(identity) => identity,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_keeps_its_name_and_no_two_have_the_same() {
    let directory = tempfile::tempdir().expect("there is room");
    let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
    let name = identity(&log);
    assert_eq!((name.cluster_id.len(), name.commands_topic.as_str()), (26, COMMANDS_TOPIC));
    drop(log);
    let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
    assert_eq!(identity(&log), name);
    assert_ne!(identity(&in_memory()), name);
}

#[test]
fn the_directory_is_made_and_the_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("there is room").keep().join("a/b");
    drop(EmbeddedLog::open(&directory).expect("directories are made"));
    let file = fs::metadata(directory.join(FILE_NAME)).expect("the file is there");
    assert_eq!(file.permissions().mode() & 0o777, FILE_MODE);
}

#[test]
fn a_foreign_or_truncated_file_is_damaged_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join(FILE_NAME);
    let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
    assert!(append(&log, &["a"]).is_ok());
    drop(log);
    let whole = fs::read(&file).expect("the file is there");
    let mut no_beginning = whole.clone();
    no_beginning[..4_096].fill(0);
    for content in [b"no database".as_slice(), &whole[..whole.len() / 2], &no_beginning] {
        fs::write(&file, content).expect("the file can be written");
        let outcome = EmbeddedLog::open(directory.path()).map(drop);
        assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{outcome:?}");
        assert!(fs::read(&file).expect("the file is there") == content);
    }
}

/// Does something to the database behind the log's back.
fn tamper(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(file).expect("the log is closed");
    let transaction = database.begin_write().expect("the file is well");
    change(&transaction);
    transaction.commit().expect("the file is well");
}

#[test]
fn a_log_with_a_gap_or_of_a_later_format_is_damaged() {
    for later_format in [false, true] {
        let directory = tempfile::tempdir().expect("there is room");
        let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
        assert!(append(&log, &["a", "b", "c"]).is_ok());
        drop(log);
        tamper(&directory.path().join(FILE_NAME), |transaction| {
            if later_format {
                let mut about = transaction.open_table(database::ABOUT).expect("the table is there");
                about.insert("format", "2").expect("the file is well");
            } else {
                let mut commands = transaction.open_table(database::COMMANDS).expect("the table is there");
                commands.remove(1).expect("the file is well");
            }
        });
        let outcome = EmbeddedLog::open(directory.path()).map(drop);
        assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{outcome:?}");
    }
}

#[test]
fn a_directory_that_is_none_is_not_writable() {
    let file = tempfile::NamedTempFile::new().expect("there is room");
    let outcome = EmbeddedLog::open(file.path()).map(drop);
    assert!(matches!(outcome, Err(OpenError::NotWritable { .. })), "{outcome:?}");
}

#[test]
fn closing_writes_what_waits_and_ends_the_readers() {
    let directory = tempfile::tempdir().expect("there is room");
    let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
    let mut reader = reader(&log, 0);
    assert_eq!(reader.poll(NOT_AT_ALL), end(0));
    let outcomes: Vec<_> = (0..100).map(|_| send(&log, &["a", "b"])).collect();
    drop(log);
    assert!(outcomes.iter().all(|outcome| matches!(outcome.try_recv(), Ok(Ok(_)))));
    assert!(matches!(reader.poll(NOT_AT_ALL), Some(ReadEvent::Failed(_))));
    assert_eq!(reader.poll(NOT_AT_ALL), None);
    let log = EmbeddedLog::open(directory.path()).expect("the reader does not keep it open");
    assert_eq!(self::reader(&log, 200).poll(NOT_AT_ALL), end(200));
}

#[test]
fn the_last_owner_may_be_an_append() {
    let log = in_memory();
    let owner = Arc::clone(&log);
    let (told, outcome) = channel();
    log.append(
        vec![b"a".to_vec()],
        Box::new(move |outcome| {
            drop(owner);
            told.send(outcome).unwrap_or_default();
        }),
    );
    drop(log);
    assert_eq!(outcome.recv_timeout(LONG).expect("every append has an outcome"), Ok(vec![Offset::new(0)]));
}

/// A backend whose writes fail while it is told so.
#[derive(Debug)]
struct Failing(FileBackend, Arc<AtomicUsize>);

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let failing = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(io::Error::other("failed on purpose")) } else { self.0.write(offset, data) }
    }
}

#[test]
fn a_log_that_can_not_be_opened_again_refuses_until_it_can() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join(FILE_NAME);
    make_file(directory.path()).expect("there is room");
    let failures = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&failures);
    let log = EmbeddedLog::with_backend(directory.path(), move || {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Failing(backend, Arc::clone(&given)))
    })
    .expect("nothing fails yet");
    let mut reader = reader(&log, 0);
    assert_eq!(append(&log, &["a"]), Ok(vec![Offset::new(0)]));
    failures.store(usize::MAX, Ordering::SeqCst);
    assert!(matches!(append(&log, &["b"]), Err(AppendError::Unknown(_))));
    // What waits is refused once the first attempt has failed, what comes later at once.
    let refused = append(&log, &["c"]);
    assert!(matches!(&refused, Err(AppendError::Unavailable(reason)) if reason.contains("on purpose")));
    let refused = send(&log, &["c"]).try_recv();
    assert!(matches!(refused, Ok(Err(AppendError::Unavailable(_)))), "{refused:?}");
    assert!(matches!(log.questioner().ask(Question::Ends(Topic::Commands)), Answer::Failed(..)));
    failures.store(0, Ordering::SeqCst);
    let offsets = std::iter::repeat_with(|| append(&log, &["d"])).find_map(Result::ok);
    assert_eq!(offsets, Some(vec![Offset::new(1)]));
    assert_eq!(values(reader.poll(NOT_AT_ALL)), [(0, "a".to_owned()), (1, "d".to_owned())]);
}

#[test]
fn a_group_is_appended_whole_and_an_empty_one_needs_no_offset() {
    let log = in_memory();
    assert_eq!(append(&log, &[]), Ok(vec![]));
    let outcomes = [send(&log, &["a", "b", "c"]), send(&log, &["d"]), send(&log, &["e", "f"])];
    let offsets = outcomes.map(|outcome| outcome.recv_timeout(LONG).expect("every append has an outcome"));
    let expected = [vec![0, 1, 2], vec![3], vec![4, 5]];
    assert_eq!(offsets, expected.map(|group| Ok(group.into_iter().map(Offset::new).collect())));
}
