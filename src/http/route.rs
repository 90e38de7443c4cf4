//! Finds who answers a request, after what holds for all of them: its size, and to whom it is addressed.
//!
//! The order of the questions is the order of what a stranger may learn: too large, not addressed to us, no
//! such path, not with this method, and only then the path's own rights and parameters.
//!
//! Every answer, a refusal too, leaves through [`Worker::answer`], which adds the position and the age of
//! what the worker would answer from.

use std::time::Instant;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use super::answer::{AGE_MS, Answer, POSITION, Problem};
use super::guard::{self, Peer};
use super::worker::Worker;
use super::{Kind, admin, codes, health, lookup, ranges, request};

/// The longest request target, in bytes; above it the answer is 414, and the connection ends.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;
/// The largest header, in bytes with its target; above it the answer is 431, and the connection ends.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The most fields of a header; above it the answer is 431, too.
pub const HEADER_FIELDS_MAX: usize = 32;

/// The paths that there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route<'a> {
    CheckSegment(&'a str),
    Check,
    Healthz,
    Readyz,
    Status,
    Commands,
    Ranges,
}

impl<'a> Route<'a> {
    /// The route of a path on this kind of listener. Paths are compared as they were sent: nothing is
    /// decoded, no dots are followed and no closing slash is dropped, so that a proxy before us never sees
    /// another path in it.
    fn find(path: &'a str, kind: Kind) -> Option<Self> {
        if let Some(segment) = path.strip_prefix("/v1/check/") {
            // Two segments are another path, which is not there.
            return (!segment.contains('/')).then_some(Self::CheckSegment(segment));
        }
        match (path, kind) {
            ("/v1/check", _) => Some(Self::Check),
            ("/healthz", _) => Some(Self::Healthz),
            ("/readyz", _) => Some(Self::Readyz),
            ("/v1/status", _) => Some(Self::Status),
            // A lookup listener does not know these: it may be open to more clients than the admin one.
            ("/v1/commands", Kind::Admin) => Some(Self::Commands),
            ("/v1/ranges", Kind::Admin) => Some(Self::Ranges),
            _ => None,
        }
    }

    /// The methods that it takes, as `Allow` names them. `HEAD` goes with every `GET`; hyper leaves the body
    /// out.
    const fn methods(self) -> &'static str {
        match self {
            Self::Check => "GET, HEAD, POST",
            Self::Commands => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes the method; methods are case-sensitive.
    fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|taken| taken == method.as_str())
    }
}

impl Worker {
    /// Answers one request. There is no error: whatever goes wrong is an answer, too.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
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
        self.stamped(answer)
    }

    /// Asks the questions that hold for every path, then the path.
    async fn route(&self, head: &Parts, body: &mut Incoming, peer: Peer) -> Result<Answer, Problem> {
        check_size(head)?;
        let path = head.uri.path();
        // Probes name whatever host they were configured with, and learn nothing that is secret.
        if !matches!(path, "/healthz" | "/readyz") {
            guard::check_host(head, &self.hosts, peer)?;
        }
        let route = Route::find(path, self.kind).ok_or_else(not_found)?;
        if !route.takes(&head.method) {
            return Err(Problem::method_not_allowed(route.methods()));
        }
        match route {
            Route::CheckSegment(segment) => lookup::check_segment(self, head, segment),
            Route::Check if head.method == Method::POST => lookup::check_batch(self, head, body).await,
            Route::Check => lookup::check_parameter(self, head),
            Route::Healthz => Ok(health::healthz()),
            Route::Readyz => health::readyz(self, head),
            Route::Status => health::status(self, head),
            Route::Commands => admin::commands(self, head, body, peer).await,
            Route::Ranges => ranges::ranges(self, head).await,
        }
    }

    /// Adds the position and the age of the snapshot to an answer that does not name them yet.
    fn stamped(&self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        let Some(position) = self.with_snapshot(|snapshot| snapshot.position()) else { return answer };
        // An answer made from a snapshot names that one's position; meanwhile there may be a newer one.
        headers.entry(POSITION).or_insert_with(|| position.number().into());
        if let Some(age) = self.app.status.age(Instant::now()) {
            headers.insert(AGE_MS, u64::try_from(age.as_millis()).unwrap_or(u64::MAX).into());
        }
        answer
    }
}

fn not_found() -> Problem {
    let hint =
        "checks are at /v1/check/{address} on every listener, commands at /v1/commands on the admin one";
    Problem::new(codes::NOT_FOUND, "there is no such path on this listener", hint)
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
