//! A sidecar: the production follower, and what must hold of it after every event.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::address::{Address, Range};
use portcullis::follower::{Effect, Follower, Settings, Source};
use portcullis::log::{Event, Request, Topic};
use portcullis::record::{Offset, Position, Timestamp};
use portcullis::served::Served;
use portcullis::snapshot::{Snapshot, Verdict};
use portcullis::status::{Alarm, Degraded, Status};

use super::ledger::{Fold, State};
use super::load::address;
use super::world::{Arrival, NodeId, Role, World};

/// How long a ban may last beyond its end, and how far two clocks that are read one after the other differ.
const EXPIRY_SLACK: i64 = 1_500;

/// How long after a tick bans are judged.
const TICK_MAX: Duration = Duration::from_millis(1_100);

/// One life of a sidecar.
struct Life {
    follower: Follower,
    served: Arc<Served>,
    status: Arc<Status>,
    snapshot: Option<Arc<Snapshot>>,
    /// What was served last.
    state: Option<State>,
    /// Where the log's readable part ended when the commands were begun to be read.
    stable_at_open: Position,
    /// The last proof of being at the end that was judged.
    proven: Option<Duration>,
    alarm: bool,
    /// When it was last told that time passes.
    ticked: Duration,
    /// How often the table had been made anew when something was published last.
    rebuilds: usize,
}

/// A sidecar in all its lives.
pub struct Sidecar {
    pub source: Source,
    life: Option<Life>,
}

impl Sidecar {
    pub fn new(source: Source) -> Self {
        Self { source, life: None }
    }

    pub fn start(&mut self, seed: u64, passed_over: BTreeSet<Offset>, now: Instant) {
        // With a table, its watermark says what is passed over.
        let skip_offsets = if self.source == Source::Commands { passed_over } else { BTreeSet::new() };
        let settings = Settings { source: self.source, skip_offsets, seed };
        let (served, status) = (Arc::new(Served::default()), Arc::new(Status::new(now)));
        let follower = Follower::new(settings, Arc::clone(&served), Arc::clone(&status), now);
        self.life = Some(Life {
            follower,
            served,
            status,
            snapshot: None,
            state: None,
            stable_at_open: Position::START,
            proven: None,
            alarm: false,
            ticked: Duration::ZERO,
            rebuilds: 0,
        });
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("it was started")
    }

    fn living(&self) -> &Life {
        self.life.as_ref().expect("it was started")
    }

    /// What it says that it serves.
    pub fn place(&self) -> (Position, Fold) {
        let State { position, fold, .. } = self.living().served.with_view(State::of);
        (position, fold)
    }

    pub fn is_ready(&self) -> bool {
        self.living().status.detail().ready
    }

    pub fn alarm(&self) -> Option<Alarm> {
        self.living().status.detail().alarm
    }

    pub fn degraded(&self) -> Option<Degraded> {
        self.living().status.detail().degraded
    }

    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.living().status.age(now)
    }

    pub fn describe(&self, now: Instant) -> String {
        let life = self.living();
        format!("{:?} age {:?} {:?}", self.source, life.status.age(now), life.status.detail())
    }
}

impl World {
    fn sidecar(&mut self, node: NodeId) -> &mut Sidecar {
        match &mut self.nodes[node].role {
            Role::Sidecar(sidecar) => sidecar,
            Role::Projector(_) => unreachable!("it is a sidecar"),
        }
    }

    pub fn sidecar_hears(&mut self, node: NodeId, arrival: Arrival) {
        let Some(event) = self.heard(node, arrival) else { return };
        if event == Event::Tick {
            let now = self.now;
            self.sidecar(node).life().ticked = now;
        }
        let (now, wall) = (self.instant(), self.wall(self.nodes[node].skew));
        let effects = self.sidecar(node).life().follower.handle(event, now, wall);
        let (mut published, mut soon) = (false, false);
        for effect in effects {
            match effect {
                Effect::Log(request) => {
                    self.tell(|| format!("{node} → {request:?}"));
                    // What was there when it began to ask; less, if the log was replaced by the time that it reads.
                    let stable = self.ledger.stable();
                    let life = self.sidecar(node).life();
                    match &request {
                        Request::DropAnswers => life.stable_at_open = stable,
                        Request::Read(Topic::Commands, ..) => {
                            life.stable_at_open = life.stable_at_open.min(stable);
                        }
                        _ => {}
                    }
                    self.request(node, request);
                }
                Effect::Publish(snapshot) => {
                    self.sidecar(node).life().snapshot = Some(snapshot);
                    published = true;
                }
                Effect::Proven(at) => self.sidecar(node).life().status.set_proven(at),
                Effect::TickSoon => soon = true,
                Effect::Undecodable(..) => {}
            }
        }
        if soon {
            self.deliver(node, Arrival::Tick);
        }
        self.judge_sidecar(node, wall, published);
    }

