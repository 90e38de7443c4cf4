//! Followers and projectors over a log in memory, through every fault in any order, driven by one seed: the
//! state machines are those of the program, the transport and the clocks are the simulation's.
//!
//! Judged are safety, after every single event, and liveness: once the faults stop, all come to the end of
//! the log by themselves.
//!
//! - What a sidecar serves is the fold of one log up to the position that it states, and that never goes back,
//!   nor over to another log, without an alarm.
//! - What it says of its age is true: it held all that was in the log at that time.
//! - It is not ready before it was at the end.
//! - At each watermark the table is the fold up to the position in it, whoever else still tries to write.
//!
//! `PORTCULLIS_SEED=17 cargo test --test simulation` plays one seed and tells what happens in it;
//! `PORTCULLIS_SEEDS=0..10000` plays others than the test does.

#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]
#![allow(unreachable_pub, reason = "its parts are modules of a test")]

#[path = "simulation/audit.rs"]
mod audit;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/load.rs"]
mod load;
#[path = "simulation/projector.rs"]
mod projector;
#[path = "simulation/sidecar.rs"]
mod sidecar;
#[path = "simulation/story.rs"]
mod story;
#[path = "simulation/transport.rs"]
mod transport;
#[path = "simulation/world.rs"]
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How many seeds are played.
const SEEDS: u64 = 2_000;

/// Plays seeds on all cores, up to the first that fails; tells which, and why.
fn play(seeds: Range<u64>) -> Result<(), (u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let failures = thread::scope(|scope| {
        let player = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                    return None;
                }
                if let Err(why) = play_one(seed) {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    return Some((seed, why));
                }
            }
        };
        let players: Vec<_> = (0..cores).map(|_| scope.spawn(player)).collect();
        players.into_iter().filter_map(|it| it.join().expect("it catches all panics")).collect::<Vec<_>>()
    });
    failures.into_iter().min().map_or(Ok(()), Err)
}

fn play_one(seed: u64) -> Result<(), String> {
    let played = catch_unwind(AssertUnwindSafe(|| story::tell(seed, story::Listener::Nobody)));
    played.map(drop).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

fn wanted() -> Range<u64> {
    let seeds = std::env::var("PORTCULLIS_SEEDS").ok();
    let bounds = seeds.as_deref().and_then(|seeds| seeds.split_once(".."));
    bounds
        .map_or(0..SEEDS, |(first, end)| first.parse().expect("FIRST..END")..end.parse().expect("FIRST..END"))
}

#[test]
fn every_history_is_safe_and_comes_to_rest() {
    if let Ok(seed) = std::env::var("PORTCULLIS_SEED") {
        story::tell(seed.parse().expect("a number"), story::Listener::Somebody);
        return;
    }
    let seeds = wanted();
    if let Err((seed, why)) = play(seeds.clone()) {
        panic!(
            "seed {seed}, after {} others: {why}\nplay it by: PORTCULLIS_SEED={seed} cargo test --test simulation",
            seed - seeds.start
        );
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..5 {
        assert_eq!(story::tell(seed, story::Listener::Nobody), story::tell(seed, story::Listener::Nobody));
    }
}
