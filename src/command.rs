//! Commands: the edits that the commands log holds, in both of their spellings.
//!
//! ```text
//! BLACKLIST 203.0.113.0/24
//! WHITELIST 203.0.113.7
//! {"v":1,"action":"BLACKLIST","range":"203.0.113.0/24","expires_at":"2026-12-01T00:00:00Z","by":"alice"}
//! ```
//!
//! This grammar feeds the fold, so two readers must never disagree about a record. It is pinned, case by
//! case, in `tests/commands.jsonl`.
//!
//! A value falls into one of three classes, and each calls for something else from a reader:
//!
//! - a command, which is folded;
//! - [`DecodeError::Undecodable`], which every reader passes over alike;
//! - [`DecodeError::Future`], at which a reader of this release must stop. A JSON object is of the future by
//!   its integer `v` alone, whatever else it holds. So fields stay raw text until `v` is known.
//!
//! What is valid here may still be refused by the fold ([`view`](crate::view)), which knows what came before.
//! And our server demands more of what it writes than the fold does of what it reads: see
//! [`Command::check_fields`].

mod json;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::address::{Range, RangeError};
use crate::record::Timestamp;

/// The longest value of a command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 4096;
/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// The longest reason that our server takes, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// The longest `by` and `source` that our server takes, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What a command does to its range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Blacklists every address of the range, until the expiry if there is one.
    Blacklist {
        /// When the ban ends; none is for ever.
        expires_at: Option<Timestamp>,
    },
    /// Frees every address of the range.
    Whitelist,
}

impl Action {
    /// The verb as the log writes it.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Blacklist { .. } => "BLACKLIST",
            Self::Whitelist => "WHITELIST",
        }
    }
}

/// The name of a command that makes a retry harmless: 1 to 64 bytes, compared exactly.
///
/// Whoever does not know whether a command was taken sends it again with the same id. The fold refuses the
/// second one as a duplicate for the next [`DUPLICATE_WINDOW`](crate::view::DUPLICATE_WINDOW) offsets.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CommandId(Box<str>);

impl CommandId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CommandId {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        match text.len() {
            1..=ID_BYTES_MAX => Ok(Self(text.into())),
            bytes => Err(CommandError::Id { bytes }),
        }
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One edit of the blacklist.
///
/// The fold looks at `action`, `range`, `id` and `force` only; the other fields are for people.
///
/// ```
/// use portcullis::command::{Action, Command, DecodeError};
///
/// let text = Command::decode(b"BLACKLIST 203.0.113.0/24\n")?;
/// let json = Command::decode(br#"{"v":1,"action":"BLACKLIST","range":"203.0.113.0/24"}"#)?;
/// assert_eq!(text, json);
/// assert_eq!(text.action, Action::Blacklist { expires_at: None });
/// assert_eq!(text.encode(), r#"{"v":1,"action":"BLACKLIST","range":"203.0.113.0/24"}"#);
///
/// // Lower case is no verb: every reader passes over it.
/// let error = Command::decode(b"blacklist 203.0.113.0/24").expect_err("no verb");
/// assert!(matches!(error, DecodeError::Undecodable(_)));
/// // A later version is not to be passed over, whatever it looks like.
/// let error = Command::decode(br#"{"v":2,"action":"REDIRECT"}"#).expect_err("of the future");
/// assert_eq!(error, DecodeError::Future { version: "2".to_owned() });
/// # Ok::<(), DecodeError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// What to do.
    pub action: Action,
    /// With which addresses.
    pub range: Range,
    /// The id that makes a retry harmless; without one, a repeated command is folded again.
    pub id: Option<CommandId>,
    /// Why, for people.
    pub reason: Option<String>,
    /// Who, for people.
    pub by: Option<String>,
    /// The feed that sent it; the fold ignores it.
    pub source: Option<String>,
    /// Whether the range may be as wide as it is: lifts the limits on breadth, and no others.
    pub force: bool,
}

impl Command {
    /// A command with nothing but its action and its range.
    pub const fn new(action: Action, range: Range) -> Self {
        Self { action, range, id: None, reason: None, by: None, source: None, force: false }
    }

