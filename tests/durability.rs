//! The embedded log loses nothing that it acknowledged: cuts of the power at every write, kills, errors.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test panics where it fails"
)]

#[path = "support/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use disk::{Cut, Disk, Fails};
use portcullis::log::embedded::{COMMIT_GROUPS_MAX, EmbeddedLog, OpenError, WAITING_GROUPS_MAX};
use portcullis::log::{
    Answer, AppendError, CommandSink, Log, Question, READ_RECORDS_MAX, ReadEvent, Reader, Topic,
};
use portcullis::record::{Offset, Position, Record};
use redb::StorageBackend;

/// So long that only a log that hangs gets there.
const LONG: Duration = Duration::from_secs(120);
/// How many disks each cut is looked at on.
const SEEDS: u64 = 2;
const KILLS: usize = 10;

type Outcome = Result<Vec<Offset>, AppendError>;

fn open(disk: &Disk) -> Result<Arc<EmbeddedLog>, OpenError> {
    let disk = disk.clone();
    EmbeddedLog::with_backend(Path::new("a disk"), move || Ok(disk.clone()))
}

fn send(log: &EmbeddedLog, values: &[Vec<u8>]) -> Receiver<Outcome> {
    let (told, outcome) = channel();
    log.append(values.to_vec(), Box::new(move |outcome| told.send(outcome).unwrap_or_default()));
    outcome
}

fn append(log: &EmbeddedLog, values: &[Vec<u8>]) -> Outcome {
    send(log, values).recv_timeout(LONG).expect("every append has an outcome")
}

/// Everything up to the end, which must come once, behind batches that are not too large.
fn read_to_end(reader: &mut dyn Reader) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        match reader.poll(LONG).expect("a reader comes to the end") {
            ReadEvent::Records(batch) => {
                assert!((1..=READ_RECORDS_MAX).contains(&batch.len()));
                records.extend(batch);
            }
            ReadEvent::End(end) => {
                assert!(records.last().is_none_or(|last| last.offset.next() == end));
                return records;
            }
            ReadEvent::Failed(reason) => panic!("{reason}"),
        }
    }
}

fn read_all(log: &EmbeddedLog) -> Vec<Record> {
    read_to_end(&mut *log.open(Topic::Commands, Position::START).expect("every log begins at 0"))
}

fn values(records: &[Record]) -> Vec<Vec<u8>> {
    let dense = (0..).map(Offset::new);
    assert!(records.iter().zip(dense).all(|(record, offset)| record.offset == offset), "offsets are dense");
    records.iter().map(|record| record.value.clone().expect("a command has a value")).collect()
}

/// The groups that a run sends, small and large, so that pages split and the file grows.
fn groups() -> Vec<Vec<Vec<u8>>> {
    let mut random = fastrand::Rng::with_seed(7);
    let sizes =
        [(1, 40), (3, 60), (1, 40), (6, 4_000), (1, 40), (90, 30), (2, 40), (8, 16_000), (1, 40), (1, 40)];
    let value = |bytes, random: &mut fastrand::Rng| {
        std::iter::repeat_with(|| random.alphanumeric() as u8).take(bytes).collect()
    };
    sizes.iter().map(|(count, bytes)| (0..*count).map(|_| value(*bytes, &mut random)).collect()).collect()
}

/// What became of a run that was cut.
#[derive(Default)]
struct Run {
    acknowledged: Vec<Vec<u8>>,
    /// The group whose outcome is not known: it is there wholly or not at all.
    unknown: Vec<Vec<u8>>,
}

/// Sends all groups until the disk fails, with a stop and a start in between.
fn run(disk: &Disk) -> Run {
    let groups = groups();
    let (before, after) = groups.split_at(groups.len() / 2);
    let mut run = Run::default();
    for part in [before, after] {
        let Ok(log) = open(disk) else { return run };
        for group in part {
            match append(&log, group) {
                Ok(offsets) => {
                    let expected = (run.acknowledged.len() as u64..).map(Offset::new).take(group.len());
                    assert!(offsets.into_iter().eq(expected));
                    run.acknowledged.extend_from_slice(group);
                }
                Err(AppendError::Unavailable(_)) => return run,
                Err(AppendError::Unknown(_)) => {
                    run.unknown.clone_from(group);
                    return run;
                }
            }
        }
    }
    run
}

