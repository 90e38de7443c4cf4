//! A persistent tree of ranges: an edit copies one path and shares all else with the snapshots before it.
//!
//! A leaf holds the addresses at which the verdict *toggles*; an address is blacklisted if the number of
//! toggles at or below it is odd, or even in a leaf that begins inside a range. No two neighbouring ranges
//! are ever kept apart, because there is no toggle between them.
//!
//! ```text
//! ranges     2–4 and 7–9 of a family 0–9
//!
//! address    0   1   2   3   4   5   6   7   8   9
//! verdict    .   .   #   #   #   .   .   #   #   #
//! toggles            2           5       7               a range up to the last address has no end
//!
//! cut at 5:  leaf, low 0           leaf, low 5
//!            first Free            first Free            the toggle at 5 becomes the border: the two
//!            toggles 2             toggles 7             verdicts that meet there are enough
//! ```
//!
//! Above the leaves stand branches: children by rising `low`, each of which speaks of the addresses from its
//! `low` up to the next one's. A lookup halves its way down, O(log n).
//!
//! An edit goes down the one path that it changes, or two for a wide range: what lies between them is
//! replaced by uniform leaves without being looked at. `Arc::make_mut` copies a node only if a snapshot
//! shares it, so that the first edit after a publish copies the path and those that follow work in place.
//!
//! It is a B-tree in that nodes split when they are too large and join when two neighbours are small, and
//! only the root adds a level. It is none in that a leaf may stand where branches are, where a wide edit made
//! everything alike: lookups do not care, and paths only get shorter by it.
//!
//! Why a tree and not a table of prefixes: one structure serves both families, and its memory follows the
//! number of ranges, not where they lie.

use std::sync::Arc;

use crate::address::Number;

/// The most toggles of a leaf: a leaf is copied whole by every edit in it, and a larger one makes the tree
/// flatter for lookups.
const LEAF_TOGGLES_MAX: usize = 128;
/// The most children of a branch: copying one counts a reference on each of them, which is what an edit of
/// a large tree spends most of its time on.
const BRANCH_CHILDREN_MAX: usize = 32;

/// Whether an address is blacklisted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// No range has it.
    Free,
    /// A range has it.
    Blacklisted,
}

impl Verdict {
    /// The verdict behind so many toggles.
    const fn after(self, toggles: usize) -> Self {
        match (self, toggles % 2) {
            (verdict, 0) => verdict,
            (Self::Free, _) => Self::Blacklisted,
            (Self::Blacklisted, _) => Self::Free,
        }
    }
}

/// The ranges of one family. A clone shares all nodes but the root.
#[derive(Clone, Debug)]
pub(super) struct Tree<N>(Node<N>);

/// What is known of the addresses from one child's `low` up to the next one's.
#[derive(Clone, Debug)]
enum Node<N> {
    Leaf(Leaf<N>),
    Branch(Vec<Child<N>>),
}

#[derive(Clone, Debug)]
struct Leaf<N> {
    /// The verdict at the leaf's first address, before any toggle.
    first: Verdict,
    /// Where the verdict changes, rising, all above the leaf's first address.
    toggles: Vec<N>,
}

#[derive(Clone, Debug)]
struct Child<N> {
    /// The first address that the node speaks of. A branch's first child begins where the branch does.
    low: N,
    node: Arc<Node<N>>,
}

/// First and last of the addresses that a node speaks of.
type Reach<N> = (N, N);

impl<N: Number> Default for Tree<N> {
    fn default() -> Self {
        Self(Node::uniform(Verdict::Free))
    }
}

