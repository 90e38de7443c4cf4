//! How time is taken, and what is made of it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::rivals::Lookups;

/// What is read between two isolated lookups, as a request handler's own work would: more than the first
/// cache holds, less than the second.
const BETWEEN_BYTES: usize = 64;

/// Nanoseconds of a lookup among many that do not wait for each other. Some are made before that are not
/// counted: what the turn of another structure left in the caches is not what a program of its own finds.
pub(super) fn streamed_ns(structure: &mut dyn Lookups, numbers: std::ops::Range<usize>) -> f64 {
    black_box(structure.count(numbers.start..numbers.end / 2));
    let (count, begun) = (numbers.len(), Instant::now());
    black_box(structure.count(numbers));
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds of single lookups, rising. Each is chosen by the answer to the one before, and other memory
/// is read in between. What reading the clock takes is taken off.
pub(super) fn isolated_ns(structure: &mut dyn Lookups, numbers: std::ops::Range<usize>) -> Vec<f64> {
    let between = vec![1_u64; BETWEEN_BYTES / 8];
    let clock = clock_ns();
    let mut took = Vec::with_capacity(numbers.len());
    let mut hit = false;
    for number in numbers.clone().step_by(2) {
        black_box(black_box(&between).iter().step_by(8).sum::<u64>());
        let begun = Instant::now();
        hit = structure.one((number + usize::from(hit)).min(numbers.end - 1));
        took.push(nanos(begun.elapsed()) - clock);
    }
    took.sort_by(f64::total_cmp);
    took
}

/// What it takes to read the clock twice.
pub(super) fn clock_ns() -> f64 {
    let mut took: Vec<f64> = (0..10_000).map(|_| nanos(black_box(Instant::now()).elapsed())).collect();
    took.sort_by(f64::total_cmp);
    quantile(&took, 0.5)
}

pub(super) fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// Of values that rise.
pub(super) fn quantile(rising: &[f64], quantile: f64) -> f64 {
    let at = (rising.len() as f64 * quantile) as usize;
    rising.get(at.min(rising.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// The memory that the process takes, in bytes.
pub(super) fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN);
    pages * 4096.0
}
