//! How long to wait before the next try. Part of both state machines.
//!
//! It only draws durations: it neither sleeps nor reads a clock, and the seed is its caller's, so that a
//! simulation gets the same waits again.

use std::time::Duration;

/// Waits that double from try to try, each drawn evenly from zero to its bound ("full jitter"), so that
/// many hosts that failed in the same second do not come back in the same second.
///
/// ```
/// use std::time::Duration;
///
/// use portcullis::backoff::Backoff;
///
/// let second = Duration::from_secs(1);
/// let mut backoff = Backoff::new(second, 60 * second, 7);
/// assert!(backoff.wait() <= second);
/// assert!(backoff.wait() <= 2 * second);
/// assert!(backoff.wait() <= 4 * second);
/// backoff.reset();
/// assert!(backoff.wait() <= second);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    bound: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Waits of up to `first`, then up to twice that, and so on up to `longest`.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, bound: first, random: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait; may be zero. Whoever must not come back at once adds a fixed part of its own.
    pub fn wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(self.random.f64());
        self.bound = (self.bound * 2).min(self.longest);
        wait
    }

    /// Begins again with the first bound, after a success.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 7);
        let waits: Vec<Duration> = (0..200).map(|_| backoff.wait()).collect();
        for (wait, bound) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!(*wait <= Duration::from_secs(bound));
        }
        let late = waits.iter().skip(6);
        assert!(late.clone().any(|wait| *wait < Duration::from_secs(10)));
        assert!(late.clone().any(|wait| *wait > Duration::from_secs(50)));
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }
}
