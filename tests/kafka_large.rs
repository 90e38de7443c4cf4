//! Many rows on a real Kafka: repaired, and freed by one command, each in one transaction of one projector,
//! while another one stands by and sidecars begin.
//!
//! They are more than wait in librdkafka's queue at once, and few enough for a build without optimizations;
//! `PORTCULLIS_TEST_ROWS=1000000 cargo test --release --test kafka_large` takes a million.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

#[path = "kafka_service/rig.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use more of it")]
mod rig;
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portcullis::address::{Address, Range};
use portcullis::log::{Answer, Log, Question, ReadEvent, Reader, Topic};
use portcullis::record::Offset;
use portcullis::table::{ALIVE_KEY, Cause, Fingerprint, Row, RowChange, WATERMARK_KEY, Watermark};
use rig::{Process, Site, WITH_TABLE};
use serde_json::json;
use support::kafka::shared_broker;

/// How many rows there are, unless the environment says otherwise.
const ROWS: u32 = 150_000;
/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(240);

fn row_count() -> u32 {
    let asked = std::env::var("PORTCULLIS_TEST_ROWS").ok();
    asked.map_or(ROWS, |asked| asked.parse().expect("a number of rows"))
}

/// The addresses that are blacklisted, none beside another.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..row_count()).map(|number| Ipv4Addr::from_bits((10 << 24) + 2 * number))
}

/// The rows of commands that blacklist them in this order, as if the first stood at an offset.
fn rows(first: u64) -> impl Iterator<Item = Row> {
    addresses().zip(first..).map(|(address, offset)| Row {
        range: Range::from(Address::from(IpAddr::from(address))),
        cause: Cause { command: Offset::new(offset), expires_at: None },
    })
}

/// What comes to the table from now on, as a reader of committed records sees it.
fn tail(site: &Site) -> Box<dyn Reader> {
    let log = site.log(&WITH_TABLE);
    match log.questioner().ask(Question::Ends(Topic::Table)) {
        Answer::Ends(_, ends) => log.open(Topic::Table, ends.high).expect("it is there"),
        other => panic!("{other:?}"),
    }
}

/// What was written between two watermarks: rows that are put, tombstones, and the watermark behind them.
#[derive(Debug, Default)]
struct Transaction {
    puts: u32,
    tombstones: u32,
    watermark: Option<Watermark>,
}

/// The first transaction that changes rows, and the watermarks before it.
fn next_change(tail: &mut dyn Reader) -> (Transaction, Vec<Watermark>) {
    let (mut next, mut before, began) = (Transaction::default(), Vec::new(), Instant::now());
    let mut changed = None;
    while changed.is_none() {
        assert!(began.elapsed() < LONG, "no rows change: {next:?}");
        let records = match tail.poll(Duration::from_millis(200)) {
            Some(ReadEvent::Records(records)) => records,
            Some(ReadEvent::Failed(reason)) => panic!("{reason}"),
            Some(ReadEvent::End(_)) => {
                assert_eq!(next.puts + next.tombstones, 0, "part of a change is there to be read");
                continue;
            }
            None => continue,
        };
        for record in records {
            match (record.key.as_deref(), record.value) {
                (Some(ALIVE_KEY), _) => {}
                (Some(WATERMARK_KEY), value) => {
                    let watermark = Watermark::decode(value.as_deref()).expect("ours");
                    if next.puts + next.tombstones == 0 {
                        before.push(watermark);
                    } else {
                        changed =
                            Some(Transaction { watermark: Some(watermark), ..std::mem::take(&mut next) });
                    }
                }
                (_, Some(_)) => next.puts += 1,
                (_, None) => next.tombstones += 1,
            }
        }
    }
    (changed.expect("the loop ended"), before)
}

/// Holds a sidecar that has just become ready to having a list that there was.
fn assert_is_one_of(sidecar: &Process, lists: &[(u32, Fingerprint)]) {
    sidecar.wait_ready();
    let status = sidecar.status();
    let is = |(position, fingerprint): &(u32, Fingerprint)| {
        status["position"] == *position && status["fingerprint"] == json!(fingerprint)
    };
    assert!(lists.iter().any(is), "{status:#}\nand not {lists:?}");
}

#[test]
fn many_rows_are_repaired_and_freed_in_one_transaction_each_by_the_one_that_works() {
    let count = row_count();
    let site = Site::begun(shared_broker(), "large");
    let whole = (count, rows(0).collect::<Vec<_>>().iter().collect::<Fingerprint>());
    let bans = addresses().map(|it| (None, format!("BLACKLIST {it}").into_bytes()));
    shared_broker().produce(&site.commands_topic, bans);
    let first = site.projector(&WITH_TABLE, &[]);
    first.wait("all is projected", |status| status["position"] == count);
    let follows = site.sidecar(&WITH_TABLE);
    assert_is_one_of(&follows, &[whole]);

    // Every row is made another one behind the projector's back; the next one notices.
    let foreign = rows(7).map(|row| RowChange::Put(row).encode());
    let foreign = foreign.map(|(key, value)| (Some(key), value.expect("a row")));
    shared_broker().produce(&site.table_topic, foreign);
    let mut tail = tail(&site);
    first.end(Signal::SIGTERM);
    let works = site.projector(&WITH_TABLE, &[]);
    works.wait_role("active");
    let stands_by = site.projector(&WITH_TABLE, &[]);
    let begins = site.sidecar(&WITH_TABLE);
    let (repair, before) = next_change(&mut *tail);
    let watermark = repair.watermark.expect("it ends with one");
    assert_eq!((repair.puts, repair.tombstones), (count, 0));
    assert_eq!((watermark.position.number(), watermark.fingerprint), (u64::from(count), whole.1));
    assert!(
        before.iter().all(|before| before.projector != watermark.projector),
        "the first one's: {before:?}"
    );
    assert_is_one_of(&begins, &[whole]);
    stands_by.wait_role("standby");

    let free = r#"{"v":1,"action":"WHITELIST","range":"0.0.0.0/0","force":true}"#;
    let (status, answer) = follows.post("", free);
    assert_eq!((status, &answer["offset"]), (201, &json!(count)), "{answer}");
    let freed = (count + 1, Fingerprint::default());
    let late = site.sidecar(&WITH_TABLE);
    let (change, _) = next_change(&mut *tail);
    assert_eq!((change.puts, change.tombstones), (0, count));
    let after = change.watermark.expect("it ends with one");
    assert_eq!((after.position.number(), after.rows), (u64::from(count) + 1, 0));
    assert_eq!(after.projector, watermark.projector);
    assert_is_one_of(&late, &[whole, freed]);
    for process in [&works, &follows, &begins, &late, &stands_by] {
        process.wait("it is there", |status| status["position"] == freed.0);
        assert_eq!(process.status()["fingerprint"], json!(freed.1));
    }
    assert_eq!((&works.status()["role"], &stands_by.status()["role"]), (&json!("active"), &json!("standby")));
    assert!(!stands_by.log().contains("role=\"active\""), "{}", stands_by.log());
    assert!(!works.log().contains("took over"), "{}", works.log());
}
