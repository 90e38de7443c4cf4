//! A branch of the IPv6 tree: nodes side by side, and which of them speaks of an address.
//!
//! Where the nodes begin is kept apart from them, because that is all a search looks at; of these lows the
//! upper halves once more, because a processor compares so much at once, and nearly always they tell.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::directory::{Directory, searched, up_to};
use super::{Child, Node, Reach, joined};
use crate::address::Number;
use crate::snapshot::Verdict;

/// The most nodes of a branch. Copying one, as the first edit after a publish does, counts a reference on each
/// of them; but with fewer, the tree of a million ranges has one level more, which every lookup pays for.
pub(super) const BRANCH_NODES_MAX: usize = 128;
/// How many buckets the directory of a branch has.
const BUCKETS: usize = 128;
/// How many lows a lookup compares, whatever the bucket has.
const LANES: usize = 4;

/// Nodes side by side; a clone shares what is below them.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// Where to look among the highs but the first one: what lies below that is often the whole space that a
    /// list does not use.
    directory: Directory<BUCKETS>,
    /// The upper halves of the lows.
    highs: [u64; BRANCH_NODES_MAX],
    /// Rising; those behind the last node are the highest number.
    lows: [u128; BRANCH_NODES_MAX],
    /// What lies behind the last one is never looked at.
    nodes: [Node; BRANCH_NODES_MAX],
    /// How many nodes there are.
    len: usize,
}

/// The branches over these children, with at most so many in each.
pub(super) fn branches(children: Vec<Child>, each_max: usize) -> Vec<Child> {
    let (mut branches, mut rest) = (Vec::new(), children.into_iter());
    while rest.len() > 0 {
        // What is left for two, when it is too much for one, is shared evenly.
        let own =
            if rest.len() <= BRANCH_NODES_MAX { rest.len() } else { each_max.min(rest.len().div_ceil(2)) };
        branches.push(branch(rest.by_ref().take(own).collect()));
    }
    branches
}

/// The branch over these children, at least one and no more than one may have.
pub(super) fn branch(children: Vec<Child>) -> Child {
    let len = children.len();
    let mut lows = [u128::LAST; BRANCH_NODES_MAX];
    let mut nodes = [const { Node::Uniform(Verdict::Free) }; BRANCH_NODES_MAX];
    for ((low, node), child) in lows.iter_mut().zip(&mut nodes).zip(children) {
        (*low, *node) = (child.low, child.node);
    }
    let highs = lows.map(high);
    let directory = Directory::of(highs.get(1..len).unwrap_or_default().iter().copied());
    let [low, ..] = lows;
    Child { low, node: Node::Branch(Arc::new(Branch { directory, highs, lows, nodes, len })) }
}

/// The upper half of an address.
const fn high(address: u128) -> u64 {
    (address >> u64::BITS) as u64
}

impl Branch {
    /// The node that speaks of the address: the last one that begins at or below it. The branch begins at or
    /// below it.
    pub(super) fn find(&self, address: u128) -> usize {
        let high = high(address);
        let [_, above @ ..] = &self.highs;
        let found = up_to::<LANES, _>(above, self.directory.find(high), |low| *low <= high);
        if self.highs.get(found).is_some_and(|low| *low < high) {
            return found;
        }
        // Where the halves do not tell, the whole numbers do. What lies behind the last node compares with the
        // highest address.
        searched(&self.lows, |low| *low <= address).min(self.len).saturating_sub(1)
    }

    /// A node, and the first address that it speaks of.
    pub(super) fn get(&self, at: usize) -> Option<(u128, &Node)> {
        self.lows.get(at).copied().zip(self.nodes.get(at))
    }

    /// How many nodes there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The nodes, each with the first address that it speaks of.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u128, &Node)> {
        self.lows.iter().copied().zip(&self.nodes).take(self.len)
    }

    /// Sets the part of an edit that lies in these nodes, and hands out what is in their place now.
    pub(super) fn edited(
        &mut self,
        affected: RangeInclusive<usize>,
        reach: Reach,
        edit: Reach,
        verdict: Verdict,
    ) -> Vec<Child> {
        let (first, len) = (*affected.start(), affected.count());
        // What lies behind the last node's low is as high as can be.
        let lasts = self.lows.iter().skip(1).take(self.len - 1).map(|low| low - 1).chain([reach.1]);
        let reaches = self.lows.iter().copied().zip(lasts).skip(first).take(len);
        let nodes = self.nodes.iter_mut().skip(first);
        let set = |(node, reach): (&mut Node, Reach)| {
            std::mem::replace(node, Node::Uniform(verdict)).set(reach, edit, verdict)
        };
        nodes.zip(reaches).flat_map(set).collect()
    }

    /// Puts a node in that place, if it need not be joined with a neighbour there; whether it did.
    pub(super) fn replace(&mut self, at: usize, node: &mut Node) -> bool {
        let below = at.checked_sub(1).and_then(|below| self.nodes.get(below));
        let above = self.nodes.get(at + 1).filter(|_| at + 1 < self.len);
        if below.into_iter().chain(above).any(|neighbour| neighbour.joins(node)) {
            return false;
        }
        self.nodes.get_mut(at).map(|place| std::mem::swap(place, node)).is_some()
    }

    pub(super) fn children(self) -> Vec<Child> {
        self.lows.into_iter().zip(self.nodes).take(self.len).map(|(low, node)| Child { low, node }).collect()
    }
}

/// Puts what was edited in the place of what was there, and joins what became small.
///
/// The neighbours on both sides take part, so that small nodes never pile up; all others move over as they
/// are.
pub(super) fn put_joined(children: &mut Vec<Child>, place: RangeInclusive<usize>, edited: Vec<Child>) {
    let mut above = children.split_off((place.end() + 1).min(children.len())).into_iter();
    children.truncate(*place.start());
    edited.into_iter().chain(above.by_ref().take(1)).for_each(|child| push_joined(children, child));
    children.extend(above);
}

/// Appends a child, or joins it to the last one if both together are small.
pub(super) fn push_joined(children: &mut Vec<Child>, child: Child) {
    match children.pop_if(|last| last.node.joins(&child.node)) {
        Some(last) => children.push(joined(last, child)),
        None => children.push(child),
    }
}
