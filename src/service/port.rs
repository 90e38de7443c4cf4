//! The threads between a state machine and a log, one for each open reader and one for questions, and the two
//! queues that end at the state machine's own thread.
//!
//! ```text
//!                 Request::Read           ┌─ reports, bounded ──► taken unless the state machine is full ─┐
//!   Port::request ─┬──► reader thread ────┘                                                              ├──► Port::next
//!                  └──► questions thread ─┬─ the rest, bounded ─► taken at any time, and first ───────────┘
//!                 Request::Ask            │
//!   Teller ───────────────────────────────┘  told to stop, a write is done, …
//! ```
//!
//! A state machine must not wait, and a log may take as long as it likes. So it only ever puts a request
//! down here, and hears of what comes of it through its queues.
//!
//! The threads never wait for each other. Replacing one only tells it to stop; it ends on its own, because
//! letting go of a reader or a client may block. What a replaced one still says is recognised and not taken
//! for news: the reports of a reader carry the [`Session`] that they were asked for in, answers an
//! [`Asking`].
//!
//! Both queues are bounded, so that a log that is read faster than it is folded makes its readers wait, and
//! not the memory grow. They are two, because a state machine that wants no records for now still wants to
//! hear of everything else: what ends its being full is among it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::log::{Answer, Event, Log, Question, ReadEvent, Request, Session, Topic};
use crate::record::Position;

/// How many reports wait for the state machine before its readers do. Each may hold as many records as one
/// report has at most, so that it need not be many.
const REPORTS_MAX: usize = 16;
/// How much else waits before those do who have to tell it; they are few, and each waits for its answer.
const REST_MAX: usize = 64;
/// How many questions wait for their client; a state machine asks few and one at a time.
const QUESTIONS_MAX: usize = 64;
/// How long a reader waits for news before it looks whether it is still wanted. News itself wakes it at once.
const POLL_WAIT: Duration = Duration::from_millis(200);

/// What the thread of a state machine hears: of the log, or, in `T`, of whatever else concerns it.
#[derive(Debug)]
pub(super) enum Heard<T> {
    /// The log has something to say.
    Log(Event),
    /// Somebody has told it something through a [`Teller`].
    Told(T),
}

/// What is taken from the queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Take {
    /// Whatever comes.
    All,
    /// All but what readers report: that stays in its queue, and its readers wait.
    AllButReports,
}

/// Counts how often answers were given up, so that one to an earlier question is recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Asking(u64);

/// What stands in the queue for all that is no report.
#[derive(Debug)]
enum Rest<T> {
    Answer(Asking, Answer),
    Told(T),
}

/// Carries requests to a log and events back. Belongs to the thread of the state machine.
pub(super) struct Port<T> {
    log: Arc<dyn Log>,
    readers: Vec<(Topic, Wanted)>,
    questioner: Option<SyncSender<(Asking, Question)>>,
    asking: Asking,
    reports: Queue<Event>,
    rest: Queue<Rest<T>>,
    /// Waits on both queues and the clock at once.
    runtime: Runtime,
}

/// Both ends of a queue: the port keeps one to write into for the threads that it starts.
struct Queue<T> {
    into: mpsc::Sender<T>,
    out: mpsc::Receiver<T>,
}

impl<T> Queue<T> {
    fn new(length_max: usize) -> Self {
        let (into, out) = mpsc::channel(length_max);
        Self { into, out }
    }
}

/// Tells the thread of a state machine something that is not of the log.
pub(super) struct Teller<T>(mpsc::Sender<Rest<T>>);

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Teller<T> {
    /// Waits for room, which that thread makes; if it has ended there is nobody left to tell. Not for that
    /// thread itself.
    pub(super) fn tell(&self, told: T) {
        let _gone = self.0.blocking_send(Rest::Told(told));
    }

    /// Tells it if there is room: for that thread itself, which would wait for ever.
    pub(super) fn tell_if_room(&self, told: T) {
        let _no_room = self.0.try_send(Rest::Told(told));
    }
}

