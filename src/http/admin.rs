//! Writing commands.
//!
//! ```text
//!   rights ─► parameters ─► body ─► group: all valid, each with an id ─► is there a snapshot?
//!     ─► settle, split_carried    what is in the log already is a success and not written again
//!     ─► refuse                   what the fold would refuse is told before it is in the log
//!     ─► append                   durable from here on; the log goes on though the client be gone
//!     ─► applied                  if asked for: until lookups know it
//! ```
//!
//! A client that got no answer sends the same group again. That is safe because every command has an id, and
//! three parts look at it. The view knows the ids of its last 10,000 offsets. Between a commit and its fold,
//! which are moments apart, `Acknowledged` knows them. And if both miss, the fold refuses the second command
//! as a duplicate. The first two are there for the answer only: the retry has to look like success.
//!
//! A refusal before the append is a courtesy, not a guarantee: other commands may come in between, and then
//! the fold decides. `wait=applied` tells what it decided.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::answer::{Answer, Problem, exact, json};
use super::codes;
use super::group::{self, Numbered};
use super::guard::{self, Peer};
use super::request::{self, BODY_BYTES_MAX, Incoming, Parameters};
use super::sidecar::Sidecar;
use crate::address::Ends;
use crate::command::{Action, Command, CommandId};
use crate::log::AppendError;
use crate::record::{Offset, Position, Timestamp};
use crate::served::{Outcome, Served};
use crate::view::{self, Refusal};

/// The most commands of one group: it must be small against the window in which ids count as duplicates.
pub const GROUP_COMMANDS_MAX: usize = 1_000;
/// How long `wait=applied` waits unless `wait_ms` says otherwise. When it is over the answer is 202: the
/// commands are durable, and lookups will know them.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// How long a retry waits for the view to know what was written under its ids. A follower that is further
/// behind than this is in trouble that a sender need not wait for.
pub const SETTLE_MAX: Duration = Duration::from_secs(1);
/// The most ids that are remembered until the view knows them; some groups of the largest kind.
const ACKNOWLEDGED_IDS_MAX: usize = 16_384;
/// The longest that `wait_ms` may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the log may take to say what became of a group; after that its outcome is unknown, and the answer
/// is 504.
pub const APPEND_MAX: Duration = Duration::from_secs(30);

/// How a group is to be written, as the parameters and the `Idempotency-Key` say.
#[derive(Debug)]
struct Asked {
    dry_run: bool,
    /// How long to wait until it is applied.
    wait: Option<Duration>,
    key: Option<String>,
}

impl Asked {
    /// Refuses combinations that have no meaning, rather than choosing one for the client.
    fn parse(head: &Parts) -> Result<Self, Problem> {
        let parameters = Parameters::parse(head, &["dry_run", "wait", "wait_ms"])?;
        let wait_ms = parameters.value("wait_ms")?;
        let wait = match (parameters.value("wait")?.as_deref(), wait_ms) {
            (None, None) => None,
            (Some("applied"), None) => Some(WAIT_DEFAULT),
            (Some("applied"), Some(millis)) => Some(wait_of(&millis)?),
            (None, Some(_)) => return Err(request::invalid("wait_ms", "needs `wait`", "add wait=applied")),
            (Some(_), _) => return Err(request::invalid("wait", "is not `applied`", "write wait=applied")),
        };
        let dry_run = parameters.flag("dry_run")?;
        if dry_run && wait.is_some() {
            return Err(request::invalid("wait", "waits for nothing in a dry run", "leave one of them out"));
        }
        Ok(Self { dry_run, wait, key: group::idempotency_key(head)? })
    }
}

/// The value of `wait_ms`: from 0 up to [`WAIT_MAX`].
fn wait_of(millis: &str) -> Result<Duration, Problem> {
    // A sign is no digit, though the parser would take it.
    let digits = Some(millis).filter(|millis| millis.bytes().all(|byte| byte.is_ascii_digit()));
    let wait = digits.and_then(|digits| digits.parse().ok()).map(Duration::from_millis);
    let wait = wait.filter(|wait| *wait <= WAIT_MAX);
    let hint = format!("write a number from 0 to {}", WAIT_MAX.as_millis());
    wait.ok_or_else(|| request::invalid("wait_ms", "is no number of milliseconds that we wait", &hint))
}

