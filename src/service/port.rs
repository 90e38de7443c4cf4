//! The threads between a state machine and a log: one for each open reader, one for questions.
//!
//! A state machine must not wait, and a log may take as long as it likes. So it only ever puts a request
//! down here, and hears of what comes of it through its inbox.
//!
//! The threads never wait for each other. Replacing one only tells it to stop; it ends on its own, because
//! letting go of a reader or a client may block. What a replaced one still says is recognised and not taken
//! for news: the reports of a reader carry the [`Session`] that they were asked for in, answers an
//! [`Asking`].
//!
//! The inbox is bounded, so that a log that is read faster than it is folded makes its readers wait, and not
//! the memory grow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::log::{Answer, Event, Log, Question, ReadEvent, Request, Session, Topic};
use crate::record::Position;

/// How many events wait for the state machine before its readers do. Each may hold as many records as one
/// report has at most, so that it need not be many.
pub(super) const EVENTS_MAX: usize = 16;
/// How many questions wait for their client; a state machine asks few and one at a time.
const QUESTIONS_MAX: usize = 64;
/// How long a reader waits for news before it looks whether it is still wanted. News itself wakes it at once.
const POLL_WAIT: Duration = Duration::from_millis(200);

/// What the thread of a state machine receives.
#[derive(Debug)]
pub(super) enum Message {
    /// The log has something to say.
    Event(Event),
    /// A question is answered; [`Port::is_wanted`] says whether anybody still wants to know.
    Answer(Asking, Answer),
    /// It is time to end.
    Stop,
}

/// Counts how often answers were given up, so that one to an earlier question is recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Asking(u64);

/// Carries requests to a log and events back.
pub(super) struct Port {
    log: Arc<dyn Log>,
    inbox: SyncSender<Message>,
    readers: Vec<(Topic, Wanted)>,
    questioner: Option<SyncSender<(Asking, Question)>>,
    asking: Asking,
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

impl Port {
    /// A port without threads; each is started by the first request that needs it.
    pub(super) fn new(log: Arc<dyn Log>, inbox: SyncSender<Message>) -> Self {
        Self { log, inbox, readers: Vec::new(), questioner: None, asking: Asking(0) }
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

    /// Whether an answer is one that the state machine still waits for. Asked on the state machine's own
    /// thread, where no answer can slip in between.
    pub(super) fn is_wanted(&self, asking: Asking) -> bool {
        asking == self.asking
    }

    /// Opens a reader on a thread of its own, in place of the topic's reader so far.
    fn open(&mut self, topic: Topic, session: Session, from: Position) {
        self.readers.retain(|(open, _)| *open != topic);
        let (ours, wanted) = Wanted::new();
        self.readers.push((topic, ours));
        let (log, inbox) = (Arc::clone(&self.log), self.inbox.clone());
        let failed = self.inbox.clone();
        let tell = move |event| inbox.send(Message::Event(Event::Read(topic, session, event))).is_ok();
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
            // This is the thread that empties the inbox, so that it must not wait for room in it. Without
            // room the state machine will notice that nothing comes.
            let _no_room = failed.try_send(Message::Event(Event::Read(topic, session, event)));
        }
    }

    /// Passes a question on to the client, which is made for the first one.
    fn ask(&mut self, question: Question) {
        let questions = self.questioner.get_or_insert_with(|| questioner(&self.log, &self.inbox));
        // A client that does not answer will be replaced; until then nothing more is asked of it.
        let _full_or_gone = questions.try_send((self.asking, question));
    }
}

/// Starts a client of its own; it ends when nobody can ask it any more.
fn questioner(log: &Arc<dyn Log>, inbox: &SyncSender<Message>) -> SyncSender<(Asking, Question)> {
    let (questions, asked): (_, Receiver<(Asking, Question)>) = sync_channel(QUESTIONS_MAX);
    let (log, inbox) = (Arc::clone(log), inbox.clone());
    let spawned = spawn("questions", move || {
        let mut client = log.questioner();
        for (asking, question) in asked {
            let answer = caught(|| client.ask(question)).unwrap_or_else(|panic| {
                client = log.questioner();
                Answer::Failed(question, panic)
            });
            if inbox.send(Message::Answer(asking, answer)).is_err() {
                break;
            }
        }
    });
    // Without its thread the client answers nothing, and is replaced like any other that does not.
    drop(spawned);
    questions
}

/// Does something with a log; the error says how it panicked, as a database may on a damaged file.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever it was at is thrown away, so that nobody sees it half done.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        format!("the log panicked, its file may be damaged: {text}")
    })
}

/// Starts a thread that nobody joins.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a log that panics is what the test is about")]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::log::{LogError, Questioner, Reader};

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

    #[test]
    fn a_log_that_panics_has_failed_and_says_how() {
        let (inbox, events) = sync_channel(EVENTS_MAX);
        let mut port = Port::new(Arc::new(Panicking), inbox);
        let heard = || events.recv_timeout(Duration::from_secs(10)).expect("something is heard");
        port.request(Request::Read(Topic::Commands, Session::default(), Position::START));
        let Message::Event(Event::Read(_, _, ReadEvent::Failed(reason))) = heard() else {
            panic!("no failure")
        };
        assert!(reason.contains("page 200"), "{reason}");
        // The client goes on: each question has its answer.
        for _ in 0..2 {
            port.request(Request::Ask(Question::Identity));
            let Message::Answer(_, Answer::Failed(Question::Identity, reason)) = heard() else {
                panic!("no failed answer")
            };
            assert!(reason.contains("page 200"), "{reason}");
        }
    }
}
