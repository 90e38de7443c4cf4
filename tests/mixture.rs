//! No reader ever sees a mixture of two lists, while one writer publishes as fast as it can.
//!
//! Every snapshot is checked as a whole: each position has one list, and so one checksum over what many lookups
//! say. `.ci/run` runs this once more under ThreadSanitizer.

#![allow(clippy::indexing_slicing, reason = "what is not as expected fails the test")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis::address::{Address, Number, Range};
use portcullis::record::{Position, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Snapshot, Verdict};
use portcullis::view::{Effect, View};

/// How many lists there are; the writer goes through them again and again.
const LISTS: usize = 300;
/// How often it goes through all of them.
const TIMES: usize = 10;

/// Edits of all widths, crowded so that blocks and nodes split, join and become uniform again and again.
fn edits() -> Vec<Effect> {
    let mut random = fastrand::Rng::with_seed(5);
    let mut one = |at: usize| {
        let width = [0, 0, 0, 3, 250, 70_000][random.usize(..6)];
        let range = if at.is_multiple_of(3) {
            let start = 0x2001_0db8 << 96 | u128::from(random.u16(..)) << 64 | u128::from(random.u8(..));
            start.range(start + u128::from(width))
        } else {
            let start = 10 << 24 | random.u32(..1 << 18);
            start.range(start + width)
        };
        match random.u8(..3) {
            0 => Effect::Free(range),
            _ => Effect::Blacklist { range, until: Timestamp::MAX },
        }
    };
    (0..LISTS).map(&mut one).collect()
}

/// What lookups say of the ends of all edits and of the addresses beside them.
fn checksum(snapshot: &Snapshot, addresses: &[Address]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for address in addresses {
        (snapshot.lookup(*address) == Verdict::Blacklisted).hash(&mut hasher);
    }
    hasher.finish()
}

fn range_of(effect: &Effect) -> Range {
    match effect {
        Effect::Blacklist { range, .. } | Effect::Free(range) => *range,
    }
}

#[test]
fn no_reader_ever_sees_a_mixture() {
    let edits = edits();
    let ends = |edit: &Effect| [range_of(edit).start(), range_of(edit).end()].map(Address::from);
    let addresses: Vec<Address> = edits.iter().flat_map(ends).collect();
    // A dense start, so that the edits meet every kind of block, and a first list that each round begins with.
    let dense = (0..5_000_u32).map(|at| (10 << 24) + 3 * at).map(|start| start.range(start));
    let first: Vec<Effect> = dense.map(|range| Effect::Blacklist { range, until: Timestamp::MAX }).collect();
    let mut draft = Draft::new(&View::default(), Timestamp::from_millis(0));
    draft.apply(&first);
    let start = draft.clone();
    let checksums: Vec<u64> = edits
        .iter()
        .map(|edit| {
            draft.apply(std::slice::from_ref(edit));
            checksum(&draft.snapshot(Position::START), &addresses)
        })
        .collect();
    assert!(checksums.windows(2).filter(|pair| pair[0] != pair[1]).count() > LISTS / 2, "the lists differ");

    let (mut publisher, readers) = Publisher::new();
    let (stop, seen) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = readers.reader();
                let mut last = Position::START;
                while !stop.load(Ordering::Relaxed) {
                    let Some(snapshot) = reader.snapshot() else { continue };
                    assert!(snapshot.position() >= last, "positions never go back");
                    last = snapshot.position();
                    let list = (last.number() as usize - 1) % LISTS;
                    assert_eq!(checksum(snapshot, &addresses), checksums[list], "at {last}");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut draft = start.clone();
        for position in 0..LISTS * TIMES {
            if position.is_multiple_of(LISTS) {
                draft = start.clone();
            }
            draft.apply(&edits[position % LISTS..=position % LISTS]);
            publisher.publish(draft.snapshot(Position::new(position as u64 + 1)));
            if position == 0 {
                // Not before the readers are there, else a fast writer is done without them.
                while seen.load(Ordering::Relaxed) < 2 {
                    std::thread::yield_now();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
