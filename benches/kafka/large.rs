//! A million rows that change at once, beside a projector that stands by.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::address::{Address, Range};
use portcullis::log::{Answer, Log, Question, ReadEvent, Reader, Topic};
use portcullis::record::{Offset, Position};
use portcullis::table::{ALIVE_KEY, Cause, Row, RowChange, WATERMARK_KEY};

use crate::cast::{Projecting, Scene, TABLE};
use crate::support::kafka::Broker;
use crate::{ROWS, bans, seconds};

/// How often it is looked whether the table moved.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A table whose rows are all wrong, and one command that frees all of them.
pub(crate) fn large() {
    let scene = Scene::new(Broker::start(), &[]);
    let first = Projecting::start(&scene);
    scene.produce(&bans(ROWS));
    first.wait_for(Position::new(u64::from(ROWS)));
    let works = Projecting::start(&scene);
    works.wait_role("standby");
    scene.broker.produce(TABLE, foreign_rows());
    let mut tail = tail(&scene);
    drop(first);
    works.wait_role("active");
    let began = Instant::now();
    let stands_by = Projecting::start(&scene);
    println!("{ROWS} rows, by a projector beside one that stands by:");
    measure("repaired, from the takeover on", &scene, &mut *tail, began);
    println!("  memory of the projector at most: {}", works.memory());
    stands_by.wait_role("standby");
    let began = Instant::now();
    scene.produce(r#"{"v":1,"action":"WHITELIST","range":"0.0.0.0/0","force":true}"#);
    measure("freed by one command", &scene, &mut *tail, began);
    println!("  memory of the projector at most: {}", works.memory());
    works.wait_role("active");
    stands_by.wait_role("standby");
}

/// The rows of the bans, as if other commands had made them.
fn foreign_rows() -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
    (0..ROWS).map(|number| {
        let address = IpAddr::from(Ipv4Addr::from_bits((10 << 24) + 2 * number));
        let cause = Cause { command: Offset::new(u64::from(number) + 7), expires_at: None };
        let (key, value) = RowChange::Put(Row { range: Range::from(Address::from(address)), cause }).encode();
        (Some(key), value.expect("a row"))
    })
}

fn table_end(scene: &Scene) -> Position {
    match scene.log.questioner().ask(Question::Ends(Topic::Table)) {
        Answer::Ends(_, ends) => ends.high,
        other => panic!("{other:?}"),
    }
}

/// What comes to the table from now on.
fn tail(scene: &Scene) -> Box<dyn Reader> {
    scene.log.open(Topic::Table, table_end(scene)).expect("it is there")
}

/// Waits for the next transaction that changes rows; says what it took, and for how long the table did not
/// move meanwhile, which is what another projector takes for silence.
fn measure(what: &str, scene: &Scene, tail: &mut dyn Reader, began: Instant) {
    let done = AtomicBool::new(false);
    let (changed, still) = thread::scope(|scope| {
        let still = scope.spawn(|| longest_standstill(scene, &done));
        let changed = next_change(tail);
        done.store(true, Ordering::Relaxed);
        (changed, still.join().expect("no panic"))
    });
    let took = seconds(began.elapsed());
    println!("  {what}: {changed} records in {took}, the table stood still for {} at most", seconds(still));
}

/// How many records the next transaction with rows has, but for its watermark.
fn next_change(tail: &mut dyn Reader) -> usize {
    let mut count = 0;
    loop {
        let records = match tail.poll(Duration::from_secs(1)) {
            Some(ReadEvent::Records(records)) => records,
            Some(ReadEvent::Failed(reason)) => panic!("{reason}"),
            Some(ReadEvent::End(_)) | None => Vec::new(),
        };
        for record in records {
            match record.key.as_deref() {
                Some(ALIVE_KEY) => {}
                Some(WATERMARK_KEY) if count > 0 => return count,
                Some(WATERMARK_KEY) => {}
                _ => count += 1,
            }
        }
    }
}

fn longest_standstill(scene: &Scene, done: &AtomicBool) -> Duration {
    let mut questioner = scene.log.questioner();
    let (mut high, mut since, mut longest) = (None, Instant::now(), Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        if let Answer::Ends(_, ends) = questioner.ask(Question::Ends(Topic::Table))
            && high.replace(ends.high) != Some(ends.high)
        {
            since = Instant::now();
        }
        longest = longest.max(since.elapsed());
        thread::sleep(LOOK_INTERVAL);
    }
    longest
}
