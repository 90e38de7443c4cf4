//! What the sidecar says of itself.
//!
//! Three answers for three askers. `/healthz` tells a supervisor that the process lives: 200 as soon as it
//! listens. `/readyz` tells a load balancer whether checks are answered: 503 until the first snapshot, and
//! then 200 for good but while draining. `/v1/status` tells people and tools all the rest.
//!
//! Once ready, no trouble with the log makes `/readyz` fail unless `?strict` asks for it. A list that is some
//! minutes old is worth more than none, and trouble with a log meets all sidecars at once: they must not all
//! leave the load balancer in the same second.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;

use super::answer::{Answer, Body, JSON, Problem, answer, json};
use super::codes;
use super::request::Parameters;
use super::sidecar::Sidecar;
use crate::blacklist::RowCounts;
use crate::record::{Offset, Position};
use crate::status::{Alarm, Degraded, Detail, Phase};
use crate::table::Fingerprint;
use crate::view::RefusedCounts;

/// `GET /healthz`: the process is alive, whatever else it is. It looks at nothing, so that nothing can make
/// it fail.
pub(super) fn healthz() -> Answer {
    answer(StatusCode::OK, JSON, Body::whole(r#"{"alive":true}"#))
}

/// A sidecar whose list is older does not follow its log, whatever else is well. One that does asks every
/// second, and a leader of Kafka that changes takes some seconds.
const FOLLOWS_AGE_MAX: Duration = Duration::from_secs(10);

/// How far the sidecar has got: the body of `/readyz`, beside the error if there is one.
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
///
/// Of several hindrances the first in this order is told: no snapshot, draining, alarm, degraded.
pub(super) fn readyz(sidecar: &Sidecar, head: &Parts) -> Result<Answer, Problem> {
    let strict = Parameters::parse(head, &["strict"])?.flag("strict")?;
    let detail = sidecar.app.status.detail();
    // Readiness is what lookups see, not what the follower says.
    let ready = sidecar.with_snapshot(|_| ()).is_some();
    // Told on connections that are still open, so that a load balancer sends its next requests elsewhere.
    let draining = sidecar.drain.borrow().is_some();
    let hindrance = match &*detail {
        _ if !ready => Some(Problem::not_ready()),
        _ if draining => {
            Some(Problem::new(codes::DRAINING, "the sidecar is shutting down", "ask another one"))
        }
        Detail { alarm: Some(alarm), .. } if strict => Some(Problem::in_alarm(*alarm)),
        Detail { degraded: Some(degraded), .. } if strict => Some(is_degraded(*degraded)),
        _ if strict => match sidecar.app.status.age(Instant::now()) {
            Some(age) if age <= FOLLOWS_AGE_MAX => None,
            age => Some(is_old(age)),
        },
        _ => None,
    };
    let Detail { phase, position, records_read, ref message, .. } = *detail;
    let log_end = sidecar.app.status.log_end();
    let message = message.clone();
    let progress = Progress { ready, phase, position, log_end, records_read, message };
    Ok(match hindrance {
        Some(problem) => problem.into_answer_with(&progress),
        None => json(StatusCode::OK, &progress),
    })
}

/// The problem that nobody knows what the log holds by now.
fn is_old(age: Option<Duration>) -> Problem {
    let message = match age {
        Some(age) => format!("the end of the log was reached {} s ago for the last time", age.as_secs()),
        None => "it is not known yet that the end of the log was reached".to_owned(),
    };
    Problem::new(codes::DEGRADED, message, "/v1/status says why")
}

/// The problem that the log is not followed as it should be.
fn is_degraded(degraded: Degraded) -> Problem {
    let message = format!("the sidecar does not follow as it should: {}", degraded.word());
    Problem::new(codes::DEGRADED, message, "/v1/status says more")
}

/// All that the status says; keys are the contract. `position` is that of the newest snapshot as the follower
/// tells it, `lag` how many offsets the log's end lies behind it, and `age_ms` is null before the first
/// proof.
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

/// Numbers of rows, by family.
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

/// `GET /v1/status`. Its parts are read one after the other, so that the log's end may be newer than the
/// rest.
pub(super) fn status(sidecar: &Sidecar, head: &Parts) -> Result<Answer, Problem> {
    Parameters::parse(head, &[])?;
    let status = &sidecar.app.status;
    let (detail, log_end, age) = (status.detail(), status.log_end(), status.age(Instant::now()));
    let degraded_offset = match detail.degraded {
        Some(Degraded::FutureCommand(offset)) => Some(offset),
        _ => None,
    };
    let shown = Status {
        phase: detail.phase,
        ready: sidecar.with_snapshot(|_| ()).is_some(),
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
        version: sidecar.app.version,
    };
    Ok(json(StatusCode::OK, &shown))
}
