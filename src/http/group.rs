//! The commands of one request: all valid, each with an id, or none taken.
//!
//! An id is the command's own, else `<Idempotency-Key>/<line>`, else a new ULID. So a group that is sent
//! again under the same key has the same ids, line by line, and what of it is in the log already is
//! recognised. For that the lines must keep their numbers, which is why blank ones count.
//!
//! Whether a command would have an effect is not asked here.

use std::collections::HashSet;

use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use ulid::Ulid;

use super::answer::Problem;
use super::{GROUP_COMMANDS_MAX, codes};
use crate::command::{Command, CommandError, CommandId, DecodeError};

/// The longest `Idempotency-Key`: `<key>/<line>` must be an id, up to line 99,999.
const KEY_BYTES_MAX: usize = 58;

/// One command of a group.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    /// The line of the body, from 1; none where the body is one command.
    pub(super) line: Option<usize>,
    /// Its id, which the command has too.
    pub(super) id: CommandId,
    pub(super) command: Command,
}

/// The key that makes the ids of a group the same when it is sent again.
/// None if there is no such header; one that is there and wrong is refused, because whoever sent it relies on
/// it.
pub(super) fn idempotency_key(head: &Parts) -> Result<Option<String>, Problem> {
    let mut values = head.headers.get_all("idempotency-key").iter();
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => key.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => "",
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(fits) {
        return Ok(Some(key.to_owned()));
    }
    let message =
        format!("`Idempotency-Key` must be one key of 1 to {KEY_BYTES_MAX} characters of [A-Za-z0-9._-]");
    Err(Problem::new(codes::IDEMPOTENCY_KEY_INVALID, message, "a UUID fits"))
}

/// Reads the commands of a body: `application/json` is one command, all else is lines.
///
/// What comes back is not empty, at most [`GROUP_COMMANDS_MAX`] long, and has no id twice. A problem names
/// the first line that is wrong.
pub(super) fn parse(head: &Parts, body: &[u8], key: Option<&str>) -> Result<Vec<Numbered>, Problem> {
    let values = if is_json(head) { vec![(None, one(body)?)] } else { lines(body)? };
    let mut ids = HashSet::new();
    let mut group = Vec::with_capacity(values.len());
    for (line, value) in values {
        let numbered = numbered(value, key, line.unwrap_or(1)).map_err(|problem| problem.line(line))?;
        // The fold would take the first of them only, and the client would not know.
        if !ids.insert(numbered.id.clone()) {
            let message = format!("the id `{}` stands twice in the group", numbered.id);
            let hint = "give each command an id of its own, or none";
            return Err(Problem::new(codes::ID_TWICE, message, hint).field("id").line(line));
        }
        group.push(Numbered { line, ..numbered });
    }
    Ok(group)
}

/// Whether the body is announced as JSON, with or without parameters behind.
fn is_json(head: &Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case("application/json")
}

/// The body as one command. Text forms are refused here: a client that says JSON and sends something else is
/// mistaken about one of them.
fn one(body: &[u8]) -> Result<&[u8], Problem> {
    if body.trim_ascii_start().starts_with(b"{") {
        return Ok(body);
    }
    let message = "it does not begin with `{`".to_owned();
    Err(CommandError::Json { message }.into())
}

/// The value of a command, and the line that it stands on.
type Value<'a> = (Option<usize>, &'a [u8]);

/// The lines that are not blank, with their numbers; at least one, and no more than a group may have.
fn lines(body: &[u8]) -> Result<Vec<Value<'_>>, Problem> {
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let numbered = lines.enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let values: Vec<_> =
        numbered.map(|(at, line)| (Some(at + 1), line)).take(GROUP_COMMANDS_MAX + 1).collect();
    match values.len() {
        0 => {
            let hint = "send a command a line, like `BLACKLIST 203.0.113.0/24`";
            Err(Problem::new(codes::GROUP_EMPTY, "the body holds no command", hint))
        }
        1..=GROUP_COMMANDS_MAX => Ok(values),
        _ => {
            let message = format!("the group has more than {GROUP_COMMANDS_MAX} commands");
            Err(Problem::new(codes::GROUP_TOO_LONG, message, "send it in several requests"))
        }
    }
}

/// Decodes a command and gives it an id. Its fields are held to limits that the fold does not know, because
/// only what is written from now on has to keep them.
fn numbered(value: &[u8], key: Option<&str>, line: usize) -> Result<Numbered, Problem> {
    let command = Command::decode(value).map_err(decode_problem)?;
    command.check_fields()?;
    let id = match (&command.id, key) {
        (Some(id), _) => id.clone(),
        (None, Some(key)) => format!("{key}/{line}").parse()?,
        (None, None) => Ulid::generate().to_string().parse()?,
    };
    Ok(Numbered { line: None, command: Command { id: Some(id.clone()), ..command }, id })
}

/// A command of the future is refused like a wrong one: it would stop the fold of every reader that does not
/// know it.
fn decode_problem(error: DecodeError) -> Problem {
    match error {
        DecodeError::Undecodable(error) => error.into(),
        future @ DecodeError::Future { .. } => {
            let hint = "write it with `\"v\":1`, or update the sidecar";
            Problem::new(codes::COMMAND_VERSION, future.to_string(), hint).field("v")
        }
    }
}
