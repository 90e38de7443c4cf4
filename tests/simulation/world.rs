//! Time, chance and what happens in which order: everything is decided by one seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use portcullis::log::memory::{Ending, MemoryLog, TransactionId};
use portcullis::log::{Answer, Ends, Event, Identity, Question, TableWrite, Topic};
use portcullis::projector::{self, Lease};
use portcullis::record::{Offset, Record, Timestamp};
use portcullis::table::{WATERMARK_KEY, Watermark};

use super::audit::Auditor;
use super::ledger::Ledger;
use super::load::Load;
use super::projector::Projecting;
use super::sidecar::Sidecar;
use super::transport::{Reach, Transport};

/// A process, by its place.
pub type NodeId = usize;

/// Where the clocks of all processes begin.
const WALL: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// The state machines want to hear that often that time passes.
const TICK: Duration = Duration::from_secs(1);

/// Something that happens at a time. What concerns a process names its life, too: nothing of an earlier one
/// reaches the next.
#[derive(Debug)]
pub enum Action {
    Tick(NodeId, u64),
    Deliver(NodeId, u64, Arrival),
    ReaderStep(NodeId, u64, u64),
    Ask(NodeId, u64, u64, Question),
    AskStable(NodeId, u64, u64, Topic, Ends),
    /// A thread that writes the table does the next part of its work.
    Fence(NodeId, u64, u64, Lease),
    Write(NodeId, u64, u64, Lease, Vec<TableWrite>),
    Decide(NodeId, u64, u64, Lease, TransactionId),
    /// The broker writes the mark of a transaction that is decided, or gives up one that is too old.
    Complete(TransactionId),
    Expire(TransactionId),
    EndForeign(TransactionId, Ending),
    /// The next commands, the next fault, and the end of one.
    Load,
    Fault,
    HealBroker,
    HealLink(NodeId),
    Restart(NodeId),
    Resume(NodeId),
    RestoreSettings,
}

impl Action {
    /// The process that does it, in one of its lives.
    fn of_node(&self) -> Option<(NodeId, u64)> {
        match self {
            Self::Tick(node, epoch)
            | Self::Deliver(node, epoch, _)
            | Self::ReaderStep(node, epoch, _)
            | Self::Ask(node, epoch, ..)
            | Self::AskStable(node, epoch, ..)
            | Self::Fence(node, epoch, ..)
            | Self::Write(node, epoch, ..)
            | Self::Decide(node, epoch, ..) => Some((*node, *epoch)),
            _ => None,
        }
    }
}

/// What reaches the thread of a state machine.
#[derive(Debug)]
pub enum Arrival {
    Tick,
    Log(Event),
    /// An answer, and how often answers had been given up when it was asked for.
    Answer(u64, Answer),
    Written(projector::Event),
}

/// One process.
pub struct Node {
    /// Counts its lives.
    pub epoch: u64,
    pub runs: bool,
    /// Stands still, while all others go on; what it would have done, it does later.
    pub paused: bool,
    backlog: VecDeque<Action>,
    /// By how much its wall clock is wrong, in milliseconds.
    pub skew: i64,
    pub transport: Transport,
    pub role: Role,
}

pub enum Role {
    Sidecar(Box<Sidecar>),
    Projector(Box<Projecting>),
}

/// A time, and a number that makes the order total.
struct Entry(Duration, u64, Action);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Everything.
pub struct World {
    pub seed: u64,
    pub random: fastrand::Rng,
    start: Instant,
    pub now: Duration,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    pub happened: u64,
    pub log: MemoryLog,
    pub ledger: Ledger,
    pub auditor: Auditor,
    pub load: Load,
    pub broker: Reach,
    pub nodes: Vec<Node>,
    /// How slow the network is in this world.
    latency_max: Duration,
    /// Whether faults and load still happen.
    pub restless: bool,
    /// How often the log was replaced so fast that no reader heard of it.
    pub unheard_replacements: usize,
    /// How often an operator made the table anew.
    pub rebuilds: usize,
    verbose: bool,
}

pub fn identity() -> Identity {
    Identity { cluster_id: "cluster".to_owned(), commands_topic: "commands".to_owned() }
}

