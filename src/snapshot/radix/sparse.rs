//! A block of IPv4 addresses with few toggles: found by one look into a directory and one comparison of
//! sixteen toggles at once.
//!
//! ```text
//! words   [ 0  2  2  3 … │ 7004  7010  9fe2 …  │ 0 0 0 … 0 ]
//!           directory      toggles, low halves   lanes to spare
//! ```
//!
//! The block is cut into buckets of equal width, as many as give each about [`TOGGLES_A_BUCKET`]. The
//! directory says for each how many toggles lie below it, and at its end how many there are at all. A bucket
//! has at most 2^16 addresses, so that the low halves of its toggles tell them apart.
//!
//! What a lookup would lose its time with is not comparing but guessing wrong: how many toggles a bucket has
//! differs from one lookup to the next, and a loop over them ends where the processor did not expect it, while
//! the next lookup's memory could have been on its way already. So a lookup always compares [`LANES`] toggles,
//! which compiles to a few vector instructions that every processor of the target has, and masks out those
//! behind the bucket. Only a bucket with more than that many, which an uneven list has here and there, is
//! searched.

use std::sync::Arc;

use super::super::Verdict;
use super::super::toggles::{self, Splice};
use super::Reach;

/// How many toggles are compared at once, whatever the bucket has.
const LANES: usize = 16;
/// How many toggles a bucket has on the average, at most, when the directory is made.
const TOGGLES_A_BUCKET: usize = 4;
/// How much larger that average may grow by edits before the directory is made anew.
const BUCKET_GROWTH_MAX: usize = 2;
/// How many times more buckets than needed may be left by edits before the directory is made anew.
const BUCKETS_TOO_MANY: u16 = 8;
/// The most addresses of a bucket, as a power of two.
const BUCKET_BITS_MAX: u32 = 16;

/// For each number of toggles in a bucket, the lanes that count.
static COUNTED: [[u16; LANES]; LANES + 1] = counted();

/// The toggles of a block; a clone shares them.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    words: Arc<[u16]>,
    buckets: Buckets,
    /// The verdict at the block's first address.
    first: Verdict,
}

/// How a block is cut into buckets.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    /// Their number less one. It is a power of two, at most 2^16.
    mask: u16,
    /// The addresses of each, as a power of two.
    bits: u8,
}

impl Buckets {
    /// The buckets of a block of 2^`bits` addresses with so many toggles.
    fn of(toggles: usize, bits: u32) -> Self {
        let number_min = 1 << bits.saturating_sub(BUCKET_BITS_MAX);
        let number = toggles.div_ceil(TOGGLES_A_BUCKET).next_power_of_two().max(number_min);
        Self { mask: (number - 1) as u16, bits: (bits - number.ilog2()) as u8 }
    }

    /// The bucket that an address of the block lies in.
    #[inline]
    fn find(self, address: u32) -> usize {
        usize::from((address >> self.bits) as u16 & self.mask)
    }

    /// One entry for each bucket, and one for their end.
    fn directory_len(self) -> usize {
        usize::from(self.mask) + 2
    }

    /// Whether these are still about the right number of buckets for so many toggles: neither so few that
    /// they are long, nor so many that the directory is most of the block.
    fn fit(self, toggles: usize, bits: u32) -> bool {
        let toggles_max = (usize::from(self.mask) + 1) * TOGGLES_A_BUCKET * BUCKET_GROWTH_MAX;
        toggles <= toggles_max && Self::of(toggles, bits).mask >= self.mask / BUCKETS_TOO_MANY
    }
}

impl Sparse {
    /// The block of 2^`bits` addresses with these toggles, which rise and all lie above its first address;
    /// no more than fit an `u16`.
    pub(super) fn of(first: Verdict, toggles: &[u32], bits: u32) -> Self {
        let buckets = Buckets::of(toggles.len(), bits);
        let mut words = zeros(buckets.directory_len() + toggles.len() + LANES);
        let (directory, low_halves) = parts(&mut words, buckets);
        low_halves.iter_mut().zip(toggles).for_each(|(word, toggle)| *word = *toggle as u16);
        let mut below = 0;
        for (bucket, entry) in directory.iter_mut().enumerate() {
            let rest = toggles.get(below..).unwrap_or_default();
            below += rest.iter().take_while(|toggle| buckets.find(**toggle) < bucket).count();
            *entry = below as u16;
        }
        Self { words, buckets, first }
    }

    /// The verdict at an address of the block.
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Verdict {
        self.first.after(self.up_to(address))
    }

    /// The verdict at the block's first address.
    pub(super) const fn first(&self) -> Verdict {
        self.first
    }

    /// How many toggles there are.
    pub(super) fn len(&self) -> usize {
        self.words.len() - self.buckets.directory_len() - LANES
    }

