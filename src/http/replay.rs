//! What the log comes to: the commands folded anew from the log itself, beside the list that is served.
//!
//! It reads with a reader of its own, on a thread of its own, and has one place for as long as it takes: a log
//! of millions of commands is seconds of work that must not come twice at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::admin::blocking;
use super::answer::{Answer, Problem, at_position, exact, json as answered};
use super::codes;
use super::request::{self, Parameters};
use super::sidecar::Sidecar;
use crate::address::Ends;
use crate::record::Offset;
use crate::replay::{Plan, ReplayError, Replayed, Until, replay as fold};
use crate::view::View;

/// How long a replay may take. Whoever has more to read than that reads the log by themselves.
pub const REPLAY_MAX: Duration = Duration::from_secs(30);

/// The place of the one replay that may run. There is one admin worker, so that its place is all there is.
#[derive(Debug)]
pub(super) struct ReplayPlace(Arc<Semaphore>);

impl ReplayPlace {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// `GET /v1/replay`: what the log comes to, up to `until`. What the served list passes over is passed over
/// here, too, and `skip_offsets`, where they hold a command of the future.
pub(super) async fn replay(sidecar: &Sidecar, head: &Parts) -> Result<Answer, Problem> {
    let parameters = Parameters::parse(head, &["until", "skip_offsets"])?;
    let until = parameters.value("until")?.map_or(Ok(Until::End), |text| text.parse());
    let hint = "write a position like 814, or a time like 2026-12-01T00:00:00Z";
    let until = until.map_err(|error| request::invalid("until", &error.to_string(), hint))?;
    let skip_offsets =
        parameters.value("skip_offsets")?.map_or(Ok(BTreeSet::new()), |text| offsets(&text))?;
    // Before there is a list, it is not known what it passes over.
    sidecar.with_snapshot(|_| ()).ok_or_else(Problem::not_ready)?;
    let skipped = sidecar.app.served.with_view(|view| view.skipped().clone());
    let place = Arc::clone(&sidecar.replaying.0).try_acquire_owned();
    let place = place.map_err(|_| busy("another replay is running"))?;
    let log = Arc::clone(&sidecar.app.log);
    let replayed = blocking(move || {
        // Held until the work is done, though nobody should wait for it any more.
        let _place = place;
        let began = Instant::now();
        let plan = Plan { until, skipped, skip_offsets };
        fold(&*log, &plan, &mut |_| match began.elapsed() < REPLAY_MAX {
            true => Ok(()),
            false => Err(format!("the log was not read within {} s", REPLAY_MAX.as_secs())),
        })
    });
    let replayed = replayed.await.map_err(|error| problem(&error))?;
    Ok(at_position(answered(StatusCode::OK, &summary(&replayed)), replayed.view.position()))
}

fn busy(message: &str) -> Problem {
    Problem::new(codes::BUSY, message, "repeat it later")
}

/// Offsets with commas between them.
fn offsets(text: &str) -> Result<BTreeSet<Offset>, Problem> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let offset = |text: &str| text.parse().ok().filter(|_| digits(text)).map(Offset::new);
    let offsets = text.split(',').map(offset).collect::<Option<_>>();
    let hint = "write offsets with commas between them, like 7,12";
    offsets.ok_or_else(|| request::invalid("skip_offsets", "holds something that is no offset", hint))
}

fn problem(error: &ReplayError) -> Problem {
    let message = error.to_string();
    let new = |code, hint: &str| Problem::new(code, message.as_str(), hint);
    match error {
        ReplayError::BeyondEnd { .. } => {
            new(codes::BEYOND_LOG, "leave `until` out for all of it").field("until")
        }
        ReplayError::BeforeStart { .. } | ReplayError::BeforeFirst { .. } | ReplayError::NoRecord(_) => {
            new(codes::BEFORE_LOG, "ask for a later one").field("until")
        }
        ReplayError::Future(future) => {
            new(codes::FUTURE_COMMAND, &format!("upgrade portcullis, or skip_offsets={}", future.offset))
        }
        ReplayError::Log(_) => new(codes::LOG_UNAVAILABLE, "repeat it later"),
        ReplayError::GivenUp(_) => busy(&message),
    }
}

/// What a log comes to, as answers and the command line tell it. The addresses are those of all rows, also of
/// those that are over by now.
pub fn summary(replayed: &Replayed) -> Value {
    let Replayed { began, view, time, refused } = replayed;
    let (blacklist, position) = (view.blacklist(), view.position());
    let rows = blacklist.row_counts();
    let skipped: Vec<&Offset> = view.skipped().range(..position.offset()).collect();
    json!({
        "position": position, "time": time, "began": began,
        "rows": {"ipv4": rows.ipv4, "ipv6": rows.ipv6},
        "addresses": {"ipv4": blacklist.ipv4_addresses(), "ipv6": exact(ipv6_addresses(view))},
        "fingerprint": blacklist.fingerprint(), "refused": refused, "skipped": skipped,
    })
}

fn ipv6_addresses(view: &View) -> u128 {
    let ranges = view.blacklist().rows().map(|row| row.range);
    let ipv6 = ranges.filter(|range| matches!(range.ends(), Ends::V6(..)));
    ipv6.fold(0, |sum, range| sum.saturating_add(range.addresses()))
}
