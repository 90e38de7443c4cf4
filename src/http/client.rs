//! A small blocking client for the command line: one connection, kept open over many requests.
//!
//! What sets it apart from a client for everything is that it knows what may be repeated. A question may be
//! asked again; a group of commands may have been taken although no answer came. So a request that was lost
//! on its way is sent again here only if it is a question, or was never sent at all. Commands are repeated by
//! the caller, who gives them a key that makes it harmless.
//!
//! It speaks plain HTTP/1.1 to one [`Endpoint`]: no TLS, no redirects, no proxies. Every wait has a limit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the head of an answer may take: longer than the service itself takes to give up writing a group
/// (30 s) and waiting for it to be applied (10 s). Connecting again counts in.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the next piece of a body may take. There is no limit to a whole body that keeps coming.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest body that is kept whole; a longer one has to go through [`Client::stream`].
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One place where a service may be reached.
///
/// ```
/// use portcullis::http::client::Endpoint;
///
/// let tcp: Endpoint = "http://[::1]:8182".parse()?;
/// assert_eq!(tcp, Endpoint::Tcp { host: "::1".to_owned(), port: 8182 });
/// let unix: Endpoint = "unix:/run/portcullis/admin.sock".parse()?;
/// assert_eq!(unix.to_string(), "unix:/run/portcullis/admin.sock");
///
/// assert!("127.0.0.1:8182".parse::<Endpoint>().is_err(), "without http:// it is none");
/// assert!("https://127.0.0.1:8182".parse::<Endpoint>().is_err(), "nor with TLS");
/// # Ok::<(), portcullis::http::client::EndpointError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// A host and a port over TCP, as they go into the `Host` header.
    Tcp {
        /// The name or address, without the brackets of an IPv6 address.
        host: String,
        /// The port; 80 where the text names none.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The value of the `Host` header. Behind a Unix socket there is no host to name, and any service
    /// knows itself by this one.
    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "http://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        // The text may come from anywhere and goes to a terminal: cut to length, and escaped.
        let error = || EndpointError(text.chars().take(100).flat_map(char::escape_debug).collect());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix(path.into())) };
        }
        let uri: Uri = text.parse().map_err(|_| error())?;
        let authority = uri.authority().ok_or_else(error)?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if !plain || host.is_empty() || authority.as_str().contains('@') {
            return Err(error());
        }
        // What stands behind the host is a port or nothing; `port_u16` is also none for a port that is no number.
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(error()),
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

/// A text that names no place where a service may be reached.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no place of a service: write it like http://127.0.0.1:8182 or unix:/run/portcullis/admin.sock"
)]
pub struct EndpointError(String);

/// A bearer token, checked to fit into a header. Never shown. The blanks around it are dropped, because it
/// is mostly read from a file that ends in a line feed.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let mut value = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| TokenError)?;
        value.set_sensitive(true);
        if text.is_empty() { Err(TokenError) } else { Ok(Self(value)) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token that is empty or holds what no header may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the token is empty or holds a control character")]
pub struct TokenError;

/// What a request is about; its path is written with its query. The default is a `GET` of nothing, to be
/// filled in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The path and query.
    pub path: String,
    /// The body of a POST; a request without one is a GET.
    pub body: Option<Bytes>,
    /// The only media type that is wanted; none leaves the choice to the service.
    pub accept: Option<&'static str>,
    /// The `Idempotency-Key`, which makes a repetition of the request harmless: visible ASCII.
    pub key: Option<String>,
    /// The right to write; none over a Unix socket, whose file is the right.
    pub token: Option<Token>,
}

impl Request {
    /// Whether it changes nothing, so that it may be asked again.
    fn is_question(&self) -> bool {
        !self.path.starts_with("/v1/commands")
    }

    /// The request for hyper; an error if path or key don't fit into a header.
    fn build(&self, authority: &str) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
        let method = if self.body.is_some() { hyper::Method::POST } else { hyper::Method::GET };
        let mut builder =
            hyper::Request::builder().method(method).uri(&self.path).header(header::HOST, authority);
        if self.body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        }
        if let Some(accept) = self.accept {
            builder = builder.header(header::ACCEPT, accept);
        }
        if let Some(key) = &self.key {
            builder = builder.header(IDEMPOTENCY_KEY, key);
        }
        if let Some(Token(value)) = &self.token {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        builder.body(Full::new(self.body.clone().unwrap_or_default()))
    }
}

