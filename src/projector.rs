//! The projector: the one writer of the table.
//!
//! A state machine like the [follower](crate::follower): events and two clocks go in, effects come out. It
//! does no I/O, spawns nothing and reads no clock.
//!
//! It watches the table as a standby until the one that writes is gone; then it fences that one, reads the
//! table, checks that the commands log is the one that the table was made from, and folds on from the
//! table's position, in transactions that carry rows and position together. Each takeover goes through all
//! of it again, because the table is the only thing that it trusts.
//!
//! ```text
//!             the other one          Effect::Fence     our sign of life
//!             is gone                is done           was read
//! Waiting ──► Standby ────► Claiming ────────► Loading ────────────► Folding
//!
//! back to Standby     another one fenced us, or nothing came of the log for too long
//! back to Claiming    the outcome of a write is not known
//! back to Waiting     the table must not be written: another log, a gap, no watermark, …
//! to Stopped          told to stop, from anywhere and for good
//! ```
//!
//! One that is to [rebuild](Projector::rebuilding) the table claims the role at once, and stops when it is
//! done.
//!
//! The order of a takeover is what makes one writer of many projectors. First the fence: from then on nothing
//! that an earlier one still has to say can be committed. Then a sign of life of our own, and then the table
//! up to it: what was committed before the fence lies before it, so the table that was read is the last word.
//! Only then are commands folded.
//!
//! The order within a transaction is rows, tombstones, watermark. A reader of committed records sees all of
//! it or nothing; the position in the watermark is never ahead of the rows nor behind them. So a projector
//! that dies at any moment leaves a table to go on from, and no position is kept anywhere else.
//!
//! It never writes at a guess. If the outcome of a write is not known, everything in memory is in doubt: the
//! role is claimed anew, and the table read again.

mod alive;
mod batch;
mod events;
mod folding;
mod halt;
mod loading;
mod patience;
mod rebuild;
mod standby;
mod status;
mod tail;
mod transitions;
mod vouch;
mod writer;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use self::alive::Alive;
use self::folding::Folding;
use self::halt::{Halt, identity_of};
use self::loading::Loading;
use self::patience::{Overdue, Patience};
use self::rebuild::Purpose;
pub use self::rebuild::Rebuild;
use self::standby::Standby;
pub use self::status::{Reason, Role, Status};
use self::tail::Tail;
pub use self::writer::Lease;
use self::writer::Writer;
use crate::backoff::Backoff;
use crate::command::CommandError;
use crate::ends::EndsQuestion;
use crate::log::{self, Request, Session, TableWrite, Topic, WriteError};
use crate::record::{Offset, Timestamp};
use crate::table::Watermark;
use crate::topic_settings::SettingsWatch;
use crate::unanswered::Unanswered;

/// A transaction takes no further command once it changes so many rows …
pub const TRANSACTION_ROWS_MAX: usize = 50_000;
/// … or its first command is so old.
pub const TRANSACTION_COMMANDS_MAX: Duration = Duration::from_millis(100);
/// How often an active projector gives a sign of life, by a watermark or without. Several of them must fit
/// into the silence after which a standby takes over.
pub const WATERMARK_INTERVAL: Duration = Duration::from_secs(5);
/// Without records, and without proof that there are none, the reader is replaced after so long …
pub const READER_PATIENCE: Duration = Duration::from_secs(30);
/// … and the role is given up.
pub const GIVE_UP_PATIENCE: Duration = Duration::from_secs(60);
/// What keeps a projector from writing is looked at again after so long.
pub const HALT_WAIT: Duration = Duration::from_secs(60);
/// A table without a watermark is looked at again after so long: most often it is just being begun.
pub const UNBEGUN_WAIT: Duration = Duration::from_secs(5);
/// How often in a row a new producer is tried before the role is given up …
pub const CLAIMS_MAX: u32 = 3;
/// … and the longest wait between two of them: all of them are over before another one takes over.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_secs(4);
/// The longest wait between two tries to read the table: the role may be free in the meantime.
const READ_WAIT_MAX: Duration = Duration::from_secs(4);
/// The jitter of a takeover, as a part of the silence that it waits for.
const TAKEOVER_JITTER_MAX: f64 = 0.5;

