//! One seed's history: a restless time, then what an operator has to mend, then peace, in which all must come
//! to the end of the log.

use std::time::Duration;

use portcullis::follower::Source;
use portcullis::log::Topic;
use portcullis::record::Position;
use portcullis::status::Alarm;

use super::ledger::Fold;
use super::projector::Projecting;
use super::sidecar::Sidecar;
use super::world::{Action, NodeId, Role, World};

/// How long it may take, once all faults are over, until everybody is at the end: several of the longest waits
/// may follow each other.
const PEACE_MAX: Duration = Duration::from_secs(900);
/// How long it takes until a producer is given up that gave no answer, while there were faults.
const QUIET: Duration = Duration::from_secs(130);
/// How long a command may take to reach everybody in peace, the table included.
const ARRIVAL_MAX: Duration = Duration::from_secs(15);
/// How old a view may be that is at the end: it asks every second, and answers take their time.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Who wants to hear the story.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    Nobody,
    Somebody,
}

/// What a story comes to: how much happened, and the end of the log.
pub type Ending = (u64, Position, Fold);

/// Plays a seed; panics where something is not as it must be.
pub fn tell(seed: u64, listener: Listener) -> Ending {
    let mut world = World::new(seed, listener == Listener::Somebody);
    for source in [Source::Table, Source::Table, Source::Commands] {
        world.add(Role::Sidecar(Box::new(Sidecar::new(source))));
    }
    for _ in 0..2 {
        world.add(Role::Projector(Box::default()));
    }
    world.soon(Action::Load);
    world.soon(Action::Fault);
    let restless = world.between(Duration::from_secs(30), Duration::from_secs(150));
    world.run_until(restless);
    world.calm();
    world.mend();
    world.come_to_rest(PEACE_MAX);
    // In some worlds until every producer that gave no answer is given up, so that nothing excuses a delay.
    let quiet = if seed.is_multiple_of(4) { QUIET } else { Duration::ZERO };
    let arrival_max = if quiet.is_zero() { QUIET + ARRIVAL_MAX } else { ARRIVAL_MAX };
    let until = world.now + quiet;
    world.run_until(until);
    world.come_to_rest(PEACE_MAX);
    world.command();
    world.come_to_rest(arrival_max);
    // The same with commands under way whose readers are lost.
    world.command();
    let under_way = world.now + Duration::from_millis(80);
    world.run_until(under_way);
    (0..world.nodes.len()).for_each(|node| world.lose_readers(node, &[Topic::Commands]));
    world.command();
    world.come_to_rest(arrival_max);
    let (position, fold) = world.ledger.end_fold();
    (world.happened, position, fold)
}

impl World {
    fn nodes_that(&self, wanted: impl Fn(&Role) -> bool) -> Vec<NodeId> {
        (0..self.nodes.len()).filter(|node| wanted(&self.nodes[*node].role)).collect()
    }

    fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.nodes.iter().filter_map(|node| match &node.role {
            Role::Sidecar(sidecar) => Some(&**sidecar),
            Role::Projector(_) => None,
        })
    }

    fn projectors(&self) -> impl Iterator<Item = &Projecting> {
        self.nodes.iter().filter_map(|node| match &node.role {
            Role::Projector(projecting) => Some(&**projecting),
            Role::Sidecar(_) => None,
        })
    }

    /// Waits until something holds that has to.
    fn wait_until(&mut self, what: &str, within: Duration, holds: impl Fn(&Self) -> bool) {
        let until = self.now + within;
        while !holds(self) {
            assert!(
                self.now < until,
                "seed {}: not within {within:?}: {what}\n{}",
                self.seed,
                self.describe()
            );
            self.run_until(self.now + Duration::from_secs(1));
        }
    }

    /// Does what only an operator can: says that a command of the future may be passed over, begins a new table
    /// on a log that was replaced, restarts who must not decide by itself.
    fn mend(&mut self) {
        if self.ledger.replacements() > 0 {
            // Nobody may go on as if nothing had happened, and nobody needs to be told by us.
            self.wait_until("all noticed the other log, or need not", PEACE_MAX, |world| {
                let stands_back = |it: &Sidecar| it.alarm() == Some(Alarm::AnotherLog) || !it.is_ready();
                world.sidecars().all(|it| stands_back(it) || world.is_at_end(it))
            });
            self.command();
            self.replace_table();
        }
        while let Some(offset) = self.ledger.stopped_at() {
            self.ledger.pass_over(self.now, offset);
            self.restart_projectors();
            self.restart_those_without_a_table();
        }
        if self.ledger.replacements() > 0 {
            self.restart_projectors();
            self.restart_those_without_a_table();
        }
    }

    fn restart_projectors(&mut self) {
        for node in self.nodes_that(|role| matches!(role, Role::Projector(_))) {
            self.restart(node);
        }
    }

    fn restart_those_without_a_table(&mut self) {
        let without = |role: &Role| matches!(role, Role::Sidecar(it) if it.source == Source::Commands);
        for node in self.nodes_that(without) {
            self.restart(node);
        }
    }

    fn is_at_end(&self, sidecar: &Sidecar) -> bool {
        let young = sidecar.age(self.instant()).is_some_and(|age| age < AGE_MAX);
        young && sidecar.is_ready() && sidecar.place() == self.ledger.end_fold()
    }

    /// All sidecars are at the end and say so, one projector is active, and the table holds the same.
    fn is_at_rest(&self) -> bool {
        let well = |sidecar: &Sidecar| sidecar.alarm().is_none() && sidecar.degraded().is_none();
        self.sidecars().all(|sidecar| well(sidecar) && self.is_at_end(sidecar))
            && self.projectors().filter(|projecting| projecting.is_active()).count() == 1
            && self.auditor.whole() == Some(self.ledger.end_fold())
    }

    fn come_to_rest(&mut self, within: Duration) {
        self.wait_until("all are at the end of the log", within, Self::is_at_rest);
    }

    fn describe(&self) -> String {
        let sidecars = self.sidecars().map(|sidecar| sidecar.describe(self.instant()));
        let projectors = self.projectors().map(|projecting| format!("{:?}", projecting.status()));
        let all: Vec<String> = sidecars.chain(projectors).collect();
        format!(
            "the log ends at {:?}, stopped at {:?}; the table: {:?}\n{}",
            self.ledger.end_fold(),
            self.ledger.stopped_at(),
            self.auditor.whole(),
            all.join("\n")
        )
    }
}
