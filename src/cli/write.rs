//! Sending commands so that a repetition is harmless: in groups, each under a key of its own.
//!
//! ```text
//!   one group       01J9…            its commands get the ids   01J9…/1  01J9…/2  …
//!   several         01J9….1  01J9….2 …                          01J9….1/1  …  01J9….2/1  …
//! ```
//!
//! When an answer is lost, nobody on this side can know whether the group was taken. So it is sent again
//! under the same key. The service makes the same ids of it, finds those that are in the log, and answers as
//! if the first time had gone well. A group is the unit of that: it is taken as a whole, and small against
//! the number of ids that the service remembers.
//!
//! The key is new for each run: a verb that is run again is a new wish, not a repetition.

use std::fmt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use ulid::Ulid;

use crate::address::Range;
use crate::cli::connect::{Intent, Target, lost};
use crate::cli::failure::{Failure, shown};
use crate::command::{Action, Command};
use crate::http::client::{Answer, Client, Request, RequestError, Token};
use crate::record::{Offset, Position};
use crate::view::Refusal;

/// How often a group is sent again before giving up, with at most about three seconds of pauses in all.
pub const REPEATS_MAX: u32 = 5;
/// The pause before the first repetition; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// What every command of a verb carries.
#[derive(Args, Clone, Debug)]
pub struct CommandArgs {
    /// Why, for people who ask later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who, for people who ask later
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Allow ranges wider than a /8 of IPv4 or a /19 of IPv6
    #[arg(long)]
    force: bool,
}

impl CommandArgs {
    /// The commands that do this to each of the ranges, in their order and without ids: the service gives
    /// them theirs by the key.
    ///
    /// # Errors
    /// When a flag does not fit into a command: then it fits into none, since all have the same.
    pub fn commands(&self, action: Action, ranges: &[Range]) -> Result<Vec<Command>, Failure> {
        let commands = ranges.iter().map(|range| Command {
            reason: self.reason.clone(),
            by: self.by.clone(),
            force: self.force,
            ..Command::new(action, *range)
        });
        let commands: Vec<Command> = commands.collect();
        match commands.first().map(Command::check_fields) {
            Some(Err(error)) => Err(Failure::usage(error)),
            _ => Ok(commands),
        }
    }

    /// Whether wide ranges are allowed.
    pub const fn width(&self) -> Width {
        if self.force { Width::Any } else { Width::Limited }
    }
}

/// How wide a range may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Width {
    /// As wide as a command may be without force.
    Limited,
    /// As wide as it is.
    Any,
}

/// What is to happen to the commands, and so what the request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// They are made durable.
    Write,
    /// They are made durable, and the answer waits until lookups know them.
    WriteAndWait,
    /// Nothing; only what they would change is wanted.
    DryRun,
}

impl Mode {
    /// The path and query of the request.
    const fn path(self) -> &'static str {
        match self {
            Self::Write => "/v1/commands",
            Self::WriteAndWait => "/v1/commands?wait=applied",
            Self::DryRun => "/v1/commands?dry_run",
        }
    }
}

/// What became of a group. Which fields are there depends on the [`Mode`]; what the service does not say is
/// none or false.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Verdict {
    /// The offset of the last command; none for a dry run.
    pub offset: Option<Offset>,
    /// How many commands were written.
    pub count: Option<u64>,
    /// Whether all of them were in the log already.
    pub duplicate: bool,
    /// How many rows they changed, once they are applied.
    #[serde(deserialize_with = "amount")]
    pub changed: Option<u128>,
    /// How many rows they would change.
    #[serde(deserialize_with = "amount")]
    pub rows_changed: Option<u128>,
    /// How many addresses they would change.
    #[serde(deserialize_with = "amount")]
    pub addresses_changed: Option<u128>,
    /// Why they have no effect, or how many of them have none.
    #[serde(deserialize_with = "refused")]
    pub refused: Option<Refused>,
    /// Whether the wait ended before they were applied.
    #[serde(skip)]
    pub pending: bool,
}

impl Verdict {
    /// Whether nothing was written, and only what would change is told.
    pub const fn is_dry(&self) -> bool {
        self.rows_changed.is_some()
    }

    /// The position after the group; none for a dry run.
    pub fn position(&self) -> Option<Position> {
        self.offset.map(Offset::next)
    }
}

/// What has no effect.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Refused {
    /// The only command, for the reason that this word names.
    Only(String),
    /// So many commands of a group.
    Several(u64),
}

impl Refused {
    /// How many commands are a failure: one that is in the log already is none, and of a group the service
    /// does not count it.
    pub fn failures(&self) -> u64 {
        match self {
            Self::Only(word) => u64::from(word != Refusal::Duplicate.word()),
            Self::Several(count) => *count,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(word) => f.write_str(word),
            Self::Several(count) => write!(f, "{count} commands"),
        }
    }
}

/// A count, which is a string where a JSON number would lose digits.
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u128>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u128(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    })
}

/// Of one command the service names the reason, of several their number; zero of them is nothing to tell.
fn refused<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Refused>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(word) => Some(Refused::Only(shown(&word))),
        Value::Number(number) => number.as_u64().filter(|count| *count > 0).map(Refused::Several),
        _ => None,
    })
}

/// Sends groups of commands to the service, one after the other over one connection.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    token: Option<Token>,
    mode: Mode,
    key: Key,
}

impl Writer {
    /// Connects to the service, to send this many groups. The number must be known, because the key of an
    /// only group has no number of its own.
    ///
    /// # Errors
    /// When it can't be reached, or this user may not write to it.
    pub fn connect(target: &Target, mode: Mode, groups: usize) -> Result<Self, Failure> {
        let client = target.connect(Intent::Write)?;
        let token = target.token(client.endpoint())?;
        Ok(Self { client, token, mode, key: Key::new(groups) })
    }

