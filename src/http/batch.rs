//! Checks of many addresses with one request.
//!
//! ```text
//!   body ─► texts: lines, or elements of an array ─► addresses ─► lookups ─► bytes of the answer
//!             └──────────────── a slice of them at a time, then the other connections ─────┘
//! ```
//!
//! A batch is answered from one snapshot as a whole, so that its verdicts belong together. It is worked off
//! in slices, the reading of the body included, between which the other connections of the thread get their
//! turn. Within a slice all is read before anything is looked up: lookups that stand side by side wait for
//! memory together.

use std::time::Instant;

use hyper::StatusCode;
use hyper::http::request::Parts;

use super::answer::{AGE_MS, Answer, Body, JSON, PLAIN, Problem, answer, at_position};
use super::request::{self, BODY_BYTES_MAX, Incoming, Parameters};
use super::sidecar::Sidecar;
use super::verdict::Form;
use super::{Kind, codes};
use crate::address::Address;
use crate::snapshot::{Snapshot, Verdict};

mod elements;
mod lines;

use self::elements::Elements;
use self::lines::Lines;

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
/// How many bytes of a batch are read before they do, if it is not addresses that they are.
const SLICE_BYTES: usize = 64 * SLICE_ADDRESSES;

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
    let body = request::body(&sidecar.bodies, body, bytes_max).await?;
    let begun = Instant::now();
    let age_ms = sidecar.age_ms(begun);
    // One snapshot for all of them; held by count, because a guard must not cross an await.
    let snapshot = sidecar.hold_snapshot().ok_or_else(Problem::not_ready)?;
    let (content_type, verdicts) = if body.trim_ascii_start().starts_with(b"[") {
        (JSON, verdicts(&snapshot, Elements::new(&body, addresses_max), Form::Json).await)
    } else {
        (PLAIN, verdicts(&snapshot, Lines::new(&body, addresses_max), Form::Plain).await)
    };
    // The problem before all others, and looked for last: where all is well, there was nothing but ASCII.
    let bytes =
        verdicts.map_err(|problem| if str::from_utf8(&body).is_err() { not_utf8() } else { problem })?;
    let answer = at_position(answer(StatusCode::OK, content_type, Body::whole(bytes)), snapshot.position());
    Ok(aged(answer, age_ms, begun))
}

/// Notes how old the list was when the answer was begun, and how long that is ago.
fn aged(mut answer: Answer, age_ms: Option<u64>, begun: Instant) -> Answer {
    let passed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(age_ms) = age_ms {
        answer.headers_mut().insert(AGE_MS, age_ms.saturating_add(passed_ms).into());
    }
    answer
}

fn not_utf8() -> Problem {
    Problem::new(codes::BODY_INVALID, "the body is not UTF-8", "encode it as UTF-8")
}

/// Where the addresses of a batch come from.
trait Addresses {
    /// Reads a slice of them. Of less than a slice when there are no more; a blank line counts, for reading
    /// it takes its time too.
    fn read(&mut self, slice: &mut Vec<Address>) -> Result<Progress, Problem>;
}

/// Whether there is more to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    More,
    End,
}

/// Looks up all addresses, or says which is none. What it makes is the body of the answer.
async fn verdicts(
    snapshot: &Snapshot,
    mut addresses: impl Addresses,
    form: Form,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = opening(form);
    let mut slice = Vec::with_capacity(SLICE_ADDRESSES);
    while addresses.read(&mut slice)? == Progress::More {
        slice.drain(..).for_each(|address| bytes.extend_from_slice(word(snapshot.lookup(address), form)));
        tokio::task::yield_now().await;
    }
    slice.drain(..).for_each(|address| bytes.extend_from_slice(word(snapshot.lookup(address), form)));
    Ok(closed(bytes, form))
}

/// How the answer begins.
fn opening(form: Form) -> Vec<u8> {
    match form {
        Form::Plain => vec![],
        Form::Json => vec![b'['],
    }
}

/// One verdict of the answer: a line, or an element with the comma behind it.
const fn word(verdict: Verdict, form: Form) -> &'static [u8] {
    match (form, verdict) {
        (Form::Plain, Verdict::Blacklisted) => b"1\n",
        (Form::Plain, Verdict::Free) => b"0\n",
        (Form::Json, Verdict::Blacklisted) => b"true,",
        (Form::Json, Verdict::Free) => b"false,",
    }
}

/// The whole answer: the array is closed, in the place of its last comma.
fn closed(mut bytes: Vec<u8>, form: Form) -> Vec<u8> {
    if form == Form::Json {
        bytes.pop_if(|last| *last == b',');
        bytes.push(b']');
    }
    bytes
}

/// The address that a text is.
fn address(text: &[u8]) -> Result<Address, Problem> {
    Ok(str::from_utf8(text).map_err(|_| not_utf8())?.parse::<Address>()?)
}

/// The problem of a batch beyond the limit of its listener.
fn too_many(addresses_max: usize) -> Problem {
    let message = format!("the batch has more than {addresses_max} addresses");
    Problem::new(codes::BATCH_TOO_LONG, message, "send it in several requests")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::record::{Position, Timestamp};
    use crate::snapshot::Draft;
    use crate::view::View;

    async fn answered(others: &LocalSet, body: &str) -> Result<Vec<u8>, Problem> {
        let snapshot = Draft::new(&View::default(), Timestamp::from_millis(0)).snapshot(Position::START);
        if body.starts_with('[') {
            let elements = Elements::new(body.as_bytes(), usize::MAX);
            others.run_until(verdicts(&snapshot, elements, Form::Json)).await
        } else {
            others.run_until(verdicts(&snapshot, Lines::new(body.as_bytes(), usize::MAX), Form::Plain)).await
        }
    }

    #[tokio::test]
    async fn the_others_get_their_turn_after_each_slice_of_a_batch() {
        let others = LocalSet::new();
        let many = |text: &str| text.repeat(10 * SLICE_ADDRESSES);
        for body in [many("192.0.2.1\n"), many("\n"), format!("[{}null]", many(r#""192.0.2.1","#))] {
            let turns = Rc::new(std::cell::Cell::new(0));
            let counted = Rc::clone(&turns);
            let other = others.spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            });
            let _ = answered(&others, &body).await;
            assert!(turns.get() >= 10, "{body:.20}: {} turns", turns.get());
            other.abort();
        }
    }

    #[tokio::test]
    async fn an_answer_has_a_word_for_each_address() {
        let others = LocalSet::new();
        for (body, expected) in [
            ("", ""),
            ("\r\n 192.0.2.1", "error"),
            ("\n192.0.2.1\r\n\n2001:db8::1", "0\n0\n"),
            ("[ ]", "[]"),
            (r#"["192.0.2.1" ]"#, "[false]"),
            (r#"[ "192.0.2.1","\u0032001:db8::1"]"#, "[false,false]"),
        ] {
            let bytes = answered(&others, body).await.unwrap_or("error".into());
            assert_eq!(String::from_utf8_lossy(&bytes), expected, "{body}");
        }
    }
}
