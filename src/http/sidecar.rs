//! What a worker of a sidecar answers from, and the paths that it has.
//!
//! Every answer names the position and the age of what the worker would answer from.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::http::request::Parts;

use super::admin::Acknowledged;
use super::answer::{AGE_MS, Answer, POSITION, Problem};
use super::guard::Peer;
use super::ranges::Exports;
use super::request::{Bodies, Incoming};
use super::worker::Drain;
use super::{App, Kind, admin, health, lookup, ranges};
use crate::snapshot::{Reader, Snapshot};

/// What a worker of a sidecar answers from. It never leaves its thread, so that plain cells are enough.
pub(super) struct Sidecar {
    pub(super) app: Arc<App>,
    pub(super) kind: Kind,
    pub(super) exports: Exports,
    pub(super) drain: Drain,
    pub(super) bodies: Bodies,
    /// There is one admin worker, so that it knows all that was acknowledged.
    pub(super) acknowledged: RefCell<Acknowledged>,
    reader: RefCell<Reader>,
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
            _ => None,
        }
    }

    /// The methods that it takes, as `Allow` names them. `HEAD` goes with every `GET`; hyper leaves the body
    /// out.
    const fn methods(self) -> &'static str {
        match self {
            Self::Check => "GET, HEAD, POST",
            Self::Commands => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes the method; methods are case-sensitive.
    fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|taken| taken == method.as_str())
    }
}

impl Sidecar {
    pub(super) fn new(app: Arc<App>, kind: Kind, drain: Drain) -> Self {
        let reader = RefCell::new(app.readers.reader());
        let (exports, bodies, acknowledged) = (Exports::new(), Bodies::default(), RefCell::default());
        Self { app, kind, exports, drain, bodies, acknowledged, reader }
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

    /// Asks for the path and its methods, then the path.
    pub(super) async fn route(
        &self,
        head: &Parts,
        body: &mut impl Incoming,
        peer: Peer,
    ) -> Result<Answer, Problem> {
        let route = Route::find(head.uri.path(), self.kind).ok_or_else(not_found)?;
        if !route.takes(&head.method) {
            return Err(Problem::method_not_allowed(route.methods()));
        }
        match route {
            Route::CheckSegment(segment) => lookup::check_segment(self, head, segment),
            Route::Check if head.method == Method::POST => lookup::check_batch(self, head, body).await,
            Route::Check => lookup::check_parameter(self, head),
            Route::Healthz => Ok(health::healthz()),
            Route::Readyz => health::readyz(self, head),
            Route::Status => health::status(self, head),
            Route::Commands => admin::commands(self, head, body, peer).await,
            Route::Ranges => ranges::ranges(self, head).await,
        }
    }

    /// Adds the position and the age of the snapshot to an answer that does not name them yet.
    pub(super) fn stamped(&self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        let Some(position) = self.with_snapshot(|snapshot| snapshot.position()) else { return answer };
        // An answer made from a snapshot names that one's position; meanwhile there may be a newer one.
        headers.entry(POSITION).or_insert_with(|| position.number().into());
        if let Some(age) = self.app.status.age(Instant::now()) {
            headers.insert(AGE_MS, u64::try_from(age.as_millis()).unwrap_or(u64::MAX).into());
        }
        answer
    }
}

fn not_found() -> Problem {
    Problem::not_found(
        "checks are at /v1/check/{address} on every listener, commands at /v1/commands on the admin one",
    )
}
