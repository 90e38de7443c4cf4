//! What edits cost: to publish one, until another core sees it, and one that frees a million ranges; and what
//! all of it costs as a list grows.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use portcullis::record::{Offset, Position, Record, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Verdict};
use portcullis::view::View;

use super::edited::Edited;
use super::input::{self, Family};
use super::measure::{median, nanos, quantile, resident_bytes};
use super::{MILLION, ONE_NETWORK, ROUNDS, rivals};

/// How many edits are published in a round.
const EDITS: usize = 20_000;
/// How many lookups are made in a round of the growing lists.
const LOOKUPS: usize = 1 << 18;
/// A copy of a small list is lost in what the process takes besides; so as many are made as take this much.
const COPIES_BYTES: f64 = 64e6;

impl<N: Family> Edited<N> {
    /// p50, p99 and p99.9 of publishing one change, in microseconds.
    fn publish_us(&mut self) -> [f64; 3] {
        let one = |_| {
            let begun = Instant::now();
            self.publish_one();
            nanos(begun.elapsed())
        };
        let mut took: Vec<f64> = (0..EDITS).map(one).collect();
        took.sort_by(f64::total_cmp);
        [0.5, 0.99, 0.999].map(|at| quantile(&took, at) / 1e3)
    }

    fn lookup_ns(&mut self) -> f64 {
        let mut reader = self.readers.reader();
        let begun = Instant::now();
        let blacklisted = self.asked.iter().filter(|number| {
            reader
                .snapshot()
                .is_some_and(|snapshot| snapshot.lookup(number.address()) == Verdict::Blacklisted)
        });
        black_box(blacklisted.count());
        nanos(begun.elapsed()) / self.asked.len() as f64
    }

    /// p50 and p99 from the call that publishes until another thread's reader shows the change, in
    /// microseconds.
    fn visible_us(&mut self) -> [f64; 2] {
        const SEEN_LAST: u64 = u64::MAX;
        let (epoch, seen) = (Instant::now(), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let (mut reader, theirs) = (self.readers.reader(), Arc::clone(&seen));
        let watcher = std::thread::spawn(move || {
            let [position_seen, at_ns] = &*theirs;
            let mut last = 0;
            while last != SEEN_LAST {
                let position = reader.snapshot().map_or(0, |snapshot| snapshot.position().number());
                if position != last {
                    at_ns.store(epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    position_seen.store(position, Ordering::Release);
                    last = position;
                }
            }
        });
        let [position_seen, at_ns] = &*seen;
        let wait_for = |position: u64| {
            while position_seen.load(Ordering::Acquire) != position {
                std::hint::spin_loop();
            }
        };
        let mut took: Vec<f64> = Vec::with_capacity(EDITS);
        for _ in 0..EDITS {
            let begun_ns = epoch.elapsed().as_nanos() as u64;
            self.publish_one();
            wait_for(self.next as u64);
            took.push(at_ns.load(Ordering::Relaxed).saturating_sub(begun_ns) as f64);
        }
        self.publisher.publish(self.draft.snapshot(Position::new(SEEN_LAST)));
        watcher.join().expect("the watcher ends");
        took.sort_by(f64::total_cmp);
        [0.5, 0.99].map(|at| quantile(&took, at) / 1e3)
    }
}

/// A row for each kind of million, beside copies of what else one would publish whole.
pub(super) fn publish() {
    println!(
        "\n| publish one change of 1,000,000 ranges | p50 | p99 | p99.9 | seen on another core, p50 | p99 |"
    );
    println!("|---|---|---|---|---|---|");
    publish_of("IPv4", &input::mixed(MILLION, u32::random), u32::random);
    publish_of("IPv6", &input::mixed(MILLION, u128::random), u128::random);
    let within = |rng: &mut fastrand::Rng| ONE_NETWORK | rng.u128(..) >> 32;
    publish_of("IPv6, in one /32", &input::mixed(MILLION, within), within);
    publish_of("IPv4, all odd addresses of a /8", &input::odd_addresses(), |rng| {
        10 << 24 | rng.u32(..1 << 24)
    });
    copies(&input::mixed(MILLION, u32::random));
}

fn publish_of<N: Family>(name: &str, ranges: &[(N, N)], random: impl Fn(&mut fastrand::Rng) -> N) {
    let mut edited = Edited::new(ranges, input::asked(ranges, LOOKUPS, random));
    edited.publish_us();
    let (mut rounds, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rounds.push(edited.publish_us());
        seen.push(edited.visible_us());
    }
    let [p50, p99, p999] =
        [0, 1, 2].map(|at| median(rounds.iter().filter_map(|round| round.get(at)).copied()));
    let [seen_p50, seen_p99] =
        [0, 1].map(|at| median(seen.iter().filter_map(|round| round.get(at)).copied()));
    println!("| {name} | {p50:.1} µs | {p99:.1} µs | {p999:.0} µs | {seen_p50:.1} µs | {seen_p99:.1} µs |");
}

/// Publishing with a structure that shares nothing is to copy it.
fn copies<N: Family>(ranges: &[(N, N)]) {
    fn copy_us<T: Clone>(structure: &T) -> f64 {
        median((0..ROUNDS).map(|_| {
            let begun = Instant::now();
            black_box(structure.clone());
            nanos(begun.elapsed()) / 1e3
        }))
    }
    println!("| `rangemap`, {}: a copy | {:.0} µs | | | | |", N::NAME, copy_us(&rivals::range_set(ranges)));
    println!("| sorted `Vec`, {}: a copy | {:.0} µs | | | | |", N::NAME, copy_us(&ranges.to_vec()));
}

/// One command that frees a /8 with a million ranges in it.
pub(super) fn wide() {
    // Their widest end in it, too.
    let random = |rng: &mut fastrand::Rng| 10 << 24 | rng.u32(..(1 << 24) - 256);
    let ranges: Vec<(u32, u32)> = input::mixed(MILLION + MILLION / 30, random);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut view = input::view(&ranges);
        let mut draft = Draft::new(&view, Timestamp::from_millis(0));
        let (mut publisher, _readers) = Publisher::new();
        publisher.publish(draft.snapshot(view.position()));
        let command = Record {
            offset: Offset::new(view.position().number()),
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: Some(b"WHITELIST 10.0.0.0/8".to_vec()),
        };
        let begun = Instant::now();
        let applied = view.apply(&command).expect("a command of this release");
        let folded = nanos(begun.elapsed());
        let begun = Instant::now();
        draft.apply(&applied.effects);
        publisher.publish(draft.snapshot(view.position()));
        rounds.push([folded / applied.rows_changed as f64, nanos(begun.elapsed()) / 1e6]);
        assert_eq!(view.blacklist().row_counts().total(), 0, "all of them are in the /8");
    }
    let [fold_ns, publish_ms] =
        [0, 1].map(|at| median(rounds.iter().filter_map(|round| round.get(at)).copied()));
    println!("\n| a /8 over {} ranges | fold, a row removed | publish |\n|---|---|---|", ranges.len());
    println!("| WHITELIST 10.0.0.0/8 | {fold_ns:.0} ns | {publish_ms:.2} ms |");
}

/// What a list of a size takes, in one round or at all.
struct Size<N> {
    edited: Edited<N>,
    ranges: usize,
    build_ms: f64,
    bytes_a_range: f64,
    rounds: Vec<[f64; 3]>,
}

impl<N: Family> Size<N> {
    fn new(count: usize) -> Self {
        let ranges = input::mixed(count, N::random);
        let view = input::view(&ranges);
        let build_ms = median((0..3).map(|_| {
            let begun = Instant::now();
            black_box(Draft::new(&view, Timestamp::from_millis(0)));
            nanos(begun.elapsed()) / 1e6
        }));
        let bytes_a_range = bytes_in_a_process::<N>(count) / count as f64;
        Self {
            edited: Edited::new(&ranges, input::asked(&ranges, LOOKUPS, N::random)),
            ranges: count,
            build_ms,
            bytes_a_range,
            rounds: Vec::new(),
        }
    }

