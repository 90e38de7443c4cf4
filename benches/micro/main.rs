//! The parts that time goes into, one by one, each beside what else one would take. On criterion.
//!
//! ```text
//! cargo bench --bench micro                    all of it; about three minutes
//! cargo bench --bench micro -- lookup/IPv6     what has this in its name
//! cargo bench --bench micro -- --quick         fewer samples
//! ```
//!
//! Criterion compares a run with the one before, which shows what a change of the code did. It measures one
//! structure after the other: where the machine is not idle, ratios are better read from `--bench snapshot`,
//! in whose rounds they take turns. Its warning that ten samples take more than a second means that it took
//! them all the same.

#[allow(dead_code, reason = "each bench uses its own part")]
#[path = "../support/edited.rs"]
mod edited;
#[allow(dead_code, reason = "each bench uses its own part")]
#[path = "../support/input.rs"]
mod input;
#[allow(dead_code, reason = "each bench uses its own part")]
#[path = "../support/rivals.rs"]
mod rivals;

mod bootstrap;
mod fold;
mod lookup;
mod parse;
mod publish;

use std::time::Duration;

use criterion::Criterion;

const MILLION: usize = 1_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    lookup::lookup(&mut criterion);
    publish::publish(&mut criterion);
    fold::fold(&mut criterion);
    parse::parse(&mut criterion);
    bootstrap::bootstrap(&mut criterion);
    criterion.final_summary();
}
