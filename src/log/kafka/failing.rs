//! When a client of librdkafka is of no more use.
//!
//! A client remembers which leaders it met, and trusts no metadata that is older. Of a topic that was made
//! anew, or of a cluster that was restored from a backup, it would never take any: only a new client does.

use std::time::{Duration, Instant};

/// A client by which something has failed for so long is replaced.
const FAILING_MAX: Duration = Duration::from_secs(10);

/// For how long something has failed, without a success in between.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failing(Option<Instant>);

impl Failing {
    pub(super) fn note<T, E>(&mut self, outcome: &Result<T, E>) {
        match outcome {
            Ok(_) => self.0 = None,
            Err(_) => drop(self.0.get_or_insert_with(Instant::now)),
        }
    }

    /// Whether the client is to be replaced.
    pub(super) fn lasts(&self) -> bool {
        self.0.is_some_and(|since| since.elapsed() >= FAILING_MAX)
    }
}
