//! A leaf of the IPv6 tree: its toggles, packed, with a directory of where to look.
//!
//! Toggles are kept as distances from the leaf's first address, without the zero bits that all of them end
//! with, in as few bytes as the largest needs: 4, 8, 12 or 16. What a leaf holds lies close together in a
//! space of 2^128, and much of it are prefixes, so that 16 bytes are rare.
//!
//! A lookup finds the bucket that its address lies in (see `directory.rs`), and compares a fixed number of
//! toggles from there. As in a sparse block of IPv4 (see `radix/sparse.rs`), that is to have no loop that ends
//! where the processor did not expect it. Those behind the bucket need no mask here: they are whole numbers,
//! and larger.
//!
//! The directory is part of the leaf, which stands in the branch above it, and not of the bytes behind the
//! reference: a long list fits in no cache, but its branches do, and so most lookups wait for memory once.

use std::sync::Arc;

use super::super::Verdict;
use super::directory::{Directory, up_to};

/// The most toggles of a leaf: all are unpacked and packed again by every edit in it. No more than a directory
/// can count.
pub(super) const LEAF_TOGGLES_MAX: usize = 255;
/// How many buckets the directory of a leaf has.
const BUCKETS: usize = 64;
/// How many toggles a lookup compares, whatever the bucket has: it has two for each range.
const LANES: usize = 8;

/// The toggles of addresses that lie side by side; a clone shares them. Where they begin is known above.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// The toggles, little-endian; at least [`LANES`] of them, of which those behind the last one are to spare.
    toggles: Arc<[u8]>,
    /// Where to look among them, by as much of their distances as fits.
    directory: Directory<BUCKETS>,
    /// The bytes of each toggle.
    width: u8,
    /// The zero bits of each that are left out.
    zero_bits: u8,
    /// The verdict at the leaf's first address.
    first: Verdict,
}

impl Leaf {
    /// The leaf that begins at `low` and has these toggles, rising and above it; at most
    /// [`LEAF_TOGGLES_MAX`], and at least one.
    pub(super) fn of(first: Verdict, low: u128, toggles: &[u128]) -> Self {
        let any = toggles.iter().fold(0, |bits, toggle| bits | (toggle - low));
        let zero_bits = any.trailing_zeros() % u128::BITS;
        let packed = toggles.iter().map(|toggle| (toggle - low) >> zero_bits);
        let leaf =
            |toggles, directory, width| Self { toggles, directory, width, zero_bits: zero_bits as u8, first };
        match (u128::BITS - (any >> zero_bits).leading_zeros()).div_ceil(32) {
            0 | 1 => leaf(bytes::<4>(packed.clone()), directory::<4>(packed), 4),
            2 => leaf(bytes::<8>(packed.clone()), directory::<8>(packed), 8),
            3 => leaf(bytes::<12>(packed.clone()), directory::<12>(packed), 12),
            _ => leaf(bytes::<16>(packed.clone()), directory::<16>(packed), 16),
        }
    }

    /// The verdict at an address, by its distance from the leaf's first one.
    pub(super) fn lookup(&self, distance: u128) -> Verdict {
        self.first.after(self.up_to(distance))
    }

    /// Whether all addresses from one distance to another have the verdict.
    pub(super) fn has(&self, start: u128, end: u128, verdict: Verdict) -> bool {
        self.lookup(start) == verdict && self.up_to(start) == self.up_to(end)
    }

    /// How many toggles lie at or below an address. This is what a lookup costs.
    fn up_to(&self, distance: u128) -> usize {
        let distance = distance >> self.zero_bits;
        let up_to = match self.width {
            4 => self.up_to_packed::<4>(distance),
            8 => self.up_to_packed::<8>(distance),
            12 => self.up_to_packed::<12>(distance),
            _ => self.up_to_packed::<16>(distance),
        };
        // What is to spare may have been counted.
        up_to.min(self.len())
    }

    fn up_to_packed<const WIDTH: usize>(&self, distance: u128) -> usize {
        let (toggles, _) = self.toggles.as_chunks::<WIDTH>();
        let bucket = self.directory.find(head::<WIDTH>(distance));
        up_to::<LANES, _>(toggles, bucket, |toggle| number(toggle) <= distance)
    }

    /// The verdict at the first address.
    pub(super) const fn first(&self) -> Verdict {
        self.first
    }

    /// How many toggles there are.
    pub(super) fn len(&self) -> usize {
        self.directory.len()
    }

    /// The toggles of the leaf that begins there, rising.
    pub(super) fn toggles(&self, low: u128) -> impl Iterator<Item = u128> {
        self.toggles.chunks(usize::from(self.width)).take(self.len()).map(move |toggle| {
            let mut wide = [0; 16];
            wide.get_mut(..toggle.len()).unwrap_or_default().copy_from_slice(toggle);
            low + (u128::from_le_bytes(wide) << self.zero_bits)
        })
    }
}

/// The bytes of packed toggles, and of as many to spare as a lookup compares.
fn bytes<const WIDTH: usize>(packed: impl ExactSizeIterator<Item = u128>) -> Arc<[u8]> {
    let mut bytes = vec![u8::MAX; packed.len().max(LANES) * WIDTH];
    for (bytes, toggle) in bytes.as_chunks_mut::<WIDTH>().0.iter_mut().zip(packed) {
        if let Some(low) = toggle.to_le_bytes().first_chunk() {
            *bytes = *low;
        }
    }
    bytes.into()
}

fn directory<const WIDTH: usize>(
    packed: impl DoubleEndedIterator<Item = u128> + ExactSizeIterator + Clone,
) -> Directory<BUCKETS> {
    Directory::of(packed.map(head::<WIDTH>))
}

/// As much of a distance as tells its bucket; of one that no toggle can be as far as, the most.
fn head<const WIDTH: usize>(distance: u128) -> u64 {
    (distance >> (WIDTH * 8).saturating_sub(64)).min(u64::MAX.into()) as u64
}

fn number<const WIDTH: usize>(toggle: &[u8; WIDTH]) -> u128 {
    let mut wide = [0; 16];
    if let Some(low) = wide.first_chunk_mut::<WIDTH>() {
        *low = *toggle;
    }
    u128::from_le_bytes(wide)
}
