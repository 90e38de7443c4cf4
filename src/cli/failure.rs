//! How a verb ends: its exit code, and one line for people when it did not do what it was asked.
//!
//! A script decides by the code alone: 3 is worth another try, 2 and 4 are not until somebody changes
//! something. The line names what was tried, what went wrong and, where it can be told, what to do.

use std::process::ExitCode;

use serde::Deserialize;

use crate::http::client::Answer;

/// The exit codes, which are part of the contract. Higher is worse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done; a duplicate is done, too.
    Done = 0,
    /// The answer is "no": at least one address is blacklisted, or something is not as it is to be.
    No = 1,
    /// Wrong usage or bad input.
    Usage = 2,
    /// What is needed can't be reached, or can't answer now.
    Unavailable = 3,
    /// Not allowed, or not wanted as it stands.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// Wrong usage or bad input.
    pub fn usage(text: impl ToString) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    /// What is needed can't be reached.
    pub fn unavailable(text: impl ToString) -> Self {
        Self { exit: Exit::Unavailable, text: text.to_string() }
    }

    /// Not allowed, or not wanted as it stands.
    pub fn refused(text: impl ToString) -> Self {
        Self { exit: Exit::Refused, text: text.to_string() }
    }

    /// What an answer other than success means.
    pub fn answered(answer: &Answer) -> Self {
        Self { exit: exit_of(answer.status), text: describe(answer) }
    }

    /// The same, with more to know.
    #[must_use]
    pub fn and(self, more: &str) -> Self {
        Self { text: format!("{}; {more}", self.text), ..self }
    }

    /// Its exit code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

/// The exit code for an HTTP status. All that is no 4xx (an outage, the answer of a proxy, a redirect) says
/// that the service can't answer now.
const fn exit_of(status: u16) -> Exit {
    match status {
        401 | 403 | 421 | 422 => Exit::Refused,
        // These speak of the moment, not of the request: the same one may be answered later.
        408 | 425 | 429 => Exit::Unavailable,
        400..=499 => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

/// The one shape of all errors.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
    hint: Option<String>,
}

/// Where a token is to be had, for whoever was answered 401.
const TOKEN_HINT: &str =
    "set PORTCULLIS_TOKEN to the content of admin.token in its data directory, or use its Unix socket";

/// The error of the service in one line, or, if it is in another shape, the beginning of what came.
fn describe(answer: &Answer) -> String {
    let status = answer.status;
    match serde_json::from_slice(&answer.body) {
        Ok(ErrorBody { error: ErrorDetail { code, message, hint } }) => {
            // What the service hints at is about requests; here there are flags and variables.
            let hint = match (status, code.as_str()) {
                (401, _) => Some(TOKEN_HINT.to_owned()),
                (_, "too_broad") => Some("--force allows it".to_owned()),
                _ => hint.filter(|hint| !hint.is_empty()),
            };
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            shown(&format!("{message}{hint} ({code})"))
        }
        Err(_) => format!("the service answered {status}: {}", shown(&String::from_utf8_lossy(&answer.body))),
    }
}

/// Foreign text as a line on a terminal may show it: not too long, and without control characters, which
/// could hide or overwrite the rest.
///
/// ```
/// assert_eq!(portcullis::cli::failure::shown(" a\u{1b}[2Jb\n"), "a [2Jb");
/// ```
pub fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 600;
    text.trim().chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Failure {
        Failure::answered(&Answer { status, body: body.to_owned().into() })
    }

    #[test]
    fn every_status_has_its_exit_code() {
        let cases = [
            (Exit::Usage, &[400, 404, 405, 413, 414, 431][..]),
            (Exit::Unavailable, &[408, 425, 429, 500, 502, 503, 504, 302][..]),
            (Exit::Refused, &[401, 403, 421, 422][..]),
        ];
        for (exit, statuses) in cases {
            for status in statuses {
                assert_eq!(answered(*status, "").exit(), exit, "{status}");
            }
        }
    }

    #[test]
    fn an_error_is_told_in_the_words_of_the_service() {
        let body = r#"{"error":{"code":"too_broad","message":"too\u001b[31m wide","hint":"use force"}}"#;
        assert_eq!(answered(422, body).to_string(), "too [31m wide; --force allows it (too_broad)");
        let error = r#"{"error":{"code":"a","message":"b","hint":null}}"#;
        assert_eq!(answered(400, error).to_string(), "b (a)");
        assert!(answered(401, error).to_string().starts_with("b; set PORTCULLIS_TOKEN to "));
        assert_eq!(answered(400, &error.replace("null", "\"c\"")).to_string(), "b; c (a)");
        assert_eq!(answered(502, "Bad\nGateway\n").to_string(), "the service answered 502: Bad Gateway");
    }
}
