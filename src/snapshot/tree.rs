//! The IPv6 half of a snapshot: a persistent B-tree of toggles. An edit copies one path and shares all else
//! with the snapshots before it.
//!
//! ```text
//! cut at 5:  leaf, low 0           leaf, low 5
//!            first Free            first Free            the toggle at 5 becomes the border: the two
//!            toggles 2             toggles 7             verdicts that meet there are enough
//! ```
//!
//! Above the leaves (see `leaf.rs`) stand branches: nodes by rising `low`, each of which speaks of the
//! addresses from its `low` up to the next one's. A lookup halves its way down, O(log n).
//!
//! An edit goes down the one path that it changes, or two for a wide range: what lies between them is
//! replaced by uniform nodes without being looked at. A branch is copied only if a snapshot shares it, so
//! that the first edit after a publish copies the path and those that follow change it in place.
//!
//! It is a B-tree in that nodes split when they are too large and join when two neighbours are small, and
//! only the root adds a level. It is none in that a leaf may stand where branches are, where a wide edit made
//! everything alike: lookups do not care, and paths only get shorter by it.
//!
//! Why not a radix tree as for IPv4: the ranges of a real list crowd in a few corners of 2^128 addresses. A
//! tree that halves by what is there is as deep as the list is long, wherever its ranges lie.

mod branch;
mod directory;
mod leaf;

use std::sync::Arc;

use self::branch::{BRANCH_NODES_MAX, Branch, branch, branches, push_joined, put_joined};
use self::leaf::{LEAF_TOGGLES_MAX, Leaf};
use super::Verdict;
use super::toggles::{self, Splice};
use crate::address::Number;

/// How full the nodes of a tree are that is built at once, so that the edits to come do not split them all.
const LEAF_TOGGLES_BUILT: usize = LEAF_TOGGLES_MAX / 4 * 3;
const BRANCH_NODES_BUILT: usize = BRANCH_NODES_MAX / 8 * 7;

/// First and last of the addresses that a node or an edit speaks of.
type Reach = (u128, u128);

/// The ranges of IPv6. A clone shares all nodes.
#[derive(Clone, Debug)]
pub(super) struct Tree(Node);

/// What is known of the addresses from one node's `low` up to the next one's.
#[derive(Clone, Debug)]
enum Node {
    Uniform(Verdict),
    Leaf(Leaf),
    Branch(Arc<Branch>),
}

/// A node and the first address that it speaks of. A branch's first child begins where the branch does.
#[derive(Clone, Debug)]
struct Child {
    low: u128,
    node: Node,
}

impl Child {
    /// The nodes of a branch; of all else, itself.
    fn children(self) -> Vec<Self> {
        match self.node {
            Node::Branch(branch) => Arc::unwrap_or_clone(branch).children(),
            _ => vec![self],
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self(Node::Uniform(Verdict::Free))
    }
}

impl Tree {
    /// Builds the tree of ranges that rise, without overlap; O(n). Those that touch become one.
    pub(super) fn from_rising(ranges: impl Iterator<Item = Reach>) -> Self {
        let (first, toggles) = toggles::of_ranges(ranges);
        let mut children = leaves(first, u128::FIRST, &toggles, LEAF_TOGGLES_BUILT);
        while children.len() > 1 {
            children = branches(children, BRANCH_NODES_BUILT);
        }
        children.pop().map_or_else(Self::default, |root| Self(root.node))
    }

    /// Whether the address is blacklisted.
    pub(super) fn lookup(&self, address: u128) -> Verdict {
        let (mut low, mut node) = (u128::FIRST, &self.0);
        loop {
            match node {
                Node::Branch(branch) => {
                    let Some(found) = branch.get(branch.find(address)) else { return Verdict::Free };
                    (low, node) = found;
                }
                Node::Leaf(leaf) => return leaf.lookup(address - low),
                Node::Uniform(verdict) => return *verdict,
            }
        }
    }

