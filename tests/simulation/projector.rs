//! A projector: the production state machine, and the threads that write the table for it, whose work takes
//! time and may break off at any point of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portcullis::log::memory::{Ending, MemoryTableWriter, TransactionId};
use portcullis::log::{TableWrite, TableWriter, Topic, WriteError};
use portcullis::projector::{Effect, Event, Lease, Projector, Role as ProjectorRole, Settings, Status};
use portcullis::record::{Offset, Timestamp};

use super::transport::Reach;
use super::world::{Action, Arrival, NodeId, Role, World};

const TAKEOVER_AFTER: Duration = Duration::from_secs(15);
/// How long a producer tries, at most.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// The broker aborts a transaction that is older.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);

/// A projector in all its lives.
#[derive(Default)]
pub struct Projecting {
    projector: Option<Projector>,
    /// Counts the threads that write.
    claim: u64,
    /// The producers of the threads whose fence was done, by their number.
    writers: Vec<(u64, MemoryTableWriter)>,
    pub stopped: bool,
}

impl Projecting {
    pub fn start(&mut self, seed: u64, passed_over: BTreeSet<Offset>, now: Instant) {
        let settings = Settings {
            projector: format!("projector-{seed}"),
            takeover_after: TAKEOVER_AFTER,
            skip_offsets: passed_over,
            seed,
        };
        self.projector = Some(Projector::new(settings, now));
        self.writers.clear();
        self.stopped = false;
    }

    fn living(&mut self) -> &mut Projector {
        self.projector.as_mut().expect("it was started")
    }

    pub fn status(&self) -> &Status {
        self.projector.as_ref().expect("it was started").status()
    }

    pub fn is_active(&self) -> bool {
        self.status().role == ProjectorRole::Active
    }

    fn writer(&mut self, claim: u64) -> Option<&mut MemoryTableWriter> {
        self.writers.iter_mut().find(|(of, _)| *of == claim).map(|(_, writer)| writer)
    }
}

fn epoch() -> Timestamp {
    Timestamp::from_millis(0)
}

impl World {
    pub fn projecting(&mut self, node: NodeId) -> &mut Projecting {
        match &mut self.nodes[node].role {
            Role::Projector(projecting) => projecting,
            Role::Sidecar(_) => unreachable!("it is a projector"),
        }
    }

    pub fn projector_hears(&mut self, node: NodeId, arrival: Arrival) {
        let arrival = match arrival {
            Arrival::Log(report) if !self.projecting(node).living().wants_records() => {
                return self.nodes[node].transport.unwanted.push_back(report);
            }
            arrival => arrival,
        };
        let event = match arrival {
            Arrival::Written(event) => event,
            arrival => match self.heard(node, arrival) {
                Some(event) => Event::Log(event),
                None => return,
            },
        };
        self.hand_over(node, event);
        // What had to wait is taken as soon as there is room.
        while self.nodes[node].runs && self.projecting(node).living().wants_records() {
            let Some(report) = self.nodes[node].transport.unwanted.pop_front() else { break };
            self.hand_over(node, Event::Log(report));
        }
    }

    /// Tells a projector to write what it has, and to release its role.
    pub fn stop_projector(&mut self, node: NodeId) {
        self.hand_over(node, Event::Stop);
    }

    fn hand_over(&mut self, node: NodeId, event: Event) {
        let (now, wall) = (self.instant(), self.wall(self.nodes[node].skew));
        for effect in self.projecting(node).living().handle(event, now, wall) {
            let epoch = self.nodes[node].epoch;
            match effect {
                Effect::Log(request) => {
                    self.tell(|| format!("{node} → {request:?}"));
                    self.request(node, request);
                }
                Effect::Fence(lease) => {
                    self.tell(|| format!("{node} → fence {lease:?}"));
                    let projecting = self.projecting(node);
                    projecting.claim += 1;
                    let claim = projecting.claim;
                    self.soon(Action::Fence(node, epoch, claim, lease));
                }
                Effect::Commit(lease, writes) => {
                    self.tell(|| format!("{node} → commit {lease:?}, {} records", writes.len()));
                    let claim = self.projecting(node).claim;
                    self.soon(Action::Write(node, epoch, claim, lease, writes));
                }
                Effect::TickAt(at) => {
                    let at = self.time_of(at).max(self.now);
                    self.at(at, Action::Deliver(node, epoch, Arrival::Tick));
                }
                Effect::Undecodable(..) => {}
                Effect::Stopped => self.projecting(node).stopped = true,
            }
        }
    }

