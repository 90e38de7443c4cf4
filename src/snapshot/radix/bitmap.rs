//! A block of 2^16 IPv4 addresses with many toggles: a bit for each address, whatever they are.

use super::super::Verdict;
use super::Reach;

/// The addresses of a bitmap, as a power of two.
pub(super) const BITMAP_BITS: u32 = 16;
const ADDRESSES: u32 = 1 << BITMAP_BITS;
const WORDS: usize = (ADDRESSES / u64::BITS) as usize;

/// A bit for each address, set where it is blacklisted: 8 KiB.
#[derive(Clone, Debug)]
pub(super) struct Bitmap([u64; WORDS]);

impl Bitmap {
    /// The block in which every address has that verdict.
    pub(super) const fn uniform(verdict: Verdict) -> Self {
        Self(
            [match verdict {
                Verdict::Free => 0,
                Verdict::Blacklisted => u64::MAX,
            }; WORDS],
        )
    }

    /// The verdict at an address of the block.
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Verdict {
        let [high, low] = [address >> u64::BITS.ilog2(), address % u64::BITS];
        let word = self.0.get(high as usize % WORDS).copied().unwrap_or_default();
        Verdict::Free.after((word >> low) as usize)
    }

    /// Whether all addresses from one to another, both in the block, have the verdict.
    pub(super) fn has(&self, start: u32, end: u32, verdict: Verdict) -> bool {
        masks(start % ADDRESSES, end % ADDRESSES).all(|(at, mask)| {
            let set = self.0.get(at).copied().unwrap_or_default() & mask;
            set == if verdict == Verdict::Blacklisted { mask } else { 0 }
        })
    }

    /// Sets what lies in both reaches, word by word.
    pub(super) fn set(&mut self, reach: Reach, edit: Reach, verdict: Verdict) {
        let (start, end) = (edit.0.max(reach.0), edit.1.min(reach.1));
        for (at, mask) in masks(start % ADDRESSES, end % ADDRESSES) {
            let Some(word) = self.0.get_mut(at) else { return };
            match verdict {
                Verdict::Free => *word &= !mask,
                Verdict::Blacklisted => *word |= mask,
            }
        }
    }

    /// The verdict at the block's first address.
    pub(super) fn first(&self) -> Verdict {
        self.lookup(0)
    }

    /// How many toggles there are above the first address.
    pub(super) fn len(&self) -> usize {
        self.changes().map(|(_, changes)| changes.count_ones() as usize).sum()
    }

    /// The toggles of the block that begins there, rising.
    pub(super) fn toggles(&self, low: u32) -> impl Iterator<Item = u32> {
        self.changes().flat_map(move |(word_low, changes)| {
            (0..u64::BITS).filter(move |bit| changes >> bit & 1 == 1).map(move |bit| low + word_low + bit)
        })
    }

    /// For each word, its first address in the block and a bit wherever the verdict is not that of the
    /// address below.
    fn changes(&self) -> impl Iterator<Item = (u32, u64)> {
        let lows = (0_u32..).step_by(u64::BITS as usize);
        let mut below = self.0.first().copied().unwrap_or_default() & 1;
        self.0.iter().zip(lows).map(move |(word, low)| {
            let changes = word ^ (word << 1 | below);
            below = word >> (u64::BITS - 1);
            (low, changes)
        })
    }
}

/// The words that hold the addresses from `start` to `end`, each with the bits that do.
fn masks(start: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (start / u64::BITS, end / u64::BITS);
    (first..=last).map(move |at| {
        let from = if at == first { u64::MAX << (start % u64::BITS) } else { u64::MAX };
        let to = if at == last { u64::MAX >> (u64::BITS - 1 - end % u64::BITS) } else { u64::MAX };
        (at as usize, from & to)
    })
}