impl<N: Number> Tree<N> {
    /// Builds the tree of ranges that rise, without overlap; O(n). Those that touch become one.
    pub(super) fn from_rising(ranges: impl IntoIterator<Item = (N, N)>) -> Self {
        let mut toggles: Vec<N> = Vec::new();
        for (start, end) in ranges {
            // The end of the range before is the start of this one: no toggle is left between them.
            if toggles.last() == Some(&start) {
                toggles.pop();
            } else {
                toggles.push(start);
            }
            toggles.extend(end.next());
        }
        // A toggle at the very first address has nothing below it: it is the first verdict instead.
        let first = if toggles.first() == Some(&N::FIRST) { Verdict::Blacklisted } else { Verdict::Free };
        if first == Verdict::Blacklisted {
            toggles.remove(0);
        }
        Self(Node::of(Leaf { first, toggles }))
    }

    /// Whether the address is blacklisted.
    pub(super) fn lookup(&self, address: N) -> Verdict {
        let mut node = &self.0;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return leaf.first.after(leaf.toggles.partition_point(|toggle| *toggle <= address));
                }
                Node::Branch(children) => match children.get(child_of(children, address)) {
                    Some(child) => node = &child.node,
                    None => return Verdict::Free,
                },
            }
        }
    }

    /// Gives every address from `start` to `end` the verdict, whatever they had.
    pub(super) fn set(&mut self, start: N, end: N, verdict: Verdict) {
        // A root that has become too large hands back what is too much: the tree gets one level higher.
        let mut siblings = self.0.set((N::FIRST, N::LAST), (start, end), verdict);
        if !siblings.is_empty() {
            let first = std::mem::replace(&mut self.0, Node::Branch(Vec::new()));
            siblings.insert(0, Child { low: N::FIRST, node: Arc::new(first) });
            self.0 = Node::Branch(siblings);
        }
        // A root with one child says nothing that the child does not: the tree gets lower again.
        while let Node::Branch(children) = &mut self.0
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.0 = Arc::unwrap_or_clone(only.node);
        }
    }

    /// The blacklisted ranges, merged and rising. Toggles come in pairs, of start and of first address behind
    /// the end; a range that reaches the family's last address has no second one.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (N, N)> {
        let mut toggles = Toggles { path: vec![(&self.0, N::FIRST, 0)], verdict: Verdict::Free };
        std::iter::from_fn(move || {
            let start = toggles.next()?;
            let end = toggles.next().and_then(N::previous).unwrap_or(N::LAST);
            Some((start, end))
        })
    }
}

/// The child that speaks of the address: the last one that begins at or below it.
fn child_of<N: Number>(children: &[Child<N>], address: N) -> usize {
    children.partition_point(|child| child.low <= address).saturating_sub(1)
}

impl<N: Number> Node<N> {
    /// A node that gives all its addresses one verdict.
    fn uniform(verdict: Verdict) -> Self {
        Self::Leaf(Leaf { first: verdict, toggles: Vec::new() })
    }

    /// The node, of any depth, that holds what one oversized leaf does: built from the leaves up. Branches
    /// are filled by half, so that the edits to come do not split them at once.
    fn of(mut leaf: Leaf<N>) -> Self {
        let mut children = vec![];
        for right in leaf.split() {
            children.push(Child { low: right.0, node: Arc::new(Self::Leaf(right.1)) });
        }
        if children.is_empty() {
            return Self::Leaf(leaf);
        }
        children.insert(0, Child { low: N::FIRST, node: Arc::new(Self::Leaf(leaf)) });
        while children.len() > BRANCH_CHILDREN_MAX {
            let branch = |children: &[Child<N>]| {
                children
                    .first()
                    .map(|first| Child { low: first.low, node: Arc::new(Self::Branch(children.to_vec())) })
            };
            children = children.chunks(BRANCH_CHILDREN_MAX / 2).filter_map(branch).collect();
        }
        Self::Branch(children)
    }

