//! The follower: brings a view to the end of the commands log and keeps it there.
//!
//! A state machine: events and two clocks go in, effects come out. It does no I/O, spawns nothing and reads
//! no clock, so that a simulation can drive it through every fault in any order.
//!
//! It bootstraps (from the table, or from the log's beginning), checks that the log is the one that the view
//! was folded from, catches up, publishes, and follows. Whatever goes wrong on the way, the view that was
//! published last stays served.
//!
//! ```text
//!          due, topics set        a whole table:              end of the log, as
//!          as they must be        its view, position          it was or is: served
//! Waiting ────────────────► Loading ────────────► Reading ────────────────────► Reading
//!  ▲   │                       │                  with a candidate              what is served
//!  │   └───── no table: an empty view at 0 ──────►│                             │
//!  │                           │                  │                             │
//!  └───────────────────────────┴── trouble ───────┴─────────────────────────────┘
//! ```
//!
//! A view on its way to the log's end is a *candidate*: nobody sees it, because a view half-way through old
//! commands blocks what was freed long ago. Once it is at the end it moves into [`Served`], and a [`Draft`] is
//! made of it. From then on each delivery is folded and published in place, without a candidate.
//!
//! A reader of the commands that fails does not lead back to the beginning: the stage stays, the
//! [feed](crate::feed) checks the log again, and reading goes on at the position. Trouble ([`Trouble`]) does,
//! since the view no longer fits the log, or never got anywhere:
//!
//! | trouble | what the status says | tried again |
//! |---|---|---|
//! | again | a message | after 1 s at first, up to 60 s, by chance |
//! | gap | degraded: gap | the same |
//! | another log | alarm | with a table, after 30 s and such a wait; without one, never |
//!
//! A command of the future ends the reading as well: what stands before it is served, and with a table, which
//! an operator can lead around it, all is tried again like another log.
//!
//! Later attempts load into a new candidate while the old view is served. A candidate that leads to a lower
//! position than the one that is served is given up: the served view never goes back. Only in an alarm is it
//! taken, for then an operator has built a new table; and with the alarm the view that is served goes back to
//! the last record that is known to be of the log, if another log was read for a moment.
//!
//! Two things are looked after in every stage: expiries by the wall clock, and the questions for the log's
//! ends and for the settings of the topics.

mod bootstrap;
mod fold;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::bootstrap::Loading;
use crate::backoff::Backoff;
use crate::check::Trouble;
use crate::command::CommandError;
use crate::ends::EndsWatch;
use crate::feed::{Feed, Next};
use crate::log::{Answer, Event, ReadEvent, Request, Session, Topic};
use crate::record::{Offset, Position, Timestamp};
use crate::served::Served;
use crate::snapshot::{Draft, Expiry, Snapshot};
use crate::status::{Alarm, Degraded, Detail, Phase, Status};
use crate::table::Anchor;
use crate::topic_settings::SettingsWatch;
use crate::unanswered::Unanswered;
use crate::view::{RefusedCounts, View};

/// A bootstrap that has read nothing for so long begins again.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);
/// The longest wait by chance between two tries to bootstrap. In alarm, and behind a command of the future,
/// half of it is added to every wait: an operator has to act there, and haste is no use.
pub const BOOTSTRAP_WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest first wait after a reader that failed before it had read anything.
pub const READER_WAIT_FIRST: Duration = Duration::from_millis(500);

/// Where a view comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// From the table, then from the commands behind its watermark.
    Table,
    /// From the commands, beginning with the first: for logs without a table. The log must still begin at 0.
    Commands,
}

/// How to follow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where a view comes from.
    pub source: Source,
    /// Offsets to pass over; with a table, its watermark says it instead.
    pub skip_offsets: BTreeSet<Offset>,
    /// What the jitter is drawn from; different on each machine, so that not all come back at once.
    pub seed: u64,
}

