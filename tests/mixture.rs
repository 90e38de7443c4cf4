//! No reader ever sees a mixture of two lists, while one writer publishes as fast as it can.
//!
//! Every snapshot is checked as a whole: each position has one list, and so one checksum over what many lookups
//! say. `.ci/run` runs this once more under ThreadSanitizer.

#![allow(clippy::indexing_slicing, reason = "what is not as expected fails the test")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis::address::{Address, Number, Range};
use portcullis::record::{Position, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Reader, Snapshot, Verdict};
use portcullis::view::{Effect, View};

/// How many lists there are; the writer goes through them again and again.
const LISTS: usize = 300;
/// How often it goes through all of them.
const TIMES: usize = 10;
/// How long the readers may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

fn blacklist(range: Range) -> Effect {
    Effect::Blacklist { range, until: Timestamp::MAX }
}

/// A draft dense enough that blocks of all kinds and branches over several leaves are there from the start.
fn start() -> Draft {
    let mut draft = Draft::new(&View::default(), Timestamp::from_millis(0));
    let v4 = (0..5_000).map(|at: u32| (10 << 24) + 3 * at).map(|start| start.range(start));
    let v6 = (0..20_000).map(|at: u128| network() + (at << 60)).map(|start| start.range(start));
    draft.apply(&v4.chain(v6).map(blacklist).collect::<Vec<_>>());
    draft
}

const fn network() -> u128 {
    0x2001_0db8 << 96
}

/// Edits of all widths, crowded so that blocks and nodes split, join and become uniform again and again.
fn edits() -> Vec<Effect> {
    let mut random = fastrand::Rng::with_seed(5);
    let mut one = |at: usize| {
        let range = if at.is_multiple_of(2) {
            let start = network() + (random.u128(..20_000) << 60);
            let width = *random.choice(&[0, 1 << 60, 1 << 68, 1 << 74]).unwrap_or(&0);
            start.range(start + width)
        } else {
            let start = (10 << 24) + random.u32(..1 << 18);
            let width = *random.choice(&[0, 0, 3, 250, 70_000]).unwrap_or(&0);
            start.range(start + width)
        };
        if random.u8(..3) == 0 { Effect::Free(range) } else { blacklist(range) }
    };
    (0..LISTS).map(&mut one).collect()
}

/// The ends of all edits.
fn asked(edits: &[Effect]) -> Vec<Address> {
    let ends = |edit: &Effect| match edit {
        Effect::Blacklist { range, .. } | Effect::Free(range) => [range.start(), range.end()],
    };
    edits.iter().flat_map(ends).map(Address::from).collect()
}

/// What lookups say.
fn checksum(snapshot: &Snapshot, addresses: &[Address]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for address in addresses {
        (snapshot.lookup(*address) == Verdict::Blacklisted).hash(&mut hasher);
    }
    hasher.finish()
}

/// What a reader checks until it is told to stop.
struct Check {
    addresses: Vec<Address>,
    checksums: Vec<u64>,
    stop: AtomicBool,
    snapshots_seen: AtomicUsize,
}

impl Check {
    fn read(&self, mut reader: Reader) {
        let mut last = Position::START;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(snapshot) = reader.snapshot() else { continue };
            assert!(snapshot.position() >= last, "positions never go back");
            last = snapshot.position();
            let list = (last.number() as usize - 1) % LISTS;
            assert_eq!(checksum(snapshot, &self.addresses), self.checksums[list], "at {last}");
            self.snapshots_seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Publishes all lists, `TIMES` over, once the readers are there.
    fn publish(&self, mut publisher: Publisher, edits: &[Effect]) {
        let (start, begun) = (start(), Instant::now());
        let mut draft = start.clone();
        for position in 0..LISTS * TIMES {
            if position.is_multiple_of(LISTS) {
                draft = start.clone();
            }
            draft.apply(&edits[position % LISTS..=position % LISTS]);
            publisher.publish(draft.snapshot(Position::new(position as u64 + 1)));
            while self.snapshots_seen.load(Ordering::Relaxed) == 0 && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn no_reader_ever_sees_a_mixture() {
    let edits = edits();
    let (addresses, mut draft) = (asked(&edits), start());
    let mut checksum_after = |edit: &Effect| {
        draft.apply(std::slice::from_ref(edit));
        checksum(&draft.snapshot(Position::START), &addresses)
    };
    let checksums: Vec<u64> = edits.iter().map(&mut checksum_after).collect();
    assert!(checksums.windows(2).filter(|pair| pair[0] != pair[1]).count() > LISTS / 2, "the lists differ");

    let (publisher, readers) = Publisher::new();
    let (stop, snapshots_seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let check = Check { addresses, checksums, stop, snapshots_seen };
    std::thread::scope(|scope| {
        let reading = [readers.reader(), readers.reader()].map(|reader| scope.spawn(|| check.read(reader)));
        let writing = scope.spawn(|| check.publish(publisher, &edits));
        let written = writing.join();
        check.stop.store(true, Ordering::Relaxed);
        assert!(written.is_ok() && reading.into_iter().all(|reading| reading.join().is_ok()));
    });
    assert!(check.snapshots_seen.load(Ordering::Relaxed) > 0, "the readers saw something");
}