    /// Gives every address from `start` to `end` the verdict, whatever they had.
    pub(super) fn set(&mut self, start: u128, end: u128, verdict: Verdict) {
        if self.0.has(u128::FIRST, (start, end), verdict) {
            return;
        }
        let root = std::mem::replace(&mut self.0, Node::Uniform(Verdict::Free));
        let mut children = root.set((u128::FIRST, u128::LAST), (start, end), verdict);
        // A root that has become too large comes back as several nodes: the tree gets one level higher.
        while children.len() > 1 {
            children = branches(children, BRANCH_NODES_MAX);
        }
        if let Some(root) = children.pop() {
            self.0 = root.node;
        }
    }

    /// The blacklisted ranges, merged and rising.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Reach> {
        let root = (u128::FIRST, &self.0);
        toggles::ranges(Toggles { rest: vec![root], ready: Vec::new().into_iter(), verdict: Verdict::Free })
    }
}

/// The nodes that hold these toggles, the first of which begins at `low`: one, or as many as they need with
/// at most so many in each.
fn leaves(first: Verdict, low: u128, toggles: &[u128], each_max: usize) -> Vec<Child> {
    let (mut first, mut low, mut rest) = (first, low, toggles);
    let mut children = Vec::with_capacity(toggles.len() / each_max + 1);
    while rest.len() > LEAF_TOGGLES_MAX {
        let (own, others) = rest.split_at(each_max);
        children.push(Child { low, node: Node::of(first, low, own) });
        let Some((border, others)) = others.split_first() else { break };
        // The toggle at the cut becomes the first verdict of the leaf to the right.
        (first, low, rest) = (first.after(own.len() + 1), *border, others);
    }
    children.push(Child { low, node: Node::of(first, low, rest) });
    children
}

impl Node {
    /// The node of these toggles, at most [`LEAF_TOGGLES_MAX`].
    fn of(first: Verdict, low: u128, toggles: &[u128]) -> Self {
        if toggles.is_empty() { Self::Uniform(first) } else { Self::Leaf(Leaf::of(first, low, toggles)) }
    }

    /// Whether all addresses of the edit have the verdict already, as far as that is seen at a glance; the
    /// edit lies in the node, which begins at `low`. Rows that are long over are freed once more when they are
    /// dropped, a whole list of them at the same time; that must not copy anything.
    fn has(&self, low: u128, edit: Reach, verdict: Verdict) -> bool {
        match self {
            Self::Uniform(own) => *own == verdict,
            Self::Leaf(leaf) => leaf.has(edit.0 - low, edit.1 - low, verdict),
            Self::Branch(branch) => {
                let (first, last) = (branch.find(edit.0), branch.find(edit.1));
                let found = branch.get(first).filter(|_| first == last);
                found.is_some_and(|(low, node)| node.has(low, edit, verdict))
            }
        }
    }

    /// The node after an edit of what lies in both reaches: one, or several side by side if it got too large
    /// for one.
    fn set(self, reach: Reach, edit: Reach, verdict: Verdict) -> Vec<Child> {
        let low = reach.0;
        if edit.0 <= low && reach.1 <= edit.1 {
            return vec![Child { low, node: Self::Uniform(verdict) }];
        }
        match self {
            Self::Branch(mut branch) => {
                let own = Arc::make_mut(&mut branch);
                let (first, last) = (own.find(edit.0.max(low)), own.find(edit.1));
                let mut edited = own.edited(first..=last, reach, edit, verdict);
                // Nearly all edits are small, and change one leaf.
                if let ([only], true) = (edited.as_mut_slice(), first == last)
                    && own.replace(first, &mut only.node)
                {
                    return vec![Child { low, node: Self::Branch(branch) }];
                }
                let mut children = Arc::unwrap_or_clone(branch).children();
                put_joined(&mut children, first..=last, edited);
                // A branch with one node says nothing that the node does not.
                if children.len() == 1 {
                    return children;
                }
                branches(children, BRANCH_NODES_MAX)
            }
            leaf => {
                let (first, mut toggles) = leaf.unpacked(low);
                let up_to = |address: u128| toggles.partition_point(|toggle| *toggle <= address);
                let Splice { first, gone, put } = toggles::splice(first, reach, edit, verdict, up_to);
                toggles.splice(gone, put.into_iter().flatten());
                leaves(first, low, &toggles, LEAF_TOGGLES_MAX / 2)
            }
        }
    }