/// `POST /v1/commands`: 201 for new commands, 200 for a group that was in the log already and for a dry run,
/// 202 when the wait for its effect was too short.
pub(super) async fn commands(
    sidecar: &Sidecar,
    head: &Parts,
    body: &mut impl Incoming,
    peer: Peer,
) -> Result<Answer, Problem> {
    // Before the body is read: who may not write must not make us hold 4 MiB either.
    guard::check_write(head, &sidecar.app.token, peer)?;
    let asked = Asked::parse(head)?;
    let body = request::body(&sidecar.bodies, body, BODY_BYTES_MAX).await?;
    let group = group::parse(head, &body, asked.key.as_deref())?;
    // Its bytes count for as long as they are held, and what follows may wait for the log.
    drop(body);
    // Without a snapshot the view is empty too: it knows neither which ids are carried nor what is too much.
    sidecar.with_snapshot(|_| ()).ok_or_else(Problem::not_ready)?;
    if asked.dry_run {
        return Ok(dry_run(sidecar, group).await);
    }
    // Of the group as it was sent, so that a retry is answered in the same form.
    let size = Size::of(&group);
    settle(sidecar, &group).await;
    // A retry must look like success, whatever has become of its commands since.
    let (carried, fresh) = split_carried(&sidecar.app.served, group);
    // Nothing is left to write. The offset told is that of the last command, as it was the first time.
    if let (Some(offset), []) = (carried.iter().max(), fresh.as_slice()) {
        let applied = applied(sidecar, &asked, &carried, size).await;
        return Ok(applied.answer(StatusCode::OK, Written::Duplicate { offset: *offset, duplicate: true }));
    }
    // What is written to a log that must not be followed would never be applied here, and maybe nowhere.
    if let Some(alarm) = sidecar.app.status.detail().alarm {
        return Err(Problem::in_alarm(alarm));
    }
    // Only what is new is judged: on the rest the fold has spoken already.
    refuse(sidecar, &fresh).await?;
    let ids: Vec<CommandId> = fresh.iter().map(|numbered| numbered.id.clone()).collect();
    let (offset, offsets) = append(sidecar, &fresh, &ids).await?;
    let applied = applied(sidecar, &asked, &offsets, size).await;
    Ok(applied.answer(StatusCode::CREATED, Written::New { offset, count: ids.len(), ids }))
}

/// The ids that were acknowledged and that the view may not know yet, with the position behind each.
#[derive(Debug, Default)]
pub(super) struct Acknowledged(HashMap<CommandId, Position>);

impl Acknowledged {
    /// Adds what is durable now. Forgets what is published, and all if there is too much: then the fold alone
    /// finds duplicates.
    fn remember(&mut self, ids: &[CommandId], offsets: &[Offset], published: Position) {
        self.0.retain(|_, behind| *behind > published);
        if self.0.len() + ids.len() > ACKNOWLEDGED_IDS_MAX {
            self.0.clear();
        }
        self.0.extend(ids.iter().cloned().zip(offsets.iter().map(|offset| offset.next())));
    }

    /// The position behind the last command of the group that was acknowledged before; none if none was.
    fn behind(&self, group: &[Numbered]) -> Option<Position> {
        group.iter().filter_map(|numbered| self.0.get(&numbered.id).copied()).max()
    }
}

/// Waits until the view knows what was acknowledged under the ids of the group: else a retry is not known for
/// one. If that takes too long the fold decides alone, which counts an id once in any case.
async fn settle(sidecar: &Sidecar, group: &[Numbered]) {
    let Some(behind) = sidecar.acknowledged.borrow().behind(group) else { return };
    let mut published = sidecar.app.published.clone();
    let _ = timeout(SETTLE_MAX, published.wait_for(|position| *position >= behind)).await;
}

/// Parts the commands whose ids are carried already, by these offsets, from those to write.
fn split_carried(served: &Served, group: Vec<Numbered>) -> (Vec<Offset>, Vec<Numbered>) {
    let mut carried = Vec::new();
    let fresh = group.into_iter().filter(|numbered| match served.carried(&numbered.id) {
        Some(offset) => {
            carried.push(offset);
            false
        }
        None => true,
    });
    let fresh = fresh.collect();
    (carried, fresh)
}

