//! How a process reaches the log: readers and questions that take their time, fail, hang, or go on for a
//! while after nobody wants them any more.

use std::collections::VecDeque;
use std::time::Duration;

use portcullis::log::{Answer, Ends, Event, Log, Question, ReadEvent, Reader, Request, Session, Topic};
use portcullis::record::Position;

use super::world::{Action, Arrival, NodeId, World};

/// How long a client waits for an answer, or for a connection.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Whether the log can be reached, by one process or by anybody.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reach {
    #[default]
    Open,
    /// Connections are refused, and those that there were end.
    Refused,
    /// Connections stay, and nothing comes through.
    Swallowed,
}

/// One reader, on a thread of its own.
pub struct OpenReader {
    id: u64,
    topic: Topic,
    session: Session,
    from: Position,
    /// None until the thread has opened it.
    reader: Option<Box<dyn Reader>>,
    /// Whether the thread is to look for news already.
    scheduled: bool,
    /// It reports nothing more, and no error.
    stuck: bool,
    /// When its last report arrives, which the next one must not overtake.
    last_arrival: Duration,
}

/// What one process has for its traffic with the log.
#[derive(Default)]
pub struct Transport {
    pub reach: Reach,
    readers: Vec<OpenReader>,
    last_reader: u64,
    /// Answers to earlier ones were given up.
    asking: u64,
    /// When the thread that asks is done with what it was given.
    asked_until: Duration,
    /// It never will be.
    pub questioner_hangs: bool,
    /// When its last answer arrives, which the next one must not overtake.
    last_answer: Duration,
    /// Reports that a projector does not take yet.
    pub unwanted: VecDeque<Event>,
}

impl Transport {
    /// Whether an answer counts that was asked for then.
    pub fn is_wanted(&self, asking: u64) -> bool {
        self.asking == asking
    }

    fn reader(&mut self, id: u64) -> Option<&mut OpenReader> {
        self.readers.iter_mut().find(|reader| reader.id == id)
    }

    /// Makes the newest reader stand still without an error.
    pub fn stick(&mut self) {
        if let Some(reader) = self.readers.last_mut() {
            reader.stuck = true;
        }
    }

    /// What another life of the process begins with: its link is as good as it was.
    pub fn of_next_life(&self) -> Self {
        Self { reach: self.reach, ..Self::default() }
    }
}

impl World {
    /// How a process reaches the log at the moment.
    pub fn reach(&self, node: NodeId) -> Reach {
        self.broker.max(self.nodes[node].transport.reach)
    }

    /// Does what a state machine asked for.
    pub fn request(&mut self, node: NodeId, request: Request) {
        match request {
            Request::Read(topic, session, from) => {
                self.close(node, topic);
                self.open(node, topic, session, from);
            }
            Request::Close(topic) => self.close(node, topic),
            Request::Ask(question) => self.ask(node, question),
            Request::DropAnswers => self.nodes[node].transport.asking += 1,
            Request::RenewQuestioner => {
                let now = self.now;
                let transport = &mut self.nodes[node].transport;
                transport.asking += 1;
                (transport.asked_until, transport.questioner_hangs) = (now, false);
            }
        }
    }

    fn open(&mut self, node: NodeId, topic: Topic, session: Session, from: Position) {
        let transport = &mut self.nodes[node].transport;
        transport.last_reader += 1;
        let id = transport.last_reader;
        transport.readers.push(OpenReader {
            id,
            topic,
            session,
            from,
            reader: None,
            scheduled: true,
            stuck: false,
            last_arrival: self.now,
        });
        let step = Action::ReaderStep(node, self.nodes[node].epoch, id);
        self.soon(step);
    }

    /// Tells the readers of a topic to end; one may report once more before it hears of it.
    fn close(&mut self, node: NodeId, topic: Topic) {
        let lingers = self.chance(0.2);
        let transport = &mut self.nodes[node].transport;
        let news = transport.readers.iter_mut().filter(|reader| reader.topic == topic);
        let last_words: Vec<Event> = news
            .filter(|reader| lingers && !reader.stuck)
            .filter_map(|reader| {
                let event = reader.reader.as_mut()?.poll(Duration::ZERO)?;
                Some(Event::Read(topic, reader.session, event))
            })
            .collect();
        transport.readers.retain(|reader| reader.topic != topic);
        for event in last_words {
            self.deliver(node, Arrival::Log(event));
        }
    }

    /// A reader's thread looks for news, once.
    pub fn reader_step(&mut self, node: NodeId, id: u64) {
        let reach = self.reach(node);
        let log = self.log.clone();
        let Some(reader) = self.nodes[node].transport.reader(id) else { return };
        reader.scheduled = false;
        if reader.stuck {
            return;
        }
        let is_new = reader.reader.is_none();
        let report = match reach {
            Reach::Refused => Some(ReadEvent::Failed("connection refused".to_owned())),
            // What comes up later may be another log than the one that was checked: it is not waited for.
            Reach::Swallowed if is_new => Some(ReadEvent::Failed("no connection".to_owned())),
            Reach::Swallowed => return,
            Reach::Open => match &mut reader.reader {
                Some(reader) => reader.poll(Duration::ZERO),
                None => match log.open(reader.topic, reader.from) {
                    Ok(opened) => reader.reader.insert(opened).poll(Duration::ZERO),
                    Err(error) => Some(ReadEvent::Failed(error.0)),
                },
            },
        };
        let connects = is_new && reach != Reach::Open;
        // Without news it looks again when it is woken.
        if let Some(report) = report {
            self.report(node, id, report, connects);
        }
    }