    /// First verdict and toggles of a node without nodes below it.
    fn unpacked(&self, low: u128) -> (Verdict, Vec<u128>) {
        match self {
            Self::Uniform(verdict) => (*verdict, Vec::new()),
            Self::Leaf(leaf) => (leaf.first(), leaf.toggles(low).collect()),
            Self::Branch(_) => (Verdict::Free, Vec::new()),
        }
    }

    /// Whether two neighbours are so small that they are joined: together half of what makes a node split, so
    /// that edits which come and go around one size do not split and join the same nodes again and again.
    ///
    /// A leaf beside a branch, which a wide edit leaves there, is taken in as one of its nodes: else each such
    /// edit could leave a level behind.
    fn joins(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Branch(a), Self::Branch(b)) => a.len() + b.len() <= BRANCH_NODES_MAX / 2,
            (Self::Branch(branch), _) | (_, Self::Branch(branch)) => branch.len() < BRANCH_NODES_MAX / 2,
            (a, b) => a.toggles_len() + b.toggles_len() < LEAF_TOGGLES_MAX / 2,
        }
    }

    /// How many toggles a node without nodes below it has.
    fn toggles_len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::Uniform(_) | Self::Branch(_) => 0,
        }
    }
}

/// Two neighbours that are joined as one. The border between two leaves becomes a toggle again if the verdict
/// changes there.
fn joined(left: Child, right: Child) -> Child {
    if matches!(left.node, Node::Branch(_)) || matches!(right.node, Node::Branch(_)) {
        let mut all = left.children();
        right.children().into_iter().for_each(|child| push_joined(&mut all, child));
        return branch(all);
    }
    let (first, mut toggles) = left.node.unpacked(left.low);
    let (right_first, right_toggles) = right.node.unpacked(right.low);
    toggles.extend((first.after(toggles.len()) != right_first).then_some(right.low));
    toggles.extend(right_toggles);
    Child { low: left.low, node: Node::of(first, left.low, &toggles) }
}

/// Walks all toggles of a tree, with those at the borders of nodes that no node holds.
struct Toggles<'a> {
    /// What is left to walk, the next one last.
    rest: Vec<(u128, &'a Node)>,
    /// What was walked last, not handed out yet.
    ready: std::vec::IntoIter<u128>,
    /// The verdict behind the toggles that are ready: what is no change from it is a border, and no toggle.
    verdict: Verdict,
}