    fn round(&mut self) {
        let [p50, p99, _] = self.edited.publish_us();
        self.rounds.push([self.edited.lookup_ns(), p50, p99]);
    }
}

/// The memory that one more draft of so many ranges takes, found out by a process of its own: this one would
/// use again what it has freed.
fn bytes_in_a_process<N: Family>(ranges: usize) -> f64 {
    let bench = std::env::current_exe().expect("the bench knows itself");
    let output = Command::new(bench).args(["memory", N::NAME, &ranges.to_string()]).output();
    let text = String::from_utf8(output.expect("it runs again").stdout).expect("a number");
    text.trim().parse().expect("a number")
}

/// What that process prints.
pub(super) fn memory(family: &str, ranges: &str) {
    let ranges = ranges.parse().expect("a number of ranges");
    let bytes = match family {
        "IPv4" => draft_bytes(&input::view(&input::mixed(ranges, u32::random)), ranges),
        _ => draft_bytes(&input::view(&input::mixed(ranges, u128::random)), ranges),
    };
    println!("{bytes}");
}

/// The memory that one more draft of a view takes.
fn draft_bytes(view: &View, ranges: usize) -> f64 {
    let copies = (COPIES_BYTES / (8.0 * ranges as f64)).ceil() as usize;
    let draft = || Draft::new(view, Timestamp::from_millis(0));
    let warm = draft();
    let before = resident_bytes();
    let drafts: Vec<Draft> = std::iter::repeat_with(draft).take(copies).collect();
    let bytes = (resident_bytes() - before) / copies as f64;
    drop((warm, drafts));
    bytes
}

/// A row for each size of list.
pub(super) fn growth() {
    println!("\n| ranges | lookup | publish p50 | p99 | memory | build |\n|---|---|---|---|---|---|");
    growth_of::<u32>();
    growth_of::<u128>();
}

fn growth_of<N: Family>() {
    let mut sizes: Vec<Size<N>> =
        [10_000, 100_000, MILLION, 8 * MILLION].into_iter().map(Size::new).collect();
    for _ in 0..=ROUNDS {
        sizes.iter_mut().for_each(Size::round);
    }
    for size in &sizes {
        // The first round only warms up.
        let at = |at: usize| median(size.rounds.iter().skip(1).filter_map(|round| round.get(at)).copied());
        println!(
            "| {} {} | {:.0} ns | {:.2} µs | {:.2} µs | {:.1} bytes a range | {:.1} ms |",
            size.ranges,
            N::NAME,
            at(0),
            at(1),
            at(2),
            size.bytes_a_range,
            size.build_ms
        );
    }
}