    fn report(&mut self, node: NodeId, id: u64, report: ReadEvent, connects: bool) {
        let latency = if connects { CONNECT_MAX } else { self.latency() };
        let now = self.now;
        let transport = &mut self.nodes[node].transport;
        let Some(reader) = transport.reader(id) else { return };
        let arrival = (now + latency).max(reader.last_arrival);
        reader.last_arrival = arrival;
        let (failed, topic, session) = (matches!(report, ReadEvent::Failed(_)), reader.topic, reader.session);
        reader.scheduled = !failed;
        if failed {
            transport.readers.retain(|reader| reader.id != id);
        }
        let epoch = self.nodes[node].epoch;
        self.at(arrival, Action::Deliver(node, epoch, Arrival::Log(Event::Read(topic, session, report))));
        if !failed {
            self.at(arrival, Action::ReaderStep(node, epoch, id));
        }
    }

    /// A topic changed: its readers look for news.
    pub fn wake(&mut self, topic: Topic) {
        for node in 0..self.nodes.len() {
            self.wake_node(node, topic);
        }
    }

    pub fn wake_node(&mut self, node: NodeId, topic: Topic) {
        let epoch = self.nodes[node].epoch;
        let idle = self.nodes[node].transport.readers.iter_mut();
        let idle = idle.filter(|reader| reader.topic == topic && !reader.scheduled);
        let ids: Vec<u64> = idle
            .map(|reader| {
                reader.scheduled = true;
                reader.id
            })
            .collect();
        for id in ids {
            self.soon(Action::ReaderStep(node, epoch, id));
        }
    }

    /// Ends the readers of a process with an error, as a connection does that is lost.
    pub fn lose_readers(&mut self, node: NodeId, topics: &[Topic]) {
        let readers = &self.nodes[node].transport.readers;
        let lost: Vec<u64> =
            readers.iter().filter(|reader| topics.contains(&reader.topic)).map(|reader| reader.id).collect();
        for id in lost {
            self.report(node, id, ReadEvent::Failed("the connection is lost".to_owned()), false);
        }
    }

    fn ask(&mut self, node: NodeId, question: Question) {
        let latency = self.latency();
        let transport = &self.nodes[node].transport;
        if transport.questioner_hangs {
            return;
        }
        let at = transport.asked_until.max(self.now) + latency;
        self.nodes[node].transport.asked_until = at;
        let transport = &self.nodes[node].transport;
        self.at(at, Action::Ask(node, self.nodes[node].epoch, transport.asking, question));
    }

    /// The thread that asks comes to a question; the end of a topic is asked for twice, one after the other.
    pub fn put_question(&mut self, node: NodeId, asking: u64, question: Question) {
        if self.nodes[node].transport.questioner_hangs || !self.nodes[node].transport.is_wanted(asking) {
            return;
        }
        let epoch = self.nodes[node].epoch;
        let answer = match self.reach(node) {
            Reach::Open => self.log.answer(question),
            Reach::Refused => Answer::Failed(question, "connection refused".to_owned()),
            Reach::Swallowed => return self.answer_late(node, asking, question),
        };
        match answer {
            Answer::Ends(topic, ends) => {
                let latency = self.latency();
                self.at(self.now + latency, Action::AskStable(node, epoch, asking, topic, ends));
            }
            answer => self.answer(node, asking, answer),
        }
    }

    /// The second half of the question for the ends.
    pub fn put_stable(&mut self, node: NodeId, asking: u64, topic: Topic, first: Ends) {
        let question = Question::Ends(topic);
        match self.reach(node) {
            Reach::Open => {
                let Answer::Ends(_, second) = self.log.answer(question) else {
                    return self.answer(node, asking, Answer::Failed(question, "it is down".to_owned()));
                };
                self.answer(node, asking, Answer::Ends(topic, Ends { high: first.high, ..second }));
            }
            Reach::Refused => {
                self.answer(node, asking, Answer::Failed(question, "connection refused".to_owned()));
            }
            Reach::Swallowed => self.answer_late(node, asking, question),
        }
    }

    fn answer(&mut self, node: NodeId, asking: u64, answer: Answer) {
        let latency = self.latency();
        self.answer_at(node, self.now + latency, asking, answer);
    }

    fn answer_at(&mut self, node: NodeId, at: Duration, asking: u64, answer: Answer) {
        let transport = &mut self.nodes[node].transport;
        let at = at.max(transport.last_answer);
        transport.last_answer = at;
        self.at(at, Action::Deliver(node, self.nodes[node].epoch, Arrival::Answer(asking, answer)));
    }

    fn answer_late(&mut self, node: NodeId, asking: u64, question: Question) {
        let at = self.now + ANSWER_MAX;
        self.nodes[node].transport.asked_until = at;
        self.answer_at(node, at, asking, Answer::Failed(question, "no answer for 5 s".to_owned()));
    }

    /// What arrives soon.
    pub fn deliver(&mut self, node: NodeId, arrival: Arrival) {
        let latency = self.latency();
        let epoch = self.nodes[node].epoch;
        self.at(self.now + latency, Action::Deliver(node, epoch, arrival));
    }

    /// What a sidecar or a projector hears of the log.
    pub fn heard(&mut self, node: NodeId, arrival: Arrival) -> Option<Event> {
        match arrival {
            Arrival::Log(event) => Some(event),
            Arrival::Answer(asking, answer) => {
                self.nodes[node].transport.is_wanted(asking).then_some(Event::Answered(answer))
            }
            Arrival::Tick => Some(Event::Tick),
            Arrival::Written(_) => None,
        }
    }
}
