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

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

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
            return Self::decode_json(text);
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

    fn decode_json(text: &str) -> Result<Self, DecodeError> {
        let fields: Fields<'_> =
            serde_json::from_str(text).map_err(|error| CommandError::Json { message: error.to_string() })?;
        let version = fields.one("v")?.ok_or(CommandError::Missing { field: "v" })?;
        match version_of(version) {
            Some(Version::Known) => Ok(fields.command()?),
            Some(Version::Future) => Err(DecodeError::Future { version: version.chars().take(20).collect() }),
            None => Err(CommandError::Version.into()),
        }
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

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &1)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("action", self.action.verb())?;
        map.serialize_entry("range", &self.range.to_string())?;
        if let Action::Blacklist { expires_at: Some(expires_at) } = self.action {
            map.serialize_entry("expires_at", &expires_at)?;
        }
        for (field, text) in [("reason", &self.reason), ("by", &self.by), ("source", &self.source)] {
            if let Some(text) = text {
                map.serialize_entry(field, text)?;
            }
        }
        if self.force {
            map.serialize_entry("force", &true)?;
        }
        map.end()
    }
}

/// What a valid `v` says of the object that holds it.
enum Version {
    Known,
    Future,
}

/// Reads `v` from its JSON text, because an integer of any size counts and no number type holds all.
fn version_of(text: &str) -> Option<Version> {
    let integer = text.bytes().all(|b| b.is_ascii_digit());
    match text {
        "1" => Some(Version::Known),
        "0" => None,
        _ if integer => Some(Version::Future),
        _ => None,
    }
}

/// The fields that version 1 knows; the slots of [`Fields`] stand in this order.
const FIELDS: [&str; 9] = ["v", "id", "action", "range", "expires_at", "reason", "by", "source", "force"];

/// The known fields of a JSON command as raw text: a future command must be recognised whatever its other
/// fields hold, so that nothing but `v` may be read before the version is known.
#[derive(Default)]
struct Fields<'a> {
    /// The raw JSON text of each field of [`FIELDS`]; none where it is absent.
    values: [Option<&'a RawValue>; FIELDS.len()],
    /// The fields that stand twice. Kept for later: it is an error of version 1 only, once `v` itself is
    /// known to stand once.
    twice: Vec<&'static str>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let known = FIELDS.into_iter().zip(&mut fields.values).find(|(name, _)| *name == key);
            let Some((name, slot)) = known else {
                map.next_value::<serde::de::IgnoredAny>()?;
                continue;
            };
            // A `null` fills its slot as well: `"id":null,"id":"a"` stands twice, too.
            if slot.replace(map.next_value().map_err(A::Error::custom)?).is_some() {
                fields.twice.push(name);
            }
        }
        Ok(fields)
    }
}

impl Fields<'_> {
    /// The JSON text of a field that is there at most once; `null` counts as absent.
    fn one(&self, field: &'static str) -> Result<Option<&str>, CommandError> {
        if self.twice.contains(&field) {
            return Err(CommandError::Twice { field });
        }
        let value = FIELDS.iter().zip(&self.values).find(|(name, _)| **name == field);
        Ok(value.and_then(|(_, value)| *value).map(RawValue::get).filter(|text| *text != "null"))
    }

    fn string(&self, field: &'static str) -> Result<Option<String>, CommandError> {
        let parse =
            |text| serde_json::from_str(text).map_err(|_| CommandError::Type { field, expected: "a string" });
        self.one(field)?.map(parse).transpose()
    }

    /// Reads the fields by the rules of version 1. To be called only once `v` is known to be 1.
    fn command(&self) -> Result<Command, CommandError> {
        let action = self.string("action")?.ok_or(CommandError::Missing { field: "action" })?;
        let range = self.string("range")?.ok_or(CommandError::Missing { field: "range" })?;
        let expires_at = self.string("expires_at")?;
        let expires_at =
            expires_at.map(|text| text.parse().map_err(|_| CommandError::ExpiresAt)).transpose()?;
        let action = match (action.as_str(), expires_at) {
            ("BLACKLIST", expires_at) => Action::Blacklist { expires_at },
            ("WHITELIST", None) => Action::Whitelist,
            ("WHITELIST", Some(_)) => return Err(CommandError::ExpiresAtOnWhitelist),
            _ => return Err(CommandError::Action),
        };
        Ok(Command {
            action,
            range: range.parse()?,
            id: self.string("id")?.map(|id| id.parse()).transpose()?,
            reason: self.string("reason")?,
            by: self.string("by")?,
            source: self.string("source")?,
            force: match self.one("force")? {
                None | Some("false") => false,
                Some("true") => true,
                Some(_) => return Err(CommandError::Type { field: "force", expected: "true or false" }),
            },
        })
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