impl Iterator for Toggles<'_> {
    type Item = u128;

    fn next(&mut self) -> Option<u128> {
        loop {
            if let Some(toggle) = self.ready.next() {
                return Some(toggle);
            }
            let (low, node) = self.rest.pop()?;
            if let Node::Branch(branch) = node {
                self.rest.extend(branch.iter().rev());
                continue;
            }
            let (first, mut toggles) = node.unpacked(low);
            if first != self.verdict {
                toggles.insert(0, low);
            }
            self.verdict = self.verdict.after(toggles.len());
            self.ready = toggles.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELLS: usize = 2_000;

    /// Two stretches of addresses, at both ends of the family, so that edges are hit often.
    fn address(cell: usize) -> u128 {
        let cell = cell as u128;
        if cell < 1_000 { cell } else { u128::MAX - (1_999 - cell) }
    }

    fn check(tree: &Tree, cells: &[bool]) {
        for (cell, blacklisted) in cells.iter().enumerate() {
            let expected = if *blacklisted { Verdict::Blacklisted } else { Verdict::Free };
            assert_eq!(tree.lookup(address(cell)), expected, "{cell}");
        }
        let ranges: Vec<_> = tree.ranges().collect();
        let apart = |pair: &[Reach]| pair[0].1 < pair[1].0 - 1;
        assert!(ranges.windows(2).all(apart), "neighbours are merged");
        // A range in the middle reaches into both stretches, or none does: only ends are compared.
        let blacklisted =
            |cell: &usize| ranges.iter().any(|range| (range.0..=range.1).contains(&address(*cell)));
        let counted: Vec<bool> = (0..CELLS).map(|cell| blacklisted(&cell)).collect();
        assert_eq!(counted, cells);
        let rebuilt = Tree::from_rising(ranges.iter().copied());
        assert!(rebuilt.ranges().eq(ranges));
        [tree, &rebuilt].into_iter().for_each(|tree| check_sizes(&tree.0));
    }

    /// No node is larger than what an edit may copy, and none is a branch without need.
    fn check_sizes(node: &Node) {
        match node {
            Node::Uniform(_) => {}
            Node::Leaf(leaf) => assert!((1..=LEAF_TOGGLES_MAX).contains(&leaf.len()), "{}", leaf.len()),
            Node::Branch(branch) => {
                assert!((2..=BRANCH_NODES_MAX).contains(&branch.len()), "{}", branch.len());
                branch.iter().for_each(|(_, node)| check_sizes(node));
            }
        }
    }

    fn nodes(node: &Node) -> usize {
        match node {
            Node::Branch(branch) => 1 + branch.iter().map(|(_, node)| nodes(node)).sum::<usize>(),
            _ => 1,
        }
    }

    fn depth(node: &Node) -> usize {
        match node {
            Node::Branch(branch) => 1 + branch.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
            _ => 1,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_tree_equals_a_flag_for_each_address(
            edits in prop::collection::vec(
                (0..CELLS, prop_oneof![9 => 0..3_usize, 1 => 0..CELLS], any::<bool>()),
                1..1_500,
            ),
        ) {
            let (mut tree, mut cells) = (Tree::default(), vec![false; CELLS]);
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

    fn spread(at: u128) -> u128 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    #[test]
    fn a_large_tree_stays_shallow_and_shrinks_again() {
        let mut tree = Tree::default();
        (0..50_000).map(spread).for_each(|start| tree.set(start, start, Verdict::Blacklisted));
        assert_eq!(tree.ranges().count(), 50_000);
        let rebuilt = Tree::from_rising(tree.ranges());
        for tree in [&tree, &rebuilt] {
            assert!(depth(&tree.0) <= 5, "{}", depth(&tree.0));
            check_sizes(&tree.0);
            assert!((0..50_000).all(|at| tree.lookup(spread(at)) == Verdict::Blacklisted));
            assert!((0..50_000).all(|at| tree.lookup(spread(at) + 1) == Verdict::Free));
        }
        tree.set(0, u128::MAX, Verdict::Free);
        assert_eq!((tree.ranges().count(), depth(&tree.0)), (0, 1));
    }

    #[test]
    fn wide_edits_leave_no_levels_behind() {
        let mut tree = Tree::default();
        let (low, high) = (1_u128 << 120, 2_u128 << 120);
        for at in 1..=70 {
            tree.set(low - 2 * at, low - 2 * at, Verdict::Blacklisted);
            tree.set(high + 2 * at, high + 2 * at, Verdict::Blacklisted);
        }
        for _ in 0..8 {
            let inside = |at: u128| low + spread(at) % (high - low);
            (0..20_000).map(inside).for_each(|start| tree.set(start, start, Verdict::Blacklisted));
            tree.set(low, high, Verdict::Free);
            assert_eq!(tree.ranges().count(), 140);
            assert!(depth(&tree.0) <= 3 && nodes(&tree.0) < 20, "{}, {}", depth(&tree.0), nodes(&tree.0));
            check_sizes(&tree.0);
        }
    }

    #[test]
    fn an_edit_that_changes_nothing_copies_nothing() {
        let mut tree = Tree::default();
        (0..1_000).map(spread).for_each(|start| tree.set(start, start + 9, Verdict::Blacklisted));
        let Node::Branch(before) = tree.0.clone() else { unreachable!("a thousand ranges take a branch") };
        for at in 0..1_000 {
            tree.set(spread(at), spread(at) + 9, Verdict::Blacklisted);
            tree.set(spread(at) + 10, spread(at) + 20, Verdict::Free);
        }
        assert!(matches!(&tree.0, Node::Branch(after) if Arc::ptr_eq(&before, after)));
    }

    #[test]
    fn small_nodes_are_joined_when_ranges_go_one_by_one() {
        let mut tree = Tree::default();
        (0..50_000).map(spread).for_each(|start| tree.set(start, start, Verdict::Blacklisted));
        let full = nodes(&tree.0);
        (10..50_000).map(spread).for_each(|start| tree.set(start, start, Verdict::Free));
        assert_eq!(tree.ranges().count(), 10);
        assert!(full > 500 && nodes(&tree.0) < 20, "{} of {full}", nodes(&tree.0));
    }
}
