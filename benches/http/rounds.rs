//! Rounds in which everybody has a turn, so that a slow moment of the machine falls on all alike, and what
//! follows from comparing them round by round.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::client::{Latencies, latencies};

/// What was measured of one server in one scenario.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) name: String,
    rounds: Vec<Latencies>,
    /// For how long it was measured, all in all.
    time: Duration,
}

/// Measures each of these once in every round, each round in another order. The first round only warms up.
pub(crate) fn interleaved(
    names: &[String],
    rounds: usize,
    time: Duration,
    mut measure: impl FnMut(usize, usize) -> Latencies,
) -> Vec<Measured> {
    let empty = |name: &String| Measured { name: name.clone(), rounds: Vec::new(), time: Duration::ZERO };
    let mut measured: Vec<Measured> = names.iter().map(empty).collect();
    let mut order: Vec<usize> = (0..names.len()).collect();
    let mut random = fastrand::Rng::with_seed(17);
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for server in &order {
            let latencies = measure(*server, round);
            if round > 0 {
                measured[*server].rounds.push(latencies);
                measured[*server].time += time;
            }
        }
    }
    measured
}

impl Measured {
    /// The latencies of all rounds.
    pub(crate) fn all(&self) -> Latencies {
        self.rounds.iter().fold(latencies(), |mut all, round| {
            all.add(round).expect("they are of one kind");
            all
        })
    }

    pub(crate) fn answers_a_second(&self) -> u64 {
        (self.all().len() as f64 / self.time.as_secs_f64()).round() as u64
    }

    /// The least and the largest of a quantile's values in the rounds, in nanoseconds.
    pub(crate) fn spread_ns(&self, quantile: f64) -> RangeInclusive<u64> {
        let values = || self.rounds.iter().map(|round| round.value_at_quantile(quantile));
        values().min().unwrap_or_default()..=values().max().unwrap_or_default()
    }

    /// How a quantile compares with another server's in the same round: the median over the rounds.
    pub(crate) fn ratio(&self, other: &Self, quantile: f64) -> f64 {
        let at = |round: &Latencies| round.value_at_quantile(quantile) as f64;
        let pairs = self.rounds.iter().zip(&other.rounds);
        let mut ratios: Vec<f64> = pairs.map(|(ours, theirs)| at(ours) / at(theirs)).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        match ratios.len() % 2 {
            _ if ratios.is_empty() => f64::NAN,
            0 => (ratios[middle - 1] + ratios[middle]) / 2.0,
            _ => ratios[middle],
        }
    }
}