/// How to project.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this projector is called in its watermarks.
    pub projector: String,
    /// The silence of another projector after which it is taken for dead, but for jitter.
    pub takeover_after: Duration,
    /// Commands of the future that may be passed over.
    pub skip_offsets: BTreeSet<Offset>,
    /// What jitter and sign of life are drawn from: no two projectors may have the same.
    pub seed: u64,
}

/// What a projector hears. An answer with a [`Lease`] that has ended counts for nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Of the logs.
    Log(log::Event),
    /// [`Effect::Fence`] is done.
    Fenced(Lease),
    /// [`Effect::Commit`] is done.
    Committed(Lease),
    /// [`Effect::Fence`] or [`Effect::Commit`] is not done, or not for certain.
    Lost(Lease, WriteError),
    /// It is to stop: what is folded and not written yet is written, and [`Effect::Stopped`] follows.
    Stop,
}

/// What a projector wants done, in the order in which it is handed over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Something about the logs.
    Log(Request),
    /// Throw away the producer, if there is one, make a new one and fence all others with it.
    Fence(Lease),
    /// Write these records in one transaction, in this order. There is never more than one under way.
    Commit(Lease, Vec<TableWrite>),
    /// Tell people of a record that is no command.
    Undecodable(Offset, CommandError),
    /// Send [`log::Event::Tick`] at this time, if none is sent sooner.
    TickAt(Instant),
    /// Nothing more will be asked for.
    Stopped,
}

/// The one writer of the table, or who would be.
///
/// Its owner hands over every event and a tick at least once a second, does what comes back, and takes
/// nothing from the reader of the commands while [`Projector::wants_records`] says no. By hand, over a log in
/// memory with a new table, which holds a released watermark and no rows:
///
/// ```
/// use std::collections::VecDeque;
/// use std::time::Instant;
///
/// use portcullis::log::memory::MemoryLog;
/// use portcullis::log::{self, Identity, ReadEvent, Request, TableWriter, Topic};
/// use portcullis::projector::{Effect, Event, Projector, Role, Settings};
/// use portcullis::record::{Position, Timestamp};
/// use portcullis::table::{Table, WATERMARK_KEY, Watermark};
///
/// let wall = Timestamp::from_millis(1_800_000_000_000);
/// let (cluster_id, commands_topic) = ("cluster".to_owned(), "commands".to_owned());
/// let log = MemoryLog::new(Identity {
///     cluster_id: cluster_id.clone(),
///     commands_topic: commands_topic.clone(),
/// });
/// let genesis = Watermark::genesis(cluster_id, commands_topic, wall);
/// log.append_record(Topic::Table, wall, Some(WATERMARK_KEY), Some(&genesis.encode()));
/// log.append_record(Topic::Commands, wall, None, Some(b"BLACKLIST 203.0.113.0/24"));
///
/// let mut now = Instant::now();
/// let mut writer = log.table_writer(|| Timestamp::from_millis(1_800_000_000_000));
/// let mut projector = Projector::new(
///     Settings {
///         projector: "doc".to_owned(),
///         takeover_after: std::time::Duration::from_secs(15),
///         skip_offsets: Default::default(),
///         seed: 7,
///     },
///     now,
/// );
///
/// let mut events = VecDeque::from([Event::Log(log::Event::Tick)]);
/// while let Some(event) = events.pop_front() {
///     for effect in projector.handle(event, now, wall) {
///         match effect {
///             Effect::Fence(lease) => {
///                 writer.fence()?;
///                 events.push_back(Event::Fenced(lease));
///             }
///             Effect::Commit(lease, writes) => {
///                 writer.commit(writes)?;
///                 events.push_back(Event::Committed(lease));
///             }
///             Effect::Log(Request::Ask(question)) => {
///                 events.push_back(Event::Log(log::Event::Answered(log.answer(question))));
///             }
///             Effect::Log(Request::DropAnswers) => {
///                 events.retain(|event| !matches!(event, Event::Log(log::Event::Answered(_))));
///             }
///             Effect::Log(Request::Read(topic, session, from)) => {
///                 let delivery = log.read(topic, from)?;
///                 let reports = [ReadEvent::Records(delivery.records), ReadEvent::End(delivery.position)];
///                 let read = |report| Event::Log(log::Event::Read(topic, session, report));
///                 events.extend(reports.map(read));
///             }
///             Effect::TickAt(at) => {
///                 now = at;
///                 events.push_back(Event::Log(log::Event::Tick));
///             }
///             _ => {}
///         }
///     }
/// }
///
/// assert_eq!(projector.status().role, Role::Active);
/// let mut table = Table::default();
/// log.read(Topic::Table, Position::START)?.records.iter().for_each(|record| table.apply(record));
/// assert_eq!(table.check()?.position, Position::new(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Projector {
    purpose: Purpose,
    settings: Settings,
    status: Status,
    stage: Stage,
    /// The reading that counts; what comes from any other is an earlier reader's last words.
    session: Session,
    ends: EndsQuestion,
    settings_watch: SettingsWatch,
    unanswered: Unanswered,
    /// The newest difficulty that is not a question without an answer.
    difficulty: Option<String>,
    /// Why the last write failed. Kept over all that goes well since, until one succeeds: a projector that
    /// may not write stands by like a healthy one.
    write_failure: Option<String>,
    writer: Writer,
    tail: Tail,
    /// The last watermark of ours, as long as there is no reason for somebody else to have the role.
    written: Option<Watermark>,
    /// The watermark that was the newest when the role was last claimed.
    claimed: Option<Offset>,
    /// How often the role was claimed in a row without writing anything.
    claims: u32,
    /// The waits between claims whose outcome is not known.
    claim_waits: Backoff,
    /// The waits between tries to read a table that can't be read.
    read_waits: Backoff,
    patience: Patience,
    /// Our sign of life; another one with each lease.
    alive: Alive,
    random: fastrand::Rng,
    /// What the event under way has asked for so far.
    effects: Vec<Effect>,
}