    /// Sets what lies in both reaches; returns the siblings that this node's new content needs to its right,
    /// for the branch above to take in.
    fn set(&mut self, reach: Reach<N>, edit: Reach<N>, verdict: Verdict) -> Vec<Child<N>> {
        if edit.0 <= reach.0 && reach.1 <= edit.1 {
            *self = Self::uniform(verdict);
            return Vec::new();
        }
        match self {
            Self::Leaf(leaf) => {
                leaf.set(reach, edit, verdict);
                let child = |(low, leaf)| Child { low, node: Arc::new(Self::Leaf(leaf)) };
                leaf.split().into_iter().map(child).collect()
            }
            Self::Branch(children) => {
                set_in_children(children, reach, edit, verdict);
                split_children(children)
            }
        }
    }
}

/// Sets the part of an edit that lies in a branch's reach, child by child, and joins what became small.
///
/// Only the children that the edit meets, and one neighbour on each side, are looked at; all others move over
/// as they are.
fn set_in_children<N: Number>(
    children: &mut Vec<Child<N>>,
    reach: Reach<N>,
    edit: Reach<N>,
    verdict: Verdict,
) {
    let (first, last) = (child_of(children, edit.0), child_of(children, edit.1));
    let above = children.get(last + 1).map(|child| child.low);
    let mut edited: Vec<Child<N>> = Vec::with_capacity(last - first + 2);
    let tail = children.split_off((last + 1).min(children.len()));
    let mut affected = children.split_off(first).into_iter().peekable();
    while let Some(mut child) = affected.next() {
        let next_low = affected.peek().map(|next| next.low).or(above);
        let child_reach = (child.low, next_low.and_then(N::previous).unwrap_or(reach.1));
        let covered = edit.0 <= child_reach.0 && child_reach.1 <= edit.1;
        let siblings = if covered {
            // A child that is replaced whole must not be copied first.
            child.node = Arc::new(Node::uniform(verdict));
            Vec::new()
        } else {
            Arc::make_mut(&mut child.node).set(child_reach, edit, verdict)
        };
        push_merged(&mut edited, child);
        siblings.into_iter().for_each(|sibling| push_merged(&mut edited, sibling));
    }
    // The neighbours on both sides take part in merging, so that small leaves never pile up.
    edited.into_iter().for_each(|child| push_merged(children, child));
    let mut tail = tail.into_iter();
    tail.by_ref().take(1).for_each(|child| push_merged(children, child));
    children.extend(tail);
}

/// Appends a child, or joins it to the last one if both together are small.
///
/// Small is half of what makes a node split, so that edits which come and go around one size do not split and
/// join the same nodes again and again.
fn push_merged<N: Number>(children: &mut Vec<Child<N>>, child: Child<N>) {
    let Some(last) = children.last_mut() else { return children.push(child) };
    match (&*last.node, &*child.node) {
        (Node::Leaf(a), Node::Leaf(b)) if a.toggles.len() + b.toggles.len() < LEAF_TOGGLES_MAX / 2 => {
            let mut joined = a.clone();
            joined.append(child.low, b);
            last.node = Arc::new(Node::Leaf(joined));
        }
        (Node::Branch(a), Node::Branch(b)) if a.len() + b.len() <= BRANCH_CHILDREN_MAX / 2 => {
            last.node = Arc::new(Node::Branch([a.as_slice(), b.as_slice()].concat()));
        }
        _ => children.push(child),
    }
}

/// Cuts off what a branch has too much, as siblings to its right, each half full.
fn split_children<N: Number>(children: &mut Vec<Child<N>>) -> Vec<Child<N>> {
    let mut siblings = Vec::new();
    while children.len() > BRANCH_CHILDREN_MAX {
        let right = children.split_off(children.len() - BRANCH_CHILDREN_MAX / 2);
        if let Some(low) = right.first().map(|child| child.low) {
            siblings.insert(0, Child { low, node: Arc::new(Node::Branch(right)) });
        }
    }
    siblings
}

impl<N: Number> Leaf<N> {
    /// The verdict at the leaf's last address.
    fn last(&self) -> Verdict {
        self.first.after(self.toggles.len())
    }

