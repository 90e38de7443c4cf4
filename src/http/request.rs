//! What requests bring along: parameters and bodies.
//!
//! Both are read strictly. A parameter that the path does not know, or that stands twice, is an error and
//! never ignored; a body has a limit in bytes and one in time, and is read whole before anything is done with
//! it. Nothing here looks at the method: a path that takes no body simply never asks for it.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Display;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::answer::Problem;
use super::codes;

/// The longest body, in bytes; above it the answer is 413. The largest batch and the largest group fit in.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most bytes of bodies that one worker holds at the same time, whoever sends them: what does not fit is
/// refused with 503.
pub const BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a body may take from the end of its header to its last byte; after that the answer is 408.
pub const BODY_MAX: Duration = Duration::from_secs(10);
/// How long the body of a refused request is read and thrown away, so that its sender sees the answer; and
/// no more than [`BODY_BYTES_MAX`] of it.
pub const DISCARD_MAX: Duration = Duration::from_secs(2);

/// The body of a request: hyper's, or one that is there already where there is no connection.
pub(super) trait Incoming: Body<Data = Bytes, Error: Display> + Unpin {}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> Incoming for B {}

/// Decodes percent-encoding, once; none if what comes of it is not UTF-8. A `%` that begins no code stands
/// for itself.
pub(super) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// The parameters behind the `?`, names as they were sent, values not decoded yet.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    /// Reads the parameters of a path that has only the known ones: one that is passed over silently may
    /// have been meant to keep a command from being written.
    pub(super) fn parse(head: &'a Parts, known: &[&'static str]) -> Result<Self, Problem> {
        let parts = head.uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pairs: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(name)) {
            let message = format!("there is no parameter `{}`", name.escape_debug());
            let hint = match known {
                [] => "the path has no parameters".to_owned(),
                known => format!("the path knows {}", known.join(", ")),
            };
            return Err(Problem::new(codes::PARAMETER_UNKNOWN, message, hint));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter that is there at most once.
    pub(super) fn value(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Problem> {
        let mut values = self.0.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => match percent_decoded(value) {
                Some(value) => Ok(Some(value)),
                None => Err(invalid(name, "is not UTF-8", "percent-encode it as UTF-8")),
            },
            (Some(_), Some(_)) => Err(invalid(name, "stands twice", "keep one of them")),
        }
    }

    /// Whether a parameter is set: `?name`, `?name=true` or `?name=1`. Absent, `false` and `0` are not.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.value(name)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => {
                Err(invalid(name, "is neither true nor false", "write it without a value, or leave it out"))
            }
        }
    }
}

/// The problem that a parameter is not as it should be: `what` follows its name in a sentence.
pub(super) fn invalid(name: &'static str, what: &str, hint: &str) -> Problem {
    Problem::new(codes::PARAMETER_INVALID, format!("`{name}` {what}"), hint).field(name)
}

/// Counts the bytes of all bodies that one worker holds.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    bytes: Cell<usize>,
}

/// A body, as far as it was read. It is counted until it is dropped.
pub(super) struct Received<'a> {
    bytes: Vec<u8>,
    bodies: &'a Bodies,
}

impl Received<'_> {
    fn extend(&mut self, data: &[u8], bytes_max: usize) -> Result<(), CollectError> {
        let all = self.bodies.bytes.get() + data.len();
        if self.bytes.len() + data.len() > bytes_max {
            return Err(CollectError::TooLong);
        }
        if all > BODIES_BYTES_MAX {
            return Err(CollectError::TooMany);
        }
        self.bodies.bytes.set(all);
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.bodies.bytes.set(self.bodies.bytes.get() - self.bytes.len());
    }
}

/// Reads a whole body, of at most `bytes_max` bytes, within [`BODY_MAX`] and [`BODIES_BYTES_MAX`].
///
/// A body that announces too much is refused before it is read. The connection ends behind each of the
/// refusals, because it is then unknown where the next request on it begins.
pub(super) async fn body<'a>(
    bodies: &'a Bodies,
    body: &mut impl Incoming,
    bytes_max: usize,
) -> Result<Received<'a>, Problem> {
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_long(bytes_max));
    }
    // What is announced is at most the limit here, and 0 for a body in chunks.
    let bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or_default());
    let mut received = Received { bytes, bodies };
    match timeout(BODY_MAX, collect(body, &mut received, bytes_max)).await {
        Ok(Ok(())) => Ok(received),
        Ok(Err(CollectError::TooLong)) => Err(too_long(bytes_max)),
        Ok(Err(CollectError::TooMany)) => {
            let message = "too many bodies are being read at once";
            Err(Problem::new(codes::BUSY, message, "repeat it, or send less at a time").closing())
        }
        Ok(Err(CollectError::Broken(error))) => {
            let message = format!("the body can't be read: {error}");
            Err(Problem::new(codes::BODY_INVALID, message, "send as much as the header announces").closing())
        }
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_MAX.as_secs());
            Err(Problem::new(codes::BODY_TIMEOUT, message, "send it at once").closing())
        }
    }
}

/// Why a body was not read to its end.
enum CollectError {
    TooLong,
    TooMany,
    Broken(String),
}

/// Reads on. The limit is looked at piece by piece, since a body in chunks announces no size.
async fn collect(
    body: &mut impl Incoming,
    received: &mut Received<'_>,
    bytes_max: usize,
) -> Result<(), CollectError> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| CollectError::Broken(error.to_string()))?.into_data() else {
            continue;
        };
        received.extend(&data, bytes_max)?;
        if body.is_end_stream() {
            break;
        }
        // A client that sends faster than we read must not keep the thread for all of it.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Reads what is left of the body of a request that is refused: a socket that is closed with unread bytes
/// takes the answer back that was sent last.
pub(super) async fn discard(head: &Parts, body: &mut impl Incoming) {
    // Who asks first, with `Expect`, sends nothing unless we read.
    if body.is_end_stream() || head.headers.contains_key(EXPECT) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                break;
            }
        }
    };
    let _ = timeout(DISCARD_MAX, rest).await;
}

fn too_long(bytes_max: usize) -> Problem {
    let message = format!("the body has more than {bytes_max} bytes");
    Problem::new(codes::BODY_TOO_LONG, message, "send it in several requests").closing()
}