/// What the service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status. Any is an answer: what it means is the caller's to say.
    pub status: u16,
    /// The body; empty when it was streamed.
    pub body: Bytes,
}

/// Why there is no connection. The two differ for a caller with several places to try: one that is denied
/// was found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The socket is there, but not for us.
    #[error("permission denied")]
    Denied,
    /// Nobody accepts a connection, for the reason given.
    #[error("{0}")]
    Unreachable(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Unreachable(reason(&error)),
        }
    }
}

/// Why a request has no answer; the first two differ in whether it may have had an effect.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection had ended and no new one could be made: the service never saw the request.
    #[error("no connection: {0}")]
    Connect(#[from] ConnectError),
    /// The connection ended or fell silent on the way: what the service did is unknown.
    #[error("{0}")]
    Lost(String),
    /// No request can be made of this: a path, key or token has characters that HTTP can't carry.
    #[error("that can't be sent: {0}")]
    Unsendable(String),
    /// The answer is longer than [`ANSWER_BYTES_MAX`].
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// Whoever the body was streamed to could not take it.
    #[error("{0}")]
    Sink(io::Error),
}

/// One connection to a service, made again when it has ended.
///
/// Each has a runtime of its own on the calling thread, so that it must not be used from within another one.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    endpoint: Endpoint,
    connection: Option<Connection>,
}

/// A connection, and whether an answer has come over it yet. A used one was idle since, and the service may
/// have closed it in the meantime.
#[derive(Debug)]
enum Connection {
    Fresh(SendRequest<Full<Bytes>>),
    Used(SendRequest<Full<Bytes>>),
}

impl Client {
    /// Connects to a service, without asking it anything yet.
    ///
    /// # Errors
    /// [`Denied`](ConnectError::Denied) when the socket is not for us,
    /// [`Unreachable`](ConnectError::Unreachable) when nobody accepts a connection within
    /// [`CONNECT_TIMEOUT`].
    pub fn connect(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        // One thread, no workers: the connection is driven only while a request waits for its answer.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(open(endpoint))?;
        Ok(Self { runtime, endpoint: endpoint.clone(), connection: Some(Connection::Fresh(connection)) })
    }

    /// Where it connects to.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request and waits for its whole answer. After an error the next request makes a new
    /// connection.
    ///
    /// # Errors
    /// [`Connect`](RequestError::Connect) when the service never saw the request,
    /// [`Lost`](RequestError::Lost) when that is unknown, [`Unsendable`](RequestError::Unsendable) when it was
    /// none, [`TooLong`](RequestError::TooLong) when the answer
    /// is.
    pub fn send(&mut self, request: &Request) -> Result<Answer, RequestError> {
        self.exchange(request, None)
    }

    /// Sends a request and hands on the body of a 200 piece by piece as it comes; the answer's own body
    /// is then empty. Any other answer is kept whole.
    ///
    /// # Errors
    /// When there is no answer, it ends early, or `sink` fails; a part may have been handed on by then.
    pub fn stream(&mut self, request: &Request, sink: Sink<'_>) -> Result<Answer, RequestError> {
        self.exchange(request, Some(sink))
    }

    /// Takes the connection out and puts it back only after a whole answer: one that failed in the middle
    /// still has the rest of it on the way.
    fn exchange(&mut self, request: &Request, sink: Option<Sink<'_>>) -> Result<Answer, RequestError> {
        let kept = self.connection.take();
        let (answer, connection) = self.runtime.block_on(exchange(&self.endpoint, kept, request, sink))?;
        self.connection = Some(Connection::Used(connection));
        Ok(answer)
    }
}

