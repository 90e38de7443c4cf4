//! The IPv4 half of a snapshot: a radix tree that is as deep as the list is dense, and no deeper.
//!
//! ```text
//! block of 2^32 ──split into 16──► 2^28 ──► 2^24 ──► 2^20 ──► 2^16
//!                                             │        │        │
//!                                             └────────┴────────┴─► sparse, where 2,048 toggles are enough
//!                                                               └─► bitmap, where they are not
//! ```
//!
//! Every block is of one kind: *uniform*, one verdict for all its addresses; *split* into sixteen; *sparse*,
//! its toggles (see `sparse.rs`); or a *bitmap*. A lookup takes four bits of the address at each split, so
//! that a million ranges are answered from four or five places in memory, without a search.
//!
//! An edit copies the split blocks on its way, sixteen references each, and the one block at its end. Which
//! is why blocks are split by sixteen and not by more: of copying a block, counting a reference on each of
//! its children takes most, and the first levels, which lookups have in their cache, cost these nothing. What
//! a wide edit covers whole becomes uniform without being looked at.
//!
//! A sparse block that gets too many toggles is split (or made a bitmap), and a split one that got few is
//! joined again, at half of that number, so that edits which come and go around one size do not do both
//! again and again.

mod bitmap;
mod sparse;

use std::sync::Arc;

use self::bitmap::{BITMAP_BITS, Bitmap};
use self::sparse::Sparse;
use super::{Verdict, toggles};

/// The most toggles of a sparse block: the whole of it is copied by every edit in it. With so many a bitmap
/// is not much larger.
const SPARSE_TOGGLES_MAX: usize = 2048;
/// The most addresses of a sparse block, as a power of two: its directory has at least an entry for each
/// 2^16 of them.
const SPARSE_BITS_MAX: u32 = 24;
/// A split or a bitmap with so many toggles becomes sparse again.
const SPARSE_TOGGLES_AGAIN: usize = SPARSE_TOGGLES_MAX / 2;
/// How many bits of an address a split block decides by.
const SPLIT_BITS: u32 = 4;
/// How many blocks a split one consists of.
const CHILDREN: usize = 1 << SPLIT_BITS;

/// First and last address of a block or an edit.
type Reach = (u32, u32);

/// The ranges of IPv4. A clone shares all blocks.
#[derive(Clone, Debug)]
pub(super) struct Radix(Block);

/// What is known of the addresses that share their first bits.
#[derive(Clone, Debug)]
enum Block {
    Uniform(Verdict),
    Sparse(Sparse),
    Bitmap(Arc<Bitmap>),
    Split(Arc<[Self; CHILDREN]>),
}

impl Default for Radix {
    fn default() -> Self {
        Self(Block::Uniform(Verdict::Free))
    }
}

impl Radix {
    /// Builds the tree of ranges that rise, without overlap; O(n). Those that touch become one.
    pub(super) fn from_rising(ranges: impl Iterator<Item = Reach>) -> Self {
        let (first, toggles) = toggles::of_ranges(ranges);
        Self(Block::of(first, &toggles, Place::ALL))
    }

    /// Whether the address is blacklisted.
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Verdict {
        let mut block = &self.0;
        let mut bits = u32::BITS;
        loop {
            match block {
                Block::Split(children) => {
                    bits -= SPLIT_BITS;
                    let [first, ..] = &**children;
                    block = children.get((address >> bits) as usize % CHILDREN).unwrap_or(first);
                }
                Block::Sparse(sparse) => return sparse.lookup(address),
                Block::Uniform(verdict) => return *verdict,
                Block::Bitmap(bitmap) => return bitmap.lookup(address),
            }
        }
    }

    /// Gives every address from `start` to `end` the verdict, whatever they had.
    pub(super) fn set(&mut self, start: u32, end: u32, verdict: Verdict) {
        if !self.0.has(Place::ALL, (start, end), verdict) {
            self.0.set(Place::ALL, (start, end), verdict);
        }
    }

    /// The blacklisted ranges, merged and rising.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Reach> {
        toggles::ranges(Toggles::of(&self.0, Place::ALL, Verdict::Free))
    }
}

