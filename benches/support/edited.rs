//! A list that one change after the other is published of.

use portcullis::address::Range;
use portcullis::record::{Position, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Readers};
use portcullis::view::Effect;

use super::input::{self, Family};

/// A list that edits are made in, and the addresses that they are made at.
pub(super) struct Edited<N> {
    pub(super) draft: Draft,
    pub(super) publisher: Publisher,
    pub(super) readers: Readers,
    pub(super) asked: Vec<N>,
    pub(super) next: usize,
}

impl<N: Family> Edited<N> {
    pub(super) fn new(ranges: &[(N, N)], asked: Vec<N>) -> Self {
        let draft = Draft::new(&input::view(ranges), Timestamp::from_millis(0));
        let (mut publisher, readers) = Publisher::new();
        publisher.publish(draft.snapshot(Position::START));
        Self { draft, publisher, readers, asked, next: 0 }
    }

    /// Publishes one change: of two addresses in turns, one is freed and one is blacklisted.
    pub(super) fn publish_one(&mut self) {
        self.next += 1;
        let number = self.asked.get(self.next * 7 % self.asked.len()).copied().unwrap_or(N::FIRST);
        let range = Range::from(number.address());
        let effect = match self.next % 2 {
            0 => Effect::Free(range),
            _ => Effect::Blacklist { range, until: Timestamp::MAX },
        };
        self.draft.apply(&[effect]);
        self.publisher.publish(self.draft.snapshot(Position::new(self.next as u64)));
    }
}