/// Opens what a cut left: everything acknowledged is there, and the log goes on.
fn check(disk: &Disk, run: &Run) {
    let log = open(disk).expect("a log can be opened after any cut");
    let mut found = values(&read_all(&log));
    let whole = [run.acknowledged.as_slice(), &run.unknown].concat();
    assert!(found == run.acknowledged || found == whole, "{} commands are there", found.len());
    let more = vec![b"one more".to_vec()];
    assert_eq!(append(&log, &more), Ok(vec![Offset::new(found.len() as u64)]));
    found.extend(more);
    drop(log);
    let log = open(disk).expect("a log can be opened after it was closed");
    assert!(values(&read_all(&log)) == found);
}

#[test]
fn a_power_cut_at_any_write_loses_nothing_acknowledged() {
    let whole = Disk::default();
    assert_eq!(run(&whole).acknowledged, groups().concat());
    let operations = whole.operations();
    println!("{operations} operations, {} bytes", whole.len().unwrap_or(0));
    let cut_from = |first: usize| {
        for operation in (first..operations).step_by(2) {
            let disk = Disk::default();
            disk.fail(Fails::From(operation));
            let run = run(&disk);
            let seeds = (0..SEEDS).map(|seed| operation as u64 * SEEDS + seed);
            let cuts = seeds.flat_map(|seed| [Cut::Prefix(seed), Cut::Torn(seed)]);
            for cut in cuts.chain([Cut::Synced]) {
                println!("operation {operation}, {cut:?}");
                check(&disk.after(cut), &run);
            }
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| cut_from(0));
        threads.spawn(|| cut_from(1));
    });
}

/// Sends all groups to a log while one operation fails; the operations that there were.
fn run_with_failure(operation: usize) -> usize {
    let disk = Disk::default();
    disk.fail(Fails::Once(operation));
    // A failure while the log is opened for the first time is reported; then it is tried again.
    let log = open(&disk).or_else(|_| open(&disk)).expect("the disk fails once");
    let mut reader = log.open(Topic::Commands, Position::START).expect("every log begins at 0");
    let mut possible = vec![Vec::new()];
    let failures = groups().into_iter().filter(|group| {
        let outcome = append(&log, group);
        grow(&mut possible, group, &outcome);
        outcome.is_err()
    });
    assert!(failures.count() <= 1, "operation {operation}: the log goes on after a failure");
    let read = values(&read_to_end(&mut *reader));
    assert!(possible.contains(&read), "operation {operation}");
    let operations = disk.operations();
    // Now the power goes: what the log believed to be on the disk must be there.
    let log = open(&disk.after(Cut::Synced)).expect("a log can be opened after any cut");
    assert!(values(&read_all(&log)) == read, "operation {operation}");
    operations
}

#[test]
fn any_operation_may_fail_once_and_nothing_acknowledged_is_lost() {
    for operation in 0..run_with_failure(usize::MAX) {
        run_with_failure(operation);
    }
}

/// Adds a group to what the log may hold, as its outcome says.
fn grow(possible: &mut Vec<Vec<Vec<u8>>>, group: &[Vec<u8>], outcome: &Outcome) {
    let with: Vec<_> = possible.iter().map(|log| [log.as_slice(), group].concat()).collect();
    match outcome {
        Ok(offsets) => {
            *possible = with;
            // The offset says which of the possible logs it is.
            possible.retain(|log| offsets.last().is_none_or(|last| last.next().number() == log.len() as u64));
        }
        Err(AppendError::Unknown(_)) => possible.extend(with),
        Err(AppendError::Unavailable(_)) => {}
    }
}