/// Where a block lies: its first address, and how many addresses it has as a power of two.
#[derive(Clone, Copy, Debug)]
struct Place {
    low: u32,
    bits: u32,
}

impl Place {
    const ALL: Self = Self { low: 0, bits: u32::BITS };

    const fn reach(self) -> Reach {
        (self.low, self.low | u32::MAX.unbounded_shr(u32::BITS - self.bits))
    }

    /// Whether any address of the edit lies there.
    const fn meets(self, edit: Reach) -> bool {
        let (low, last) = self.reach();
        low <= edit.1 && edit.0 <= last
    }

    /// The places of the blocks that this one is split into.
    fn children(self) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        let bits = self.bits - SPLIT_BITS;
        (0..CHILDREN as u32).map(move |child| Self { low: self.low + (child << bits), bits })
    }
}

impl Block {
    /// The block with these toggles, all of them above its first address.
    fn of(first: Verdict, toggles: &[u32], place: Place) -> Self {
        if toggles.is_empty() {
            Self::Uniform(first)
        } else if toggles.len() <= SPARSE_TOGGLES_MAX && place.bits <= SPARSE_BITS_MAX {
            Self::Sparse(Sparse::of(first, toggles, place.bits))
        } else if place.bits == BITMAP_BITS {
            Self::Bitmap(Arc::new(bitmap(first, toggles, place)))
        } else {
            Self::split(first, toggles, place)
        }
    }

    fn split(first: Verdict, toggles: &[u32], place: Place) -> Self {
        let (mut first, mut rest) = (first, toggles);
        let mut places = place.children();
        Self::Split(Arc::new(std::array::from_fn(|_| {
            let Some(place) = places.next() else { return Self::Uniform(first) };
            let (low, last) = place.reach();
            // A toggle at a block's first address is that block's first verdict.
            if let Some((_, others)) = rest.split_first().filter(|(toggle, _)| **toggle == low) {
                (first, rest) = (first.after(1), others);
            }
            let (own, others) = rest.split_at(rest.partition_point(|toggle| *toggle <= last));
            let block = Self::of(first, own, place);
            (first, rest) = (first.after(own.len()), others);
            block
        })))
    }

    /// Whether all addresses of the edit that lie in the block have the verdict already. Rows that are long
    /// over are freed once more when they are dropped, a whole list of them at the same time; that must not
    /// copy anything.
    fn has(&self, place: Place, edit: Reach, verdict: Verdict) -> bool {
        let reach = place.reach();
        let (start, end) = (edit.0.max(reach.0), edit.1.min(reach.1));
        match self {
            // What is not uniform as a whole has both verdicts.
            Self::Split(_) | Self::Sparse(_) | Self::Bitmap(_) if (start, end) == reach => false,
            Self::Uniform(own) => *own == verdict,
            Self::Sparse(sparse) => sparse.has(start, end, verdict),
            Self::Bitmap(bitmap) => bitmap.has(start, end, verdict),
            Self::Split(children) => children
                .iter()
                .zip(place.children())
                .filter(|(_, place)| place.meets(edit))
                .all(|(child, place)| child.has(place, edit, verdict)),
        }
    }

    /// Sets what lies in both the block and the edit.
    fn set(&mut self, place: Place, edit: Reach, verdict: Verdict) {
        let reach = place.reach();
        if edit.0 <= reach.0 && reach.1 <= edit.1 {
            *self = Self::Uniform(verdict);
            return;
        }
        match self {
            Self::Uniform(before) if *before == verdict => {}
            Self::Uniform(before) => {
                *self = Self::room(*before, place);
                self.set(place, edit, verdict);
            }
            Self::Sparse(sparse) => sparse.set(reach, edit, verdict),
            Self::Bitmap(bitmap) => Arc::make_mut(bitmap).set(reach, edit, verdict),
            Self::Split(children) => {
                for (child, place) in Arc::make_mut(children).iter_mut().zip(place.children()) {
                    if place.meets(edit) {
                        child.set(place, edit, verdict);
                    }
                }
            }
        }
        self.fit(place);
    }