    /// The toggles of the block that begins there, rising.
    pub(super) fn toggles(&self, low: u32) -> impl Iterator<Item = u32> {
        let directory = self.words.get(..self.buckets.directory_len()).unwrap_or_default();
        let toggles = self.words.get(self.buckets.directory_len()..).unwrap_or_default();
        let bits = self.buckets.bits;
        directory.windows(2).zip(0_u32..).flat_map(move |(entries, bucket)| {
            let low_halves = match entries {
                [from, to] => toggles.get(usize::from(*from)..usize::from(*to)).unwrap_or_default(),
                _ => &[],
            };
            let high_half = (low + (bucket << bits)) & !0xffff;
            low_halves.iter().map(move |low_half| high_half | u32::from(*low_half))
        })
    }

    /// Whether all addresses from one to another, both in the block, have the verdict.
    pub(super) fn has(&self, start: u32, end: u32, verdict: Verdict) -> bool {
        self.lookup(start) == verdict && self.up_to(start) == self.up_to(end)
    }

    /// Sets what lies in both reaches.
    pub(super) fn set(&mut self, reach: Reach, edit: Reach, verdict: Verdict) {
        let Splice { first, gone, put } =
            toggles::splice(self.first, reach, edit, verdict, |address| self.up_to(address));
        self.first = first;
        self.splice(gone.start, gone.end, put);
        let bits = (reach.1 - reach.0).count_ones();
        if !self.buckets.fit(self.len(), bits) {
            let toggles: Vec<u32> = self.toggles(reach.0).collect();
            *self = Self::of(self.first, &toggles, bits);
        }
    }

    /// How many toggles lie at or below an address of the block. This is what a lookup costs.
    #[inline]
    fn up_to(&self, address: u32) -> usize {
        let words = &*self.words;
        let bucket = self.buckets.find(address);
        let Some([below, below_next]) = words.get(bucket..bucket + 2) else { return 0 };
        let (below, in_bucket) = (usize::from(*below), usize::from(below_next - below));
        let toggles = words.get(self.buckets.directory_len() + below..).unwrap_or_default();
        let (Some(lanes), Some(counted)) = (toggles.first_chunk::<LANES>(), COUNTED.get(in_bucket)) else {
            return below + searched(toggles, in_bucket, address);
        };
        let at_or_below = |(toggle, counts): (&u16, &u16)| u16::from(*toggle <= address as u16) & counts;
        below + usize::from(lanes.iter().zip(counted).map(at_or_below).sum::<u16>())
    }

    /// Puts the new toggles, rising, in place of those from `below` up to `taken`.
    fn splice(&mut self, below: usize, taken: usize, new: [Option<u32>; 2]) {
        let (len, added) = (self.len(), new.iter().flatten().count());
        let mut words = zeros(self.words.len() + added + below - taken);
        let (directory, toggles) = parts(&mut words, self.buckets);
        let (old_directory, old_toggles) = self.words.split_at(self.buckets.directory_len());
        // No bucket has this number: what is not added is below none of them.
        let own = new.map(|toggle| toggle.map_or(usize::MAX, |toggle| self.buckets.find(toggle)) as u32);
        for ((entry, old), bucket) in directory.iter_mut().zip(old_directory).zip(0_u32..) {
            let kept = (*old).min(below as u16) + (*old).max(taken as u16) - taken as u16;
            *entry = kept + u16::from(bucket > own[0]) + u16::from(bucket > own[1]);
        }
        let pieces = [old_toggles.get(..below), old_toggles.get(taken..len)].map(Option::unwrap_or_default);
        let (kept_below, rest) = toggles.split_at_mut(below);
        let (put, kept_above) = rest.split_at_mut(added);
        kept_below.copy_from_slice(pieces[0]);
        put.iter_mut().zip(new.iter().flatten()).for_each(|(word, toggle)| *word = *toggle as u16);
        kept_above.iter_mut().zip(pieces[1]).for_each(|(word, toggle)| *word = *toggle);
        self.words = words;
    }
}

/// The toggles of a bucket that has more of them than are compared at once, searched. Kept apart, so that
/// the way which nearly all lookups take stays short.
#[cold]
fn searched(toggles: &[u16], in_bucket: usize, address: u32) -> usize {
    toggles.get(..in_bucket).unwrap_or_default().partition_point(|toggle| *toggle <= address as u16)
}

fn zeros(len: usize) -> Arc<[u16]> {
    std::iter::repeat_n(0, len).collect()
}

/// Directory and toggles of words that nobody shares yet.
fn parts(words: &mut Arc<[u16]>, buckets: Buckets) -> (&mut [u16], &mut [u16]) {
    Arc::get_mut(words).expect("words just made are not shared").split_at_mut(buckets.directory_len())
}

const fn counted() -> [[u16; LANES]; LANES + 1] {
    let mut counted = [[0; LANES]; LANES + 1];
    let mut rest: &mut [[u16; LANES]] = &mut counted;
    let mut lanes = 0;
    while let Some((row, others)) = rest.split_first_mut() {
        let mut ones = row.as_mut_slice().split_at_mut(lanes).0;
        while let Some((one, others)) = ones.split_first_mut() {
            *one = 1;
            ones = others;
        }
        rest = others;
        lanes += 1;
    }
    counted
}