/// Refuses what the fold would refuse anyway, as far as that can be known before it is in the log.
async fn refuse(sidecar: &Sidecar, group: &[Numbered]) -> Result<(), Problem> {
    // The fold will judge by the timestamp that the log gives; until then our own clock is the best guess.
    let now = Timestamp::from(SystemTime::now());
    // The first fault in the order of the group is told; nothing of it is written then.
    for Numbered { line, command, .. } in group {
        if matches!(command.action, Action::Blacklist { expires_at: Some(expires_at) } if expires_at <= now) {
            let problem = Problem::new(codes::EXPIRED, "the ban is over already", "let it end in the future");
            return Err(problem.field("expires_at").line(*line));
        }
        if !command.force && view::is_too_wide(command.range) {
            let message = format!("{} is wider than a /8 of IPv4 or a /19 of IPv6", command.range);
            return Err(too_broad(message).line(*line));
        }
    }
    // Only a preview knows how many of the addresses are blacklisted already; it is seldom needed.
    let added: u128 = group.iter().map(|numbered| ipv4_addresses(&numbered.command)).sum();
    let total = u128::from(sidecar.app.served.ipv4_addresses()) + added;
    if total <= u128::from(view::IPV4_ADDRESSES_MAX) {
        return Ok(());
    }
    let outcomes = preview(sidecar, group, now).await;
    let refused = |outcome: &Outcome| outcome.refused == Some(Refusal::TooBroad);
    match group.iter().zip(&outcomes).find(|(_, outcome)| refused(outcome)) {
        Some((Numbered { line, .. }, _)) => {
            let message =
                format!("more than {} IPv4 addresses would be blacklisted", view::IPV4_ADDRESSES_MAX);
            Err(too_broad(message).line(*line))
        }
        None => Ok(()),
    }
}

/// The problem of a command that needs force.
fn too_broad(message: String) -> Problem {
    let hint = r#"if it is meant, write it as a JSON command with "force":true"#;
    Problem::new(codes::TOO_BROAD, message, hint).field("range")
}

/// The most IPv4 addresses that a command can add.
const fn ipv4_addresses(command: &Command) -> u128 {
    match (command.action, command.range.ends()) {
        (Action::Blacklist { .. }, Ends::V4(..)) => command.range.addresses(),
        _ => 0,
    }
}

/// What the fold would say of each command, in order, if they were in the log now. Found out on a thread of
/// its own, because it may copy many rows.
async fn preview(sidecar: &Sidecar, group: &[Numbered], now: Timestamp) -> Vec<Outcome> {
    let served = sidecar.app.served.clone();
    let commands: Vec<Command> = group.iter().map(|numbered| numbered.command.clone()).collect();
    blocking(move || served.preview(&commands, now)).await
}

/// Runs what takes long on a thread of its own. A panic there goes on here, and ends this connection only.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What the group would change, summed up; nothing is written.
async fn dry_run(sidecar: &Sidecar, group: Vec<Numbered>) -> Answer {
    #[derive(Serialize)]
    struct Preview {
        rows_changed: Value,
        addresses_changed: Value,
        refused: Value,
    }
    let outcomes = preview(sidecar, &group, Timestamp::from(SystemTime::now())).await;
    let rows = outcomes.iter().map(|outcome| u128::from(outcome.rows_changed)).sum();
    let addresses =
        outcomes.iter().fold(0_u128, |sum, outcome| sum.saturating_add(outcome.addresses_changed));
    let preview = Preview {
        rows_changed: exact(rows),
        addresses_changed: exact(addresses),
        refused: Size::of(&group).refused(&outcomes),
    };
    json(StatusCode::OK, &preview)
}

/// Whether a request holds one command or several: of one, the reason of a refusal is told, of several
/// their number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Size {
    One,
    Several,
}

impl Size {
    /// Judged by the commands, not by the form of the body: one line is one command.
    const fn of(group: &[Numbered]) -> Self {
        if group.len() == 1 { Self::One } else { Self::Several }
    }

    /// `refused` in an answer: of one command a word or null, of several a count. Duplicates do not count,
    /// because a repetition must look like success; of one command the word says enough.
    fn refused(self, outcomes: &[Outcome]) -> Value {
        let mut reasons = outcomes.iter().filter_map(|outcome| outcome.refused);
        match self {
            Self::One => reasons.next().map(Refusal::word).into(),
            Self::Several => reasons.filter(|reason| *reason != Refusal::Duplicate).count().into(),
        }
    }
}