    /// Sets what lies in both reaches: takes out the toggles from its start to right behind its end, and puts
    /// one back at either border where the verdict still changes. Those two are all that can be needed.
    fn set(&mut self, reach: Reach<N>, edit: Reach<N>, verdict: Verdict) {
        let (start, end) = (edit.0.max(reach.0), edit.1.min(reach.1));
        let below = self.toggles.partition_point(|toggle| *toggle < start);
        let up_to_end = self.toggles.partition_point(|toggle| *toggle <= end);
        // A toggle right behind the end is taken along: whether it stays depends on the new verdict.
        let behind = end.next().filter(|behind| *behind <= reach.1);
        let taken =
            up_to_end + usize::from(behind.is_some() && self.toggles.get(up_to_end) == behind.as_ref());
        // The verdicts of the addresses right below and right above what is set, as they were and will be.
        let before = self.first.after(below);
        let after = self.first.after(taken);
        let mut new = Vec::with_capacity(2);
        if start == reach.0 {
            // The border to the leaf below holds no toggle: its last and our first verdict say it all.
            self.first = verdict;
        } else if before != verdict {
            new.push(start);
        }
        new.extend(behind.filter(|_| after != verdict));
        self.toggles.splice(below..taken, new);
    }

    /// Takes in the leaf to the right, which begins at `low`. The border between the two becomes a toggle
    /// again if the verdict changes there.
    fn append(&mut self, low: N, right: &Self) {
        if self.last() != right.first {
            self.toggles.push(low);
        }
        self.toggles.extend_from_slice(&right.toggles);
    }

    /// Cuts off what is too much, as leaves to the right with the addresses where they begin.
    fn split(&mut self) -> Vec<(N, Self)> {
        let mut right = Vec::new();
        while self.toggles.len() > LEAF_TOGGLES_MAX {
            let cut = self.toggles.len() - LEAF_TOGGLES_MAX / 2;
            let tail = self.toggles.split_off(cut);
            let Some((low, toggles)) = tail.split_first() else { break };
            // The toggle at the cut becomes the right leaf's first verdict.
            right.push((*low, Self { first: self.first.after(cut + 1), toggles: toggles.to_vec() }));
        }
        right.reverse();
        right
    }
}

/// Walks all toggles of a tree, with those at leaf borders that no leaf holds.
struct Toggles<'a, N> {
    /// The nodes on the way down, each with its `low` and the next step to take in it.
    path: Vec<(&'a Node<N>, N, usize)>,
    /// The verdict behind the last toggle: what is no change from it is a border, and no toggle.
    verdict: Verdict,
}

