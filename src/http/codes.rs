//! Every error code that HTTP answers carry, with its status: the one list of them.
//!
//! A program that meets an error looks at `error.code`. So a word, once released, keeps its meaning and its
//! status; what is wrong in a new way gets a new word. Codes of addresses and commands have their words in
//! [`address`](crate::address) and [`command`](crate::command) and their statuses here.

use hyper::StatusCode;

/// A stable word for one thing that can go wrong, and the status that it is answered with.
///
/// ```
/// use portcullis::http::codes::{ERROR_CODES, RANGE_HOST_BITS};
///
/// assert_eq!((RANGE_HOST_BITS.word, RANGE_HOST_BITS.status.as_u16()), ("range_host_bits", 400));
/// assert!(ERROR_CODES.contains(&RANGE_HOST_BITS));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorCode {
    /// The word, as `error.code` has it.
    pub word: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// When it is answered.
    pub meaning: &'static str,
}

// One line a code: constant, list and documentation are made of it, so that none of them can be forgotten.
macro_rules! error_codes {
    ($($name:ident = $word:literal, $status:ident, $meaning:literal;)*) => {
        $(#[doc = $meaning]
        pub const $name: ErrorCode =
            ErrorCode { word: $word, status: StatusCode::$status, meaning: $meaning };)*

        /// All codes, in order of their status.
        pub const ERROR_CODES: &[ErrorCode] = &[$($name),*];
    };
}

error_codes! {
    ADDRESS_INVALID = "address_invalid", BAD_REQUEST, "A text is no address.";
    RANGE_PREFIX_LENGTH = "range_prefix_length", BAD_REQUEST, "The length of a prefix is no number, or too long.";
    RANGE_HOST_BITS = "range_host_bits", BAD_REQUEST, "The address of a prefix is not its first one.";
    RANGE_INVERTED = "range_inverted", BAD_REQUEST, "A range starts above its end.";
    RANGE_FAMILIES = "range_families", BAD_REQUEST, "A range goes from one family to the other.";
    RANGE_MAPPED = "range_mapped", BAD_REQUEST, "Exactly one end of a range is IPv4-mapped.";
    COMMAND_INVALID = "command_invalid", BAD_REQUEST, "A line is no command.";
    COMMAND_TOO_LONG = "command_too_long", BAD_REQUEST, "A command is above 4 KiB.";
    COMMAND_NOT_UTF8 = "command_not_utf8", BAD_REQUEST, "A command is not UTF-8.";
    COMMAND_JSON = "command_json", BAD_REQUEST, "A command is not a JSON object.";
    COMMAND_VERSION = "command_version", BAD_REQUEST, "A command has a `v` that is no version, or a later one.";
    FIELD_MISSING = "field_missing", BAD_REQUEST, "A command lacks a field.";
    FIELD_TWICE = "field_twice", BAD_REQUEST, "A command has a field twice.";
    FIELD_INVALID = "field_invalid", BAD_REQUEST, "A field of a command has a wrong type or value.";
    FIELD_TOO_LONG = "field_too_long", BAD_REQUEST, "A field of a command is too long.";
    FIELD_CONTROL_CHARACTER = "field_control_character", BAD_REQUEST, "A field of a command holds a control character.";
    EXPIRES_AT_INVALID = "expires_at_invalid", BAD_REQUEST, "`expires_at` is no time, or stands on a WHITELIST.";
    ID_TWICE = "id_twice", BAD_REQUEST, "Two commands of one group have the same id.";
    GROUP_EMPTY = "group_empty", BAD_REQUEST, "The body holds no command.";
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid", BAD_REQUEST, "`Idempotency-Key` is empty, too long, doubled or has other characters than [A-Za-z0-9._-].";
    BODY_INVALID = "body_invalid", BAD_REQUEST, "The body is not what the path takes.";
    PARAMETER_UNKNOWN = "parameter_unknown", BAD_REQUEST, "The path has no such parameter.";
    PARAMETER_INVALID = "parameter_invalid", BAD_REQUEST, "A parameter is missing, doubled or has a wrong value.";
    BEYOND_LOG = "beyond_log", BAD_REQUEST, "A position lies beyond the end of the log.";
    HOST_INVALID = "host_invalid", BAD_REQUEST, "There is not exactly one `Host`.";
    TOKEN_INVALID = "token_invalid", UNAUTHORIZED, "Writing over TCP takes the token, and it is missing or another one.";
    ORIGIN_REFUSED = "origin_refused", FORBIDDEN, "A write comes from a web page: it has an `Origin`.";
    NOT_FOUND = "not_found", NOT_FOUND, "This listener has no such path.";
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not take the method; `Allow` names those it takes.";
    BODY_TIMEOUT = "body_timeout", REQUEST_TIMEOUT, "The body did not come in time.";
    BEFORE_LOG = "before_log", GONE, "A position or time lies before the first command that the log holds.";
    BODY_TOO_LONG = "body_too_long", PAYLOAD_TOO_LARGE, "The body is above 4 MiB, or above 256 KiB on a lookup listener.";
    BATCH_TOO_LONG = "batch_too_long", PAYLOAD_TOO_LARGE, "A batch has more addresses than the listener takes.";
    GROUP_TOO_LONG = "group_too_long", PAYLOAD_TOO_LARGE, "A group has more than 1,000 commands.";
    TARGET_TOO_LONG = "target_too_long", URI_TOO_LONG, "The request target is above 2 KiB.";
    HOST_FOREIGN = "host_foreign", MISDIRECTED_REQUEST, "`Host`, or the authority of the target, is not ours.";
    TOO_BROAD = "too_broad", UNPROCESSABLE_ENTITY, "A command is too broad without force.";
    EXPIRED = "expired", UNPROCESSABLE_ENTITY, "A ban is over already.";
    FUTURE_COMMAND = "future_command", UNPROCESSABLE_ENTITY, "A command of a later release stands in the way of a replay.";
    EXPORT_BUSY = "export_busy", TOO_MANY_REQUESTS, "Another export is running.";
    HEADERS_TOO_LARGE = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The header is above 16 KiB or 32 fields.";
    NOT_READY = "not_ready", SERVICE_UNAVAILABLE, "There is no snapshot yet; of a projector: it has not looked at the table yet.";
    DRAINING = "draining", SERVICE_UNAVAILABLE, "The process is shutting down.";
    DEGRADED = "degraded", SERVICE_UNAVAILABLE, "`/readyz?strict`: it does its work, and not all is as it should be.";
    ALARM = "alarm", SERVICE_UNAVAILABLE, "`/readyz?strict`, or a command: the sidecar serves what it has, and must not follow its log.";
    STOPPED = "stopped", SERVICE_UNAVAILABLE, "A projector writes nothing; `/v1/status` says why.";
    BUSY = "busy", SERVICE_UNAVAILABLE, "Too many bodies are being read at once, or another replay is running or took over 30 s: repeat it.";
    LOG_UNAVAILABLE = "log_unavailable", SERVICE_UNAVAILABLE, "The log took nothing, or can't be read: repeat later.";
    OUTCOME_UNKNOWN = "outcome_unknown", GATEWAY_TIMEOUT, "The log may have taken all, some or nothing: repeat with the same ids.";
}

