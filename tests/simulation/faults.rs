//! What goes wrong, and how it ends.

use std::time::Duration;

use portcullis::log::Topic;
use portcullis::log::memory::{Ending, Outage, Tombstones};
use portcullis::record::{Position, Timestamp};
use portcullis::table::{ALIVE_KEY, RowChange, Table};

use super::ledger::Replacement;
use super::transport::Reach;
use super::world::{Action, NodeId, Role, World};

/// The faults that are drawn from.
#[derive(Clone, Copy, Debug)]
enum Fault {
    BrokerKilled,
    BrokerFrozen,
    LinkRefused,
    LinkSwallowed,
    ReaderLost,
    ReaderStuck,
    QuestionerHangs,
    SidecarCrashes,
    ProjectorCrashes,
    ProjectorStops,
    Paused,
    Compaction,
    Settings,
    /// Somebody writes into the table who must not.
    Damage,
    /// The log is replaced by another one.
    Replaced,
    Future,
}

/// How often each is drawn, beside the others.
const FAULTS: [(Fault, u32); 16] = [
    (Fault::BrokerKilled, 6),
    (Fault::BrokerFrozen, 4),
    (Fault::LinkRefused, 6),
    (Fault::LinkSwallowed, 6),
    (Fault::ReaderLost, 10),
    (Fault::ReaderStuck, 6),
    (Fault::QuestionerHangs, 4),
    (Fault::SidecarCrashes, 8),
    (Fault::ProjectorCrashes, 8),
    (Fault::ProjectorStops, 4),
    (Fault::Paused, 8),
    (Fault::Compaction, 12),
    (Fault::Settings, 2),
    (Fault::Damage, 4),
    (Fault::Replaced, 8),
    (Fault::Future, 4),
];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    /// One fault, and the next one later.
    pub fn fault(&mut self) {
        if !self.restless {
            return;
        }
        let fault = self.draw();
        self.tell(|| format!("*** {fault:?}"));
        self.strike(fault);
        let wait = self.between(Duration::ZERO, seconds(14));
        self.at(self.now + wait, Action::Fault);
    }

    fn draw(&mut self) -> Fault {
        let mut at = self.random.u32(..FAULTS.iter().map(|(_, often)| often).sum::<u32>());
        for (fault, often) in FAULTS {
            match at.checked_sub(often) {
                Some(rest) => at = rest,
                None => return fault,
            }
        }
        Fault::Compaction
    }

    /// Long enough for some patience of ours to end, now and then.
    fn while_it_lasts(&mut self) -> Duration {
        let most = *[1, 10, 90].get(self.random.usize(..3)).expect("three");
        self.between(Duration::from_millis(20), seconds(most))
    }

    fn any_node(&mut self) -> NodeId {
        self.random.usize(..self.nodes.len())
    }

    fn any_of(&mut self, wanted: fn(&Role) -> bool) -> NodeId {
        let nodes: Vec<NodeId> =
            (0..self.nodes.len()).filter(|node| wanted(&self.nodes[*node].role)).collect();
        nodes[self.random.usize(..nodes.len())]
    }

    fn strike(&mut self, fault: Fault) {
        let (node, lasts) = (self.any_node(), self.while_it_lasts());
        match fault {
            Fault::BrokerKilled => self.break_broker(Reach::Refused, lasts),
            Fault::BrokerFrozen => self.break_broker(Reach::Swallowed, lasts),
            Fault::LinkRefused => self.break_link(node, Reach::Refused, lasts),
            Fault::LinkSwallowed => self.break_link(node, Reach::Swallowed, lasts),
            Fault::ReaderLost => self.lose_readers(node, &[Topic::Commands, Topic::Table]),
            Fault::ReaderStuck => self.nodes[node].transport.stick(),
            Fault::QuestionerHangs => self.nodes[node].transport.questioner_hangs = true,
            Fault::SidecarCrashes => {
                let node = self.any_of(|role| matches!(role, Role::Sidecar(_)));
                self.crash(node, lasts);
            }
            Fault::ProjectorCrashes => {
                let node = self.any_of(|role| matches!(role, Role::Projector(_)));
                self.crash(node, lasts);
            }
            Fault::ProjectorStops => {
                let node = self.any_of(|role| matches!(role, Role::Projector(_)));
                if self.nodes[node].runs && !self.nodes[node].paused {
                    self.stop_projector(node);
                    self.at(self.now + lasts, Action::Restart(node));
                }
            }
            Fault::Paused => {
                self.nodes[node].paused |= self.nodes[node].runs;
                self.at(self.now + lasts, Action::Resume(node));
            }
            Fault::Compaction if self.broker != Reach::Refused => self.compact(),
            Fault::Settings => {
                self.log.set_topic_settings(Some("cleanup.policy=delete"));
                self.at(self.now + lasts, Action::RestoreSettings);
            }
            Fault::Damage => self.damage(),
            // These end what a world may do, and so come to some worlds only.
            Fault::Replaced if self.seed.is_multiple_of(4) => self.replace_log(),
            Fault::Future if self.seed % 4 == 1 => self.command_of_the_future(),
            Fault::Compaction | Fault::Replaced | Fault::Future => {}
        }
    }

    fn crash(&mut self, node: NodeId, lasts: Duration) {
        self.kill(node);
        self.at(self.now + lasts, Action::Restart(node));
    }

    fn break_broker(&mut self, reach: Reach, lasts: Duration) {
        self.broker = self.broker.max(reach);
        self.log.set_outage(if reach == Reach::Refused { Outage::Down } else { Outage::Up });
        self.wake(Topic::Commands);
        self.wake(Topic::Table);
        self.at(self.now + lasts, Action::HealBroker);
    }

    pub fn heal_broker(&mut self) {
        self.tell(|| "*** the broker is back".to_owned());
        self.broker = Reach::Open;
        self.log.set_outage(Outage::Up);
        (0..self.nodes.len()).for_each(|node| self.wake_or_lose(node));
        self.table_changed();
    }

    fn break_link(&mut self, node: NodeId, reach: Reach, lasts: Duration) {
        self.nodes[node].transport.reach = reach;
        self.wake_both(node);
        self.at(self.now + lasts, Action::HealLink(node));
    }

    pub fn heal_link(&mut self, node: NodeId) {
        self.nodes[node].transport.reach = Reach::Open;
        self.wake_or_lose(node);
    }

    /// A connection that was silent for a while goes on, or turns out to be gone.
    fn wake_or_lose(&mut self, node: NodeId) {
        if self.random.bool() {
            return self.lose_readers(node, &[Topic::Commands, Topic::Table]);
        }
        self.wake_both(node);
    }

    fn wake_both(&mut self, node: NodeId) {
        self.wake_node(node, Topic::Commands);
        self.wake_node(node, Topic::Table);
    }

    fn compact(&mut self) {
        self.auditor.audit(&self.log, &self.ledger);
        self.log.compact(if self.random.bool() { Tombstones::Kept } else { Tombstones::Dropped });
    }

    /// A plain producer writes into the table.
    fn damage(&mut self) {
        let rows: Vec<_> = self.table().rows().copied().collect();
        let one = (!rows.is_empty()).then(|| rows[self.random.usize(..rows.len())]);
        let (key, value) = match (self.random.u8(..6), one) {
            (0, Some(row)) => RowChange::Tombstone(row.range.start()).encode(),
            (1, Some(row)) => (RowChange::Put(row).encode().0, Some(b"{}".to_vec())),
            (2, Some(mut row)) => {
                row.cause.command = row.cause.command.next().offset();
                RowChange::Put(row).encode()
            }
            (3, _) => (b"not an address".to_vec(), Some(b"?".to_vec())),
            (4, _) => (ALIVE_KEY.to_vec(), Some(b"somebody".to_vec())),
            _ => (b"192.0.2.0".to_vec(), Some(br#"{"end":"192.0.2.9","command":0}"#.to_vec())),
        };
        let time = Timestamp::from_millis(0);
        let offset = self.log.append_record(Topic::Table, time, Some(&key), value.as_deref());
        self.auditor.damaged = Some(offset);
        self.table_changed();
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        let mut position = Position::START;
        while let Ok(delivery) = self.log.read(Topic::Table, position) {
            delivery.records.iter().for_each(|record| table.apply(record));
            position = delivery.position;
            if delivery.at_end {
                break;
            }
        }
        table
    }

    /// The commands topic is made anew, or comes back as it was some time ago.
    fn replace_log(&mut self) {
        self.ledger.open().into_iter().for_each(|id| self.end_foreign(id, Ending::Abort));
        let high = self.ledger.high().number();
        let replacement = match self.random.u8(..3) {
            0 => Replacement::Cut(Position::new(self.random.u64(0..=high))),
            1 => Replacement::Cut(Position::new(high.saturating_sub(self.random.u64(0..4)))),
            _ => Replacement::Empty,
        };
        // A log that lost its end tells its readers, by the epoch of its leader or by a broken connection; a topic
        // that is made anew within milliseconds does not.
        let at_once = matches!(replacement, Replacement::Empty) && self.random.bool();
        self.tell(|| format!("*** at {high}: {replacement:?}, at once: {at_once}"));
        if !at_once {
            // All who read it hear that their connection is lost, before anything of the other log reaches them.
            (0..self.nodes.len()).for_each(|node| self.lose_readers(node, &[Topic::Commands]));
        }
        match replacement {
            Replacement::Empty => self.log.recreate(Topic::Commands),
            Replacement::Cut(position) => self.log.truncate(Topic::Commands, position),
        }
        self.ledger.replace(self.now, replacement);
        self.load.future.clear();
        if at_once {
            // It is longer than the one before by the time that anybody looks.
            self.unheard_replacements += 1;
            (self.ledger.high().number()..=high + 5).for_each(|_| self.command());
            return;
        }
        let lasts = self.between(seconds(5), seconds(30));
        self.break_broker(Reach::Refused, lasts);
        // It may be longer than the one before by the time that anybody looks.
        if self.random.bool() {
            (0..self.random.u64(0..=high + 20)).for_each(|_| self.command());
        }
    }

    /// Ends all that is wrong but for what an operator has to do.
    pub fn calm(&mut self) {
        self.tell(|| "*** calm".to_owned());
        self.restless = false;
        self.heal_broker();
        self.log.set_topic_settings(None);
        for node in 0..self.nodes.len() {
            self.heal_link(node);
            if self.nodes[node].paused {
                self.resume(node);
            }
            let stopped = match &self.nodes[node].role {
                Role::Projector(projecting) => projecting.stopped,
                Role::Sidecar(_) => false,
            };
            if !self.nodes[node].runs || stopped {
                self.restart(node);
            }
        }
        for id in self.ledger.open() {
            self.end_foreign(id, Ending::Abort);
        }
    }

    /// Begins the table anew, as the operator of a log that was replaced does.
    pub fn replace_table(&mut self) {
        self.tell(|| "*** a new table".to_owned());
        self.log.recreate(Topic::Table);
        for node in 0..self.nodes.len() {
            self.lose_readers(node, &[Topic::Table]);
        }
        self.rebuilds += 1;
        // What was taken in unheard is over with the new table: from here on nothing is excused.
        self.unheard_replacements = 0;
        self.begin_table();
    }
}