/// Appends a group and waits for its outcome: the last offset, and all of them. The log goes on with it when
/// the client does not wait.
async fn append(
    sidecar: &Sidecar,
    group: &[Numbered],
    ids: &[CommandId],
) -> Result<(Offset, Vec<Offset>), Problem> {
    // Written anew as JSON with its id, whatever form it came in: the id has to be in the log.
    let values = group.iter().map(|numbered| numbered.command.encode().into_bytes()).collect();
    let (done, outcome) = oneshot::channel();
    let published_before = *sidecar.app.published.borrow();
    // When the client is gone nobody receives the outcome, and the commands are written all the same.
    sidecar.app.sink.append(values, Box::new(move |result| drop(done.send(result))));
    // Each of these names the ids, so that even a client that sent none can repeat the group safely.
    let unknown = |reason: &str| {
        let message = format!("what became of the commands is unknown: {reason}");
        let hint = "send the same commands again with the same ids: what is in the log already counts once";
        Problem::new(codes::OUTCOME_UNKNOWN, message, hint).ids(ids.to_vec())
    };
    match timeout(APPEND_MAX, outcome).await {
        // What is new has no place among what lookups know already.
        Ok(Ok(Ok(offsets))) if offsets.iter().any(|offset| offset.position() < published_before) => {
            Err(unknown("the log has it where the list has passed already, so that it is another log"))
        }
        Ok(Ok(Ok(offsets))) => match offsets.last() {
            Some(last) => {
                let published = *sidecar.app.published.borrow();
                sidecar.acknowledged.borrow_mut().remember(ids, &offsets, published);
                Ok((*last, offsets))
            }
            None => Err(unknown("the log named no offset")),
        },
        Ok(Ok(Err(AppendError::Unavailable(reason)))) => {
            let message = format!("nothing was written: {reason}");
            Err(Problem::new(codes::LOG_UNAVAILABLE, message, "send it again later"))
        }
        Ok(Ok(Err(AppendError::Unknown(reason)))) => Err(unknown(&reason)),
        Ok(Err(_)) => Err(unknown("the log was closed")),
        Err(_) => Err(unknown(&format!("no word from the log for {} s", APPEND_MAX.as_secs()))),
    }
}

/// What is known of commands in the log being applied, and with that the last part of an answer.
enum AppliedYet {
    NotAsked,
    TimeRanOut,
    Applied { changed: Value, refused: Value },
}

/// Waits, if asked to, until the commands at these offsets are in a snapshot, and says what the fold said.
async fn applied(sidecar: &Sidecar, asked: &Asked, offsets: &[Offset], size: Size) -> AppliedYet {
    let (Some(wait), Some(last)) = (asked.wait, offsets.iter().max()) else { return AppliedYet::NotAsked };
    let mut published = sidecar.app.published.clone();
    // Published, not only folded: the sender is promised that lookups know it.
    let arrived = timeout(wait, published.wait_for(|position| *position >= last.next())).await;
    if !matches!(arrived, Ok(Ok(_))) {
        return AppliedYet::TimeRanOut;
    }
    // The outcome of a command that was written long ago is forgotten; a part of a sum would be none.
    let outcomes: Option<Vec<Outcome>> =
        offsets.iter().map(|offset| sidecar.app.served.outcome(*offset)).collect();
    let Some(outcomes) = outcomes else {
        return AppliedYet::Applied { changed: Value::Null, refused: Value::Null };
    };
    let changed = exact(outcomes.iter().map(|outcome| u128::from(outcome.rows_changed)).sum());
    AppliedYet::Applied { changed, refused: size.refused(&outcomes) }
}

/// What is in the log. The offset is that of the last command; the position behind it is one more.
#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    New { offset: Offset, count: usize, ids: Vec<CommandId> },
    Duplicate { offset: Offset, duplicate: bool },
}

impl AppliedYet {
    /// The answer with this status, unless the time ran out.
    fn answer(self, status: StatusCode, written: Written) -> Answer {
        #[derive(Serialize)]
        struct Shape {
            #[serde(flatten)]
            written: Written,
            changed: Value,
            refused: Value,
        }
        match self {
            Self::NotAsked => json(status, &written),
            Self::TimeRanOut => json(StatusCode::ACCEPTED, &written),
            Self::Applied { changed, refused } => json(status, &Shape { written, changed, refused }),
        }
    }
}