/// Takes the pieces of a body, in order; its error ends the transfer.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// One request and its answer, over the connection that was kept if there is one.
async fn exchange(
    endpoint: &Endpoint,
    kept: Option<Connection>,
    request: &Request,
    sink: Option<Sink<'_>>,
) -> Result<(Answer, SendRequest<Full<Bytes>>), RequestError> {
    let (head, connection) = timeout(ANSWER_TIMEOUT, ask(endpoint, kept, request))
        .await
        .map_err(|_| RequestError::Lost(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
    let status = head.status().as_u16();
    let body = match sink {
        Some(sink) if status == 200 => {
            hand_on(head.into_body(), sink).await?;
            Bytes::new()
        }
        _ => collect(head.into_body()).await?,
    };
    Ok((Answer { status, body }, connection))
}

/// Asks over the connection that was kept, or over a new one if that has ended meanwhile.
async fn ask(
    endpoint: &Endpoint,
    kept: Option<Connection>,
    request: &Request,
) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), RequestError> {
    let built =
        || request.build(&endpoint.authority()).map_err(|error| RequestError::Unsendable(reason(&error)));
    if let Some(kept) = kept {
        // The service may end a connection between two requests, and that is often noticed only when the
        // second one is on its way. Then it may have been read or not, which to a question is the same.
        let ended = matches!(kept, Connection::Used(_)) && request.is_question();
        let (Connection::Fresh(mut connection) | Connection::Used(mut connection)) = kept;
        // The task of the connection has to run for an end from the other side to be noticed.
        tokio::task::yield_now().await;
        match connection.send_request(built()?).await {
            Ok(head) => return Ok((head, connection)),
            // Cancelled means that it was never sent, so that sending it over a new connection is safe.
            Err(error) if ended || error.is_canceled() => {}
            Err(error) => return Err(RequestError::Lost(reason(&error))),
        }
    }
    let mut connection = open(endpoint).await?;
    let head = connection.send_request(built()?).await;
    head.map(|head| (head, connection)).map_err(|error| RequestError::Lost(reason(&error)))
}

/// A new connection. A name with several addresses is tried at each of them, within the one time limit.
async fn open(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, ConnectError> {
    let opened = timeout(CONNECT_TIMEOUT, async {
        match endpoint {
            Endpoint::Unix(path) => start(UnixStream::connect(path).await?).await,
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                start(stream).await
            }
        }
    });
    opened.await.unwrap_or_else(|_| {
        Err(ConnectError::Unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))
    })
}

/// Begins HTTP on a socket that is connected.
async fn start(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, ConnectError> {
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| ConnectError::Unreachable(reason(&error)))?;
    // Its errors reach us through the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// A whole body, within [`ANSWER_BYTES_MAX`].
async fn collect(mut body: Incoming) -> Result<Bytes, RequestError> {
    let mut whole = Vec::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if whole.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Hands a body on as it comes; how much of it there is does not matter.
async fn hand_on(mut body: Incoming, sink: Sink<'_>) -> Result<(), RequestError> {
    while let Some(piece) = next_piece(&mut body).await? {
        sink(&piece).map_err(RequestError::Sink)?;
    }
    Ok(())
}

/// The next piece; none at the end of a body that is whole. One that was cut off is an error.
async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, RequestError> {
    let frame = timeout(BODY_TIMEOUT, body.frame())
        .await
        .map_err(|_| RequestError::Lost(format!("the answer stopped for {} s", BODY_TIMEOUT.as_secs())))?;
    match frame.transpose() {
        Ok(frame) => Ok(frame.map(|frame| frame.into_data().unwrap_or_default())),
        Err(error) => Err(RequestError::Lost(format!("the answer was cut off: {}", reason(&error)))),
    }
}

/// An error with its causes, because the outermost one seldom says anything.
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_plain_http_or_a_socket() {
        for (text, authority) in [
            ("http://127.0.0.1:8182", "127.0.0.1:8182"),
            ("http://localhost", "localhost:80"),
            ("http://[::1]:8182/", "[::1]:8182"),
            ("unix:/run/portcullis/admin.sock", "localhost"),
            ("unix:admin.sock", "localhost"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.authority(), authority);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        for text in [
            "",
            "unix:",
            "127.0.0.1:8182",
            "localhost",
            "/run/portcullis/admin.sock",
            "https://localhost",
            "http://",
            "http://localhost:",
            "http://localhost:x",
            "http://localhost:70000",
            "http://localhost/v1",
            "http://localhost/?a",
            "http://me@localhost:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_one_line_and_never_shown() {
        let token: Token = " s3cret\n".parse().expect("a token");
        assert_eq!(token.0, "Bearer s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        for text in ["", "\n", "a\nb", "a\u{1}"] {
            assert!(text.parse::<Token>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_missing_socket_and_a_file_are_unreachable() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        for path in [folder.path().join("none.sock"), file] {
            let error = Client::connect(&Endpoint::Unix(path)).expect_err("no socket");
            assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
        }
    }
}
