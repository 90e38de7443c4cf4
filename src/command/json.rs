//! Commands as JSON objects: each field at most once, what is unknown skipped unread.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Action, Command, CommandError, DecodeError};

/// Decodes an object; its version is looked at first, because of a later one nothing else is known.
///
/// # Errors
/// As [`Command::decode`].
pub(super) fn decode(text: &str) -> Result<Command, DecodeError> {
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| CommandError::Json { message: error.to_string() })?;
    let version = fields.one("v")?.ok_or(CommandError::Missing { field: "v" })?;
    match version_of(version) {
        Some(Version::Known) => Ok(fields.command()?),
        Some(Version::Future) => Err(DecodeError::Future { version: version.chars().take(20).collect() }),
        None => Err(CommandError::Version.into()),
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
