//! What the sidecar says of itself.

use std::time::Instant;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;

use super::answer::{Answer, Body, JSON, Problem, answer, json};
use super::codes;
use super::request::Parameters;
use super::worker::Worker;
use crate::blacklist::RowCounts;
use crate::record::{Offset, Position};
use crate::status::{Alarm, Degraded, Detail, Phase};
use crate::table::Fingerprint;
use crate::view::RefusedCounts;

/// `GET /healthz`: the process is alive, whatever else it is.
pub(super) fn healthz() -> Answer {
    answer(StatusCode::OK, JSON, Body::whole(r#"{"alive":true}"#))
}

/// How far the sidecar has got.
#[derive(Serialize)]
struct Progress {
    ready: bool,
    phase: Phase,
    position: Position,
    log_end: Position,
    records_read: u64,
    message: Option<String>,
}

/// `GET /readyz`: whether checks are answered. `?strict` also asks whether the sidecar follows as it should.
pub(super) fn readyz(worker: &Worker, head: &Parts) -> Result<Answer, Problem> {
    let strict = Parameters::parse(head, &["strict"])?.flag("strict")?;
    let detail = worker.app.status.detail();
    // Readiness is what lookups see, not what the follower says.
    let ready = worker.with_snapshot(|_| ()).is_some();
    let draining = worker.drain.borrow().is_some();
    let hindrance = match &*detail {
        _ if !ready => Some(Problem::not_ready()),
        _ if draining => {
            Some(Problem::new(codes::DRAINING, "the sidecar is shutting down", "ask another one"))
        }
        Detail { alarm: Some(alarm), .. } if strict => Some(in_alarm(*alarm)),
        Detail { degraded: Some(degraded), .. } if strict => Some(is_degraded(*degraded)),
        _ => None,
    };
    let Detail { phase, position, records_read, ref message, .. } = *detail;
    let log_end = worker.app.status.log_end();
    let message = message.clone();
    let progress = Progress { ready, phase, position, log_end, records_read, message };
    Ok(match hindrance {
        Some(problem) => problem.into_answer_with(&progress),
        None => json(StatusCode::OK, &progress),
    })
}

fn in_alarm(alarm: Alarm) -> Problem {
    let message = format!("the sidecar serves what it has, and must not follow: {}", alarm.word());
    Problem::new(codes::ALARM, message, "/v1/status says more")
}

fn is_degraded(degraded: Degraded) -> Problem {
    let message = format!("the sidecar does not follow as it should: {}", degraded.word());
    Problem::new(codes::DEGRADED, message, "/v1/status says more")
}

/// All that the status says; keys are the contract.
#[derive(Serialize)]
struct Status<'a> {
    phase: Phase,
    ready: bool,
    stale: bool,
    degraded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_offset: Option<Offset>,
    alarm: Option<&'static str>,
    message: Option<&'a str>,
    position: Position,
    log_end: Position,
    lag: u64,
    age_ms: Option<u64>,
    rows: Rows,
    fingerprint: Fingerprint,
    refused: RefusedCounts,
    version: &'static str,
}

#[derive(Serialize)]
struct Rows {
    ipv4: u64,
    ipv6: u64,
}

impl From<RowCounts> for Rows {
    fn from(RowCounts { ipv4, ipv6 }: RowCounts) -> Self {
        Self { ipv4, ipv6 }
    }
}

/// `GET /v1/status`.
pub(super) fn status(worker: &Worker, head: &Parts) -> Result<Answer, Problem> {
    Parameters::parse(head, &[])?;
    let status = &worker.app.status;
    let (detail, log_end, age) = (status.detail(), status.log_end(), status.age(Instant::now()));
    let degraded_offset = match detail.degraded {
        Some(Degraded::FutureCommand(offset)) => Some(offset),
        _ => None,
    };
    let shown = Status {
        phase: detail.phase,
        ready: worker.with_snapshot(|_| ()).is_some(),
        // No age makes a snapshot stale.
        stale: false,
        degraded: detail.degraded.map(Degraded::word),
        degraded_offset,
        alarm: detail.alarm.map(Alarm::word),
        message: detail.message.as_deref(),
        position: detail.position,
        log_end,
        lag: log_end.since(detail.position),
        age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        rows: detail.rows.into(),
        fingerprint: detail.fingerprint,
        refused: detail.refused,
        version: worker.app.version,
    };
    Ok(json(StatusCode::OK, &shown))
}
