//! What a batch costs an address, and what it costs those who ask beside it.
//!
//! The first table is the handler alone, without a socket: a request with 4,096 addresses in, the bytes of
//! the answer out, over a million ranges of each family. Beside it stands what it can't do without: reading
//! the same texts with std's parser, and the lookups of addresses that are already read.
//!
//! The second table is how long others of the same thread wait for their turn while batches are served. The
//! third is what comes of that: a client that asks for one address after the other, alone and beside
//! another client of the same worker that sends one batch after the other.
//!
//! `cargo bench --bench batch`

#![allow(clippy::print_stdout, reason = "the tables are what a bench is for")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use nix::time::{ClockId, clock_gettime};
use portcullis::address::{Address, Number};
use portcullis::http::App;
use portcullis::http::handler::Handler;
use portcullis::http::settings::{Listen, LookupSettings};
use portcullis::record::Offset;
use portcullis::snapshot::{Snapshot, Verdict};
use portcullis::table::{Cause, Row};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local, yield_now};

#[path = "../tests/support/listed.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod listed;
#[path = "support/loopback.rs"]
mod loopback;

use listed::Listed;
use loopback::{Client, run_on, serve};

/// A list that stays in the caches, which leaves what the handler itself costs, and one that does not.
const RANGES: [usize; 2] = [1_000, 1_000_000];
const ADDRESSES: usize = 4096;
/// How many batches there are of each kind, so that none finds what it asks for in the caches.
const BATCHES: usize = 16;
const ROUNDS: usize = 24;
/// How many turns of the worker are looked at.
const TURNS: usize = 50_000;
/// How many single lookups a round of the third table has.
const REQUESTS_A_ROUND: usize = 2_000;

/// A family's addresses as real lists have them, and those that are asked for: half of them in the list.
struct Family<N> {
    starts: BTreeSet<N>,
    random: fn(&mut fastrand::Rng) -> N,
}

impl<N: Number> Family<N> {
    fn new(ranges: usize, random: fn(&mut fastrand::Rng) -> N) -> Self {
        let mut rng = fastrand::Rng::with_seed(7);
        Self { starts: std::iter::repeat_with(|| random(&mut rng)).take(ranges).collect(), random }
    }

    /// Single addresses: how wide a range is makes no difference to a lookup.
    fn rows(&self) -> impl Iterator<Item = Row> {
        let cause = Cause { command: Offset::new(0), expires_at: None };
        self.starts.iter().map(move |start| Row { range: start.range(*start), cause })
    }

    fn asked(&self) -> Vec<IpAddr> {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut members: Vec<N> = self.starts.iter().copied().collect();
        rng.shuffle(&mut members);
        let pairs = members.into_iter().cycle().take(BATCHES * ADDRESSES / 2);
        pairs.flat_map(|member| [member.ip(), (self.random)(&mut rng).ip()]).collect()
    }
}

/// One way to ask for addresses.
struct Case {
    name: &'static str,
    addresses: Vec<Vec<Address>>,
    texts: Vec<Vec<String>>,
    bodies: Vec<Bytes>,
    /// The same with their headers, as a client sends them.
    requests: Vec<Vec<u8>>,
}

impl Case {
    fn new(name: &'static str, asked: &[IpAddr], body: fn(&[String]) -> String) -> Self {
        let texts: Vec<Vec<String>> =
            asked.chunks(ADDRESSES).map(|batch| batch.iter().map(IpAddr::to_string).collect()).collect();
        let bodies: Vec<Bytes> = texts.iter().map(|texts| body(texts).into()).collect();
        let head =
            |bytes| format!("POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
        let requests = bodies.iter().map(|body| [head(body.len()).as_bytes(), body].concat()).collect();
        let addresses =
            asked.chunks(ADDRESSES).map(|batch| batch.iter().copied().map(Address::from).collect());
        Self { name, addresses: addresses.collect(), texts, bodies, requests }
    }

    /// The whole: requests in, bytes out.
    async fn answers(&self, handler: &Handler) {
        for body in &self.bodies {
            let request =
                Request::builder().method(Method::POST).uri("/v1/check").header("Host", "localhost");
            let request = request.body(Full::new(body.clone())).expect("a request");
            let answer = handler.answer(request).await;
            assert_eq!(answer.status(), StatusCode::OK);
            let Ok(bytes) = answer.into_body().collect().await else { return };
            black_box(bytes.to_bytes());
        }
    }

    fn parses(&self) {
        for text in self.texts.iter().flatten() {
            black_box(text.parse::<IpAddr>().is_ok());
        }
    }

    fn lookups(&self, snapshot: &Snapshot) -> usize {
        let hit = |address: &&Address| snapshot.lookup(**address) == Verdict::Blacklisted;
        self.addresses.iter().flatten().filter(hit).count()
    }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text}\n")).collect()
}