#[test]
fn a_failed_sync_is_an_unknown_outcome_and_the_log_goes_on() {
    let disk = Disk::default();
    let log = open(&disk).expect("an empty disk holds a new log");
    let mut reader = log.open(Topic::Commands, Position::START).expect("every log begins at 0");
    assert_eq!(append(&log, &[b"a".to_vec()]), Ok(vec![Offset::new(0)]));
    assert_eq!(values(&read_to_end(&mut *reader)), [b"a"]);
    disk.fail(Fails::NextSync);
    assert!(matches!(append(&log, &[b"b".to_vec()]), Err(AppendError::Unknown(_))));
    // The disk had taken it before the sync, and the log looks before it goes on.
    assert_eq!(append(&log, &[b"c".to_vec()]), Ok(vec![Offset::new(2)]));
    let read = read_to_end(&mut *reader);
    assert_eq!(read.iter().map(|record| record.offset.number()).collect::<Vec<_>>(), [1, 2]);
    let log = open(&disk.after(Cut::Synced)).expect("a log can be opened after any cut");
    assert_eq!(values(&read_all(&log)), [b"a", b"b", b"c"]);
}

#[test]
fn a_failed_read_is_survived_by_readers_and_writers() {
    let disk = Disk::default();
    let log = open(&disk).expect("an empty disk holds a new log");
    let group: Vec<_> = (0..3_000).map(|n| format!("{n:05000}").into_bytes()).collect();
    for part in group.chunks(500) {
        append(&log, part).expect("the disk is well");
    }
    let mut reader = log.open(Topic::Commands, Position::START).expect("every log begins at 0");
    disk.fail(Fails::NextRead);
    assert_eq!(values(&read_to_end(&mut *reader)), group);
    assert_eq!(append(&log, &[b"x".to_vec()]), Ok(vec![Offset::new(3_000)]));
}

#[test]
fn a_question_whose_read_failed_has_its_answer_later_though_nobody_writes() {
    let disk = Disk::default();
    let log = open(&disk).expect("the disk is well");
    // More than redb keeps in memory, so that the first record has to be read.
    for _ in 0..10 {
        append(&log, &vec![vec![b'x'; 4_000]; 1_000]).expect("the disk is well");
    }
    disk.fail(Fails::NextRead);
    let mut questioner = log.questioner();
    let question = Question::RecordAt(Offset::new(0));
    assert!(matches!(questioner.ask(question), Answer::Failed(..)), "the disk was not read");
    let answered = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        matches!(questioner.ask(question), Answer::RecordAt(_, Some(_)))
    });
    assert!(answered, "the database was not opened again");
}

#[test]
fn concurrent_writers_share_commits_and_a_full_queue_refuses() {
    let disk = Disk::default();
    let log = open(&disk).expect("an empty disk holds a new log");
    let before = disk.syncs();
    disk.hold();
    let mut accepted = Vec::new();
    let mut refused = None;
    while refused.is_none() && accepted.len() <= WAITING_GROUPS_MAX + COMMIT_GROUPS_MAX {
        let outcome = send(&log, &[accepted.len().to_string().into_bytes()]);
        match outcome.try_recv() {
            Ok(at_once) => refused = Some(at_once),
            Err(_) => accepted.push(outcome),
        }
    }
    disk.release();
    assert!(matches!(refused, Some(Err(AppendError::Unavailable(_)))), "{refused:?}");
    assert!(accepted.len() >= WAITING_GROUPS_MAX);
    let mut offsets: Vec<u64> = Vec::new();
    for outcome in &accepted {
        let outcome = outcome.recv_timeout(LONG).expect("every append has an outcome");
        offsets.extend(outcome.expect("the disk is well").iter().map(|offset| offset.number()));
    }
    assert!(offsets.into_iter().eq(0..accepted.len() as u64));
    let commits = disk.syncs() - before;
    assert!(commits <= 2 + accepted.len().div_ceil(COMMIT_GROUPS_MAX), "{commits} syncs");
}

const DIRECTORY: &str = "PORTCULLIS_TEST_DIRECTORY";

