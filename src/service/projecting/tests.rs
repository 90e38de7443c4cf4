//! The projector's threads over a log in memory, with real clocks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::log::memory::{MemoryLog, MemoryTableWriter};
use crate::log::{
    Answer, Identity, Log, LogError, Question, Questioner, ReadEvent, Reader, TableWrite, TableWriter, Topic,
    WriteError,
};
use crate::projector::{Lease, Settings, TRANSACTION_ROWS_MAX};
use crate::record::Position;
use crate::table::{Fingerprint, Table, WATERMARK_KEY, Watermark};

/// Long enough that only a test that would hang for ever runs into it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A standby that is not invited waits for longer than any test.
const TAKEOVER_AFTER: Duration = Duration::from_secs(600);

/// What becomes of commits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Done,
    /// They wait; the first one says so.
    Hold,
    Held,
    /// One panics; the others are done.
    Panic,
}

/// A log with a table that counts what it is asked and does what a test tells it to.
struct Scripted {
    log: MemoryLog,
    fate: Mutex<Fate>,
    changed: Condvar,
    commands_opened: AtomicUsize,
    commands_read: AtomicUsize,
    questions: AtomicUsize,
    writers: AtomicUsize,
}

/// A handle to it, as readers and writers need one.
#[derive(Clone)]
pub(in crate::service) struct Shared(Arc<Scripted>);

fn wall() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl Shared {
    /// A log whose table was just begun.
    pub(in crate::service) fn begun() -> Self {
        let identity = Identity { cluster_id: "cluster".to_owned(), commands_topic: "commands".to_owned() };
        let genesis = Watermark {
            position: Position::START,
            anchor: None,
            rows: 0,
            fingerprint: Fingerprint::default(),
            skipped: BTreeSet::new(),
            cluster_id: identity.cluster_id.clone(),
            commands_topic: identity.commands_topic.clone(),
            projector: "topics create".to_owned(),
            released: true,
            written_at: wall(),
        };
        let log = MemoryLog::new(identity);
        log.append_record(Topic::Table, wall(), Some(WATERMARK_KEY), Some(&genesis.encode()));
        Self(Arc::new(Scripted {
            log,
            fate: Mutex::new(Fate::Done),
            changed: Condvar::new(),
            commands_opened: AtomicUsize::new(0),
            commands_read: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
        }))
    }

    fn set(&self, fate: Fate) {
        *self.0.fate.lock().expect("no panic with the lock") = fate;
        self.0.changed.notify_all();
    }

    /// Has the next commit wait, and waits for it.
    fn hold(&self, begin: impl FnOnce()) {
        self.set(Fate::Hold);
        begin();
        wait_until("a commit waits", || *self.0.fate.lock().expect("no panic with the lock") == Fate::Held);
    }

    pub(in crate::service) fn command(&self, text: &str) {
        self.0.log.append_record(Topic::Commands, wall(), None, Some(text.as_bytes()));
    }

    pub(in crate::service) fn table(&self) -> Table {
        let (mut table, mut position) = (Table::default(), Position::START);
        loop {
            let delivery = self.0.log.read(Topic::Table, position).expect("the position is in the log");
            delivery.records.iter().for_each(|record| table.apply(record));
            position = delivery.position;
            if delivery.at_end {
                return table;
            }
        }
    }
}

impl Log for Shared {
    fn open(&self, topic: Topic, from: Position) -> Result<Box<dyn Reader>, LogError> {
        let reader = self.0.log.open(topic, from)?;
        if topic == Topic::Table {
            return Ok(reader);
        }
        self.0.commands_opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Counted { reader, log: self.clone() }))
    }

    fn questioner(&self) -> Box<dyn Questioner> {
        Box::new(self.clone())
    }
}

impl TableLog for Shared {
    fn table_writer(&self) -> Box<dyn TableWriter> {
        self.0.writers.fetch_add(1, Ordering::Relaxed);
        Box::new(Writer { writer: self.0.log.table_writer(wall), log: self.clone() })
    }
}

impl Questioner for Shared {
    fn ask(&mut self, question: Question) -> Answer {
        self.0.questions.fetch_add(1, Ordering::Relaxed);
        self.0.log.answer(question)
    }
}

struct Counted {
    reader: Box<dyn Reader>,
    log: Shared,
}

