//! Finds who answers a request, after what holds for all of them: its size, and to whom it is addressed.
//!
//! The order of the questions is the order of what a stranger may learn: too large, not addressed to us, no
//! such path, not with this method, and only then the path's own rights and parameters. The last three are
//! asked by what the worker answers from, which has the paths.
//!
//! Every answer, a refusal too, leaves through [`Worker::answer`].

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::http::request::Parts;
use hyper::{Request, StatusCode};

use super::answer::{Answer, Problem};
use super::codes;
use super::guard::{self, Peer};
use super::request::{self, Incoming};
use super::sidecar::{Routed, Waiting};
use super::worker::{Answers, Worker};

/// The longest request target, in bytes; above it the answer is 414, and the connection ends.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;
/// The largest header, in bytes with its target; above it the answer is 431, and the connection ends.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The most fields of a header; above it the answer is 431, too.
pub const HEADER_FIELDS_MAX: usize = 32;

/// An answer, or what becomes one. Only what waits is put on the heap, so that what does not is as small as
/// its answer.
pub(super) enum Answering {
    Now(Option<Answer>),
    Later(Pin<Box<dyn Future<Output = Answer>>>),
}

impl Future for Answering {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Self::Now(answer) => Poll::Ready(answer.take().expect("it is not polled behind its end")),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

impl Worker {
    /// Answers one request. There is no error: whatever goes wrong is an answer, too.
    pub(super) fn answer(
        self: &Rc<Self>,
        request: Request<impl Incoming + 'static>,
        peer: Peer,
        now: Instant,
    ) -> Answering {
        let (head, body) = request.into_parts();
        match self.route(&head, peer, now) {
            Ok(Routed::Answered(answer)) => Answering::Now(Some(answer)),
            Ok(Routed::Waits(what)) => {
                Answering::Later(Box::pin(Rc::clone(self).wait(head, body, peer, Ok(what))))
            }
            Err(problem) => Answering::Later(Box::pin(Rc::clone(self).wait(head, body, peer, Err(problem)))),
        }
    }

    /// Asks the questions that hold for every path, then whoever has the path.
    fn route(&self, head: &Parts, peer: Peer, now: Instant) -> Result<Routed, Problem> {
        check_size(head)?;
        // Probes name whatever host they were configured with, and learn nothing that is secret.
        if !matches!(head.uri.path(), "/healthz" | "/readyz") {
            guard::check_host(head, &self.hosts, peer)?;
        }
        match &self.answers {
            Answers::Sidecar(sidecar) => sidecar.route(head, now),
            Answers::Projector(projector) => projector.route(head).map(Routed::Answered),
        }
    }

    /// Answers what waits, be it only for the rest of a body that is refused.
    async fn wait(
        self: Rc<Self>,
        head: Parts,
        mut body: impl Incoming,
        peer: Peer,
        what: Result<Waiting, Problem>,
    ) -> Answer {
        let answer = match (what, &self.answers) {
            (Ok(what), Answers::Sidecar(sidecar)) => sidecar.wait(what, &head, &mut body, peer).await,
            (Ok(_), Answers::Projector(_)) => unreachable!("nothing of a projector waits"),
            (Err(problem), _) => Err(problem),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                // Whose body was too slow already had its time.
                if problem.status() != StatusCode::REQUEST_TIMEOUT {
                    request::discard(&head, &mut body).await;
                }
                problem.into_answer()
            }
        };
        match &self.answers {
            Answers::Sidecar(sidecar) => sidecar.stamped(answer, Instant::now()),
            Answers::Projector(_) => answer,
        }
    }
}

/// Refuses targets and headers that are larger than anybody needs.
fn check_size(head: &Parts) -> Result<(), Problem> {
    let target_bytes = head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    if target_bytes > TARGET_BYTES_MAX {
        let message = format!("the request target has {target_bytes} bytes, more than {TARGET_BYTES_MAX}");
        return Err(Problem::new(codes::TARGET_TOO_LONG, message, "shorten it").closing());
    }
    // A field is its name, a colon, a blank, its value and the end of its line.
    let field_bytes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let header_bytes = target_bytes + field_bytes.sum::<usize>();
    if header_bytes > HEADER_BYTES_MAX || head.headers.len() > HEADER_FIELDS_MAX {
        let message = format!("the header is above {HEADER_BYTES_MAX} bytes or {HEADER_FIELDS_MAX} fields");
        return Err(Problem::new(codes::HEADERS_TOO_LARGE, message, "send fewer").closing());
    }
    Ok(())
}