/// What the follower wants done, in the order in which it is handed over.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Something about the log.
    Log(Request),
    /// Make this snapshot the one that lookups see, by
    /// [`Publisher::publish`](crate::snapshot::Publisher::publish).
    Publish(Arc<Snapshot>),
    /// Tell all who ask that what is published by now was at the log's end at this time, by
    /// [`Status::set_proven`]. Not before it is published: an answer would name the age of a list that it was
    /// not made from.
    Proven(Instant),
    /// Tell people of a record that is no command. There may be very many: who tells limits the rate.
    Undecodable(Offset, CommandError),
    /// Send [`Event::Tick`] as soon as nothing else is to be done: there is more work than one turn takes.
    TickSoon,
}

/// Brings a view to the end of the commands log and keeps it there.
///
/// Its owner hands over every event of the log and a tick at least once a second, and does what comes back.
/// By hand, over a log in memory, in no time at all:
///
/// ```
/// use std::collections::VecDeque;
/// use std::sync::Arc;
/// use std::time::Instant;
///
/// use portcullis::follower::{Effect, Follower, Settings, Source};
/// use portcullis::served::Served;
/// use portcullis::log::memory::MemoryLog;
/// use portcullis::log::{Event, ReadEvent, Request, Topic};
/// use portcullis::record::Timestamp;
/// use portcullis::snapshot::Verdict;
/// use portcullis::status::{Phase, Status};
///
/// let (now, wall) = (Instant::now(), Timestamp::from_millis(1_800_000_000_000));
/// let log = MemoryLog::default();
/// log.append_record(Topic::Commands, wall, None, Some(b"BLACKLIST 203.0.113.0/24"));
///
/// let settings = Settings { source: Source::Commands, skip_offsets: Default::default(), seed: 7 };
/// let (served, status) = (Arc::new(Served::default()), Arc::new(Status::new(now)));
/// let mut follower = Follower::new(settings, served, Arc::clone(&status), now);
///
/// let mut published = None;
/// let mut events = VecDeque::from([Event::Tick]);
/// while let Some(event) = events.pop_front() {
///     for effect in follower.handle(event, now, wall) {
///         match effect {
///             Effect::Log(Request::Ask(question)) => {
///                 events.push_back(Event::Answered(log.answer(question)));
///             }
///             Effect::Log(Request::DropAnswers) => {
///                 events.retain(|event| !matches!(event, Event::Answered(_)));
///             }
///             Effect::Log(Request::Read(topic, session, from)) => {
///                 let delivery = log.read(topic, from)?;
///                 let reports = [ReadEvent::Records(delivery.records), ReadEvent::End(delivery.position)];
///                 events.extend(reports.map(|report| Event::Read(topic, session, report)));
///             }
///             Effect::Publish(snapshot) => published = Some(snapshot),
///             Effect::Proven(at) => status.set_proven(at),
///             _ => {}
///         }
///     }
/// }
///
/// assert_eq!(status.detail().phase, Phase::Following);
/// assert!(status.age(now).is_some(), "it is proven to be at the log's end");
/// let snapshot = published.expect("the end was reached");
/// assert_eq!(snapshot.lookup("203.0.113.7".parse()?), Verdict::Blacklisted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Follower {
    settings: Settings,
    served: Arc<Served>,
    status: Arc<Status>,
    /// What the status is to say. `report` puts the phase of an alarm and refused settings over it.
    detail: Detail,
    /// What the next snapshot will be; none before the first.
    draft: Option<Draft>,
    stage: Stage,
    /// The reading that counts; what comes from any other is an earlier reader's last words.
    session: Session,
    ends: EndsWatch,
    settings_watch: SettingsWatch,
    unanswered: Unanswered,
    /// The waits between bootstraps.
    backoff: Backoff,
    /// What the event under way has asked for so far.
    effects: Vec<Effect>,
}

/// What the follower is at.
enum Stage {
    /// Nothing, until it is time to bootstrap (again); for ever if there is no time.
    Waiting(Option<Instant>),
    /// Reading the table.
    Loading(Box<Loading>),
    /// Reading the commands, towards the end of the log or at it.
    Reading(Box<Reading>),
}