impl<N: Number> Toggles<'_, N> {
    fn next(&mut self) -> Option<N> {
        while let Some((node, low, at)) = self.path.pop() {
            match node {
                Node::Branch(children) => {
                    if let Some(child) = children.get(at) {
                        self.path.push((node, low, at + 1));
                        self.path.push((&child.node, child.low, 0));
                    }
                }
                Node::Leaf(leaf) => {
                    // Step 0 is the leaf's border, step n its n-th toggle.
                    let verdict = leaf.first.after(at);
                    let toggle = at.checked_sub(1).map_or(Some(low), |at| leaf.toggles.get(at).copied());
                    let Some(toggle) = toggle else { continue };
                    self.path.push((node, low, at + 1));
                    if verdict != self.verdict {
                        self.verdict = verdict;
                        return Some(toggle);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELLS: usize = 2_000;

    /// Two stretches of addresses, at both ends of the family, so that edges are hit often.
    fn address(cell: usize) -> u32 {
        let cell = u32::try_from(cell).expect("a small number");
        if cell < 1_000 { cell } else { u32::MAX - (1_999 - cell) }
    }

    fn check(tree: &Tree<u32>, cells: &[bool]) {
        for (cell, blacklisted) in cells.iter().enumerate() {
            let expected = if *blacklisted { Verdict::Blacklisted } else { Verdict::Free };
            assert_eq!(tree.lookup(address(cell)), expected, "{cell}");
        }
        let ranges: Vec<_> = tree.ranges().collect();
        let apart = |pair: &[(u32, u32)]| pair[0].1 < pair[1].0 - 1;
        assert!(ranges.windows(2).all(apart), "neighbours are merged");
        let count: u64 = ranges.iter().map(|(start, end)| u64::from(end - start) + 1).sum();
        let middle = if tree.lookup(1 << 31) == Verdict::Blacklisted { (1 << 32) - CELLS as u64 } else { 0 };
        assert_eq!(count, cells.iter().filter(|cell| **cell).count() as u64 + middle);
        let rebuilt = Tree::from_rising(ranges.iter().copied());
        assert!(rebuilt.ranges().eq(ranges));
        [tree, &rebuilt].into_iter().for_each(|tree| check_sizes(&tree.0));
    }

    /// No node is larger than what an edit may copy.
    fn check_sizes<N>(node: &Node<N>) {
        match node {
            Node::Leaf(leaf) => assert!(leaf.toggles.len() <= LEAF_TOGGLES_MAX),
            Node::Branch(children) => {
                assert!((2..=BRANCH_CHILDREN_MAX).contains(&children.len()), "{}", children.len());
                children.iter().for_each(|child| check_sizes(&child.node));
            }
        }
    }

    fn nodes<N>(node: &Node<N>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Branch(children) => 1 + children.iter().map(|child| nodes(&child.node)).sum::<usize>(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_tree_equals_a_flag_for_each_address(
            edits in prop::collection::vec((0..CELLS, prop_oneof![9 => 0..3_usize, 1 => 0..CELLS], any::<bool>()), 1..1_500),
        ) {
            let (mut tree, mut cells) = (Tree::<u32>::default(), vec![false; CELLS]);
            let mut kept = Vec::new();
            for (at, (first, more, blacklisted)) in edits.iter().enumerate() {
                let last = (first + more).min(CELLS - 1);
                let verdict = if *blacklisted { Verdict::Blacklisted } else { Verdict::Free };
                tree.set(address(*first), address(last), verdict);
                cells[*first..=last].fill(*blacklisted);
                if at % 300 == 0 {
                    kept.push((tree.clone(), cells.clone()));
                }
            }
            check(&tree, &cells);
            kept.iter().for_each(|(tree, cells)| check(tree, cells));
        }
    }

    #[test]
    fn a_large_tree_stays_shallow_and_shrinks_again() {
        let mut tree = Tree::<u128>::default();
        for at in 0..50_000_u128 {
            let start = at.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            tree.set(start, start, Verdict::Blacklisted);
        }
        assert_eq!(tree.ranges().count(), 50_000);
        let rebuilt = Tree::from_rising(tree.ranges());
        for tree in [&tree, &rebuilt] {
            assert!(depth(&tree.0) <= 6, "{}", depth(&tree.0));
            check_sizes(&tree.0);
        }
        tree.set(0, u128::MAX, Verdict::Free);
        assert_eq!((tree.ranges().count(), depth(&tree.0)), (0, 1));
    }

    #[test]
    fn small_nodes_are_joined_when_ranges_go_one_by_one() {
        let mut tree = Tree::<u32>::default();
        let address = |at: u32| at.wrapping_mul(0x9e37_79b9);
        (0..50_000).for_each(|at| tree.set(address(at), address(at), Verdict::Blacklisted));
        let full = nodes(&tree.0);
        (10..50_000).for_each(|at| tree.set(address(at), address(at), Verdict::Free));
        assert_eq!(tree.ranges().count(), 10);
        assert!(full > 500 && nodes(&tree.0) < 20, "{} of {full}", nodes(&tree.0));
    }

    fn depth<N>(node: &Node<N>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Branch(children) => 1 + children.iter().map(|child| depth(&child.node)).max().unwrap_or(0),
        }
    }
}
