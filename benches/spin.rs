//! What `[lookup] spin` buys: one connection to a server that sleeps and to one that never does, in turns.
//!
//! `cargo bench --bench spin`

#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::net::IpAddr;

use hdrhistogram::Histogram;
use portcullis::http::settings::{Listen, LookupSettings};
use portcullis::record::Offset;
use portcullis::table::{Cause, Row};

#[path = "../tests/support/listed.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod listed;
#[path = "support/loopback.rs"]
mod loopback;

use listed::Listed;
use loopback::{Client, Serving, any_port, run_on, serve};

const ROUNDS: usize = 10;
const REQUESTS_A_ROUND: usize = 2_000;
const REQUEST: &[u8] = b"GET /v1/check/203.0.113.7 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// All latencies of one round. The first requests only wake everything up.
fn round(client: &mut Client, latency_ns: &mut Histogram<u64>) {
    for request in 0..REQUESTS_A_ROUND {
        let took = client.ask(REQUEST);
        if request >= REQUESTS_A_ROUND / 10 {
            latency_ns.record(took.as_nanos() as u64).expect("the histogram grows with what it holds");
        }
    }
}

/// Measures one way to connect. Only one server is there at a time: one that never sleeps would take the
/// core from the other.
fn measure(name: &str, listen: &Listen) {
    let mut latencies_ns = [(); 2].map(|()| Histogram::<u64>::new(3).expect("3 digits"));
    let row = Row {
        range: "203.0.113.7"
            .parse::<IpAddr>()
            .map(|ip| portcullis::address::Address::from(ip).into())
            .expect("it is one"),
        cause: Cause { command: Offset::new(0), expires_at: None },
    };
    for _ in 0..ROUNDS {
        for (spin, latency_ns) in [false, true].into_iter().zip(&mut latencies_ns) {
            run_on(1);
            let listed = Listed::new([row].into_iter());
            let settings = LookupSettings { listen: vec![listen.clone()], spin, ..LookupSettings::default() };
            let serving: Serving = serve(listed.app, settings);
            run_on(0);
            round(&mut Client::connect(&serving.place), latency_ns);
        }
    }
    let [sleep, spin] = latencies_ns.each_ref().map(|latency_ns| {
        [0.5, 0.99, 0.999].map(|quantile| latency_ns.value_at_quantile(quantile) as f64 / 1_000.0)
    });
    for (how, [p50, p99, p999]) in [("sleeps", sleep), ("spins", spin)] {
        println!("| {name}, {how} | {p50:.1} | {p99:.1} | {p999:.1} |");
    }
}

fn main() {
    println!(
        "| one connection, {} requests | p50 µs | p99 µs | p99.9 µs |",
        ROUNDS * REQUESTS_A_ROUND * 9 / 10
    );
    println!("|---|---|---|---|");
    measure("TCP", &any_port());
    let directory = tempfile::tempdir().expect("a folder");
    measure("Unix socket", &Listen::Unix(directory.path().join("lookup.sock")));
}