impl World {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let latency_max = Duration::from_millis(*[5, 50, 800].get(random.usize(0..3)).expect("three"));
        let mut world = Self {
            seed,
            random,
            start: Instant::now(),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            entries: 0,
            happened: 0,
            log: MemoryLog::new(identity()),
            ledger: Ledger::new(),
            auditor: Auditor::default(),
            load: Load::default(),
            broker: Reach::Open,
            nodes: Vec::new(),
            latency_max,
            restless: true,
            unheard_replacements: 0,
            rebuilds: 0,
            verbose,
        };
        world.begin_table();
        world
    }

    /// Writes what `topics create` writes.
    pub fn begin_table(&mut self) {
        let Identity { cluster_id, commands_topic } = identity();
        let genesis = Watermark::genesis(cluster_id, commands_topic, WALL);
        self.log.append_record(Topic::Table, WALL, Some(WATERMARK_KEY), Some(&genesis.encode()));
        self.auditor.begun_anew();
        self.table_changed();
    }

    pub fn add(&mut self, role: Role) -> NodeId {
        let skew = self.random.i64(-2_000..=2_000);
        let node = Node {
            epoch: 0,
            runs: false,
            paused: false,
            backlog: VecDeque::new(),
            skew,
            transport: Transport::default(),
            role,
        };
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.restart(id);
        id
    }

    /// Begins another life of a process, which may be its first.
    pub fn restart(&mut self, node: NodeId) {
        self.kill(node);
        self.tell(|| format!("{node} starts"));
        let (seed, now) = (self.random.u64(..), self.instant());
        let passed_over = self.ledger.passed_over().clone();
        let it = &mut self.nodes[node];
        it.runs = true;
        match &mut it.role {
            Role::Sidecar(sidecar) => sidecar.start(seed, passed_over, now),
            Role::Projector(projector) => projector.start(seed, passed_over, now),
        }
        let tick = Action::Tick(node, self.nodes[node].epoch);
        self.soon(tick);
    }

    /// Ends a process without a word.
    pub fn kill(&mut self, node: NodeId) {
        let it = &mut self.nodes[node];
        it.epoch += 1;
        (it.runs, it.paused) = (false, false);
        it.backlog.clear();
        it.transport = it.transport.of_next_life();
    }

    pub fn resume(&mut self, node: NodeId) {
        self.nodes[node].paused = false;
        self.tell(|| format!("{node} goes on"));
        for action in std::mem::take(&mut self.nodes[node].backlog) {
            self.at(self.now, action);
        }
    }

    pub fn instant(&self) -> Instant {
        self.start + self.now
    }

    /// The time in the world at which a process saw this.
    pub fn time_of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }

    /// The wall clock of a process.
    pub fn wall(&self, skew: i64) -> Timestamp {
        let millis = i64::try_from(self.now.as_millis()).expect("a short life");
        Timestamp::from_millis(WALL.millis() + millis + skew)
    }

    pub fn chance(&mut self, part: f64) -> bool {
        self.random.f64() < part
    }

    /// Whether something goes wrong by the way, as it may while anything does.
    pub fn mishap(&mut self, part: f64) -> bool {
        self.restless && self.chance(part)
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + (most.saturating_sub(least)).mul_f64(self.random.f64())
    }

    pub fn latency(&mut self) -> Duration {
        self.between(Duration::from_micros(200), self.latency_max)
    }

    pub fn at(&mut self, time: Duration, action: Action) {
        self.entries += 1;
        self.queue.push(Reverse(Entry(time, self.entries, action)));
    }

    pub fn soon(&mut self, action: Action) {
        let latency = self.latency();
        self.at(self.now + latency, action);
    }

    /// Tells who replays a seed what happens.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:9.3} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Lets happen what happens until then.
    pub fn run_until(&mut self, time: Duration) {
        while self.queue.peek().is_some_and(|Reverse(next)| next.0 <= time) {
            let Some(Reverse(Entry(at, _, action))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(action);
        }
        self.now = time;
    }

    fn happen(&mut self, action: Action) {
        if let Some((node, epoch)) = action.of_node() {
            let it = &mut self.nodes[node];
            if it.epoch != epoch {
                return;
            }
            if it.paused {
                return it.backlog.push_back(action);
            }
        }
        self.happened += 1;
        match action {
            Action::Tick(node, epoch) => {
                self.at(self.now + TICK, Action::Tick(node, epoch));
                self.arrive(node, Arrival::Tick);
            }
            Action::Deliver(node, _, arrival) => self.arrive(node, arrival),
            Action::ReaderStep(node, _, reader) => self.reader_step(node, reader),
            Action::Ask(node, _, asking, question) => self.put_question(node, asking, question),
            Action::AskStable(node, _, asking, topic, first) => self.put_stable(node, asking, topic, first),
            Action::Fence(node, _, claim, lease) => self.fence(node, claim, lease),
            Action::Write(node, _, claim, lease, writes) => self.write(node, claim, lease, writes),
            Action::Decide(node, _, claim, lease, id) => self.decide(node, claim, lease, id),
            Action::Complete(id) => self.complete(id),
            Action::Expire(id) => self.expire(id),
            Action::EndForeign(id, ending) => self.end_foreign(id, ending),
            Action::Load => self.load_once(),
            Action::Fault => self.fault(),
            Action::HealBroker => self.heal_broker(),
            Action::HealLink(node) => self.heal_link(node),
            // In peace all run already.
            Action::Restart(node) if self.restless => self.restart(node),
            Action::Restart(_) => {}
            Action::Resume(node) => self.resume(node),
            Action::RestoreSettings => self.log.set_topic_settings(None),
        }
    }

    fn arrive(&mut self, node: NodeId, arrival: Arrival) {
        self.tell(|| format!("{node} ← {}", short(&arrival)));
        match &self.nodes[node].role {
            Role::Sidecar(_) => self.sidecar_hears(node, arrival),
            Role::Projector(_) => self.projector_hears(node, arrival),
        }
    }

    /// Appends a command, as any producer may.
    pub fn append(&mut self, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) -> Offset {
        let offset = self.log.append_record(Topic::Commands, timestamp, key, value);
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.ledger.append(self.now, Record { offset, timestamp, key, value });
        self.tell(|| format!("command {offset}"));
        self.wake(Topic::Commands);
        offset
    }

    /// The table holds other committed records than before.
    pub fn table_changed(&mut self) {
        self.auditor.audit(&self.log, &self.ledger);
        self.wake(Topic::Table);
    }
}

/// The beginning of what something looks like.
pub fn short(what: &impl Debug) -> String {
    let mut text = format!("{what:?}");
    let end = text.char_indices().nth(300).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text
}