/// What the projector is at.
#[derive(Debug)]
enum Stage {
    /// Nothing, until it is time to look at the table (again).
    Waiting(Instant),
    /// Watching the table.
    Standby(Box<Standby>),
    /// Fencing, once it is time; under way if there is none.
    Claiming(Option<Instant>),
    /// Reading the table.
    Loading(Box<Loading>),
    /// Folding commands and writing the table.
    Folding(Box<Folding>),
    /// Done for good.
    Stopped,
}

/// Both clocks, as the event came with them.
#[derive(Clone, Copy)]
struct Clocks {
    now: Instant,
    wall: Timestamp,
}

impl Projector {
    /// A projector that has not looked at anything yet; it begins with the first event.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let seed = settings.seed;
        Self {
            purpose: Purpose::Keep,
            settings,
            status: Status::default(),
            stage: Stage::Waiting(now),
            session: Session::default(),
            ends: EndsQuestion::default(),
            settings_watch: SettingsWatch::default(),
            unanswered: Unanswered::default(),
            difficulty: None,
            write_failure: None,
            writer: Writer::new(now),
            tail: Tail::new(now),
            written: None,
            claimed: None,
            claims: 0,
            claim_waits: Backoff::new(Duration::from_secs(1), CLAIM_WAIT_MAX, seed),
            read_waits: Backoff::new(Duration::from_secs(1), READ_WAIT_MAX, seed),
            patience: Patience::new(now),
            alive: Alive::default(),
            random: fastrand::Rng::with_seed(seed),
            effects: Vec::new(),
        }
    }

    /// What it says of itself.
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Whether the reader of the commands may go on. While it may not, a transaction is full and another one
    /// under way: a driver that takes nothing from the reader's bounded channel then bounds all memory. What
    /// is delivered nevertheless costs a new reader.
    pub fn wants_records(&self) -> bool {
        !matches!(&self.stage, Stage::Folding(folding) if folding.is_full())
    }

    /// Takes in one event, with the monotonic and the wall clock; returns what is to be done, in order. The
    /// wall clock is written into watermarks and decides nothing.
    pub fn handle(&mut self, event: Event, now: Instant, wall: Timestamp) -> Vec<Effect> {
        let clocks = Clocks { now, wall };
        match event {
            _ if matches!(self.stage, Stage::Stopped) => {}
            Event::Log(log::Event::Tick) => self.tick(clocks),
            Event::Log(log::Event::Read(topic, session, event)) if session == self.session => {
                self.read(topic, event, clocks);
            }
            // An earlier reader's last words.
            Event::Log(log::Event::Read(..)) => {}
            Event::Log(log::Event::Answered(answer)) => self.answered(&answer, clocks),
            Event::Fenced(lease) | Event::Committed(lease) => {
                if let Some(operation) = self.writer.answered(lease) {
                    self.done(operation, clocks);
                }
            }
            Event::Lost(lease, error) => {
                if self.writer.answered(lease).is_some() {
                    self.lost(error, clocks);
                }
            }
            Event::Stop => self.stop(clocks),
        }
        self.report();
        std::mem::take(&mut self.effects)
    }

    fn tick(&mut self, clocks: Clocks) {
        self.ask(clocks.now);
        // A producer that says nothing may still have written: that is an outcome that is not known.
        if let Some(lease) = self.writer.overdue(clocks.now)
            && self.writer.answered(lease).is_some()
        {
            return self.lost(WriteError::Unknown("the producer gave no answer".to_owned()), clocks);
        }
        match &mut self.stage {
            Stage::Waiting(until) if *until <= clocks.now => self.begin(clocks),
            Stage::Claiming(Some(at)) if *at <= clocks.now => self.fence(clocks),
            Stage::Standby(standby) if standby.is_stuck(clocks.now) => self.stand_by(clocks),
            Stage::Loading(loading) if loading.is_retry_due(clocks.now) => self.read_anew(clocks),
            Stage::Loading(_) | Stage::Folding(_) => self.carry_on(clocks),
            _ => {}
        }
    }

    /// Asks what is due, and replaces a client that does not answer.
    fn ask(&mut self, now: Instant) {
        let overdue = self.ends.is_overdue(now);
        if overdue {
            self.settings_watch.ask_again();
        }
        self.request(overdue.then_some(Request::RenewQuestioner));
        let mut requests = Vec::new();
        let topic = match &mut self.stage {
            Stage::Standby(standby) => {
                if overdue {
                    standby.ask_again();
                }
                requests.extend(standby.questions());
                Topic::Table
            }
            Stage::Folding(folding) => {
                if overdue {
                    folding.ask_again();
                }
                requests.extend(folding.tick(now));
                requests.extend(self.tail.ask(now));
                Topic::Commands
            }
            _ => return,
        };
        requests.extend(self.settings_watch.ask(now));
        requests.extend(self.ends.ask(topic, now));
        self.request(requests);
    }

    /// Goes on as the active one, if it gets on at all.
    fn carry_on(&mut self, clocks: Clocks) {
        // While a transaction is full, nothing comes because nothing is taken: that is no standstill.
        if matches!(&self.stage, Stage::Folding(folding) if folding.is_filled()) {
            self.patience.progress(clocks.now);
        }
        match self.patience.tick(clocks.now) {
            Some(Overdue::Role) => {
                self.difficulty = Some("nothing came of the log for 60 s: gave up the role".to_owned());
                // If the log answers us and brings us no further, somebody else may get further.
                self.written.take_if(|_| self.unanswered.reason().is_none());
                self.stand_by(clocks);
            }
            Some(Overdue::Reader) => self.read_anew(clocks),
            None if self.read_what_others_wrote(clocks) => {}
            None => self.write(clocks),
        }
    }
}