/// The commands being read, and the view that is being caught up; none once it is the one that is served.
struct Reading {
    feed: Feed,
    candidate: Option<Candidate>,
    /// When the log is to be checked again after its reader failed.
    resume_at: Option<Instant>,
    /// How long to wait after a reader that failed before it had read anything.
    waits: Backoff,
}

/// A view that is not served yet, and what was refused on its way. Dropped with its stage: a bootstrap that
/// stumbles keeps nothing.
#[derive(Debug, Default)]
struct Candidate {
    view: View,
    refused: RefusedCounts,
    /// Whether it comes of a table whose watermark names a record of the log, so that the two are known to
    /// belong together. A table that was only begun names none, and would agree with any log.
    anchored: bool,
}

/// Both clocks, as the event came with them.
#[derive(Clone, Copy)]
struct Clocks {
    now: Instant,
    wall: Timestamp,
}

impl Reading {
    fn new(feed: Feed, candidate: Candidate, seed: u64) -> Self {
        let waits = Backoff::new(READER_WAIT_FIRST, BOOTSTRAP_WAIT_MAX, seed);
        Self { feed, candidate: Some(candidate), resume_at: None, waits }
    }

    /// Position and anchor of the view that is folded into.
    fn place(&self, served: &Served) -> (Position, Option<Anchor>) {
        let place = |view: &View| (view.position(), view.anchor());
        match &self.candidate {
            Some(candidate) => place(&candidate.view),
            None => served.with_view(place),
        }
    }
}

