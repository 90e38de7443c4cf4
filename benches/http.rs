//! A lookup over HTTP beside a plain hyper "hello": the same client, one connection, in turns in one run.
//!
//! The servers run on one core and the client on another, because where the scheduler happens to put two
//! threads that wake each other makes more difference than what they do.
//!
//! `cargo bench --bench http`

#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::Response;
use hyper_util::rt::TokioIo;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portcullis::address::Number;
use portcullis::http::guard::Token;
use portcullis::http::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
use portcullis::http::{App, Server};
use portcullis::log::memory::MemoryLog;
use portcullis::record::{Offset, Position, Timestamp};
use portcullis::served::Served;
use portcullis::snapshot::{Draft, Publisher};
use portcullis::status::Status;
use portcullis::table::{Cause, Row};
use portcullis::view::{RefusedCounts, View};
use tokio::sync::watch;

const RANGES: u32 = 100_000;
const ROUNDS: usize = 20;
const REQUESTS_A_ROUND: usize = 2_000;

/// A hyper server that answers every request with the same few bytes.
fn hello() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("it is ours");
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is ours");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("it is open");
                let answer =
                    |_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello")))) };
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
                if let Err(error) = served.await {
                    eprintln!("{error}");
                }
            }
        });
    });
    address
}

/// Our lookup listener over a list of a hundred thousand ranges.
fn portcullis(directory: &std::path::Path) -> (Server, Publisher, watch::Sender<Position>) {
    let row = |at: u32| Row {
        range: (at * 40_000).range(at * 40_000 + at % 300),
        cause: Cause { command: Offset::new(at.into()), expires_at: None },
    };
    let view = View::from_rows((0..RANGES).map(row), Position::new(RANGES.into()), None, BTreeSet::new());
    let (mut publisher, readers) = Publisher::new();
    publisher.publish(Draft::new(&view, Timestamp::from_millis(0)).snapshot(view.position()));
    let (served, status) = (Arc::new(Served::default()), Arc::new(Status::new(Instant::now())));
    served.replace(view, RefusedCounts::default());
    status.set_proven(Instant::now());
    let (published, newest) = watch::channel(Position::new(RANGES.into()));
    let app = App {
        readers,
        status,
        served,
        sink: Arc::new(MemoryLog::default().command_sink(|| Timestamp::from_millis(0))),
        published: newest,
        token: Token::load_or_create(directory).expect("a token"),
        version: "bench",
    };
    let any = || vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
    let lookup = LookupSettings { listen: any(), ..LookupSettings::default() };
    let admin = AdminSettings { listen: any(), ..AdminSettings::default() };
    let server =
        Server::start(app, &lookup, &admin, &HttpSettings::default(), directory).expect("free ports");
    (server, publisher, published)
}

/// One connection that sends a request, waits for the whole answer, and so on.
struct Client {
    stream: TcpStream,
    buffer: [u8; 2048],
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("it is open");
        Self { stream, buffer: [0; 2048] }
    }

    fn request(&mut self, path: &str) -> Duration {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let sent = Instant::now();
        self.stream.write_all(request.as_bytes()).expect("it is open");
        // Both answers are far smaller than one segment, so that one read has it whole.
        let read = self.stream.read(&mut self.buffer).expect("an answer");
        let took = sent.elapsed();
        assert!(self.buffer.get(..read).is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200")));
        took
    }
}

/// Binds this thread, and those that it starts from now on, to one core; where there is only one, to that.
fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).expect("a core that a set can name");
    if let Err(error) = sched_setaffinity(Pid::from_raw(0), &cores) {
        println!("(core {core}: {error})");
    }
}

fn main() {
    run_on(1);
    let directory = tempfile::tempdir().expect("a folder");
    let (server, _publisher, _published) = portcullis(directory.path());
    let Some(Listen::Tcp(ours)) = server.lookup().first() else { return };
    let mut clients =
        [("hyper hello", Client::connect(hello())), ("portcullis check", Client::connect(*ours))];
    run_on(0);
    let histogram = || Histogram::<u64>::new(3).expect("3 digits");
    let mut latencies_ns = [histogram(), histogram()];
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..=ROUNDS {
        for ((_, client), latency_ns) in clients.iter_mut().zip(&mut latencies_ns) {
            for _ in 0..REQUESTS_A_ROUND {
                let took = client.request(&format!("/v1/check/{}", random.u32(..).ip()));
                // The first round only warms up.
                if round > 0 {
                    latency_ns
                        .record(took.as_nanos() as u64)
                        .expect("the histogram grows with what it holds");
                }
            }
        }
    }
    println!(
        "| one connection, {} requests | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|",
        ROUNDS * REQUESTS_A_ROUND
    );
    for ((name, _), latency_ns) in clients.iter().zip(&latencies_ns) {
        let micros = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1_000.0;
        println!("| {name} | {:.1} | {:.1} | {:.1} |", micros(0.5), micros(0.99), micros(0.999));
    }
    let ratio = |quantile| {
        let [hello, check] = &latencies_ns;
        check.value_at_quantile(quantile) as f64 / hello.value_at_quantile(quantile) as f64
    };
    println!("| ratio | {:.2} | {:.2} | {:.2} |", ratio(0.5), ratio(0.99), ratio(0.999));
}
