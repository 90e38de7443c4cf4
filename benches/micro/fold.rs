//! Folding a command that blacklists or frees one address, in a view of a million rows. Beside it the bare
//! edit of a map, which is a part of it: ours also decodes the command, hashes the record, keeps the
//! fingerprint and tells what changed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion};
use portcullis::record::{Offset, Record, Timestamp};
use portcullis::view::View;
use rangemap::RangeInclusiveMap;

use super::MILLION;
use super::input::{self, Family};

/// How many addresses are blacklisted one after the other, then freed again, so that the list stays as it is.
const EDITED: usize = 20_000;

/// An address that is free at first, and the commands about it.
struct Edit {
    address: u32,
    blacklist: Record,
    whitelist: Record,
}

impl Edit {
    fn new(address: u32) -> Self {
        let record = |action: &str| Record {
            offset: Offset::new(0),
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: Some(format!("{action} {}", Ipv4Addr::from_bits(address)).into_bytes()),
        };
        Self { address, blacklist: record("BLACKLIST"), whitelist: record("WHITELIST") }
    }
}

/// What can be edited, an address at a time.
trait Edits {
    fn blacklist(&mut self, edit: &mut Edit);
    fn whitelist(&mut self, edit: &mut Edit);
}

impl Edits for View {
    fn blacklist(&mut self, edit: &mut Edit) {
        apply(self, &mut edit.blacklist);
    }

    fn whitelist(&mut self, edit: &mut Edit) {
        apply(self, &mut edit.whitelist);
    }
}

/// Folds the record, at the place that is next.
fn apply(view: &mut View, record: &mut Record) {
    record.offset = Offset::new(view.position().number());
    let applied = view.apply(record).expect("a command of this release");
    assert_eq!(applied.addresses_changed, 1, "{record:?}");
}

impl Edits for RangeInclusiveMap<u32, usize> {
    fn blacklist(&mut self, edit: &mut Edit) {
        self.insert(edit.address..=edit.address, MILLION);
    }

    fn whitelist(&mut self, edit: &mut Edit) {
        self.remove(edit.address..=edit.address);
    }
}

/// From start to end. That the address is in no range is not looked up, so that this is the floor.
impl Edits for BTreeMap<u32, u32> {
    fn blacklist(&mut self, edit: &mut Edit) {
        self.insert(edit.address, edit.address);
    }

    fn whitelist(&mut self, edit: &mut Edit) {
        self.remove(&edit.address);
    }
}

type Build = fn(&[(u32, u32)]) -> Box<dyn Edits>;

pub(super) fn fold(criterion: &mut Criterion) {
    let ranges = input::mixed(MILLION, u32::random);
    let mut edits = edits(&ranges);
    let structures: [(&str, Build); 3] = [
        ("portcullis", |ranges| Box::new(input::view(ranges))),
        ("rangemap", |ranges| Box::new(causes(ranges))),
        ("BTreeMap", |ranges| Box::new(ranges.iter().copied().collect::<BTreeMap<_, _>>())),
    ];
    for (name, build) in structures {
        let mut built = None;
        for action in ["BLACKLIST", "WHITELIST"] {
            let mut group = criterion.benchmark_group(format!("fold/{action}"));
            group.bench_function(name, |bencher| {
                let list = built.get_or_insert_with(|| build(&ranges));
                time(bencher, action, &mut **list, &mut edits);
            });
        }
    }
}

/// The ranges, each with a cause of its own.
pub(super) fn causes<N: Family>(ranges: &[(N, N)]) -> RangeInclusiveMap<N, usize> {
    ranges.iter().enumerate().map(|(at, (start, end))| (*start..=*end, at)).collect()
}

/// Of random addresses that are in no range, each once.
fn edits(ranges: &[(u32, u32)]) -> Vec<Edit> {
    let mut rng = fastrand::Rng::with_seed(13);
    let is_free = |address: &u32| {
        let after = ranges.partition_point(|range| range.0 <= *address);
        after.checked_sub(1).and_then(|at| ranges.get(at)).is_none_or(|range| range.1 < *address)
    };
    let mut addresses: Vec<u32> = (0..EDITED).map(|_| rng.u32(..)).filter(is_free).collect();
    addresses.sort_unstable();
    addresses.dedup();
    rng.shuffle(&mut addresses);
    addresses.into_iter().map(Edit::new).collect()
}

/// Takes the time of one of the two actions, though both are done.
fn time(bencher: &mut Bencher<'_>, action: &str, list: &mut dyn Edits, edits: &mut [Edit]) {
    bencher.iter_custom(|count| {
        let (mut left, mut took) = (count as usize, Duration::ZERO);
        while left > 0 {
            let edited = left.min(edits.len());
            let begun = Instant::now();
            edits.iter_mut().take(edited).for_each(|edit| list.blacklist(edit));
            let blacklisted = begun.elapsed();
            let begun = Instant::now();
            edits.iter_mut().take(edited).for_each(|edit| list.whitelist(edit));
            took += if action == "BLACKLIST" { blacklisted } else { begun.elapsed() };
            left -= edited;
        }
        took
    });
}
