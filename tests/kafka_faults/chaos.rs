//! Broker, projectors and sidecars killed at random moments, all the time.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::judge::judge;
use super::load::under_load;
use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::{Broker, wait_until};
use portcullis::log::Topic;

/// How long it goes on, in seconds.
const LENGTH: &str = "PORTCULLIS_CHAOS_SECONDS";
/// What the moments are drawn from; shown by each run.
const SEED: &str = "PORTCULLIS_CHAOS_SEED";

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// `kill -9`, and another start after a while.
fn strike(process: &mut Process, random: &mut fastrand::Rng) {
    process.kill();
    thread::sleep(Duration::from_millis(random.u64(..2_000)));
    process.start_again();
}

#[test]
fn a_broker_projectors_and_sidecars_that_are_killed_at_random_lose_nothing_and_say_nothing_wrong() {
    let length = Duration::from_secs(number(LENGTH).unwrap_or(60));
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("{SEED}={seed} {LENGTH}={}", length.as_secs());
    let mut broker = Broker::start();
    let site = Site::begun(&broker, "chaos");
    let mut projectors = [site.projector(&WITH_TABLE, &[]), site.projector(&WITH_TABLE, &[])];
    let mut sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    let sockets: Vec<PathBuf> = sidecars.iter().map(|sidecar| sidecar.socket().to_owned()).collect();
    let mut kills = [0; 3];
    let ((), heard) = under_load(&sockets, seed, || {
        let (began, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
        while began.elapsed() < length {
            thread::sleep(Duration::from_millis(random.u64(200..4_000)));
            let kind = random.usize(..3);
            kills[kind] += 1;
            match kind {
                0 => broker.restart(),
                1 => strike(&mut projectors[random.usize(..2)], &mut random),
                _ => strike(&mut sidecars[random.usize(..3)], &mut random),
            }
        }
        sidecars.iter().for_each(Process::wait_ready);
    });
    wait_until("somebody keeps the table", || projectors.iter().any(|it| it.status()["role"] == "active"));
    let all: Vec<&Process> = projectors.iter().chain(&sidecars).collect();
    site.agree(&WITH_TABLE, &all, &[]);
    eprintln!("killed: broker {}, projectors {}, sidecars {}", kills[0], kills[1], kills[2]);
    judge(&heard, &site.records(&WITH_TABLE, Topic::Commands)).hold("chaos");
}
