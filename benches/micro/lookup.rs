//! One lookup among many that do not wait for each other, by the size of the list.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

use super::MILLION;
use super::input::{self, Family};
use super::rivals::{self, Lookups};

/// How many addresses are asked for in turn: so many that what they lead to is in no small cache.
const ASKED: usize = 1 << 18;

type Build<N> = fn(&[(N, N)], &[N]) -> Box<dyn Lookups>;

pub(super) fn lookup(criterion: &mut Criterion) {
    for count in [10_000, MILLION] {
        let mut of_ipv4 = structures::<u32>();
        of_ipv4.push(("roaring", rivals::roaring));
        lookup_of(criterion, count, &of_ipv4);
        lookup_of(criterion, count, &structures::<u128>());
    }
}

fn structures<N: Family>() -> Vec<(&'static str, Build<N>)> {
    vec![
        ("portcullis", |ranges, asked| rivals::ours(&input::view(ranges), asked)),
        ("rangemap", rivals::rangemap),
        ("sorted Vec", rivals::sorted),
        ("ip_network_table", rivals::ip_network_table),
        ("prefix-trie", rivals::prefix_trie),
    ]
}

fn lookup_of<N: Family>(criterion: &mut Criterion, count: usize, structures: &[(&str, Build<N>)]) {
    let ranges = input::mixed(count, N::random);
    let asked = input::asked(&ranges, ASKED, N::random);
    let mut group = criterion.benchmark_group(format!("lookup/{}/{count}", N::NAME));
    for (name, build) in structures {
        // Built when it is wanted, because one that is filtered out need not be.
        let mut built = None;
        group.bench_function(*name, |bencher| {
            let structure = built.get_or_insert_with(|| build(&ranges, &asked));
            bencher.iter_custom(|lookups| streamed(&mut **structure, lookups));
        });
    }
}

/// So many lookups, in as many rounds over all addresses as that takes.
fn streamed(structure: &mut dyn Lookups, lookups: u64) -> Duration {
    let (mut left, begun) = (lookups as usize, Instant::now());
    while left > 0 {
        let asked = left.min(ASKED);
        black_box(structure.count(0..asked));
        left -= asked;
    }
    begun.elapsed()
}