fn array(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("texts are JSON")
}

/// The middle one of several times, for each address.
fn median_ns(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_nanos() as f64 / (BATCHES * ADDRESSES) as f64
}

fn timed(times: &mut Vec<Duration>, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    times.push(began.elapsed());
}

/// The first table. What is compared takes turns, so that a slow moment of the machine meets all of it.
fn costs(ranges: usize, listed: &Listed, cases: &[Case]) {
    let Some(snapshot) = listed.app.readers.reader().hold() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handler = Handler::new(listed.app.clone());
    println!("\n| ns an address, {ADDRESSES} a batch, {ranges} ranges | handler | std's parser | lookup |");
    println!("|---|---|---|---|");
    for case in cases {
        let [mut answers, mut parses, mut lookups] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            timed(&mut answers, || runtime.block_on(case.answers(&handler)));
            timed(&mut parses, || case.parses());
            timed(&mut lookups, || {
                black_box(case.lookups(&snapshot));
            });
        }
        let [answers, parses, lookups] = [answers, parses, lookups].map(|mut times| median_ns(&mut times));
        println!("| {} | {answers:.0} | {parses:.0} | {lookups:.0} |", case.name);
    }
}

/// Asks for one address after the other for a while; the latencies in ns.
fn ask(client: &mut Client, addresses: &[Vec<Address>]) -> Histogram<u64> {
    let mut latency_ns = Histogram::new(3).expect("3 digits");
    for address in addresses.iter().flatten().take(REQUESTS_A_ROUND) {
        let took =
            client.ask(format!("GET /v1/check/{address} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        latency_ns.record(took.as_nanos() as u64).expect("the histogram grows with what it holds");
    }
    latency_ns
}

/// Sends the same requests over and over, without pause, while there is something else to be done; how many.
fn send(client: &mut Client, requests: &[Vec<u8>], done: &AtomicBool) -> u64 {
    let unless_done = |_: &&Vec<u8>| !done.load(Ordering::Relaxed);
    requests.iter().cycle().take_while(unless_done).map(|request| client.ask(request)).count() as u64
}

/// The third table: both clients on one core, the worker that answers them on the other.
fn beside(app: App, cases: &[Case], singles: &Case) {
    run_on(1);
    let server = serve(app, LookupSettings::default());
    let [mut single, mut batch] = [(); 2].map(|()| Client::connect(&server.place));
    run_on(0);
    println!(
        "\n| one lookup after the other, the quietest of {ROUNDS} rounds of {REQUESTS_A_ROUND} | p50 µs | p99 µs | batches/s |"
    );
    println!("|---|---|---|---|");
    let mut rows: Vec<(&str, Vec<Histogram<u64>>, f64)> = vec![("alone", vec![], 0.0)];
    rows.extend(cases.iter().map(|case| (case.name, vec![], 0.0)));
    for _ in 0..ROUNDS {
        for (at, (_, rounds, batches_a_second)) in rows.iter_mut().enumerate() {
            let Some(case) = at.checked_sub(1).and_then(|at| cases.get(at)) else {
                rounds.push(ask(&mut single, &singles.addresses));
                continue;
            };
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let began = Instant::now();
                let sending = scope.spawn(|| send(&mut batch, &case.requests, &done));
                rounds.push(ask(&mut single, &singles.addresses));
                done.store(true, Ordering::Relaxed);
                let batches = sending.join().unwrap_or_default();
                *batches_a_second += batches as f64 / began.elapsed().as_secs_f64() / ROUNDS as f64;
            });
        }
    }
    for (name, rounds, batches_a_second) in rows {
        let [p50, p99] = [0.5, 0.99].map(|quantile| quietest_us(&rounds, quantile));
        println!("| {name} | {p50:.1} | {p99:.1} | {batches_a_second:.0} |");
    }
}