    fn written(&mut self, node: NodeId, event: Event) {
        self.deliver(node, Arrival::Written(event));
    }

    /// Why a write can't be done now, and how long it takes to find that out.
    fn unwritable(&mut self, node: NodeId) -> Option<(Duration, WriteError)> {
        let wait = match self.reach(node) {
            Reach::Open => return None,
            Reach::Refused | Reach::Swallowed => self.between(Duration::from_secs(1), WRITE_MAX),
        };
        Some((wait, WriteError::Unknown("no answer from the log".to_owned())))
    }

    fn lose(&mut self, node: NodeId, wait: Duration, lease: Lease, error: WriteError) {
        let epoch = self.nodes[node].epoch;
        let lost = Arrival::Written(Event::Lost(lease, error));
        self.at(self.now + wait, Action::Deliver(node, epoch, lost));
    }

    /// A thread makes its producer and fences all others.
    pub fn fence(&mut self, node: NodeId, claim: u64, lease: Lease) {
        if let Some((wait, error)) = self.unwritable(node) {
            return self.lose(node, wait, lease, error);
        }
        let mut writer = self.log.table_writer(epoch);
        let outcome = writer.fence();
        self.table_changed();
        match outcome {
            Ok(()) => {
                self.projecting(node).writers.push((claim, writer));
                self.written(node, Event::Fenced(lease));
            }
            Err(error) => self.lose(node, Duration::ZERO, lease, error),
        }
    }

    /// A thread writes the records of a transaction; its commit comes later, if it comes.
    pub fn write(&mut self, node: NodeId, claim: u64, lease: Lease, writes: Vec<TableWrite>) {
        if let Some((wait, error)) = self.unwritable(node) {
            return self.lose(node, wait, lease, error);
        }
        let unknown = || WriteError::Unknown("the producer gave up".to_owned());
        let Some(writer) = self.projecting(node).writer(claim) else {
            return self.lose(node, Duration::ZERO, lease, unknown());
        };
        let id = match writer.write_open(writes) {
            Ok(id) => id,
            Err(error) => return self.lose(node, Duration::ZERO, lease, error),
        };
        self.table_changed();
        self.at(self.now + TRANSACTION_MAX, Action::Expire(id));
        let epoch = self.nodes[node].epoch;
        let slow = self.mishap(0.03);
        let wait = if slow { self.between(Duration::ZERO, TRANSACTION_MAX) } else { self.latency() };
        self.at(self.now + wait, Action::Decide(node, epoch, claim, lease, id));
        // It says that it failed, and whether it has is for nobody to know: the commit may be on its way.
        if self.mishap(0.02) {
            let wait = self.between(Duration::ZERO, Duration::from_secs(3));
            self.lose(node, wait, lease, unknown());
        }
    }

    /// A thread commits. Readers see it later than the thread hears that it is done, or before.
    pub fn decide(&mut self, node: NodeId, claim: u64, lease: Lease, id: TransactionId) {
        if let Some((wait, error)) = self.unwritable(node) {
            return self.lose(node, wait, lease, error);
        }
        let Some(writer) = self.projecting(node).writer(claim) else { return };
        match writer.decide(id) {
            Ok(()) => {
                let slow = self.mishap(0.1);
                let wait =
                    if slow { self.between(Duration::ZERO, Duration::from_secs(2)) } else { self.latency() };
                self.at(self.now + wait, Action::Complete(id));
                if !self.mishap(0.01) {
                    self.written(node, Event::Committed(lease));
                }
            }
            Err(error) => self.lose(node, Duration::ZERO, lease, error),
        }
    }

    pub fn complete(&mut self, id: TransactionId) {
        self.log.end(id, Topic::Table, Ending::Commit);
        self.table_changed();
    }

    /// The broker aborts a transaction that nobody has ended, and fences its producer.
    pub fn expire(&mut self, id: TransactionId) {
        if self.log.is_undecided(id) {
            self.tell(|| format!("the broker aborts {id:?}"));
            let _fences_whoever_has_it_open = self.log.table_writer(epoch).fence();
            self.table_changed();
        }
    }

    pub fn end_foreign(&mut self, id: TransactionId, ending: Ending) {
        if !self.ledger.open().contains(&id) {
            return;
        }
        self.tell(|| format!("foreign transaction: {ending:?}"));
        self.log.end(id, Topic::Commands, ending);
        self.ledger.end(self.now, id, ending);
        self.wake(Topic::Commands);
    }
}