/// Tells a thread that it is no longer wanted, when dropped. It need not hear of it at once, so that no order
/// with other memory is asked for.
struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Our half, and the half that the thread looks at.
    fn new() -> (Self, Arc<AtomicBool>) {
        let wanted = Arc::new(AtomicBool::new(true));
        (Self(Arc::clone(&wanted)), wanted)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Port<T> {
    /// A port without threads; each is started by the first request that needs it.
    ///
    /// # Errors
    /// When there is nothing to be had to wait with.
    pub(super) fn new(log: Arc<dyn Log>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (reports, rest) = (Queue::new(REPORTS_MAX), Queue::new(REST_MAX));
        Ok(Self { log, readers: Vec::new(), questioner: None, asking: Asking(0), reports, rest, runtime })
    }

    /// What others tell the state machine's thread with.
    pub(super) fn teller(&self) -> Teller<T> {
        Teller(self.rest.into.clone())
    }

    /// What comes next; none when nothing did until then. What came first need not be heard first: reports
    /// come last, because they may be many, and an answer may well overtake those that stand there.
    pub(super) fn next(&mut self, take: Take, until: Instant) -> Option<Heard<T>> {
        let Self { reports, rest, asking, runtime, .. } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    biased;
                    Some(next) = rest.out.recv() => match next {
                        Rest::Told(told) => return Some(Heard::Told(told)),
                        // Compared only now: what was heard before it may have made the state machine give
                        // it up.
                        Rest::Answer(asked, answer) if asked == *asking => {
                            return Some(Heard::Log(Event::Answered(answer)));
                        }
                        Rest::Answer(..) => {}
                    },
                    Some(report) = reports.out.recv(), if take == Take::All => return Some(Heard::Log(report)),
                    () = tokio::time::sleep_until(until.into()) => return None,
                }
            }
        })
    }

    /// Does what the state machine asked for; never waits for the log.
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Read(topic, session, from) => self.open(topic, session, from),
            Request::Close(topic) => self.readers.retain(|(open, _)| *open != topic),
            Request::Ask(question) => self.ask(question),
            Request::DropAnswers => self.asking.0 += 1,
            Request::RenewQuestioner => {
                self.asking.0 += 1;
                self.questioner = None;
            }
        }
    }

    /// Opens a reader on a thread of its own, in place of the topic's reader so far.
    fn open(&mut self, topic: Topic, session: Session, from: Position) {
        self.readers.retain(|(open, _)| *open != topic);
        let (ours, wanted) = Wanted::new();
        self.readers.push((topic, ours));
        let (log, reports) = (Arc::clone(&self.log), self.reports.into.clone());
        let tell = move |event| reports.blocking_send(Event::Read(topic, session, event)).is_ok();
        // Opening belongs to the thread, too: it may block.
        let read = {
            let tell = tell.clone();
            move || match log.open(topic, from) {
                Err(error) => drop(tell(ReadEvent::Failed(error.0))),
                Ok(mut reader) => {
                    while wanted.load(Ordering::Relaxed) {
                        let Some(event) = reader.poll(POLL_WAIT) else { continue };
                        let last = matches!(event, ReadEvent::Failed(_));
                        if !tell(event) || last {
                            break;
                        }
                    }
                }
            }
        };
        // Else nobody would hear that nothing more comes.
        let spawned = spawn("reader", move || {
            if let Err(panic) = caught(read) {
                tell(ReadEvent::Failed(panic));
            }
        });
        if let Err(error) = spawned {
            let event = ReadEvent::Failed(format!("no thread for a reader: {error}"));
            // This is the thread that empties the queue, so that it must not wait for room in it. Without
            // room the state machine will notice that nothing comes.
            let _no_room = self.reports.into.try_send(Event::Read(topic, session, event));
        }
    }

    /// Passes a question on to the client, which is made for the first one.
    fn ask(&mut self, question: Question) {
        let questions = self.questioner.get_or_insert_with(|| questioner(&self.log, &self.rest.into));
        // A client that does not answer will be replaced; until then nothing more is asked of it.
        let _full_or_gone = questions.try_send((self.asking, question));
    }
}

