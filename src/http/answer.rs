//! Answers: bodies, headers of our own, and errors in their one shape.
//!
//! Handlers return `Result<Answer, Problem>`. A [`Problem`] is an error on its way to becoming an answer:
//!
//! ```text
//!   {"error":{"code":"range_host_bits","message":"…","hint":"…","field":"range","line":3}}
//! ```
//!
//! `code` is for programs and never changes its meaning, `message` and `hint` are for people and may. What
//! says where it is wrong (`field`, `line`, `index`) and `ids` are there only if they are known.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::codes::{self, ErrorCode};
use super::pace::InService;
use crate::address::RangeError;
use crate::command::{CommandError, CommandId};
use crate::record::Position;
use crate::status::Alarm;

/// Names the position of the snapshot that an answer was made from.
pub(super) const POSITION: HeaderName = HeaderName::from_static("portcullis-position");
/// How long ago the view was last known to be at the end of the log; absent as long as it never was.
pub(super) const AGE_MS: HeaderName = HeaderName::from_static("portcullis-age-ms");
/// The verdict of a check, for those who read no bodies.
pub(super) const BLACKLISTED: HeaderName = HeaderName::from_static("portcullis-blacklisted");

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");
pub(super) const JSON_LINES: HeaderValue = HeaderValue::from_static("application/jsonl");

/// What every request is answered with.
pub(super) type Answer = Response<Body>;

/// The next piece of a body that is made while it is sent.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// The body is whole. A body that ends without it was cut off, and its reader is told so.
    End,
}

/// What a body is made of.
#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Pieces(Pieces),
    Sent,
}

/// A body that is made while it is sent.
#[derive(Debug)]
struct Pieces {
    made: mpsc::Receiver<Piece>,
    /// What is not taken by then is cut off: a slow client must not hold its place for ever.
    until: Instant,
    /// Given back with the last piece, so that whoever has read the body whole may ask for the next one.
    _place: Option<OwnedSemaphorePermit>,
}

/// The body of an answer: whole from the start, or pieces as they are made.
#[derive(Debug)]
pub(super) struct Body {
    content: Content,
    /// The request counts as being served until its body is gone.
    _in_service: Option<InService>,
}

impl Body {
    /// A body whose length is known, so that it goes out in one write with its header.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Whole(bytes.into()), _in_service: None }
    }

    /// A body that is made while it is sent, in chunks, until [`Piece::End`] or that time.
    pub(super) const fn pieces(
        made: mpsc::Receiver<Piece>,
        until: Instant,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { content: Content::Pieces(Pieces { made, until, _place: place }), _in_service: None }
    }

    /// The body that ends the request when it is dropped, be it sent or not.
    pub(super) fn held_by(self, in_service: InService) -> Self {
        if let Content::Pieces(pieces) = &self.content {
            in_service.end_by(pieces.until);
        }
        Self { _in_service: Some(in_service), ..self }
    }
}

/// A body ended before it was whole. It makes hyper break the connection off instead of ending the body well.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off")]
pub(super) struct CutOff;

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let piece = match &mut self.content {
            Content::Pieces(pieces) => std::task::ready!(pieces.made.poll_recv(cx)),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Sent;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Content::Sent => Some(Piece::End),
        };
        Poll::Ready(match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                self.content = Content::Sent;
                None
            }
            None => Some(Err(CutOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Pieces(..) => false,
            Content::Sent => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces(..) => SizeHint::new(),
            Content::Sent => SizeHint::with_exact(0),
        }
    }
}

/// An answer with this body.
pub(super) fn answer(status: StatusCode, content_type: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// An answer in JSON.
///
/// # Panics
/// If the value can't be JSON, which no answer of ours is: their keys are strings.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("an answer holds nothing that JSON cannot");
    answer(status, JSON, Body::whole(body))
}

/// A count as JSON readers everywhere understand it: above 2^53, which a float would not hold, as a string.
pub fn exact(count: u128) -> Value {
    match u64::try_from(count) {
        Ok(small) if small <= 1 << 53 => small.into(),
        _ => count.to_string().into(),
    }
}

/// Notes the position that the answer was made from.
/// The worker, which stamps every answer, leaves it as it is.
pub(super) fn at_position(mut answer: Answer, position: Position) -> Answer {
    answer.headers_mut().insert(POSITION, position.number().into());
    answer
}

/// Where in a request something is wrong; what is not known is left out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Place {
    /// The field or parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<&'static str>,
    /// The line of the body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// The number of the address in the batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
}

/// What an error says, and how it is answered. Fields without `skip` are the contract.
#[derive(Debug, Serialize)]
struct Details {
    code: &'static str,
    message: String,
    hint: String,
    #[serde(flatten)]
    place: Place,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ids: Vec<CommandId>,
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    header: Option<(HeaderName, HeaderValue)>,
}

