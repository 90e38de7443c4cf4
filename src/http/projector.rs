//! What a worker of a projector answers from, and the paths that it has: how it is, and nothing else.
//!
//! A projector is ready while it does what it is there for, as the active one or as a standby. It is not while
//! it writes nothing for a reason that people must mend, nor before it has looked at the table: a deployment
//! that is rolled out on a wrong configuration then stops at its first process. Unlike a sidecar, nobody loses
//! answers by that.

use std::sync::Arc;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::answer::{Answer, Problem, json};
use super::request::Parameters;
use super::worker::Drain;
use super::{ProjectorApp, codes, health};
use crate::projector::{Reason, Role};
use crate::record::{Offset, Position};
use crate::status::Degraded;
use crate::table::Fingerprint;

/// The methods of every path; hyper leaves out the body of an answer to `HEAD`.
const METHODS: &str = "GET, HEAD";

/// What a worker of a projector answers from.
pub(super) struct Projector {
    app: Arc<ProjectorApp>,
    drain: Drain,
}

impl Projector {
    pub(super) const fn new(app: Arc<ProjectorApp>, drain: Drain) -> Self {
        Self { app, drain }
    }

    /// Asks for the path and its methods, then the path.
    pub(super) fn route(&self, head: &Parts) -> Result<Answer, Problem> {
        let answer = match head.uri.path() {
            "/healthz" => |_: &Self, _: &Parts| Ok(health::healthz()),
            "/readyz" => Self::readyz,
            "/v1/status" => Self::status,
            _ => return Err(Problem::not_found("a projector has /healthz, /readyz and /v1/status")),
        };
        match head.method {
            Method::GET | Method::HEAD => answer(self, head),
            _ => Err(Problem::method_not_allowed(METHODS)),
        }
    }

    /// `GET /readyz`: whether it does what it is there for. `?strict` also asks whether all is as it should
    /// be.
    fn readyz(&self, head: &Parts) -> Result<Answer, Problem> {
        let strict = Parameters::parse(head, &["strict"])?.flag("strict")?;
        let status = self.app.status.borrow().clone();
        let draining = self.drain.borrow().is_some();
        let hindrance = match (status.role, status.degraded) {
            (Role::Stopped(reason), _) => Some(stopped(reason)),
            _ if !status.is_ready() => Some(not_ready()),
            _ if draining => {
                Some(Problem::new(codes::DRAINING, "the projector is shutting down", "ask another one"))
            }
            (_, Some(degraded)) if strict => Some(is_degraded(degraded)),
            _ => None,
        };
        let progress = Progress {
            ready: status.is_ready(),
            role: status.role.word(),
            reason: status.role.reason().map(Reason::word),
            position: status.position,
            message: status.message.as_deref(),
        };
        Ok(match hindrance {
            Some(problem) => problem.into_answer_with(&progress),
            None => json(StatusCode::OK, &progress),
        })
    }

    /// `GET /v1/status`.
    fn status(&self, head: &Parts) -> Result<Answer, Problem> {
        Parameters::parse(head, &[])?;
        let status = self.app.status.borrow().clone();
        let shown = Status {
            role: status.role.word(),
            ready: status.is_ready(),
            reason: status.role.reason().map(Reason::word),
            reason_offset: match status.role {
                Role::Stopped(Reason::FutureCommand(offset)) => Some(offset),
                _ => None,
            },
            position: status.position,
            rows: status.rows,
            fingerprint: status.fingerprint,
            degraded: status.degraded.map(Degraded::word),
            message: status.message.as_deref(),
            version: self.app.version,
        };
        Ok(json(StatusCode::OK, &shown))
    }
}

/// The body of `/readyz`, beside the error if there is one.
#[derive(Serialize)]
struct Progress<'a> {
    ready: bool,
    role: &'static str,
    reason: Option<&'static str>,
    position: Position,
    message: Option<&'a str>,
}

/// All that the status says; keys are the contract. Position, rows and fingerprint are those of the table, by
/// its newest watermark that the projector saw or wrote.
#[derive(Serialize)]
struct Status<'a> {
    role: &'static str,
    ready: bool,
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_offset: Option<Offset>,
    position: Position,
    rows: u64,
    fingerprint: Fingerprint,
    degraded: Option<&'static str>,
    message: Option<&'a str>,
    version: &'static str,
}

fn stopped(reason: Reason) -> Problem {
    let message = format!("the projector writes nothing: {}", reason.word());
    Problem::new(codes::STOPPED, message, "/v1/status says more")
}

fn not_ready() -> Problem {
    let message = "the projector has not looked at the table yet";
    Problem::new(codes::NOT_READY, message, "wait; `message` says what it waits for")
}

fn is_degraded(degraded: Degraded) -> Problem {
    let message = format!("the projector works, and not all is as it should be: {}", degraded.word());
    Problem::new(codes::DEGRADED, message, "/v1/status says more")
}
