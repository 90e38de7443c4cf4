//! Telling people of records that are no commands, within limits.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::command::CommandError;
use crate::record::Offset;

/// The most undecodable records that are logged in a minute; the rest is counted. One bad producer must not
/// fill the disk with our words about it.
const LOGGED_PER_MINUTE: u32 = 10;

/// Logs undecodable records, so many in a minute, counted from the first one.
#[derive(Debug, Default)]
pub(super) struct Undecodable {
    minute: Option<Instant>,
    told: u32,
}

impl Undecodable {
    /// Tells of one, unless too many were told of already.
    pub(super) fn tell(&mut self, offset: Offset, why: &CommandError) {
        if self.allows(Instant::now()) {
            warn!(%offset, %why, "passed over a record that is no command");
        }
    }

    /// Whether one more may be told of now.
    fn allows(&mut self, now: Instant) -> bool {
        if self.minute.is_none_or(|begin| now >= begin + Duration::from_secs(60)) {
            (self.minute, self.told) = (Some(now), 0);
        }
        self.told += 1;
        self.told <= LOGGED_PER_MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_told_of_in_a_minute() {
        let (now, mut undecodable) = (Instant::now(), Undecodable::default());
        let minutes = [now, now + Duration::from_secs(60)];
        for begin in minutes {
            let told = (0..100).filter(|_| undecodable.allows(begin)).count();
            assert_eq!(told, 10);
        }
    }
}
