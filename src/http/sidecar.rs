//! What a worker of a sidecar answers from, and the paths that it has.
//!
//! Every answer names the position and the age of what the worker would answer from.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use super::admin::Acknowledged;
use super::answer::{AGE_MS, Answer, POSITION, Problem};
use super::guard::Peer;
use super::lookup::Checked;
use super::ranges::Exports;
use super::replay::ReplayPlace;
use super::request::{Bodies, Incoming};
use super::verdict::{Stamp, VerdictAnswers, wanted_form};
use super::worker::Drain;
use super::{App, Kind, admin, batch, health, lookup, ranges, replay};
use crate::snapshot::{Reader, Snapshot};

/// What a worker of a sidecar answers from. It never leaves its thread, so that plain cells are enough.
pub(super) struct Sidecar {
    pub(super) app: Arc<App>,
    pub(super) kind: Kind,
    pub(super) exports: Exports,
    pub(super) replaying: ReplayPlace,
    pub(super) drain: Drain,
    pub(super) bodies: Bodies,
    /// There is one admin worker, so that it knows all that was acknowledged.
    pub(super) acknowledged: RefCell<Acknowledged>,
    reader: RefCell<Reader>,
    verdicts: RefCell<VerdictAnswers>,
}

/// The paths that there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route<'a> {
    CheckSegment(&'a str),
    Check,
    Healthz,
    Readyz,
    Status,
    Commands,
    Ranges,
    Replay,
}

/// What comes of a request.
pub(super) enum Routed {
    Answered(Answer),
    Waits(Waiting),
}

/// What waits: for its body, for the log, for another thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waiting {
    Batch,
    Commands,
    Ranges,
    Replay,
}

impl<'a> Route<'a> {
    /// The route of a path on this kind of listener. Paths are compared as they were sent: nothing is
    /// decoded, no dots are followed and no closing slash is dropped, so that a proxy before us never sees
    /// another path in it.
    fn find(path: &'a str, kind: Kind) -> Option<Self> {
        if let Some(segment) = path.strip_prefix("/v1/check/") {
            // Two segments are another path, which is not there.
            return (!segment.contains('/')).then_some(Self::CheckSegment(segment));
        }
        match (path, kind) {
            ("/v1/check", _) => Some(Self::Check),
            ("/healthz", _) => Some(Self::Healthz),
            ("/readyz", _) => Some(Self::Readyz),
            ("/v1/status", _) => Some(Self::Status),
            // A lookup listener does not know these: it may be open to more clients than the admin one.
            ("/v1/commands", Kind::Admin) => Some(Self::Commands),
            ("/v1/ranges", Kind::Admin) => Some(Self::Ranges),
            ("/v1/replay", Kind::Admin) => Some(Self::Replay),
            _ => None,
        }
    }

    /// The methods that it takes, and how `Allow` names them. `HEAD` goes with every `GET`; hyper leaves
    /// the body out.
    const fn methods(self) -> (&'static [Method], &'static str) {
        match self {
            Self::Check => (&[Method::GET, Method::HEAD, Method::POST], "GET, HEAD, POST"),
            Self::Commands => (&[Method::POST], "POST"),
            // Its header alone would cost as much.
            Self::Replay => (&[Method::GET], "GET"),
            _ => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        }
    }
}

impl Sidecar {
    pub(super) fn new(app: Arc<App>, kind: Kind, drain: Drain) -> Self {
        let reader = RefCell::new(app.readers.reader());
        let (exports, bodies, acknowledged) = (Exports::new(), Bodies::default(), RefCell::default());
        let verdicts = RefCell::new(VerdictAnswers::new());
        let replaying = ReplayPlace::new();
        Self { app, kind, exports, replaying, drain, bodies, acknowledged, reader, verdicts }
    }

    /// Looks at the newest snapshot, briefly: the closure can't await.
    /// None before the first snapshot, which is not the same as an empty blacklist.
    pub(super) fn with_snapshot<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> Option<T> {
        self.reader.borrow_mut().snapshot().map(look)
    }

    /// The newest snapshot, to be held for longer: over an await, or on another thread. Counting it touches
    /// memory that other workers share, so that single lookups do without.
    pub(super) fn hold_snapshot(&self) -> Option<Arc<Snapshot>> {
        self.reader.borrow_mut().hold()
    }

    /// Asks for the path and its methods, then the path; answers if nothing is to be waited for.
    pub(super) fn route(&self, head: &Parts, now: Instant) -> Result<Routed, Problem> {
        let route = Route::find(head.uri.path(), self.kind).ok_or_else(not_found)?;
        let (taken, allowed) = route.methods();
        if !taken.contains(&head.method) {
            return Err(Problem::method_not_allowed(allowed));
        }
        // Before the snapshot: with one that is published in between, the age is rather too high than too low.
        let age_ms = self.age_ms(now);
        let answer = match route {
            Route::CheckSegment(segment) => {
                return Ok(self.checked(&lookup::check_segment(self, head, segment)?, head, age_ms));
            }
            Route::Check if head.method == Method::POST => return Ok(Routed::Waits(Waiting::Batch)),
            Route::Check => return Ok(self.checked(&lookup::check_parameter(self, head)?, head, age_ms)),
            Route::Healthz => health::healthz(),
            Route::Readyz => health::readyz(self, head)?,
            Route::Status => health::status(self, head)?,
            Route::Commands => return Ok(Routed::Waits(Waiting::Commands)),
            Route::Ranges => return Ok(Routed::Waits(Waiting::Ranges)),
            Route::Replay => return Ok(Routed::Waits(Waiting::Replay)),
        };
        Ok(Routed::Answered(self.stamped(answer, now)))
    }

    /// The answer to a check.
    fn checked(&self, checked: &Checked, head: &Parts, age_ms: Option<u64>) -> Routed {
        let stamp = Stamp { position: checked.position, age_ms };
        let mut verdicts = self.verdicts.borrow_mut();
        Routed::Answered(verdicts.answer(checked.verdict, wanted_form(head), stamp))
    }

    /// Answers what takes longer.
    pub(super) async fn wait(
        &self,
        what: Waiting,
        head: &Parts,
        body: &mut impl Incoming,
        peer: Peer,
    ) -> Result<Answer, Problem> {
        match what {
            Waiting::Batch => batch::check_batch(self, head, body).await,
            Waiting::Commands => admin::commands(self, head, body, peer).await,
            Waiting::Ranges => ranges::ranges(self, head).await,
            Waiting::Replay => replay::replay(self, head).await,
        }
    }

    /// Adds the position and the age of the snapshot to an answer that does not name them yet.
    pub(super) fn stamped(&self, mut answer: Answer, now: Instant) -> Answer {
        let headers = answer.headers_mut();
        let age_ms = self.age_ms(now);
        let Some(position) = self.with_snapshot(Snapshot::position) else { return answer };
        // An answer made from a snapshot names that one's position; meanwhile there may be a newer one, whose
        // age says nothing of it.
        let position = HeaderValue::from(position.number());
        let is_newest = *headers.entry(POSITION).or_insert_with(|| position.clone()) == position;
        if let Some(age_ms) = age_ms.filter(|_| is_newest) {
            headers.entry(AGE_MS).or_insert_with(|| age_ms.into());
        }
        answer
    }

    /// How old what is published is; to be asked before the snapshot is taken that an answer is made from.
    pub(super) fn age_ms(&self, now: Instant) -> Option<u64> {
        let age = self.app.status.age(now)?;
        Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

fn not_found() -> Problem {
    Problem::not_found(
        "checks are at /v1/check/{address} on every listener, commands at /v1/commands on the admin one",
    )
}
