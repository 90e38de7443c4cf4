//! Finds who answers a request, after what holds for all of them: its size, and to whom it is addressed.
//!
//! The order of the questions is the order of what a stranger may learn: too large, not addressed to us, no
//! such path, not with this method, and only then the path's own rights and parameters. The last three are
//! asked by what the worker answers from, which has the paths.
//!
//! Every answer, a refusal too, leaves through [`Worker::answer`].

use hyper::http::request::Parts;
use hyper::{Request, StatusCode};

use super::answer::{Answer, Problem};
use super::codes;
use super::guard::{self, Peer};
use super::request::{self, Incoming};
use super::worker::{Answers, Worker};

/// The longest request target, in bytes; above it the answer is 414, and the connection ends.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;
/// The largest header, in bytes with its target; above it the answer is 431, and the connection ends.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The most fields of a header; above it the answer is 431, too.
pub const HEADER_FIELDS_MAX: usize = 32;

impl Worker {
    /// Answers one request. There is no error: whatever goes wrong is an answer, too.
    pub(super) async fn answer(&self, request: Request<impl Incoming>, peer: Peer) -> Answer {
        let (head, mut body) = request.into_parts();
        let answer = match self.route(&head, &mut body, peer).await {
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
            Answers::Sidecar(sidecar) => sidecar.stamped(answer),
            Answers::Projector(_) => answer,
        }
    }

    /// Asks the questions that hold for every path, then whoever has the path.
    async fn route(&self, head: &Parts, body: &mut impl Incoming, peer: Peer) -> Result<Answer, Problem> {
        check_size(head)?;
        // Probes name whatever host they were configured with, and learn nothing that is secret.
        if !matches!(head.uri.path(), "/healthz" | "/readyz") {
            guard::check_host(head, &self.hosts, peer)?;
        }
        match &self.answers {
            Answers::Sidecar(sidecar) => sidecar.route(head, body, peer).await,
            Answers::Projector(projector) => projector.route(head),
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
