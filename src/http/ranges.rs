//! The list itself, streamed while it is made.
//!
//! There are two forms, from two sources. Plain text is what is blacklisted now, neighbours merged: it is
//! read from a snapshot, which never changes, while others are published. JSON lines are the rows with their
//! causes, which only the view knows: they are copied first, then sent.
//!
//! ```text
//!   snapshot or copied rows ──► lines ──► pieces of 64 KiB, at most 4 waiting ──► client
//!   (a further thread, which waits while the client is slow)
//! ```
//!
//! The answer names the one position that all of it belongs to. An export costs memory and a thread, so that
//! one may run at a time; the others are told so with 429 and do not wait. A list that was cut off can't be
//! taken for a whole one: its body ends with an error.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::admin::blocking;
use super::answer::{Answer, Body, JSON_LINES, PLAIN, Piece, Problem, answer, at_position};
use super::codes;
use super::request::Parameters;
use super::sidecar::Sidecar;
use super::verdict::{Form, wanted_form};
use crate::address::Range;
use crate::record::{Offset, Timestamp};
use crate::table::Row;

/// The size of a piece; one line more may be in it. Large enough that a line costs next to nothing.
const PIECE_BYTES: usize = 64 * 1024;
/// How many pieces are made ahead of what the client takes.
const PIECES_MAX: usize = 4;
/// How long an export may take: one that is taken ever so slowly must not keep others out for ever.
pub const EXPORT_MAX: Duration = Duration::from_secs(600);

/// `GET /v1/ranges`: a row a line, or what is blacklisted now as plain text. `HEAD` makes no list and takes
/// no place.
pub(super) async fn ranges(sidecar: &Sidecar, head: &Parts) -> Result<Answer, Problem> {
    Parameters::parse(head, &[])?;
    let snapshot = sidecar.hold_snapshot().ok_or_else(Problem::not_ready)?;
    let (made, pieces) = mpsc::channel(PIECES_MAX);
    let form = wanted_form(head);
    let content_type = match form {
        Form::Plain => PLAIN,
        Form::Json => JSON_LINES,
    };
    let export = Export(made);
    let (position, place) = match form {
        _ if head.method == Method::HEAD => (snapshot.position(), None),
        Form::Plain => {
            let place = sidecar.exports.send()?;
            let position = snapshot.position();
            tokio::task::spawn_blocking(move || export.send(snapshot.ranges(), write_range));
            (position, Some(place))
        }
        Form::Json => {
            // A copy waits for other walks over the list; meanwhile the list can be sent to others.
            let copying = sidecar.exports.copy()?;
            let served = Arc::clone(&sidecar.app.served);
            let (copy, copying) = blocking(move || (served.copy_rows(), copying)).await;
            let place = sidecar.exports.send()?;
            drop(copying);
            tokio::task::spawn_blocking(move || export.send(copy.rows.into_iter(), write_row));
            (copy.position, Some(place))
        }
    };
    let body = Body::pieces(pieces, Instant::now() + EXPORT_MAX, place);
    Ok(at_position(answer(StatusCode::OK, content_type, body), position))
}

/// The places of the one export that may be sent and of the one that may be copied for that. There is one
/// admin worker, so that its places are all that there are.
#[derive(Debug)]
pub(super) struct Exports {
    sending: Arc<Semaphore>,
    copying: Arc<Semaphore>,
}

impl Exports {
    pub(super) fn new() -> Self {
        Self { sending: Arc::new(Semaphore::new(1)), copying: Arc::new(Semaphore::new(1)) }
    }

    /// The place to send, held until the list is sent or given up.
    fn send(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.sending).try_acquire_owned().map_err(|_| busy("another export is running"))
    }

    /// The place to copy, given back once there is a place to send.
    fn copy(&self) -> Result<OwnedSemaphorePermit, Problem> {
        // Spares the copy where it could not be sent anyway.
        drop(self.send()?);
        Arc::clone(&self.copying).try_acquire_owned().map_err(|_| busy("another export is about to run"))
    }
}

/// The problem that a place is taken.
fn busy(message: &str) -> Problem {
    Problem::new(codes::EXPORT_BUSY, message, "repeat it when that one is done")
}

/// An export that is being made.
struct Export(mpsc::Sender<Piece>);

impl Export {
    /// Sends a line for each item, as fast as the client takes them; ends early when it is gone.
    fn send<T>(self, items: impl Iterator<Item = T>, write: impl Fn(T, &mut Vec<u8>)) {
        let mut piece = Vec::new();
        for item in items {
            write(item, &mut piece);
            if piece.len() >= PIECE_BYTES {
                let full = Bytes::from(std::mem::take(&mut piece));
                if self.0.blocking_send(Piece::Bytes(full)).is_err() {
                    return;
                }
            }
        }
        // A client that is gone needs neither.
        let _ = self.0.blocking_send(Piece::Bytes(piece.into()));
        let _ = self.0.blocking_send(Piece::End);
    }
}

/// A line of the plain form: `start-end`, also for a single address.
fn write_range(range: Range, piece: &mut Vec<u8>) {
    writeln!(piece, "{}-{}", range.start(), range.end()).expect("a vector takes all that is written");
}

/// A line of the JSON form; its keys are the contract.
fn write_row(row: Row, piece: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Shape {
        start: IpAddr,
        end: IpAddr,
        command: Offset,
        expires_at: Option<Timestamp>,
    }
    let Row { range, cause } = row;
    let shape = Shape {
        start: range.start(),
        end: range.end(),
        command: cause.command,
        expires_at: cause.expires_at,
    };
    serde_json::to_writer(&mut *piece, &shape).expect("a row holds nothing that JSON cannot");
    piece.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_is_copied_keeps_only_its_like_out() {
        let exports = Exports::new();
        let copying = exports.copy().expect("a place");
        exports.copy().expect_err("one copy at a time");
        let sending = exports.send().expect("what is sent does not wait for what is copied");
        exports.send().expect_err("one export at a time");
        drop(copying);
        exports.copy().expect_err("it could not be sent");
        drop(sending);
        drop(exports.copy().expect("a place"));
    }
}