impl Follower {
    /// A follower that serves nothing yet; it begins with the first event. `served` must not be folded into by
    /// anybody else, nor `status` be written.
    pub fn new(settings: Settings, served: Arc<Served>, status: Arc<Status>, now: Instant) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), BOOTSTRAP_WAIT_MAX, settings.seed);
        Self {
            settings,
            served,
            status,
            detail: Detail::default(),
            draft: None,
            stage: Stage::Waiting(Some(now)),
            session: Session::default(),
            ends: EndsWatch::default(),
            settings_watch: SettingsWatch::default(),
            unanswered: Unanswered::default(),
            backoff,
            effects: Vec::new(),
        }
    }

    /// Takes in one event, with the monotonic and the wall clock; returns what is to be done, in order. The
    /// monotonic clock measures waits and age, the wall clock only ends bans.
    pub fn handle(&mut self, event: Event, now: Instant, wall: Timestamp) -> Vec<Effect> {
        let clocks = Clocks { now, wall };
        match event {
            Event::Tick => self.tick(clocks),
            Event::Read(topic, session, event) if session == self.session => self.read(topic, event, clocks),
            // An earlier reader's last words.
            Event::Read(..) => {}
            Event::Answered(answer) => self.answered(answer, clocks),
        }
        self.report();
        std::mem::take(&mut self.effects)
    }

    fn tick(&mut self, clocks: Clocks) {
        // Bans end by the clock, whatever the log does: expiries never wait behind an outage.
        self.expire(clocks.wall);
        self.renew_questioner(clocks.now);
        self.ask(clocks.now);
        match &mut self.stage {
            Stage::Waiting(_) => self.begin_if_due(clocks),
            Stage::Loading(loading) => {
                let outcome = loading.tick(clocks.now);
                self.settle(outcome, clocks);
            }
            Stage::Reading(reading) if reading.resume_at.is_some_and(|at| at <= clocks.now) => {
                self.recheck(clocks);
            }
            Stage::Reading(reading) => {
                let (_, anchor) = reading.place(&self.served);
                let requests = reading.feed.tick(anchor, clocks.now);
                self.request(requests);
            }
        }
    }

    /// Lets what is over by the wall clock go, a slice at a time.
    fn expire(&mut self, wall: Timestamp) {
        let Some(draft) = &mut self.draft else { return };
        let (expiry, position) = self.served.with_view(|view| (draft.expire(view, wall), view.position()));
        if expiry != Expiry::Nothing {
            self.effects.push(Effect::Publish(draft.snapshot(position)));
        }
        if expiry == Expiry::More {
            self.effects.push(Effect::TickSoon);
        }
    }

    /// Asks what is due in every stage.
    fn ask(&mut self, now: Instant) {
        let position = match &self.stage {
            Stage::Reading(reading) => reading.place(&self.served).0,
            Stage::Waiting(_) | Stage::Loading(_) => self.served.with_view(View::position),
        };
        let ends = self.ends.ask(position, now);
        let settings = self.settings_watch.ask(now);
        self.request(settings.into_iter().chain(ends));
    }

    /// Replaces the client for questions if it owes an answer for too long. The question for the ends is
    /// asked every second, so that its silence stands for all others; those are asked again, as they died
    /// with it.
    fn renew_questioner(&mut self, now: Instant) {
        if self.ends.is_overdue(now) {
            self.settings_watch.ask_again();
            if let Stage::Reading(reading) = &mut self.stage {
                reading.feed.ask_again();
            }
            self.request([Request::RenewQuestioner]);
        }
    }

    fn read(&mut self, topic: Topic, event: ReadEvent, clocks: Clocks) {
        match (&mut self.stage, topic) {
            (Stage::Loading(loading), Topic::Table) => {
                let outcome = loading.read(event, clocks.now);
                self.settle(outcome, clocks);
            }
            (Stage::Reading(_), Topic::Commands) => self.read_commands(event, clocks),
            _ => {}
        }
    }

    fn answered(&mut self, answer: Answer, clocks: Clocks) {
        if let Some(ends) = self.ends.answered(&answer, clocks.now) {
            self.note_ends(ends, clocks.now);
        }
        self.unanswered.note(&answer);
        self.settings_watch.answered(&answer, clocks.now);
        // Settings that were good may be found wrong while the first bootstrap is under way: it is given up.
        if self.must_not_begin() && !matches!(self.stage, Stage::Waiting(_)) {
            self.close_readers();
            self.stage = Stage::Waiting(Some(clocks.now));
        }
        if matches!(self.stage, Stage::Waiting(_)) {
            // What begins now asks for itself: an answer from before is none to that.
            return self.begin_if_due(clocks);
        }
        let Stage::Reading(reading) = &mut self.stage else { return };
        match reading.feed.answered(&answer, self.ends.position_asked(), clocks.now) {
            Ok(Next::Nothing) => self.known().into_iter().for_each(|known| self.served.prove(known.offset)),
            Ok(Next::Ask(requests)) => self.request(requests),
            Ok(Next::Open(from)) => {
                let request = self.open(Topic::Commands, from);
                self.request([request]);
                self.ends.reader_opens(clocks.now);
                self.ask(clocks.now);
            }
            Ok(Next::Recheck) => self.recheck(clocks),
            Err(trouble) => {
                self.take_back(clocks);
                self.stumble(trouble, clocks);
            }
        }
        self.prove();
    }

    /// Serves again what the log was known to be when it was asked last, if more was read since: a topic that is
    /// made anew within a moment gives its reader no error, so that it may be another one's.
    fn take_back(&mut self, clocks: Clocks) {
        let Some(known) = self.known() else { return };
        if self.served.with_view(View::anchor) == Some(known) {
            return;
        }
        self.served.take_back(known);
        let (draft, position) =
            self.served.with_view(|view| (Draft::new(view, clocks.wall), view.position()));
        self.effects.push(Effect::Publish(draft.snapshot(position)));
        self.draft = Some(draft);
    }

    /// The newest record in what is served that is known to be of the log.
    fn known(&self) -> Option<Anchor> {
        let Stage::Reading(reading) = &self.stage else { return None };
        reading.feed.known().filter(|_| reading.candidate.is_none())
    }

    /// Whether nothing may be served yet, because the topics may not be set as they must be. What is served
    /// already stays, and goes on.
    fn must_not_begin(&self) -> bool {
        self.draft.is_none() && !self.settings_watch.are_good()
    }

    fn begin_if_due(&mut self, clocks: Clocks) {
        let due = matches!(self.stage, Stage::Waiting(Some(until)) if until <= clocks.now);
        if due && !self.must_not_begin() {
            self.begin(clocks);
        }
    }

    /// Begins a bootstrap.
    fn begin(&mut self, clocks: Clocks) {
        match self.settings.source {
            Source::Table => {
                let request = self.open(Topic::Table, Position::START);
                self.enter(
                    Phase::Loading,
                    Stage::Loading(Box::new(Loading::new(clocks.now, self.settings.seed))),
                );
                self.request([request]);
            }
            Source::Commands => {
                let view = View::new(self.settings.skip_offsets.clone());
                let (candidate, seed) = (Candidate { view, ..Candidate::default() }, self.settings.seed);
                self.catch_up(Reading::new(Feed::from_start(seed), candidate, seed), clocks);
            }
        }
    }

    /// Goes on with the commands, once the log is known to be the one.
    fn catch_up(&mut self, reading: Reading, clocks: Clocks) {
        self.enter(Phase::CatchingUp, Stage::Reading(Box::new(reading)));
        self.recheck(clocks);
    }

    /// Goes on with what a bootstrap step came to.
    fn settle(&mut self, outcome: Result<Option<Reading>, Trouble>, clocks: Clocks) {
        match outcome {
            Ok(None) => {}
            Ok(Some(reading)) => {
                self.request([Request::Close(Topic::Table)]);
                self.catch_up(reading, clocks);
            }
            Err(trouble) => self.stumble(trouble, clocks),
        }
    }

    /// Closes the reader and asks again whether the log is the one; nothing is folded until it is.
    ///
    /// All that is under way is of before: the session ends what the reader may still have sent, and answers
    /// and proofs are dropped, because they may speak of the log as it was before an error.
    fn recheck(&mut self, clocks: Clocks) {
        self.session = self.session.next();
        self.request([Request::Close(Topic::Commands), Request::DropAnswers]);
        self.ends.forget();
        self.settings_watch.ask_again();
        let Stage::Reading(reading) = &mut self.stage else { return };
        reading.resume_at = None;
        let (position, anchor) = reading.place(&self.served);
        let requests = reading.feed.begin_check(position, anchor, clocks.now);
        self.request(requests);
        self.ask(clocks.now);
    }

    /// Gives up what is under way, and says why; what is served stays.
    fn stumble(&mut self, trouble: Trouble, clocks: Clocks) {
        self.close_readers();
        self.unanswered.forget();
        let mut wait = Some(self.backoff.wait());
        self.detail.phase = if self.draft.is_some() { Phase::Following } else { Phase::Connecting };
        self.detail.message = Some(match trouble {
            Trouble::Again(reason) => reason,
            Trouble::Gap(reason) => {
                self.detail.degraded = Some(Degraded::Gap);
                reason
            }
            Trouble::AnotherLog(reason) => {
                self.detail.alarm = Some(Alarm::AnotherLog);
                // Without a table, a new view would be folded from the very log that is in doubt, and would
                // pass: only a restart, by somebody who knows, may do that.
                let from_table = self.settings.source == Source::Table;
                wait = from_table.then(|| BOOTSTRAP_WAIT_MAX.div_f64(2.0) + self.backoff.wait());
                let way = if from_table { "run `portcullis table rebuild`" } else { "restart the sidecar" };
                format!("{reason}; what is served stays; if the log was replaced on purpose, {way}")
            }
        });
        self.stage = Stage::Waiting(wait.map(|wait| clocks.now + wait));
    }

    /// Ends the session: no reader is open, and what one may still report counts for nothing.
    fn close_readers(&mut self) {
        self.session = self.session.next();
        self.request([Request::Close(Topic::Table), Request::Close(Topic::Commands)]);
    }

    /// Enters a stage of a bootstrap, whose progress counts from zero.
    fn enter(&mut self, phase: Phase, stage: Stage) {
        self.detail.phase = phase;
        self.detail.records_read = 0;
        self.unanswered.forget();
        self.stage = stage;
    }

    /// The request for a reader, in a session of its own.
    fn open(&mut self, topic: Topic, from: Position) -> Request {
        self.session = self.session.next();
        Request::Read(topic, self.session, from)
    }

    fn request(&mut self, requests: impl IntoIterator<Item = Request>) {
        self.effects.extend(requests.into_iter().map(Effect::Log));
    }
}