    /// Decodes the value of a record, text or JSON. The first character behind JSON's blanks decides: `{`
    /// begins JSON, and nothing that begins so is tried as text.
    ///
    /// # Errors
    /// [`DecodeError::Undecodable`] for a value that every reader passes over, [`DecodeError::Future`]
    /// for one that a reader of this release must stop at. A value that is too long or not UTF-8 is
    /// undecodable; its version is not looked for.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        if value.len() > COMMAND_BYTES_MAX {
            return Err(CommandError::TooLong { bytes: value.len() }.into());
        }
        let text = str::from_utf8(value).map_err(|_| CommandError::NotUtf8)?;
        let json_blanks = [' ', '\t', '\n', '\r'];
        if text.trim_start_matches(json_blanks).starts_with('{') {
            return json::decode(text);
        }
        Ok(Self::decode_text(text)?)
    }

    /// One line feed is forgiven, with or without a carriage return, because files and pipes end lines so.
    fn decode_text(text: &str) -> Result<Self, CommandError> {
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        let (verb, range) = line.split_once(' ').ok_or(CommandError::Verb)?;
        let action = match verb {
            "BLACKLIST" => Action::Blacklist { expires_at: None },
            "WHITELIST" => Action::Whitelist,
            _ => return Err(CommandError::Verb),
        };
        Ok(Self::new(action, range.parse()?))
    }

    /// The command as version 1 JSON, one line, the way our server writes it. Absent fields are left out.
    ///
    /// A command whose range and expiry were parsed, and that passes [`Command::check_fields`], decodes to
    /// itself and stays below [`COMMAND_BYTES_MAX`].
    ///
    /// # Panics
    /// Never: text, a number and a flag always have a JSON form.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a command holds nothing that JSON cannot")
    }

    /// Checks what our server demands beyond the grammar: short fields without control characters. Called
    /// before a command is written, never by the fold: a foreign producer's long reason must not change what
    /// its command does.
    ///
    /// # Errors
    /// The first field that does not fit, in the order `id`, `reason`, `by`, `source`.
    pub fn check_fields(&self) -> Result<(), CommandError> {
        let id = self.id.as_ref().map(CommandId::as_str);
        let fields = [
            ("id", id, ID_BYTES_MAX),
            ("reason", self.reason.as_deref(), REASON_BYTES_MAX),
            ("by", self.by.as_deref(), NAME_BYTES_MAX),
            ("source", self.source.as_deref(), NAME_BYTES_MAX),
        ];
        for (field, text, bytes_max) in fields {
            let text = text.unwrap_or_default();
            if text.len() > bytes_max {
                return Err(CommandError::FieldTooLong { field, bytes_max });
            }
            if text.chars().any(char::is_control) {
                return Err(CommandError::ControlCharacter { field });
            }
        }
        Ok(())
    }
}

/// Why a record's value is not a command that this release can fold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No command at all: every reader passes over it.
    #[error(transparent)]
    Undecodable(#[from] CommandError),
    /// A command of a later release: a reader that passed over it would hold another view than the
    /// readers that understand it, silently.
    #[error("the command has version {version}; this release knows version 1")]
    Future {
        /// The version, shortened.
        version: String,
    },
}