    /// Waits from now on until lookups know what is written; what is only tried stays so.
    pub fn wait_until_applied(&mut self) {
        if self.mode == Mode::Write {
            self.mode = Mode::WriteAndWait;
        }
    }

    /// Sends one group, again under the same key when it is unknown whether it was taken: the service
    /// then leaves out what it already has. `note` tells people of it.
    ///
    /// # Errors
    /// When the group was not taken, or that is still unknown after [`REPEATS_MAX`] repetitions.
    pub fn send(&mut self, group: &[Command], note: &dyn Fn(&str)) -> Result<Verdict, Failure> {
        let request = self.request(group);
        let mut repeats = 0;
        loop {
            // 503 wrote nothing and 504 may have, and so may a connection that was lost. The key makes them
            // one case. An answer that is too long is not repeated: it would be as long again.
            let trouble = match self.client.send(&request) {
                Ok(answer) if !matches!(answer.status, 503 | 504) => return read(&answer),
                Ok(answer) => Failure::answered(&answer),
                Err(error @ (RequestError::Connect(_) | RequestError::Lost(_))) => lost(&self.client, &error),
                Err(error) => return Err(lost(&self.client, &error)),
            };
            if repeats == REPEATS_MAX {
                return Err(trouble.and("gave up; repeating the whole is harmless"));
            }
            let pause = pause(repeats);
            repeats += 1;
            note(&format!(
                "{trouble}; trying again in {} ms with the same key ({repeats} of {REPEATS_MAX})",
                pause.as_millis()
            ));
            thread::sleep(pause);
        }
    }

    /// The request for the next group. It is made once for all its repetitions, so that they have the same
    /// key.
    fn request(&mut self, group: &[Command]) -> Request {
        let lines: Vec<String> = group.iter().map(Command::encode).collect();
        Request {
            path: self.mode.path().to_owned(),
            body: Some(Bytes::from(lines.join("\n") + "\n")),
            accept: None,
            key: Some(self.key.next()),
            token: self.token.clone(),
        }
    }
}

/// Doubled each time, with up to half of it left to chance so that many writers do not come back at once.
fn pause(repeats: u32) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1_u32 << repeats.min(REPEATS_MAX));
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The verdict in an answer of success; any other is a failure.
fn read(answer: &Answer) -> Result<Verdict, Failure> {
    if !matches!(answer.status, 200..=202) {
        return Err(Failure::answered(answer));
    }
    let verdict: Verdict = serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::unavailable(format!("the answer of the service makes no sense: {error}"))
    })?;
    Ok(Verdict { pending: answer.status == 202, ..verdict })
}

/// The names under which the groups of one run are sent.
#[derive(Debug)]
struct Key {
    base: String,
    groups: usize,
    sent: usize,
}

impl Key {
    /// A name that no other run has.
    fn new(groups: usize) -> Self {
        Self { base: Ulid::generate().to_string(), groups, sent: 0 }
    }

    /// The name of the next group: of the only one the plain name.
    fn next(&mut self) -> String {
        self.sent += 1;
        if self.groups == 1 { self.base.clone() } else { format!("{}.{}", self.base, self.sent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Verdict {
        serde_json::from_str(text).expect(text)
    }

    #[test]
    fn every_group_has_a_key_of_its_own_that_fits() {
        let mut one = Key::new(1);
        assert_eq!(one.next(), one.base);
        let mut many = Key::new(usize::MAX);
        many.sent = usize::MAX - 1;
        let key = many.next();
        assert!(key.len() <= 58 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'), "{key}");
        assert_ne!(Key::new(1).next(), Key::new(1).next());
    }

    #[test]
    fn a_verdict_is_read_in_all_its_shapes() {
        let taken = verdict(r#"{"offset":815,"count":4,"ids":["a"]}"#);
        assert_eq!((taken.offset, taken.count), (Some(Offset::new(815)), Some(4)));
        assert_eq!(taken.position(), Some(Position::new(816)));
        assert!(verdict(r#"{"offset":812,"duplicate":true}"#).duplicate);
        let dry = verdict(
            r#"{"rows_changed":2,"addresses_changed":"79228162514264337593543950336","refused":null}"#,
        );
        assert_eq!((dry.rows_changed, dry.addresses_changed, dry.refused), (Some(2), Some(1 << 96), None));
        assert_eq!(
            verdict(r#"{"refused":"too_broad"}"#).refused,
            Some(Refused::Only("too_broad".to_owned()))
        );
        assert_eq!(verdict(r#"{"refused":2}"#).refused, Some(Refused::Several(2)));
        assert_eq!(
            verdict(r#"{"refused":0,"changed":7}"#),
            Verdict { changed: Some(7), ..Verdict::default() }
        );
    }

    #[test]
    fn what_is_in_the_log_already_is_no_failure() {
        let only = |refusal: Refusal| Refused::Only(refusal.word().to_owned());
        assert_eq!(only(Refusal::Duplicate).failures(), 0);
        assert_eq!(only(Refusal::TooBroad).failures(), 1);
        assert_eq!(Refused::Several(2).failures(), 2);
    }

    #[test]
    fn the_pause_grows_and_stays_bounded() {
        for repeats in 0..REPEATS_MAX {
            let whole = PAUSE_FIRST * (1 << repeats);
            assert!((whole / 2..=whole).contains(&pause(repeats)));
        }
    }
}
