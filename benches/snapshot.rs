//! Lookups and publishing beside `rangemap`, over the same ranges in the same run.
//!
//! `cargo bench --bench snapshot`

#![allow(missing_docs, reason = "criterion's macros make public items without docs")]
#![allow(clippy::indexing_slicing, reason = "a bench that is wrong may stop")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::address::{Address, Number, Range};
use portcullis::record::{Offset, Position, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Verdict};
use portcullis::table::{Cause, Row};
use portcullis::view::{Effect, View};
use rangemap::{RangeInclusiveMap, StepLite};

const SIZES: [usize; 2] = [10_000, 1_000_000];
const LOOKUPS: usize = 1_000;

/// Disjoint ranges of mixed width (single addresses, aligned blocks of 256, odd widths), by rising start.
fn ranges<N: Number>(
    count: usize,
    random: impl Fn(&mut fastrand::Rng) -> N,
    nth: impl Fn(N, u32) -> N,
) -> Vec<(N, N)> {
    let mut rng = fastrand::Rng::with_seed(7);
    let starts: BTreeSet<N> = std::iter::repeat_with(|| random(&mut rng)).take(count).collect();
    let ends = starts.iter().skip(1).map(|next| next.previous()).chain([None]);
    let widths = [1, 256, 3, 1, 100];
    let range = |(at, (start, limit)): (usize, (&N, Option<N>))| {
        let end = nth(*start, widths[at % widths.len()] - 1);
        // The gap before the next range keeps neighbours from being joined.
        (*start, limit.and_then(N::previous).map_or(end, |limit| end.min(limit)).max(*start))
    };
    starts.iter().zip(ends).enumerate().map(range).collect()
}

fn view<N: Number>(ranges: &[(N, N)]) -> View {
    let rows = ranges.iter().enumerate().map(|(at, (start, end))| Row {
        range: start.range(*end),
        cause: Cause { command: Offset::new(at as u64), expires_at: None },
    });
    View::from_rows(rows, Position::new(ranges.len() as u64), None, BTreeSet::new())
}

fn benches<N: Number + StepLite>(
    criterion: &mut Criterion,
    family: &str,
    random: fn(&mut fastrand::Rng) -> N,
    nth: fn(N, u32) -> N,
    address: fn(N) -> Address,
) {
    for size in SIZES {
        let ranges = ranges(size, random, nth);
        let view = view(&ranges);
        let draft = Draft::new(&view, Timestamp::from_millis(0));
        // Different values keep rangemap from joining neighbours, as different causes do in the fold.
        let map: RangeInclusiveMap<N, u64> =
            ranges.iter().zip(0..).map(|((start, end), value)| (*start..=*end, value)).collect();
        let mut rng = fastrand::Rng::with_seed(11);
        // Half of what is asked for is in the list.
        let member = |rng: &mut fastrand::Rng| ranges[rng.usize(..ranges.len())].0;
        let asked: Vec<N> =
            (0..1 << 16).map(|at| if at % 2 == 0 { member(&mut rng) } else { random(&mut rng) }).collect();
        lookups(criterion, family, size, &draft, &map, &asked, address);
        publishes(criterion, family, size, draft, &map, &asked, address);
    }
}

fn lookups<N: Number + StepLite>(
    criterion: &mut Criterion,
    family: &str,
    size: usize,
    draft: &Draft,
    map: &RangeInclusiveMap<N, u64>,
    asked: &[N],
    address: fn(N) -> Address,
) {
    let (mut publisher, readers) = Publisher::new();
    publisher.publish(draft.snapshot(Position::START));
    let mut reader = readers.reader();
    let addresses: Vec<Address> = asked.iter().map(|number| address(*number)).collect();
    let mut group = criterion.benchmark_group(format!("lookup {family}"));
    group.throughput(Throughput::Elements(LOOKUPS as u64));
    let mut at = 0;
    group.bench_function(BenchmarkId::new("portcullis", size), |bencher| {
        bencher.iter(|| {
            at = (at + LOOKUPS) % (addresses.len() - LOOKUPS);
            let Some(snapshot) = reader.snapshot() else { return 0 };
            let hit = |address: &&Address| snapshot.lookup(**address) == Verdict::Blacklisted;
            addresses[at..at + LOOKUPS].iter().filter(hit).count()
        });
    });
    group.bench_function(BenchmarkId::new("rangemap", size), |bencher| {
        bencher.iter(|| {
            at = (at + LOOKUPS) % (asked.len() - LOOKUPS);
            asked[at..at + LOOKUPS].iter().filter(|number| map.get(black_box(number)).is_some()).count()
        });
    });
    group.finish();
}

fn publishes<N: Number + StepLite>(
    criterion: &mut Criterion,
    family: &str,
    size: usize,
    mut draft: Draft,
    map: &RangeInclusiveMap<N, u64>,
    asked: &[N],
    address: fn(N) -> Address,
) {
    let (mut publisher, _readers) = Publisher::new();
    let mut group = criterion.benchmark_group(format!("publish one change {family}"));
    let mut at = 0;
    group.bench_function(BenchmarkId::new("portcullis", size), |bencher| {
        bencher.iter(|| {
            at = (at + 1) % asked.len();
            let range = Range::from(address(asked[at]));
            let effect = if at % 2 == 0 {
                Effect::Free(range)
            } else {
                Effect::Blacklist { range, until: Timestamp::MAX }
            };
            draft.apply(&[effect]);
            publisher.publish(draft.snapshot(Position::new(at as u64)));
        });
    });
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("rangemap (clone)", size), |bencher| {
        bencher.iter_batched(|| (), |()| black_box(map.clone()), BatchSize::PerIteration);
    });
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let v4 = |number: u32| Address::from(std::net::IpAddr::V4(Ipv4Addr::from_bits(number)));
    let v6 = |number: u128| Address::from(std::net::IpAddr::V6(Ipv6Addr::from_bits(number)));
    benches(criterion, "IPv4", |rng| rng.u32(..), |start, more| start.saturating_add(more), v4);
    // As in real lists, IPv6 ranges share a few thousand /32s.
    let random = |rng: &mut fastrand::Rng| {
        (0x2001_0000_u128 + u128::from(rng.u32(..4096))) << 96 | u128::from(rng.u64(..)) << 32
    };
    benches(criterion, "IPv6", random, |start, more| start.saturating_add(u128::from(more)), v6);
}

criterion_group! {
    name = snapshot;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(500)).measurement_time(std::time::Duration::from_secs(1));
    targets = all
}
criterion_main!(snapshot);
