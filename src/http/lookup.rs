//! Checks: is this address blacklisted?
//!
//! One address is looked up in the worker's newest snapshot and answered from constants. A batch is answered
//! from one snapshot as a whole, so that its verdicts belong together, in slices between which the other
//! connections of the thread get their turn.
//!
//! A text that is no address is 400, and a sidecar without a snapshot 503. Neither is answered as
//! free: whoever asks decides what to make of not knowing.

use std::fmt;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::http::request::Parts;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::{Answer, BLACKLISTED, Body, JSON, PLAIN, Problem, answer, at_position};
use super::request::{self, BODY_BYTES_MAX, Incoming, Parameters, percent_decoded};
use super::sidecar::Sidecar;
use super::{Kind, codes};
use crate::address::Address;
use crate::snapshot::{Snapshot, Verdict};

/// The most addresses of one batch on a lookup listener, whose other clients wait meanwhile. Beyond it the
/// answer is 413.
pub const LOOKUP_BATCH_ADDRESSES_MAX: usize = 4096;
/// The most addresses of one batch on an admin listener.
pub const ADMIN_BATCH_ADDRESSES_MAX: usize = 65_536;
/// The longest body of a batch on a lookup listener, in bytes: room for its addresses, and no more to read.
pub const LOOKUP_BODY_BYTES_MAX: usize = LOOKUP_BATCH_ADDRESSES_MAX * 64;
/// How many addresses of a batch are looked up before the other connections get their turn: few enough that
/// these notice nothing, and enough that the yielding costs little.
const SLICE_ADDRESSES: usize = 64;

/// `GET /v1/check/{ip}`.
pub(super) fn check_segment(sidecar: &Sidecar, head: &Parts, segment: &str) -> Result<Answer, Problem> {
    // Most requests have no parameters, and need no list of them.
    if head.uri.query().is_some() {
        Parameters::parse(head, &[])?;
    }
    // Clients that build paths with a library send the colons of an IPv6 address encoded.
    let text = percent_decoded(segment).ok_or_else(not_utf8)?;
    check(sidecar, head, &text)
}

/// `GET /v1/check?ip=`.
pub(super) fn check_parameter(sidecar: &Sidecar, head: &Parts) -> Result<Answer, Problem> {
    let text = Parameters::parse(head, &["ip"])?.value("ip")?;
    let missing = || request::invalid("ip", "is missing", "write it like /v1/check?ip=203.0.113.7");
    check(sidecar, head, &text.ok_or_else(missing)?)
}

/// One address, answered from the newest snapshot. The address is read first: what can't be one is wrong
/// whether there is a snapshot or not.
fn check(sidecar: &Sidecar, head: &Parts, text: &str) -> Result<Answer, Problem> {
    let address: Address = text.parse()?;
    let found = sidecar.with_snapshot(|snapshot| (snapshot.lookup(address), snapshot.position()));
    let (verdict, position) = found.ok_or_else(Problem::not_ready)?;
    Ok(at_position(verdict_answer(verdict, wanted_form(head)), position))
}

/// The form of the answer that the client wants: plain text if it accepts exactly that.
/// Several types, or `*/*`, get JSON without being weighed.
pub(super) fn wanted_form(head: &Parts) -> Form {
    match head.headers.get(ACCEPT) {
        Some(accept) if accept == PLAIN => Form::Plain,
        _ => Form::Json,
    }
}

/// The two forms that answers, and batches, have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Plain,
    Json,
}

