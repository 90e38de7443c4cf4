//! Reading what people and programs send: addresses, prefixes, commands.

use std::net::IpAddr;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use ipnet::IpNet;
use portcullis::address::{Address, Number, Range};
use portcullis::command::{Action, Command};

use super::input::{self, Family};

/// How many different texts are read in turn: more than the processor learns by heart.
const TEXTS: usize = 1_000;

pub(super) fn parse(criterion: &mut Criterion) {
    address::<u32>(criterion);
    address::<u128>(criterion);
    prefix(criterion);
    command(criterion);
}

fn numbers<N: Family>() -> Vec<N> {
    input::asked(&[], 2 * TEXTS, N::random).into_iter().skip(1).step_by(2).collect()
}

fn address<N: Family>(criterion: &mut Criterion) {
    let texts: Vec<String> = numbers::<N>().into_iter().map(|number| number.address().to_string()).collect();
    let mut group = criterion.benchmark_group(format!("parse/{}", N::NAME));
    each(&mut group, "portcullis", &texts, |text| text.parse::<Address>());
    each(&mut group, "std", &texts, |text| text.parse::<IpAddr>());
}

/// Theirs takes host bits and leading zeros, too; ours refuses them.
fn prefix(criterion: &mut Criterion) {
    let texts: Vec<String> = prefixes().iter().map(Range::to_string).collect();
    let mut group = criterion.benchmark_group("parse/prefix");
    each(&mut group, "portcullis", &texts, |text| text.parse::<Range>());
    each(&mut group, "ipnet", &texts, |text| text.parse::<IpNet>());
}

/// A /24 around each address.
fn prefixes() -> Vec<Range> {
    let prefix = |number: u32| (number & !0xff).range(number | 0xff);
    numbers::<u32>().into_iter().map(prefix).collect()
}

fn command(criterion: &mut Criterion) {
    let commands: Vec<Command> = prefixes().into_iter().zip(0..).map(|(range, at)| full(range, at)).collect();
    let texts: Vec<String> = prefixes().iter().map(|range| format!("BLACKLIST {range}")).collect();
    let json: Vec<String> = commands.iter().map(Command::encode).collect();
    let decode = |text: &String| Command::decode(text.as_bytes());
    each(&mut criterion.benchmark_group("parse/command/text"), "portcullis", &texts, decode);
    let mut group = criterion.benchmark_group("parse/command/JSON");
    each(&mut group, "portcullis", &json, decode);
    // What it holds is still to be looked at, then.
    each(&mut group, "serde_json::Value", &json, |text| serde_json::from_str::<serde_json::Value>(text));
}

/// A command as the service writes it.
fn full(range: Range, at: u32) -> Command {
    Command {
        id: Some(format!("01J9ZZZZZZZZZZZZZZZZZZ{at:04}").parse().expect("a short id")),
        reason: Some("bot farm".to_owned()),
        by: Some("alice".to_owned()),
        ..Command::new(Action::Blacklist { expires_at: None }, range)
    }
}

/// Reads one text after the other, and each again once all were read.
fn each<R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    texts: &[String],
    read: impl Fn(&String) -> R,
) {
    group.bench_function(name, |bencher| {
        let mut texts = texts.iter().cycle();
        bencher.iter(|| texts.next().map(&read));
    });
}