/// The code with this word; errors of addresses and commands bring their own words. One that is missing from
/// the list is answered with 400 all the same, and a test sees that none is.
pub(super) fn by_word(word: &'static str) -> ErrorCode {
    let known = ERROR_CODES.iter().find(|code| code.word == word);
    known.copied().unwrap_or(ErrorCode { word, ..BODY_INVALID })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::address::Range;
    use crate::command::{Command, DecodeError};

    #[test]
    fn a_code_has_one_meaning_and_the_list_is_in_order_of_status() {
        let words: BTreeSet<&str> = ERROR_CODES.iter().map(|code| code.word).collect();
        assert_eq!(words.len(), ERROR_CODES.len());
        assert!(ERROR_CODES.is_sorted_by_key(|code| code.status));
    }

    #[test]
    fn what_addresses_and_commands_bring_is_in_the_list() {
        for text in
            ["x", "10.0.0.1/8", "10.0.0.0/x", "2.0.0.0-1.0.0.0", "1.0.0.0-::", "::ffff:1.2.3.4-1.2.3.5"]
        {
            let word = text.parse::<Range>().expect_err(text).code();
            assert!(ERROR_CODES.iter().any(|code| code.word == word), "{word}");
        }
        let object = |rest: &str| format!(r#"{{"v":1,"action":"BLACKLIST","range":"10.0.0.1"{rest}}}"#);
        let bodies = [
            "".to_owned(),
            " ".repeat(5_000),
            "{".to_owned(),
            r#"{"v":0}"#.to_owned(),
            "{}".to_owned(),
            object(r#","v":1"#),
            object(r#","id":"""#),
            object(r#","expires_at":"x""#),
        ];
        for body in bodies {
            let Err(DecodeError::Undecodable(error)) = Command::decode(body.as_bytes()) else {
                panic!("{body} is decodable")
            };
            assert!(ERROR_CODES.iter().any(|code| code.word == error.code()), "{}", error.code());
        }
    }
}
