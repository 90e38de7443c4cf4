//! The threads and clients between a state machine and a log, replaced by a queue that a test works off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::log::memory::MemoryLog;
use portcullis::log::{Answer, Event, Log, Question, Questioner, ReadEvent, Reader, Request, Session, Topic};
use portcullis::record::{Position, Timestamp};

/// Both clocks of a test.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: Instant,
    pub wall: Timestamp,
}

impl Clock {
    pub fn new() -> Self {
        Self { now: Instant::now(), wall: Timestamp::from_millis(1_800_000_000_000) }
    }

    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.wall = self.wall.after(by);
    }
}

/// Carries requests to a log and events back, one at a time.
pub struct Port<L = MemoryLog> {
    pub log: Arc<L>,
    questioner: Box<dyn Questioner>,
    readers: Vec<(Topic, Session, Box<dyn Reader>)>,
    questions: VecDeque<Question>,
    /// Every request so far, for tests that look at what was asked for.
    pub requests: Vec<Request>,
    /// While set, readers report nothing, as behind a link that swallows everything.
    pub readers_frozen: bool,
    /// While set, questions are not answered.
    pub questions_frozen: bool,
    /// While set, questions are answered by the log at once and heard of only later.
    pub answers_held: bool,
    held: VecDeque<Answer>,
    /// Questions that fail, each once.
    pub failing: Vec<Question>,
    /// While set, every reader fails before it has read anything.
    pub readers_fail: bool,
    /// While set, readers of the commands never report an end, as of a log that never rests.
    pub restless: bool,
    failures: VecDeque<Event>,
}

impl Port {
    pub fn new(log: MemoryLog) -> Self {
        Self::over(Arc::new(log))
    }
}

impl<L: Log> Port<L> {
    pub fn over(log: Arc<L>) -> Self {
        Self {
            questioner: log.questioner(),
            log,
            readers: Vec::new(),
            questions: VecDeque::new(),
            requests: Vec::new(),
            readers_frozen: false,
            questions_frozen: false,
            answers_held: false,
            held: VecDeque::new(),
            failing: Vec::new(),
            readers_fail: false,
            restless: false,
            failures: VecDeque::new(),
        }
    }

    /// Puts another log in the place of this one, unnoticed but by what is asked and opened from now on.
    pub fn replace(&mut self, log: Arc<L>) {
        self.questioner = log.questioner();
        self.log = log;
    }

    /// Does what a state machine asked for.
    pub fn request(&mut self, request: Request) {
        self.requests.push(request.clone());
        match request {
            Request::Read(topic, session, from) => self.open(topic, session, from),
            Request::Close(topic) => self.readers.retain(|(open, ..)| *open != topic),
            Request::Ask(question) => self.questions.push_back(question),
            Request::DropAnswers => self.drop_answers(),
            Request::RenewQuestioner => {
                self.drop_answers();
                self.questioner = self.log.questioner();
            }
        }
    }

    fn drop_answers(&mut self) {
        self.questions.clear();
        self.held.clear();
    }

    fn open(&mut self, topic: Topic, session: Session, from: Position) {
        self.readers.retain(|(open, ..)| *open != topic);
        let reader = match self.readers_fail {
            true => Err("not allowed to read".to_owned()),
            false => self.log.open(topic, from).map_err(|error| error.0),
        };
        match reader {
            Ok(reader) => self.readers.push((topic, session, reader)),
            Err(reason) => {
                self.failures.push_back(Event::Read(topic, session, ReadEvent::Failed(reason)));
            }
        }
    }

    /// The next thing that the log has to say, if any.
    pub fn event(&mut self) -> Option<Event> {
        while let Some(question) = self.questions.pop_front_if(|_| !self.questions_frozen) {
            let fails = self.failing.iter().position(|failing| *failing == question);
            self.held.push_back(match fails.map(|at| self.failing.remove(at)) {
                Some(question) => Answer::Failed(question, "no answer this time".to_owned()),
                None => self.questioner.ask(question),
            });
        }
        if let Some(answer) = self.held.pop_front_if(|_| !self.answers_held) {
            return Some(Event::Answered(answer));
        }
        if self.readers_frozen {
            return None;
        }
        if let Some(failure) = self.failures.pop_front() {
            return Some(failure);
        }
        let restless = self.restless;
        let mut readers = self.readers.iter_mut();
        readers.find_map(|(topic, session, reader)| {
            let is_told = |event: &ReadEvent| {
                !(restless && *topic == Topic::Commands && matches!(event, ReadEvent::End(_)))
            };
            let event = reader.poll(Duration::ZERO).filter(is_told);
            event.map(|event| Event::Read(*topic, *session, event))
        })
    }
}
