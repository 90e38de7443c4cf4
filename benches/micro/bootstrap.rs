//! What a start makes of a million rows, in their order: first the view, which knows the cause of each, then
//! what lookups are answered from.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::Criterion;
use criterion::measurement::WallTime;
use criterion::{BatchSize::PerIteration, BenchmarkGroup};
use portcullis::record::Timestamp;
use portcullis::snapshot::Draft;

use super::input::{self, Family};
use super::{MILLION, fold, rivals};

pub(super) fn bootstrap(criterion: &mut Criterion) {
    bootstrap_of::<u32>(criterion);
    bootstrap_of::<u128>(criterion);
    let ranges = input::mixed(MILLION, u32::random);
    let mut group = criterion.benchmark_group("bootstrap/snapshot/IPv4");
    made(&mut group, "roaring", || rivals::bitmap(&ranges));
}

fn bootstrap_of<N: Family>(criterion: &mut Criterion) {
    let ranges = input::mixed(MILLION, N::random);
    let mut group = criterion.benchmark_group(format!("bootstrap/view/{}", N::NAME));
    made(&mut group, "portcullis", || input::view(&ranges));
    made(&mut group, "rangemap", || fold::causes(&ranges));
    made(&mut group, "BTreeMap", || ranges.iter().copied().collect::<BTreeMap<N, N>>());
    group.finish();
    let mut group = criterion.benchmark_group(format!("bootstrap/snapshot/{}", N::NAME));
    let view = input::view(&ranges);
    made(&mut group, "portcullis", || Draft::new(&view, Timestamp::from_millis(0)));
    made(&mut group, "rangemap", || rivals::range_set(&ranges));
    // They are in order: that is seen, and they are copied.
    made(&mut group, "sorted Vec", || {
        let mut sorted = ranges.clone();
        sorted.sort_unstable();
        sorted
    });
}

/// Times how it is made, not how it is freed.
fn made<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, make: impl Fn() -> T) {
    group.bench_function(name, |bencher| {
        bencher.iter_batched(|| (), |()| black_box(make()), PerIteration);
    });
}