    /// What is served is a fold of one log, up to the position that is stated, and the age is no lie.
    fn judge_sidecar(&mut self, node: NodeId, wall: Timestamp, published: bool) {
        let (seed, now, now_is) = (self.seed, self.instant(), self.now);
        let numbers = std::array::from_fn(|_| self.random.u32(..));
        let life = self.sidecar(node).life();
        let detail = life.status.detail();
        let alarm_before = std::mem::replace(&mut life.alarm, detail.alarm == Some(Alarm::AnotherLog));
        let Some(snapshot) = life.snapshot.clone() else {
            return assert!(!detail.ready, "seed {seed}: {node} is ready without a snapshot");
        };
        assert!(detail.ready, "seed {seed}: {node} is no longer ready");
        let proven = life.status.age(now).map(|age| now - age);
        // One that stood still has not heard yet that bans are over.
        if published && now_is <= life.ticked + TICK_MAX {
            judge_lookups((seed, node), numbers, &snapshot, &life.served, wall);
        }
        if published {
            // With the alarm itself, what was taken in of another log is taken back.
            self.judge_state(node, snapshot.position(), alarm_before || detail.alarm.is_some());
        }
        self.judge_age(node, proven);
    }

    fn judge_state(&mut self, node: NodeId, published: Position, in_alarm: bool) {
        let (seed, rebuilds) = (self.seed, self.rebuilds);
        let life = self.sidecar(node).life();
        let stopped = matches!(life.status.detail().degraded, Some(Degraded::FutureCommand(_)));
        let state = life.served.with_view(State::of);
        let position = state.position;
        assert_eq!(published, position, "seed {seed}: {node} publishes another position");
        let told = std::mem::replace(&mut life.rebuilds, rebuilds) != rebuilds || in_alarm;
        let before = life.state.replace(state);
        if before == Some(state) {
            return;
        }
        let begun = life.stable_at_open;
        let lives = self.ledger.lives_with(state);
        // No reader heard of it, so that some of the other log may be taken in before it is asked for the next
        // time: then the alarm must come, which is waited for in the end.
        if lives.is_empty() && self.unheard_replacements > 0 && !told {
            return;
        }
        assert!(!lives.is_empty(), "seed {seed}: {node} serves at {position} what no log comes to");
        let Some(before) = before else {
            let at_end = position >= begun || stopped;
            return assert!(at_end, "seed {seed}: {node} served a half-way view at {position}");
        };
        let goes_on = position >= before.position && !self.ledger.lives_with(before).is_disjoint(&lives);
        assert!(goes_on || told, "seed {seed}: {node} went from {before:?} to {state:?} without an alarm");
    }

    /// Whoever says that it was at the end at a time holds everything that was in the log by then.
    fn judge_age(&mut self, node: NodeId, proven: Option<Instant>) {
        let proven = proven.map(|instant| self.time_of(instant));
        let life = self.sidecar(node).life();
        if std::mem::replace(&mut life.proven, proven) == proven {
            return;
        }
        let (Some(time), state) = (proven, life.served.with_view(State::of)) else { return };
        // What was proven of a log says nothing of the one that took its place unheard.
        let excused = self.unheard_replacements > 0;
        assert!(
            excused || self.ledger.held(state, time),
            "seed {}: {node} claims at {} to have been at the end at {time:?}",
            self.seed,
            state.position
        );
    }
}

/// Lookups say what the view says, but for bans that end about now.
fn judge_lookups(
    who: (u64, NodeId),
    numbers: [u32; 8],
    snapshot: &Snapshot,
    served: &Served,
    wall: Timestamp,
) {
    let (seed, node) = who;
    for address in numbers.map(address).map(Address::from) {
        let row = served.with_view(|view| view.blacklist().overlapping(Range::from(address)).next());
        let left = row.map(|row| row.cause.until().millis().saturating_sub(wall.millis()));
        if left.is_some_and(|left| left.abs() < EXPIRY_SLACK) {
            continue;
        }
        let wanted = if left.is_some_and(|left| left > 0) { Verdict::Blacklisted } else { Verdict::Free };
        let verdict = snapshot.lookup(address);
        assert_eq!(verdict, wanted, "seed {seed}: {node} looks up {address} at {wall}, {row:?}");
    }
}
