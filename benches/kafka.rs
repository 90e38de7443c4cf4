//! The whole of it on a real Kafka: brokers, sidecars and a projector as processes on this machine.
//!
//! `cargo bench --bench kafka` measures everything; behind `--`, any of `producer`, `bootstrap`, `latency`,
//! `compaction`, `outage`, `faults` and `large` measure only that. The broker is fetched and started as in the
//! tests.

#![allow(clippy::print_stdout, reason = "the figures are what a bench is for")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a bench ends where it goes wrong")]

#[path = "kafka/cast.rs"]
mod cast;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "../tests/kafka_faults/foreign.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod foreign;
#[path = "../tests/kafka_faults/judge.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod judge;
#[path = "../tests/kafka_faults/link.rs"]
mod link;
#[path = "../tests/kafka_faults/load.rs"]
mod load;
#[path = "../tests/kafka_service/rig.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod rig;
#[path = "../tests/support"]
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod support {
    pub(crate) mod kafka;
    pub(crate) mod output;
}
#[path = "kafka/large.rs"]
mod large;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::log::{Log, ReadEvent, Topic};
use portcullis::record::Position;
use portcullis::table::{Fingerprint, Table};
use portcullis::view::View;

use cast::{Projecting, Scene, Sidecar, Source};
use support::kafka::Broker;