    /// A block of one verdict that an edit of a part of it can be made in.
    fn room(verdict: Verdict, place: Place) -> Self {
        if place.bits <= SPARSE_BITS_MAX {
            Self::Sparse(Sparse::of(verdict, &[], place.bits))
        } else {
            Self::Split(Arc::new(std::array::from_fn(|_| Self::Uniform(verdict))))
        }
    }

    /// Makes the block of the kind that fits the toggles which it has now.
    fn fit(&mut self, place: Place) {
        let fits = match (&*self, self.len()) {
            (Self::Uniform(_), _) => true,
            (Self::Sparse(_), len) => (1..=SPARSE_TOGGLES_MAX).contains(&len.unwrap_or(0)),
            (Self::Bitmap(_) | Self::Split(_), Some(0)) => false,
            (Self::Bitmap(_) | Self::Split(_), Some(len)) => {
                len > SPARSE_TOGGLES_AGAIN || place.bits > SPARSE_BITS_MAX
            }
            (_, None) => true,
        };
        if !fits {
            let first = self.first();
            let toggles: Vec<u32> = Toggles::of(self, place, first).collect();
            *self = Self::of(first, &toggles, place);
        }
    }

    /// How many toggles there are above the first address; none if some lie too deep to be worth counting.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Uniform(_) => Some(0),
            Self::Sparse(sparse) => Some(sparse.len()),
            Self::Bitmap(bitmap) => Some(bitmap.len()),
            Self::Split(children) => {
                let mut before = self.first();
                let mut len = 0;
                for child in children.iter() {
                    let own = match child {
                        Self::Uniform(_) => 0,
                        Self::Sparse(sparse) => sparse.len(),
                        Self::Bitmap(_) | Self::Split(_) => return None,
                    };
                    len += own + usize::from(child.first() != before);
                    before = child.first().after(own);
                }
                Some(len)
            }
        }
    }

    /// The verdict at the first address.
    fn first(&self) -> Verdict {
        match self {
            Self::Uniform(verdict) => *verdict,
            Self::Sparse(sparse) => sparse.first(),
            Self::Bitmap(bitmap) => bitmap.first(),
            Self::Split(children) => {
                let [first, ..] = &**children;
                first.first()
            }
        }
    }
}

fn bitmap(first: Verdict, toggles: &[u32], place: Place) -> Bitmap {
    let (mut bitmap, mut verdict) = (Bitmap::uniform(first), first);
    let ends = toggles.iter().skip(1).map(|next| next - 1).chain([place.reach().1]);
    for (toggle, end) in toggles.iter().zip(ends) {
        verdict = verdict.after(1);
        bitmap.set(place.reach(), (*toggle, end), verdict);
    }
    bitmap
}

/// Walks all toggles of a block, with those at the borders of blocks that no block holds.
struct Toggles<'a> {
    /// What is left to walk, the next one last.
    rest: Vec<(&'a Block, Place)>,
    /// What was walked last, not handed out yet.
    ready: std::vec::IntoIter<u32>,
    /// The verdict behind the toggles that are ready.
    verdict: Verdict,
}

impl<'a> Toggles<'a> {
    /// The toggles behind a verdict: if the block begins with the other one, its first address is one.
    fn of(block: &'a Block, place: Place, verdict: Verdict) -> Self {
        Self { rest: vec![(block, place)], ready: Vec::new().into_iter(), verdict }
    }
}

impl Iterator for Toggles<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some(toggle) = self.ready.next() {
                return Some(toggle);
            }
            let (block, place) = self.rest.pop()?;
            if let Block::Split(children) = block {
                self.rest.extend(children.iter().zip(place.children()).rev());
                continue;
            }
            let mut ready: Vec<u32> =
                (block.first() != self.verdict).then_some(place.low).into_iter().collect();
            match block {
                Block::Sparse(sparse) => ready.extend(sparse.toggles(place.low)),
                Block::Bitmap(bitmap) => ready.extend(bitmap.toggles(place.low)),
                Block::Uniform(_) | Block::Split(_) => {}
            }
            self.verdict = self.verdict.after(ready.len());
            self.ready = ready.into_iter();
        }
    }
}

#[cfg(test)]
mod tests;