/// The answer to one check. Its bodies are constants, so that making it copies nothing.
fn verdict_answer(verdict: Verdict, form: Form) -> Answer {
    let (digit, json) = match verdict {
        Verdict::Blacklisted => ("1", r#"{"blacklisted":true}"#),
        Verdict::Free => ("0", r#"{"blacklisted":false}"#),
    };
    let (content_type, body) = match form {
        Form::Plain => (PLAIN, digit),
        Form::Json => (JSON, json),
    };
    let mut answer = answer(StatusCode::OK, content_type, Body::whole(Bytes::from_static(body.as_bytes())));
    answer.headers_mut().insert(BLACKLISTED, HeaderValue::from_static(digit));
    answer
}

fn not_utf8() -> Problem {
    Problem::new(
        codes::ADDRESS_INVALID,
        "the address is not UTF-8",
        "write it like 203.0.113.7 or 2001:db8::7",
    )
}

/// `POST /v1/check`: a verdict for each address of the body, in order. A body that begins with `[` is a JSON
/// array and answered with one; all else is lines, answered with lines.
pub(super) async fn check_batch(
    sidecar: &Sidecar,
    head: &Parts,
    body: &mut impl Incoming,
) -> Result<Answer, Problem> {
    Parameters::parse(head, &[])?;
    let (addresses_max, bytes_max) = match sidecar.kind {
        Kind::Lookup => (LOOKUP_BATCH_ADDRESSES_MAX, LOOKUP_BODY_BYTES_MAX),
        Kind::Admin => (ADMIN_BATCH_ADDRESSES_MAX, BODY_BYTES_MAX),
    };
    let bytes = request::body(&sidecar.bodies, body, bytes_max).await?;
    // One snapshot for all of them; held by count, because a guard must not cross an await.
    let snapshot = sidecar.hold_snapshot().ok_or_else(Problem::not_ready)?;
    let text = str::from_utf8(&bytes)
        .map_err(|_| Problem::new(codes::BODY_INVALID, "the body is not UTF-8", "encode it as UTF-8"))?;
    let body = if text.trim_ascii_start().starts_with('[') {
        let addresses = elements(text, addresses_max)?;
        let verdicts =
            batch(&snapshot, addresses.into_iter().map(|raw| Some(element(raw))), addresses_max).await?;
        answer(StatusCode::OK, JSON, Body::whole(array(&verdicts)))
    } else {
        let verdicts = batch(&snapshot, lines(text), addresses_max).await?;
        answer(StatusCode::OK, PLAIN, Body::whole(digits(&verdicts)))
    };
    Ok(at_position(body, snapshot.position()))
}

/// Looks up all addresses, or says which is none. Where there is no address, there is a blank line: it has no
/// verdict, but reading it takes its time, too.
async fn batch(
    snapshot: &Snapshot,
    addresses: impl Iterator<Item = Option<Result<Address, Problem>>>,
    addresses_max: usize,
) -> Result<Vec<Verdict>, Problem> {
    let mut verdicts = Vec::new();
    for (number, address) in (1..).zip(addresses) {
        if number % SLICE_ADDRESSES == 0 {
            tokio::task::yield_now().await;
        }
        let Some(address) = address else { continue };
        let index = verdicts.len();
        if index == addresses_max {
            return Err(too_many(addresses_max));
        }
        verdicts.push(snapshot.lookup(address.map_err(|problem| problem.index(index))?));
    }
    Ok(verdicts)
}

/// The problem of a batch beyond the limit of its listener.
fn too_many(addresses_max: usize) -> Problem {
    let message = format!("the batch has more than {addresses_max} addresses");
    Problem::new(codes::BATCH_TOO_LONG, message, "send it in several requests")
}

/// The address on each line, none on a blank one. A problem names the line as an editor counts it; the batch
/// adds the number of the address.
fn lines(text: &str) -> impl Iterator<Item = Option<Result<Address, Problem>>> {
    text.lines().zip(1..).map(|(line, number)| {
        let blank = line.trim_ascii().is_empty();
        (!blank).then(|| line.parse().map_err(|error| Problem::from(error).line(Some(number))))
    })
}

/// The address in one element of a JSON array.
fn element(raw: &RawValue) -> Result<Address, Problem> {
    let text: String = serde_json::from_str(raw.get()).map_err(|_| {
        Problem::new(codes::ADDRESS_INVALID, "the element is no string", "write addresses as JSON strings")
    })?;
    Ok(text.parse()?)
}

/// The elements of a JSON array, unread: they are read slice by slice.
/// To read them all at once would keep the other connections of the thread waiting.
fn elements(text: &str, elements_max: usize) -> Result<Vec<&RawValue>, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut found = Vec::new();
    let read = json.deserialize_seq(Elements { elements_max, found: &mut found }).and_then(|()| json.end());
    match read {
        // Looked at first: to serde an array that is not read to its end is an error of its own.
        _ if found.len() > elements_max => Err(too_many(elements_max)),
        Ok(()) => Ok(found),
        Err(error) => {
            let message = format!("the body is no JSON array: {error}");
            let hint = r#"write it like ["203.0.113.7","2001:db8::7"]"#;
            Err(Problem::new(codes::BODY_INVALID, message, hint))
        }
    }
}

/// Stops reading behind the first element that is too many: the limit holds before the memory is taken.
struct Elements<'a, 'de> {
    elements_max: usize,
    found: &'a mut Vec<&'de RawValue>,
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while self.found.len() <= self.elements_max {
            match elements.next_element()? {
                Some(element) => self.found.push(element),
                None => break,
            }
        }
        Ok(())
    }
}

/// The answer to lines: `1` or `0` a line.
fn digits(verdicts: &[Verdict]) -> Vec<u8> {
    let line = |verdict: &Verdict| match verdict {
        Verdict::Blacklisted => *b"1\n",
        Verdict::Free => *b"0\n",
    };
    verdicts.iter().flat_map(line).collect()
}

/// The answer to an array: a boolean for each element.
fn array(verdicts: &[Verdict]) -> Vec<u8> {
    let booleans: Vec<bool> = verdicts.iter().map(|verdict| *verdict == Verdict::Blacklisted).collect();
    serde_json::to_vec(&booleans).expect("booleans are JSON")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::record::{Position, Timestamp};
    use crate::snapshot::Draft;
    use crate::view::View;

    #[tokio::test]
    async fn the_others_get_their_turn_after_each_slice_of_a_batch() {
        let snapshot = Draft::new(&View::default(), Timestamp::from_millis(0)).snapshot(Position::START);
        let others = LocalSet::new();
        for line in ["192.0.2.1\n", "\n"] {
            let turns = Rc::new(std::cell::Cell::new(0));
            let counted = Rc::clone(&turns);
            let other = others.spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            });
            let text = line.repeat(10 * SLICE_ADDRESSES);
            let verdicts = others.run_until(batch(&snapshot, lines(&text), usize::MAX)).await;
            assert!(verdicts.is_ok() && turns.get() >= 10, "{line:?}: {} turns", turns.get());
            other.abort();
        }
    }
}
