//! A directory: where among some rising numbers to look for one, without a search.
//!
//! The space from the first number to the last is cut into buckets of equal width, and the directory says for
//! each how many numbers lie below it. Where the numbers lie evenly, each bucket has few of them, and where
//! they do not, some have to be searched.

use std::ops::Range;

/// The directory of some numbers, which are kept elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Directory<const BUCKETS: usize> {
    /// For each bucket the count of numbers below it. Behind the last one are all.
    below: [u8; BUCKETS],
    /// How many numbers there are.
    len: u8,
    first: u64,
    /// How many buckets one has to itself, as a fraction of 2^64: multiplying is quicker than dividing.
    scale: u64,
}

impl<const BUCKETS: usize> Directory<BUCKETS> {
    /// The directory of rising numbers, at least one and at most 255.
    pub(super) fn of(numbers: impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + Clone) -> Self {
        let first = numbers.clone().next().unwrap_or_default();
        let span = numbers.clone().next_back().unwrap_or_default() - first;
        // A narrow span leaves buckets unused; only where there are fewer numbers than buckets.
        let scale = ((BUCKETS as u128) << u64::BITS) / (u128::from(span) + 1).max(BUCKETS as u128 + 1);
        let len = numbers.len() as u8;
        let directory = Self { below: [0; BUCKETS], len, first, scale: scale as u64 };
        let mut below = [0; BUCKETS];
        let mut rest = numbers.map(|number| directory.bucket(number)).peekable();
        let mut count = 0;
        for (bucket, below) in below.iter_mut().enumerate() {
            while rest.next_if(|own| *own < bucket).is_some() {
                count += 1;
            }
            *below = count;
        }
        Self { below, ..directory }
    }

    /// The bucket that a number lies in; one outside the span lies in the first or the last.
    fn bucket(&self, number: u64) -> usize {
        let distance = number.saturating_sub(self.first);
        (((u128::from(distance) * u128::from(self.scale)) >> u64::BITS) as usize).min(BUCKETS - 1)
    }

    /// Which of the numbers are in the bucket that this one lies in: all before them are smaller, all behind
    /// them are larger.
    pub(super) fn find(&self, number: u64) -> Range<usize> {
        let bucket = self.bucket(number);
        let start = self.below.get(bucket).copied().unwrap_or(0);
        let end = self.below.get(bucket + 1).copied().unwrap_or(self.len);
        usize::from(start)..usize::from(end)
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }
}

/// How many of some rising numbers, at least `LANES`, are below or at one that lies in that bucket. So many
/// are compared whatever the bucket has, if it has no more.
pub(super) fn up_to<const LANES: usize, T>(
    rising: &[T],
    bucket: Range<usize>,
    at_or_below: impl Fn(&T) -> bool,
) -> usize {
    // Near the end, some from below the bucket are compared as well.
    let from = bucket.start.min(rising.len() - LANES);
    match rising.get(from..).and_then(|numbers| numbers.first_chunk::<LANES>()) {
        Some(lanes) if bucket.len() <= LANES => {
            from + lanes.iter().map(|number| usize::from(at_or_below(number))).sum::<usize>()
        }
        _ => bucket.start + searched(rising.get(bucket).unwrap_or_default(), at_or_below),
    }
}

/// The same without a directory's help. Halved by adding, because the standard library's search becomes jumps
/// here, half of which the processor guesses wrong.
pub(super) fn searched<T>(rising: &[T], at_or_below: impl Fn(&T) -> bool) -> usize {
    let mut found = 0;
    let mut half = rising.len().next_power_of_two();
    while half > 0 {
        let more = rising.get(found + half - 1).is_some_and(&at_or_below);
        found += half * usize::from(more);
        half /= 2;
    }
    found
}
