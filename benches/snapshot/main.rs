//! Lookups, publishing, memory and building, beside what else one would take, in rounds that take turns.
//!
//! ```text
//! cargo bench --bench snapshot                          all but the lists; some minutes
//! cargo bench --bench snapshot -- lookups publish       these sections only
//! cargo bench --bench snapshot -- lists FOLDER          over published lists that stand there
//! ```
//!
//! Sections: `lookups`, `shapes`, `publish`, `wide`, `growth`, `lists`. Each prints a table in markdown. Ratios
//! are medians over rounds, in each of which all structures had their turn: the machine may be slower in one
//! round than in the next, but seldom within one.

#![allow(clippy::print_stdout, reason = "the tables are what a bench is for")]

#[path = "../support/edited.rs"]
mod edited;
#[path = "../support/input.rs"]
mod input;
mod measure;
mod publishing;
#[allow(dead_code, reason = "each bench uses its own part")]
#[path = "../support/rivals.rs"]
mod rivals;

use std::path::Path;

use self::input::Family;
use self::measure::{isolated_ns, median, quantile, streamed_ns};
use self::rivals::Lookups;

const ROUNDS: usize = 7;
const MILLION: usize = 1_000_000;
/// How many addresses are asked for in a round, one way and the other.
const STREAMED: usize = 1 << 19;
const ISOLATED: usize = 1 << 16;
/// In one /32, as hosting networks are.
const ONE_NETWORK: u128 = 0x2001_0db8 << 96;

/// What the rounds showed of one structure: for each round the streamed lookup and p50, p99, p99.9 of the
/// isolated ones, in nanoseconds.
struct Shown {
    name: &'static str,
    rounds: Vec<[f64; 4]>,
}

/// Lets all structures have their turn in each round. All must give the same answers.
fn rounds(structures: &mut [Box<dyn Lookups>]) -> Vec<Shown> {
    let mut counts = structures.iter_mut().map(|structure| structure.count(0..STREAMED));
    let first = counts.next().expect("a structure");
    assert!(counts.all(|count| count == first), "they disagree about what is blacklisted");
    let mut shown: Vec<Shown> =
        structures.iter().map(|structure| Shown { name: structure.name(), rounds: Vec::new() }).collect();
    for _ in 0..ROUNDS {
        for (structure, shown) in structures.iter_mut().zip(&mut shown) {
            let streamed = streamed_ns(&mut **structure, 0..STREAMED);
            let isolated = isolated_ns(&mut **structure, STREAMED..STREAMED + ISOLATED);
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|at| quantile(&isolated, at));
            shown.rounds.push([streamed, p50, p99, p999]);
        }
    }
    shown
}

/// A row for each structure: medians over the rounds, and how often as fast ours is.
fn print_lookups(title: &str, shown: &[Shown]) {
    println!("\n| {title} | streamed | ours is | isolated p50 | p99 | p99.9 | ours / theirs |");
    println!("|---|---|---|---|---|---|---|");
    let Some(ours) = shown.first() else { return };
    for structure in shown {
        let [streamed, p50, p99, p999] =
            [0, 1, 2, 3].map(|at| median(structure.rounds.iter().filter_map(|round| round.get(at)).copied()));
        let ratio = |at: usize| {
            let pairs = ours.rounds.iter().zip(&structure.rounds);
            median(pairs.filter_map(|(ours, theirs)| Some(ours.get(at)? / theirs.get(at)?)))
        };
        println!(
            "| {} | {streamed:.0} ns | {:.1} × | {p50:.0} ns | {p99:.0} ns | {p999:.0} ns | {:.2} / {:.2} / {:.2} |",
            structure.name,
            1.0 / ratio(0),
            ratio(1),
            ratio(2),
            ratio(3)
        );
    }
}

fn structures<N: Family>(ranges: &[(N, N)], asked: &[N]) -> Vec<Box<dyn Lookups>> {
    vec![
        rivals::ours(&input::view(ranges), asked),
        rivals::rangemap(ranges, asked),
        rivals::sorted(ranges, asked),
        rivals::ip_network_table(ranges, asked),
        rivals::prefix_trie(ranges, asked),
    ]
}

fn lookups() {
    let ranges = input::mixed(MILLION, u32::random);
    let asked = input::asked(&ranges, STREAMED + ISOLATED, u32::random);
    let mut all = structures(&ranges, &asked);
    all.push(rivals::roaring(&ranges, &asked));
    print_lookups("1,000,000 ranges, IPv4", &rounds(&mut all));
    drop(all);
    let ranges = input::mixed(MILLION, u128::random);
    let asked = input::asked(&ranges, STREAMED + ISOLATED, u128::random);
    print_lookups("1,000,000 ranges, IPv6", &rounds(&mut structures(&ranges, &asked)));
    let within = |rng: &mut fastrand::Rng| ONE_NETWORK | rng.u128(..) >> 32;
    let ranges = input::mixed(MILLION, within);
    let asked = input::asked(&ranges, STREAMED + ISOLATED, within);
    let mut beside_rangemap = structures(&ranges, &asked);
    beside_rangemap.truncate(3);
    print_lookups("1,000,000 ranges in one /32, IPv6", &rounds(&mut beside_rangemap));
}

/// Lists that are as awkward as a list can be.
fn shapes() {
    let shapes = [
        ("all odd addresses of a /8", input::odd_addresses()),
        ("one range in each /16", input::one_in_each_16()),
        ("everything", vec![(0, u32::MAX)]),
        ("nothing", vec![]),
    ];
    for (title, ranges) in shapes {
        let asked = input::asked(&ranges, STREAMED + ISOLATED, u32::random);
        let mut all = vec![
            rivals::ours(&input::view(&ranges), &asked),
            rivals::rangemap(&ranges, &asked),
            rivals::sorted(&ranges, &asked),
        ];
        print_lookups(title, &rounds(&mut all));
    }
}

fn lists(folder: &Path) {
    fn one<N: Family>(path: &Path) {
        let ranges = input::list::<N>(path);
        let asked = input::asked(&ranges, STREAMED + ISOLATED, N::random);
        if !ranges.is_empty() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let title = format!("{name}, {} ranges, {}", ranges.len(), N::NAME);
            print_lookups(&title, &rounds(&mut structures(&ranges, &asked)));
        }
    }
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder of lists")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension != "md"))
        .collect();
    paths.sort();
    for path in paths {
        one::<u32>(&path);
        one::<u128>(&path);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [section, family, ranges] = arguments.as_slice()
        && section == "memory"
    {
        return publishing::memory(family, ranges);
    }
    let named = |section: &str| arguments.iter().any(|argument| argument == section);
    let wanted = |section: &str| arguments.is_empty() || named(section);
    if wanted("lookups") {
        lookups();
    }
    if wanted("shapes") {
        shapes();
    }
    if wanted("publish") {
        publishing::publish();
    }
    if wanted("wide") {
        publishing::wide();
    }
    if wanted("growth") {
        publishing::growth();
    }
    if named("lists") {
        lists(Path::new(arguments.last().expect("a folder behind `lists`")));
    }
}
