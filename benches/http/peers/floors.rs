//! The floors: what a request costs that asks nothing. A plain hyper "hello", and a bare tokio echo over TCP
//! and over a Unix socket; this program runs itself once more for each.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::{Peer, Stage};
use crate::client::{Place, Question, Server};
use crate::dialect::{Answer, Dialect, Http, Reading};
use crate::process;

/// The first argument that makes this program a floor.
pub(crate) const SERVE: &str = "--serve-floor";
pub(crate) const HELLO: &str = "hyper \"hello\"";
pub(crate) const ECHO_TCP: &str = "tokio echo";
pub(crate) const ECHO_UNIX: &str = "tokio echo, Unix socket";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Floor {
    Hello,
    EchoTcp,
    EchoUnix,
}

pub(crate) const ALL: [Floor; 3] = [Floor::Hello, Floor::EchoTcp, Floor::EchoUnix];

/// A server that sends back what it got.
struct Echo;

impl Dialect for Echo {
    fn question(&self, address: Ipv4Addr) -> Vec<u8> {
        super::portcullis::DIALECT.question(address)
    }

    fn read(&self, address: Ipv4Addr, answer: &[u8]) -> Reading {
        match self.question(address) {
            question if question == answer => Reading::Whole(Answer::Nothing),
            question if question.starts_with(answer) => Reading::Partial,
            _ => Reading::Wrong,
        }
    }
}

pub(crate) fn start(floor: Floor, stage: Stage<'_>) -> Result<Peer, String> {
    let (tcp, unix) = (process::free_address(), stage.folder().join("echo.sock"));
    let hello = Http {
        path: "/v1/check/",
        headers: String::new(),
        verdict: |body| (body == b"hello").then_some(Answer::Nothing),
    };
    let (word, place, server) = match floor {
        Floor::Hello => ("hello", tcp.to_string(), server(&stage, HELLO, Place::Tcp(tcp), hello)),
        Floor::EchoTcp => ("echo-tcp", tcp.to_string(), server(&stage, ECHO_TCP, Place::Tcp(tcp), Echo)),
        Floor::EchoUnix => {
            let place = unix.display().to_string();
            ("echo-unix", place, server(&stage, ECHO_UNIX, Place::Unix(unix), Echo))
        }
    };
    let ourselves = std::env::current_exe().expect("Linux tells it");
    let running = stage.start(&ourselves, &[SERVE, word, &place]);
    stage.peer(String::new(), running, vec![server])
}

fn server(stage: &Stage<'_>, name: &'static str, place: Place, dialect: impl Dialect + 'static) -> Server {
    let mut server = stage.server(name, place, dialect);
    server.questions.iter_mut().for_each(|question: &mut Question| question.expected = Answer::Nothing);
    server
}

/// Serves until it is killed: what the first argument says, where the second one does.
pub(crate) fn serve(mut args: impl Iterator<Item = OsString>) {
    let mut next = || args.next().and_then(|arg| arg.into_string().ok()).expect("a word and a place");
    let (word, place) = (next(), next());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        match word.as_str() {
            "hello" => serve_hello(&place).await,
            "echo-tcp" => serve_echo_tcp(&place).await,
            _ => serve_echo_unix(place.as_ref()).await,
        }
    });
}

async fn serve_hello(place: &str) {
    let listener = TcpListener::bind(place).await.expect("it is free");
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("it is open");
        let hello = |_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello")))) };
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
        tokio::task::spawn_local(async { drop(connection.await) });
    }
}

async fn serve_echo_tcp(place: &str) {
    let listener = TcpListener::bind(place).await.expect("it is free");
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("it is open");
        tokio::task::spawn_local(echo(stream));
    }
}

async fn serve_echo_unix(place: &Path) {
    let listener = UnixListener::bind(place).expect("the folder is ours");
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(echo(stream));
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