/// Commands that the console producer writes.
const PRODUCED: u32 = 100_000;
/// Rows of the large table.
const ROWS: u32 = 1_000_000;
/// Commands whose way is timed.
const TIMED: usize = 2_000;
/// Sidecars that begin while the table is compacted.
const FRESH: usize = 50;
/// How long the broker is away.
const OUTAGE: Duration = Duration::from_secs(60);

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let parts: [(&str, fn()); 7] = [
        ("producer", producer),
        ("bootstrap", bootstrap),
        ("latency", latency),
        ("compaction", compaction),
        ("outage", outage),
        ("faults", faults::measure),
        ("large", large::large),
    ];
    for (name, measure) in parts {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            measure();
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Lines that blacklist an address each, none beside another.
fn bans(count: u32) -> String {
    (0..count).fold(String::new(), |mut lines, number| {
        writeln!(lines, "BLACKLIST {}", std::net::Ipv4Addr::from_bits((10 << 24) + 2 * number))
            .expect("a text grows");
        lines
    })
}

/// Plain lines of Kafka's own console producer, until everybody has folded them.
fn producer() {
    let scene = Scene::new(Broker::start(), &[]);
    let projecting = Projecting::start(&scene);
    let sidecars = [Sidecar::start(&scene, Source::Table), Sidecar::start(&scene, Source::Table)];
    sidecars.iter().for_each(Sidecar::wait_ready);
    let began = Instant::now();
    scene.broker.console_produce(cast::COMMANDS, &bans(PRODUCED));
    let produced = began.elapsed();
    let end = Position::new(u64::from(PRODUCED));
    let arrived: Vec<Duration> =
        sidecars.iter().map(|sidecar| sidecar.wait_for(end)).map(|()| began.elapsed()).collect();
    projecting.wait_for(end);
    let projected = began.elapsed();
    // The producer ends a while after its last command is written, so that they may be there when it does.
    println!("console producer, {PRODUCED} commands: it ended after {}", seconds(produced));
    println!("  sidecars there after {} and {}", seconds(arrived[0]), seconds(arrived[1]));
    println!("  the projector's table after {}", seconds(projected));
    let fresh = Instant::now();
    let third = Sidecar::start(&scene, Source::Table);
    third.wait_ready();
    println!("  a fresh sidecar, from its start to ready, from the table: {}", seconds(fresh.elapsed()));
    third.wait_for(end);
    let folded = fold(&scene, &[end]);
    let all: Vec<Fingerprint> = sidecars.iter().chain([&third]).map(|sidecar| sidecar.status().1).collect();
    let table = table(&scene);
    let agree = all.iter().chain([&table.0]).all(|fingerprint| *fingerprint == folded[&end].0);
    println!(
        "  rows of the table: {}, of the fold of the commands: {}; all fingerprints equal: {agree}",
        table.1, folded[&end].1
    );
}

/// Fingerprint and rows of the fold of all commands, at each of these positions.
fn fold(scene: &Scene, positions: &[Position]) -> BTreeMap<Position, (Fingerprint, u64)> {
    let mut view = View::default();
    let mut found = BTreeMap::new();
    let mut note = |view: &View| {
        if positions.contains(&view.position()) {
            let blacklist = view.blacklist();
            found.insert(view.position(), (blacklist.fingerprint(), blacklist.row_counts().total()));
        }
    };
    note(&view);
    for record in read(scene, Topic::Commands) {
        view.apply(&record).expect("a command of this release");
        note(&view);
    }
    found
}

fn read(scene: &Scene, topic: Topic) -> Vec<portcullis::record::Record> {
    let mut reader = scene.log.open(topic, Position::START).expect("it is there");
    let mut all = Vec::new();
    loop {
        match reader.poll(Duration::from_secs(30)) {
            Some(ReadEvent::Records(records)) => all.extend(records),
            Some(ReadEvent::End(_)) => return all,
            other => panic!("the topic can't be read: {other:?}"),
        }
    }
}

/// Fingerprint and rows of the table, as it is in its topic.
fn table(scene: &Scene) -> (Fingerprint, u64) {
    let mut table = Table::default();
    read(scene, Topic::Table).iter().for_each(|record| table.apply(record));
    let watermark = table.check().expect("the table is whole");
    (watermark.fingerprint, watermark.rows)
}

/// A large table: a fresh sidecar beside a plain read of the same records, in turns.
fn bootstrap() {
    let scene = Scene::new(Broker::start(), &[]);
    let projecting = Projecting::start(&scene);
    let began = Instant::now();
    scene.produce(&bans(ROWS));
    let end = Position::new(u64::from(ROWS));
    projecting.wait_for(end);
    println!("{ROWS} commands produced and projected in {}", seconds(began.elapsed()));
    for round in 1..=5 {
        let began = Instant::now();
        let records = read(&scene, Topic::Table).len();
        let plain = began.elapsed();
        let began = Instant::now();
        let sidecar = Sidecar::start(&scene, Source::Table);
        sidecar.wait_ready();
        let ready = began.elapsed();
        println!(
            "  round {round}: plain read of {records} records {}; sidecar from its start to ready {} (× {:.2})",
            seconds(plain),
            seconds(ready),
            ready.as_secs_f64() / plain.as_secs_f64()
        );
    }
}

/// From the acknowledgement of a command to the first answer of another sidecar that knows it.
fn latency() {
    let scene = Scene::new(Broker::start(), &[]);
    let _projecting = Projecting::start(&scene);
    let (sender, asked) = (Sidecar::start(&scene, Source::Table), Sidecar::start(&scene, Source::Table));
    sender.wait_ready();
    asked.wait_ready();
    let mut times = [(); 3].map(|()| Vec::with_capacity(TIMED));
    let (mut writer, mut asker) = (sender.client(), asked.client());
    for number in 0..TIMED {
        let address = std::net::Ipv4Addr::from_bits((10 << 24) + u32::try_from(number).expect("few"));
        let path = format!("/v1/check/{address}");
        let (stop, asking) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // Asked all the time, so that the answer is seen as soon as it changes.
            let seen = scope.spawn(|| {
                asking.store(true, Ordering::Relaxed);
                while !cast::get(&mut asker, &path).contains("true") {
                    assert!(!stop.load(Ordering::Relaxed), "the command was refused");
                }
                Instant::now()
            });
            while !asking.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let sent = Instant::now();
            let status = cast::post(&mut writer, &format!("BLACKLIST {address}"));
            let acknowledged = Instant::now();
            stop.store(status != 201, Ordering::Relaxed);
            let seen = seen.join().expect("no panic");
            times[0].push(acknowledged - sent);
            times[1].push(seen.saturating_duration_since(acknowledged));
            times[2].push(seen - sent);
        });
    }
    println!("{TIMED} commands, one after the other, by HTTP to one sidecar; another one is asked:");
    for (what, times) in
        ["sent → acknowledged", "acknowledged → visible", "sent → visible"].iter().zip(&mut times)
    {
        times.sort();
        let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
        println!("  {what}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    }
}

/// Fresh sidecars while the table is compacted all the time under constant change.
fn compaction() {
    let small = [
        ("segment.ms", "1000"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "1000"),
        ("delete.retention.ms", "86400000"),
    ];
    let scene = Scene::new(Broker::start(), &small);
    let _projecting = Projecting::start(&scene);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut ready = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(4);
            while !stop.load(Ordering::Relaxed) {
                scene.produce(&churn(&mut random, 100));
                written.fetch_add(100, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for _ in 0..FRESH {
            let sidecar = Sidecar::start(&scene, Source::Table);
            sidecar.wait_ready();
            ready.push(sidecar.status());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let positions: Vec<Position> = ready.iter().map(|(position, _)| *position).collect();
    let folded = fold(&scene, &positions);
    let right = |(position, fingerprint): &&(Position, Fingerprint)| folded[position].0 == *fingerprint;
    let wrong = ready.len() - ready.iter().filter(right).count();
    let held = read(&scene, Topic::Table).len();
    println!(
        "compaction under change, {} commands: {} fresh sidecars, wrong {wrong}; the table topic holds {held} records",
        written.into_inner(),
        ready.len()
    );
}

/// Commands over few ranges, so that rows come and go under the same keys.
fn churn(random: &mut fastrand::Rng, commands: usize) -> String {
    let mut command = |_| {
        let verb = if random.u8(..3) > 0 { "BLACKLIST" } else { "WHITELIST" };
        let start = (10 << 24) + random.u32(..20_000) * 8;
        let end = start + random.u32(..64);
        format!("{verb} {}-{}\n", std::net::Ipv4Addr::from_bits(start), std::net::Ipv4Addr::from_bits(end))
    };
    (0..commands).map(&mut command).collect()
}

/// A broker that is away for a while.
fn outage() {
    let mut scene = Scene::new(Broker::start(), &[]);
    let projecting = Projecting::start(&scene);
    let sidecar = Sidecar::start(&scene, Source::Table);
    sidecar.wait_ready();
    scene.produce(&bans(1_000));
    sidecar.wait_for(Position::new(1_000));
    scene.broker.stop();
    let began = Instant::now();
    let (mut client, mut lookups, mut failed) = (sidecar.client(), 0_u64, 0_u64);
    while began.elapsed() < OUTAGE {
        lookups += 1;
        failed += u64::from(!cast::get(&mut client, "/v1/check/10.0.0.2").contains("true"));
    }
    let age = cast::get(&mut client, "/v1/status");
    let age: serde_json::Value = serde_json::from_str(&age).expect("JSON");
    println!(
        "broker stopped for {}: {lookups} lookups, {failed} of them failed; age at the end {} ms",
        seconds(OUTAGE),
        age["age_ms"]
    );
    scene.broker.restart();
    let back = Instant::now();
    scene.produce("BLACKLIST 192.0.2.1\n");
    sidecar.wait_for(Position::new(1_001));
    println!("  started: followed again {} after the broker answered", seconds(back.elapsed()));
    projecting.wait_for(Position::new(1_001));
    println!("  the projector's table: {} after", seconds(back.elapsed()));
}
