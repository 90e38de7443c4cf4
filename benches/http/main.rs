//! Lookups over HTTP beside what else answers such a question, all as processes of their own on this machine.
//!
//! `cargo bench --bench http` measures everything in about five minutes; behind `--`, any of `closed1`,
//! `closed8`, `open` and `updates` measure only that, and `--rounds` says how often. What it prints is also
//! in `bench/http.md` in the target directory, with a picture beside it.

#![allow(clippy::print_stdout, reason = "the tables are what a bench is for")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a bench ends where it goes wrong")]

mod chart;
mod client;
mod commands;
mod cores;
mod dialect;
mod goals;
mod list;
mod machine;
mod peers;
mod process;
mod report;
mod rounds;
mod scenarios;

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::unistd::Pid;

use cores::Cores;
use list::List;
use peers::Peer;
use report::Report;
use scenarios::Plan;

/// Ranges of the list.
const RANGES: u32 = 100_000;

/// Measures lookups over HTTP, and what else answers such a question.
#[derive(Parser)]
struct Args {
    /// What is measured; everything if nothing is named
    scenarios: Vec<Scenario>,
    /// How often everybody has a turn
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long a turn is; those of `open` and `updates` are twice as long
    #[arg(long, default_value_t = 500)]
    turn_ms: u64,
    /// Questions a second of `open`
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Scenario {
    Closed1,
    Closed8,
    Open,
    Updates,
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == process::LAUNCH => process::launch(args),
        Some(first) if first == peers::floors::SERVE => peers::floors::serve(args),
        _ => bench(&Args::parse()),
    }
}

fn bench(args: &Args) {
    let (machine, cores) = (machine::describe(), Cores::find());
    cores::bind(Pid::from_raw(0), cores.client);
    let (peers, absent) = peers::start(&List::mixed(RANGES), cores.server);
    let report = measure(args, machine, &peers, absent);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&folder).expect("the target directory is ours");
    let text = report.markdown();
    println!("{text}");
    fs::write(folder.join("http.md"), text).expect("the folder is ours");
    if let Some(picture) = chart::draw(&report) {
        fs::write(folder.join("http.svg"), picture).expect("the folder is ours");
    }
    println!("In {}: http.md, http.svg", folder.display());
}

fn measure(args: &Args, machine: String, peers: &[Peer], mut absent: Vec<String>) -> Report {
    let turn = Duration::from_millis(args.turn_ms);
    let plan = Plan { rounds: args.rounds, turn, rate: args.rate };
    let asked = |scenario| args.scenarios.is_empty() || args.scenarios.contains(&scenario);
    let servers = scenarios::servers(peers);
    let mut parts = Vec::new();
    if asked(Scenario::Closed1) {
        parts.push(scenarios::closed_one(plan, &servers));
    }
    if asked(Scenario::Closed8) {
        parts.push(scenarios::closed_many(plan, &servers));
    }
    if asked(Scenario::Open) {
        let (part, unable) = scenarios::open(plan, &servers);
        parts.push(part);
        absent.extend(unable);
    }
    // The last one, because from then on our list is another one.
    let updates = asked(Scenario::Updates).then(|| scenarios::updates(plan, peers));
    let about = peers.iter().map(|peer| peer.about.as_str()).filter(|about| !about.is_empty());
    let about: Vec<&str> = about.collect();
    Report { machine, peers: about.join(", "), absent, parts, updates }
}