/// What is wrong with a command. Most cases make a record undecodable; [`CommandError::FieldTooLong`] and
/// [`CommandError::ControlCharacter`] come of [`Command::check_fields`] only.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The value is above [`COMMAND_BYTES_MAX`].
    #[error("the command has {bytes} bytes, more than {COMMAND_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The record has no value.
    #[error("the record has no value")]
    Empty,
    /// The value is not UTF-8.
    #[error("the command is not UTF-8")]
    NotUtf8,
    /// A text command that does not begin with a verb and one blank.
    #[error("a text command is BLACKLIST or WHITELIST in upper case, one blank, and a range")]
    Verb,
    /// The range is none.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The value begins like JSON and is not a JSON object.
    #[error("the command is not a JSON object: {message}")]
    Json {
        /// What the JSON parser said.
        message: String,
    },
    /// `v` is not an integer above 0.
    #[error("`v` is not an integer above 0")]
    Version,
    /// A required field is not there.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A known field stands twice.
    #[error("`{field}` stands twice")]
    Twice {
        /// The field.
        field: &'static str,
    },
    /// A field has a wrong type.
    #[error("`{field}` is not {expected}")]
    Type {
        /// The field.
        field: &'static str,
        /// The type that it should have.
        expected: &'static str,
    },
    /// `action` is none of the two.
    #[error("`action` is neither BLACKLIST nor WHITELIST")]
    Action,
    /// The id is empty or too long.
    #[error("`id` has {bytes} bytes, not 1 to {ID_BYTES_MAX}")]
    Id {
        /// Its length.
        bytes: usize,
    },
    /// `expires_at` is not written as the grammar demands.
    #[error("`expires_at` is not a time like 2026-12-01T00:00:00Z")]
    ExpiresAt,
    /// A WHITELIST with an expiry.
    #[error("`expires_at` has no meaning on a WHITELIST")]
    ExpiresAtOnWhitelist,
    /// A field is longer than our server takes.
    #[error("`{field}` has more than {bytes_max} bytes")]
    FieldTooLong {
        /// The field.
        field: &'static str,
        /// The most bytes that it may have.
        bytes_max: usize,
    },
    /// A field holds a control character.
    #[error("`{field}` holds a control character")]
    ControlCharacter {
        /// The field.
        field: &'static str,
    },
}

impl CommandError {
    /// The stable code of the error, for programs. Errors that a program would treat alike share one.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "command_too_long",
            Self::Empty | Self::Verb => "command_invalid",
            Self::NotUtf8 => "command_not_utf8",
            Self::Range(error) => error.code(),
            Self::Json { .. } => "command_json",
            Self::Version => "command_version",
            Self::Missing { .. } => "field_missing",
            Self::Twice { .. } => "field_twice",
            Self::Type { .. } | Self::Action | Self::Id { .. } => "field_invalid",
            Self::ExpiresAt | Self::ExpiresAtOnWhitelist => "expires_at_invalid",
            Self::FieldTooLong { .. } => "field_too_long",
            Self::ControlCharacter { .. } => "field_control_character",
        }
    }

    /// The JSON field that is wrong, where it is one field.
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::Range(_) => Some("range"),
            Self::Version => Some("v"),
            Self::Action => Some("action"),
            Self::Id { .. } => Some("id"),
            Self::ExpiresAt | Self::ExpiresAtOnWhitelist => Some("expires_at"),
            Self::Missing { field }
            | Self::Twice { field }
            | Self::Type { field, .. }
            | Self::FieldTooLong { field, .. }
            | Self::ControlCharacter { field } => Some(field),
            Self::TooLong { .. } | Self::Empty | Self::NotUtf8 | Self::Verb | Self::Json { .. } => None,
        }
    }

    /// What to do about it, in one sentence for people.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::Range(error) => return error.hint(),
            Self::Verb | Self::Empty => "write it like `BLACKLIST 203.0.113.0/24`",
            Self::TooLong { .. } | Self::FieldTooLong { .. } => "shorten it",
            Self::NotUtf8 => "encode it as UTF-8",
            Self::Json { .. } | Self::Missing { .. } => {
                r#"write it like {"v":1,"action":"BLACKLIST","range":"203.0.113.0/24"}"#
            }
            Self::Version => "this release knows `\"v\":1`",
            Self::Twice { .. } => "keep one of them",
            Self::Type { .. } | Self::Id { .. } => "give it the type and length named, or leave it out",
            Self::Action => "write BLACKLIST or WHITELIST in upper case",
            Self::ExpiresAt => "write it in UTC, with upper-case T and Z",
            Self::ExpiresAtOnWhitelist => "leave it out, or BLACKLIST until then",
            Self::ControlCharacter { .. } => "leave the control characters out",
        };
        text.to_owned()
    }
}

#[cfg(test)]
mod tests;