/// Starts a client of its own; it ends when nobody can ask it any more.
fn questioner<T: Send + 'static>(
    log: &Arc<dyn Log>,
    answers: &mpsc::Sender<Rest<T>>,
) -> SyncSender<(Asking, Question)> {
    let (questions, asked): (_, Receiver<(Asking, Question)>) = sync_channel(QUESTIONS_MAX);
    let (log, answers) = (Arc::clone(log), answers.clone());
    let spawned = spawn("questions", move || {
        let mut client = log.questioner();
        for (asking, question) in asked {
            let answer = caught(|| client.ask(question)).unwrap_or_else(|panic| {
                client = log.questioner();
                Answer::Failed(question, panic)
            });
            if answers.blocking_send(Rest::Answer(asking, answer)).is_err() {
                break;
            }
        }
    });
    // Without its thread the client answers nothing, and is replaced like any other that does not.
    drop(spawned);
    questions
}

/// Does something with a log; the error says how it panicked, as a database may on a damaged file.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever it was at is thrown away, so that nobody sees it half done.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        format!("the log panicked, by a bug or a damaged file: {text}")
    })
}

/// Starts a thread that nobody joins.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a log that panics is what a test is about")]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{LogError, Questioner, Reader};
    use crate::record::Timestamp;

    /// A log on a file that makes its database panic.
    struct Panicking;

    impl Log for Panicking {
        fn open(&self, _: Topic, _: Position) -> Result<Box<dyn Reader>, LogError> {
            Ok(Box::new(Self))
        }

        fn questioner(&self) -> Box<dyn Questioner> {
            Box::new(Self)
        }
    }

    impl Reader for Panicking {
        fn poll(&mut self, _: Duration) -> Option<ReadEvent> {
            panic!("page 200 is of no known kind")
        }
    }

    impl Questioner for Panicking {
        fn ask(&mut self, _: Question) -> Answer {
            panic!("page 200 is of no known kind")
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn a_log_that_panics_has_failed_and_says_how() {
        let mut port = Port::<()>::new(Arc::new(Panicking)).expect("a port");
        port.request(Request::Read(Topic::Commands, Session::default(), Position::START));
        let heard = port.next(Take::All, soon());
        let Some(Heard::Log(Event::Read(_, _, ReadEvent::Failed(reason)))) = heard else {
            panic!("no failure: {heard:?}")
        };
        assert!(reason.contains("page 200"), "{reason}");
        // The client goes on: each question has its answer.
        for _ in 0..2 {
            port.request(Request::Ask(Question::Identity));
            let heard = port.next(Take::All, soon());
            let Some(Heard::Log(Event::Answered(Answer::Failed(Question::Identity, reason)))) = heard else {
                panic!("no failed answer: {heard:?}")
            };
            assert!(reason.contains("page 200"), "{reason}");
        }
    }

    #[test]
    fn what_readers_report_waits_while_all_else_is_heard() {
        let log = MemoryLog::default();
        log.append_record(Topic::Commands, Timestamp::from_millis(0), None, Some(b"WHITELIST 192.0.2.1"));
        let mut port = Port::new(Arc::new(log)).expect("a port");
        port.request(Request::Read(Topic::Commands, Session::default(), Position::START));
        // Until both of its reports are there.
        while port.reports.out.len() < 2 {
            thread::yield_now();
        }
        port.request(Request::Ask(Question::Identity));
        let heard = port.next(Take::AllButReports, soon());
        assert!(matches!(heard, Some(Heard::Log(Event::Answered(Answer::Identity(_))))), "{heard:?}");
        port.teller().tell("stop");
        assert!(matches!(port.next(Take::AllButReports, soon()), Some(Heard::Told("stop"))));
        let heard = port.next(Take::AllButReports, Instant::now());
        assert!(heard.is_none(), "{heard:?}");
        for _ in 0..2 {
            let heard = port.next(Take::All, soon());
            assert!(matches!(heard, Some(Heard::Log(Event::Read(..)))), "{heard:?}");
        }
    }

    #[test]
    fn an_answer_that_was_given_up_is_not_heard() {
        let mut port = Port::<()>::new(Arc::new(MemoryLog::default())).expect("a port");
        for request in [Request::DropAnswers, Request::RenewQuestioner] {
            port.request(Request::Ask(Question::Identity));
            while port.rest.out.is_empty() {
                thread::yield_now();
            }
            port.request(request);
            port.request(Request::Ask(Question::Ends(Topic::Commands)));
            let heard = port.next(Take::All, soon());
            assert!(matches!(heard, Some(Heard::Log(Event::Answered(Answer::Ends(..))))), "{heard:?}");
        }
    }
}