/// Runs one of the tests below, that do nothing by themselves, as a process of its own.
fn child(test: &str, directory: &Path) -> Child {
    let this = std::env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(this);
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIRECTORY, directory);
    command.stdout(Stdio::piped()).spawn().expect("a test can be started again")
}

fn directory_of_child() -> Option<std::path::PathBuf> {
    std::env::var_os(DIRECTORY).map(Into::into)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent reads");
}

#[test]
#[ignore = "run by killed_at_any_moment_it_has_everything_acknowledged"]
fn child_that_appends() {
    let Some(directory) = directory_of_child() else { return };
    let log = EmbeddedLog::open(&directory).expect("nobody else has it open");
    say("");
    std::thread::scope(|threads| {
        for writer in 0..4 {
            let log = &log;
            threads.spawn(move || {
                for number in 0_u64.. {
                    let value = format!("{}-{writer}-{number}", std::process::id());
                    let offsets = append(log, &[value.clone().into_bytes()]).expect("the disk is well");
                    say(&format!("acknowledged {} {value}", offsets[0]));
                }
            });
        }
    });
}

/// Lets a child append, kills it after some acknowledgements, and notes all that it could say.
fn append_and_kill(directory: &Path, acknowledged: &mut BTreeMap<u64, String>) {
    let mut child = child("child_that_appends", directory);
    let out = BufReader::new(child.stdout.take().expect("it was asked for"));
    let kill_at = acknowledged.len() + fastrand::usize(1..60);
    let mut killed = false;
    // A last line without an end is no acknowledgement: nobody could have read it.
    for line in out.split(b'\n').map(|line| line.expect("a pipe can be read")) {
        let line = String::from_utf8(line).expect("a child says text");
        if let ["acknowledged", offset, value] = line.split(' ').collect::<Vec<_>>()[..] {
            let offset = offset.parse().expect("a child says offsets");
            assert_eq!(acknowledged.insert(offset, value.to_owned()), None, "offset {offset} twice");
        }
        if !killed && acknowledged.len() >= kill_at {
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..3_000)));
            child.kill().expect("a child can be killed");
            killed = true;
        }
    }
    child.wait().expect("a child ends");
    assert!(killed, "the child ended by itself");
}

#[test]
fn killed_at_any_moment_it_has_everything_acknowledged() {
    let directory = tempfile::tempdir().expect("there is room");
    let mut acknowledged = BTreeMap::new();
    for _ in 0..KILLS {
        append_and_kill(directory.path(), &mut acknowledged);
        let log = EmbeddedLog::open(directory.path()).expect("the child is gone");
        let found = values(&read_all(&log));
        for (offset, value) in &acknowledged {
            assert_eq!(found.get(*offset as usize).map(Vec::as_slice), Some(value.as_bytes()), "{offset}");
        }
    }
}

#[test]
#[ignore = "run by a_second_process_is_told_what_to_do"]
fn child_that_opens() {
    let Some(directory) = directory_of_child() else { return };
    say("");
    match EmbeddedLog::open(&directory) {
        Ok(_) => say("opened"),
        Err(error) => say(&format!("{}: {error}", matches!(error, OpenError::Locked { .. }))),
    }
}

fn said_by_opener(directory: &Path) -> String {
    let said = child("child_that_opens", directory).wait_with_output().expect("a child ends");
    String::from_utf8(said.stdout).expect("a child says text")
}

#[test]
fn a_second_process_is_told_what_to_do() {
    let directory = tempfile::tempdir().expect("there is room");
    let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
    let path = directory.path().display();
    let expected = format!(
        "\ntrue: another process uses the data directory {path}: stop it, or name another directory\n"
    );
    let said = said_by_opener(directory.path());
    assert!(said.contains(&expected), "{said}");
    assert!(append(&log, &[b"a".to_vec()]).is_ok(), "the first goes on");
    drop(log);
    assert!(said_by_opener(directory.path()).contains("\nopened\n"));
}