impl Reader for Counted {
    fn poll(&mut self, wait: Duration) -> Option<ReadEvent> {
        let event = self.reader.poll(wait);
        if let Some(ReadEvent::Records(records)) = &event {
            self.log.0.commands_read.fetch_add(records.len(), Ordering::Relaxed);
        }
        event
    }
}

struct Writer {
    writer: MemoryTableWriter,
    log: Shared,
}

impl TableWriter for Writer {
    fn fence(&mut self) -> Result<(), WriteError> {
        self.writer.fence()
    }

    #[allow(clippy::panic, reason = "a writer that panics is what a test is about")]
    fn commit(&mut self, writes: Vec<TableWrite>) -> Result<(), WriteError> {
        let mut fate = self.log.0.fate.lock().expect("no panic with the lock");
        if *fate == Fate::Hold {
            *fate = Fate::Held;
        }
        let held = |fate: &mut Fate| *fate == Fate::Held;
        let mut fate = self.log.0.changed.wait_while(fate, held).expect("no panic with the lock");
        let panics = std::mem::replace(&mut *fate, Fate::Done) == Fate::Panic;
        drop(fate);
        assert!(!panics, "the queue is corrupt");
        self.writer.commit(writes)
    }
}

/// A projector that runs, and what it says of itself.
struct Running {
    projecting: Projecting,
    status: watch::Receiver<Status>,
}

impl Running {
    fn start(log: &Shared, seed: u64) -> Self {
        let settings = Settings {
            projector: format!("projector-{seed}"),
            takeover_after: TAKEOVER_AFTER,
            skip_offsets: BTreeSet::new(),
            seed,
        };
        let (shown, status) = watch::channel(Status::default());
        let projector = Projector::new(settings, Instant::now());
        let projecting = Projecting::start(projector, Arc::new(log.clone()), shown).expect("a thread");
        Self { projecting, status }
    }

    fn wait(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        wait_until(what, || holds(&self.status.borrow()));
    }

    fn wait_for(&self, role: Role) {
        self.wait(role.word(), |status| status.looked && status.role == role);
    }

    /// Waits until the table holds all commands before this position.
    fn wait_for_position(&self, position: u64) {
        self.wait("the table is written", |status| status.position == Position::new(position));
    }

    /// Stops it, and waits for its end.
    fn stop(mut self) -> Status {
        self.projecting.stop();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = async { tokio::time::timeout(PATIENCE, self.projecting.ended()).await };
        runtime.block_on(ended).expect("it ends");
        self.status.borrow().clone()
    }
}

pub(in crate::service) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_takes_over_a_new_table_and_keeps_it() {
    let log = Shared::begun();
    log.command("BLACKLIST 203.0.113.0/24");
    let running = Running::start(&log, 1);
    running.wait_for(Role::Active);
    running.wait_for_position(1);
    log.command("no command");
    log.command("WHITELIST 203.0.113.7");
    running.wait_for_position(3);
    let status = running.status.borrow().clone();
    let table = log.table();
    let watermark = table.check().expect("the table is whole");
    assert_eq!((watermark.position, watermark.rows, status.rows), (Position::new(3), 2, 2));
    assert_eq!((watermark.fingerprint, status.message), (status.fingerprint, None));
    assert!(!watermark.released);
    let stopped = running.stop();
    assert_eq!(stopped.role, Role::Stopped(Reason::Stop));
    assert!(log.table().check().expect("the table is whole").released);
    assert_eq!(log.0.writers.load(Ordering::Relaxed), 1);
}

#[test]
fn another_one_waits_until_the_first_has_stopped_and_goes_on_at_once() {
    let log = Shared::begun();
    let first = Running::start(&log, 1);
    first.wait_for(Role::Active);
    let second = Running::start(&log, 2);
    second.wait_for(Role::Standby);
    log.command("BLACKLIST 203.0.113.0/24");
    first.wait_for_position(1);
    // Longer than it would take to take over.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(second.status.borrow().role, Role::Standby);
    first.stop();
    second.wait_for(Role::Active);
    log.command("WHITELIST 203.0.113.7");
    second.wait_for_position(2);
    let table = log.table();
    let watermark = table.check().expect("the table is whole");
    assert_eq!((watermark.rows, watermark.projector.as_str()), (2, "projector-2"));
}