/// Why a request is not answered as it asks, ready to be answered. Boxed, because every handler's result has
/// room for one.
#[derive(Debug)]
pub(super) struct Problem(Box<Details>);

impl Problem {
    /// A problem with its code's status. The message says what is wrong, the hint what to do about it.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let ErrorCode { word, status, .. } = code;
        // HTTP wants every 401 to say how to do better.
        let header = (status == StatusCode::UNAUTHORIZED)
            .then(|| (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        let (message, hint) = (message.into(), hint.into());
        Self(Box::new(Details {
            code: word,
            message,
            hint,
            place: Place::default(),
            ids: vec![],
            status,
            header,
        }))
    }

    /// There is no snapshot to answer from.
    pub(super) fn not_ready() -> Self {
        let message = "there is no snapshot yet";
        Self::new(codes::NOT_READY, message, "wait until /readyz answers 200, which says how far it has got")
    }

    /// The log must not be followed.
    pub(super) fn in_alarm(alarm: Alarm) -> Self {
        let message = format!("the sidecar serves what it has, and must not follow: {}", alarm.word());
        Self::new(codes::ALARM, message, "/v1/status says more")
    }

    /// There is no such path; the hint says which there are.
    pub(super) fn not_found(hint: &'static str) -> Self {
        Self::new(codes::NOT_FOUND, "there is no such path on this listener", hint)
    }

    /// The path is there and does not take the method; `Allow` says which it takes.
    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("the path takes {allowed}");
        let mut problem = Self::new(codes::METHOD_NOT_ALLOWED, message, "use one of the methods in `Allow`");
        problem.0.header = Some((ALLOW, HeaderValue::from_static(allowed)));
        problem
    }

    /// The status that it will be answered with.
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The field or parameter that is wrong; like line and index, for programs that point at it.
    pub(super) fn field(mut self, field: &'static str) -> Self {
        self.0.place.field = Some(field);
        self
    }

    pub(super) fn line(mut self, line: Option<usize>) -> Self {
        self.0.place.line = line;
        self
    }

    pub(super) fn index(mut self, index: usize) -> Self {
        self.0.place.index = Some(index);
        self
    }

    pub(super) fn ids(mut self, ids: Vec<CommandId>) -> Self {
        self.0.ids = ids;
        self
    }

    /// The connection ends behind the answer, because what follows on it can't be told from the rest of the
    /// request.
    pub(super) fn closing(mut self) -> Self {
        self.0.header = Some((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// The answer, with nothing beside the error.
    pub(super) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Nothing {}
        self.into_answer_with(&Nothing {})
    }

    /// The answer, with more beside the error.
    pub(super) fn into_answer_with(self, more: &impl Serialize) -> Answer {
        #[derive(Serialize)]
        struct Shape<'a, M> {
            error: Details,
            #[serde(flatten)]
            more: &'a M,
        }
        let (status, header) = (self.0.status, self.0.header.clone());
        let mut answer = json(status, &Shape { error: *self.0, more });
        answer.headers_mut().extend(header);
        answer
    }
}

impl From<RangeError> for Problem {
    fn from(error: RangeError) -> Self {
        Self::new(codes::by_word(error.code()), error.to_string(), error.hint())
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let mut problem = Self::new(codes::by_word(error.code()), error.to_string(), error.hint());
        problem.0.place.field = error.field();
        problem
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn a_count_is_a_string_where_a_float_would_not_hold_it() {
        assert_eq!(exact(1 << 53), Value::from(1_u64 << 53));
        assert_eq!(exact((1 << 53) + 1), Value::from("9007199254740993"));
        assert_eq!(exact(u128::MAX), Value::from(u128::MAX.to_string()));
    }

    #[tokio::test]
    async fn a_body_in_pieces_gives_its_place_back_with_its_last_one() {
        let places = Arc::new(Semaphore::new(1));
        for (pieces, whole) in [(vec![Piece::Bytes("a".into()), Piece::End], true), (vec![], false)] {
            let (made, receiver) = mpsc::channel(2);
            for piece in pieces {
                made.send(piece).await.expect("room");
            }
            drop(made);
            let place = Arc::clone(&places).try_acquire_owned().expect("a place");
            let mut body = Body::pieces(receiver, Instant::now(), Some(place));
            assert_eq!(places.available_permits(), 0);
            while let Some(Ok(_)) = body.frame().await {}
            assert_eq!(
                (hyper::body::Body::is_end_stream(&body), places.available_permits() == 1),
                (whole, whole)
            );
        }
    }
}
