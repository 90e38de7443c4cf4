//! One change of a million ranges, until readers could see it: ours shares what did not change, all others
//! are copied, because their readers must not see a half-made change either.

use criterion::BatchSize::PerIteration;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use ipnet::IpNet;
use portcullis::address::Number;

use super::edited::Edited;
use super::input::{self, Family};
use super::{MILLION, rivals};

/// How many addresses change in turn: more than a run gets to, because a second time would change nothing.
const CHANGED: usize = 1 << 20;

pub(super) fn publish(criterion: &mut Criterion) {
    let ranges = publish_of::<u32>(criterion);
    publish_of::<u128>(criterion);
    let mut group = criterion.benchmark_group("publish/IPv4");
    copied(&mut group, "roaring", &ranges, rivals::bitmap, |bitmap, number| {
        bitmap.insert(number);
        bitmap.clone()
    });
    let prefix_set = |ranges: &[_]| rivals::prefix_set(ranges, rivals::v4);
    copied(&mut group, "prefix-trie", &ranges, prefix_set, |set, number| {
        set.insert(rivals::v4(IpNet::from(number.ip())).expect("an IPv4 address"));
        set.clone()
    });
}

/// What takes either family; the ranges, for what does not.
fn publish_of<N: Family>(criterion: &mut Criterion) -> Vec<(N, N)> {
    let ranges = input::mixed(MILLION, N::random);
    let mut group = criterion.benchmark_group(format!("publish/{}", N::NAME));
    let mut built = None;
    group.bench_function("portcullis", |bencher| {
        let edited = || Edited::new(&ranges, input::asked(&ranges, CHANGED, N::random));
        let edited = built.get_or_insert_with(edited);
        bencher.iter(|| edited.publish_one());
    });
    copied(&mut group, "rangemap", &ranges, rivals::range_set, |set, number| {
        set.insert(number..=number);
        set.clone()
    });
    // Where the address goes is found, whether it is in a range already is not asked.
    copied(&mut group, "sorted Vec", &ranges, <[_]>::to_vec, |ranges, number| {
        let (before, after) = ranges.split_at(ranges.partition_point(|range| range.0 <= number));
        [before, &[(number, number)], after].concat()
    });
    ranges
}

/// Publishing without sharing: the structure takes one more address and is copied. What freeing the copy
/// before takes is left out.
fn copied<N: Family, T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    ranges: &[(N, N)],
    build: impl Fn(&[(N, N)]) -> T,
    change: impl Fn(&mut T, N) -> T,
) {
    let mut built = None;
    group.bench_function(name, |bencher| {
        let structure = built.get_or_insert_with(|| build(ranges));
        let mut rng = fastrand::Rng::with_seed(13);
        bencher.iter_batched(|| N::random(&mut rng), |number| change(structure, number), PerIteration);
    });
}