#[test]
fn who_is_fenced_stands_by() {
    let log = Shared::begun();
    let running = Running::start(&log, 1);
    running.wait_for(Role::Active);
    let mut other = log.0.log.table_writer(wall);
    other.fence().expect("the log is there");
    log.command("BLACKLIST 203.0.113.0/24");
    running.wait_for(Role::Standby);
    assert_eq!(log.table().check().expect("the table is whole").position, Position::START);
}

#[test]
fn a_writer_that_panics_is_replaced_and_nothing_is_lost() {
    let log = Shared::begun();
    let running = Running::start(&log, 1);
    running.wait_for(Role::Active);
    log.command("BLACKLIST 203.0.113.0/24");
    running.wait_for_position(1);
    log.set(Fate::Panic);
    log.command("WHITELIST 203.0.113.7");
    running.wait_for_position(2);
    assert_eq!(log.0.writers.load(Ordering::Relaxed), 2);
    assert_eq!(log.table().check().expect("the table is whole").rows, 2);
}

#[test]
fn while_a_transaction_is_full_and_another_under_way_readers_wait_and_answers_come() {
    // What may be read and not folded: the queue, one report in the hand of the reader, one held here.
    const READ_AHEAD_MAX: usize = 18 * log::READ_RECORDS_MAX;
    const COMMANDS: usize = TRANSACTION_ROWS_MAX + 2 * READ_AHEAD_MAX;
    let log = Shared::begun();
    let running = Running::start(&log, 1);
    running.wait_for(Role::Active);
    log.hold(|| log.command("BLACKLIST 203.0.113.0/24"));
    for at in 0..COMMANDS {
        log.command(&format!("BLACKLIST 10.{}.{}.{}", at >> 16, (at >> 8) & 0xff, at & 0xff));
    }
    let read = || log.0.commands_read.load(Ordering::Relaxed);
    wait_until("a transaction is full", || read() > TRANSACTION_ROWS_MAX);
    let asked = log.0.questions.load(Ordering::Relaxed);
    wait_until("questions are asked and answered", || log.0.questions.load(Ordering::Relaxed) > asked + 2);
    assert!(read() <= 1 + TRANSACTION_ROWS_MAX + READ_AHEAD_MAX, "{} were read", read());
    log.set(Fate::Done);
    running.wait_for_position(1 + COMMANDS as u64);
    assert_eq!(log.0.commands_opened.load(Ordering::Relaxed), 1, "nothing was delivered in vain");
    assert_eq!(log.table().check().expect("the table is whole").rows, 1 + COMMANDS as u64);
}

#[test]
fn every_write_is_answered_once_with_its_lease() {
    let log = Shared::begun();
    let mut port = Port::new(Arc::new(log.clone())).expect("a port");
    let mut claims = Claims::new(Arc::new(log.clone()), port.teller());
    let lease = Lease::default();
    let write = || vec![(b"@alive".to_vec(), Some(b"1".to_vec()))];
    let mut told = |within: Duration| match port.next(Take::All, Instant::now() + within) {
        Some(Heard::Told(event)) => Some(event),
        Some(Heard::Log(_)) | None => None,
    };
    claims.commit(lease, write());
    assert!(matches!(told(PATIENCE), Some(Event::Lost(..))), "nothing was claimed");
    claims.fence(lease);
    assert_eq!(told(PATIENCE), Some(Event::Fenced(lease)));
    claims.commit(lease, write());
    assert_eq!(told(PATIENCE), Some(Event::Committed(lease)));
    log.set(Fate::Panic);
    claims.commit(lease, write());
    let lost = told(PATIENCE);
    let unknown = |reason: &str| reason.contains("the queue is corrupt");
    assert!(
        matches!(&lost, Some(Event::Lost(_, WriteError::Unknown(reason))) if unknown(reason)),
        "{lost:?}"
    );
    // A new claim does not wait for one that hangs, whose answer still comes.
    claims.fence(lease);
    assert_eq!(told(PATIENCE), Some(Event::Fenced(lease)));
    log.hold(|| claims.commit(lease, write()));
    claims.fence(lease);
    assert_eq!(told(PATIENCE), Some(Event::Fenced(lease)));
    log.set(Fate::Done);
    assert_eq!(told(PATIENCE), Some(Event::Lost(lease, WriteError::Fenced)));
    assert_eq!(told(Duration::from_millis(100)), None);
}