/// A quantile of the quietest of several rounds: what else runs on the machine only makes them worse.
fn quietest_us(rounds: &[Histogram<u64>], quantile: f64) -> f64 {
    let values_ns = rounds.iter().map(|latency_ns| latency_ns.value_at_quantile(quantile));
    values_ns.min().unwrap_or_default() as f64 / 1_000.0
}

/// The time that this thread had a core for: what other programs do to it does not count.
fn core_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("every thread has that clock")
}

/// The lengths in ns of the turns of a worker that serves batches without pause: as long as that, and no
/// longer, the other connections wait for theirs. Each counts by its length, as it would for a request that
/// comes at any time.
fn turns(app: App, requests: &[Vec<u8>]) -> Histogram<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = Listen::Tcp(listener.local_addr().expect("it is bound"));
    let (done, mut turn_ns) = (AtomicBool::new(false), Histogram::new(3).expect("3 digits"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_on(0);
            send(&mut Client::connect(&place), requests, &done)
        });
        run_on(1);
        let (stream, _) = listener.accept().expect("a client");
        stream.set_nonblocking(true).expect("it is open");
        LocalSet::new().block_on(&runtime, async {
            let (stream, handler) = (TcpStream::from_std(stream).expect("it is open"), Handler::new(app));
            let serving = spawn_local(async move { handler.serve(stream).await });
            let mut last = core_time();
            for turn in 0.. {
                yield_now().await;
                let now = core_time();
                let length = (now - last).as_nanos() as u64;
                if turn > TURNS / 10 {
                    turn_ns.record_n(length, length).expect("the histogram grows with what it holds");
                }
                done.fetch_or(turn > TURNS, Ordering::Relaxed);
                last = now;
                if serving.is_finished() {
                    break;
                }
            }
        });
    });
    turn_ns
}

/// The second table.
fn waits(app: &App, cases: &[Case]) {
    println!(
        "\n| a turn of the worker beside batches, µs on its core | p50 | p90 | p99 | longest |\n|---|---|---|---|---|"
    );
    let lookup = vec![b"GET /v1/check/203.0.113.7 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()];
    let batches = cases.iter().map(|case| (case.name, &case.requests));
    for (name, requests) in [("single lookups", &lookup)].into_iter().chain(batches) {
        let turn_ns = turns(app.clone(), requests);
        let micros = |quantile| turn_ns.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} |",
            micros(0.5),
            micros(0.9),
            micros(0.99),
            micros(1.0)
        );
    }
}

fn measure(ranges: usize) {
    let v4 = Family::new(ranges, |rng| rng.u32(..));
    // As in real lists, IPv6 ranges share a few thousand /32s.
    let v6 = Family::new(ranges, |rng| {
        (0x2001_0000_u128 + u128::from(rng.u32(..4096))) << 96 | rng.u128(..) >> 32
    });
    let listed = Listed::new(v4.rows().chain(v6.rows()));
    let (asked_v4, asked_v6) = (v4.asked(), v6.asked());
    let cases = [
        Case::new("IPv4, lines", &asked_v4, lines),
        Case::new("IPv4, JSON", &asked_v4, array),
        Case::new("IPv6, lines", &asked_v6, lines),
        Case::new("IPv6, JSON", &asked_v6, array),
    ];
    costs(ranges, &listed, &cases);
    waits(&listed.app, &cases);
    let [singles, ..] = &cases;
    beside(listed.app, &cases, singles);
}

fn main() {
    RANGES.into_iter().for_each(measure);
}
