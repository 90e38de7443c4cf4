use proptest::prelude::*;

use super::*;

const WINDOW: u32 = 4_000;
const CELLS: usize = 3 * WINDOW as usize;

/// Three stretches of addresses: at both ends of the family, and across a border at which blocks of every
/// size meet. Each has room for more toggles than a sparse block has.
fn address(cell: usize) -> u32 {
    let (window, cell) = (cell as u32 / WINDOW, cell as u32 % WINDOW);
    [0, (5 << 24) - WINDOW / 2, u32::MAX - (WINDOW - 1)][window as usize] + cell
}

fn verdict(blacklisted: bool) -> Verdict {
    if blacklisted { Verdict::Blacklisted } else { Verdict::Free }
}

fn check(radix: &Radix, cells: &[bool]) {
    for (cell, blacklisted) in cells.iter().enumerate() {
        assert_eq!(radix.lookup(address(cell)), verdict(*blacklisted), "{cell}");
    }
    let ranges: Vec<_> = radix.ranges().collect();
    assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0 - 1), "neighbours are merged");
    let rebuilt = Radix::from_rising(ranges.iter().copied());
    assert!(rebuilt.ranges().eq(ranges.iter().copied()));
    let mut from_ranges = vec![false; CELLS];
    let within = |cell: &usize| {
        let after = ranges.partition_point(|range| range.0 <= address(*cell));
        after > 0 && address(*cell) <= ranges[after - 1].1
    };
    (0..CELLS).filter(within).for_each(|cell| from_ranges[cell] = true);
    assert_eq!(from_ranges, cells);
    [radix, &rebuilt].into_iter().for_each(|radix| check_kinds(&radix.0, Place::ALL));
}

/// Every block is of a kind that it may be, and no larger than what an edit may copy.
fn check_kinds(block: &Block, place: Place) {
    match block {
        Block::Uniform(_) => {}
        Block::Sparse(sparse) => {
            assert!(place.bits <= SPARSE_BITS_MAX);
            assert!((1..=SPARSE_TOGGLES_MAX).contains(&sparse.len()), "{}", sparse.len());
            assert_eq!(sparse.toggles(place.low).count(), sparse.len());
        }
        Block::Bitmap(bitmap) => {
            assert_eq!(place.bits, BITMAP_BITS);
            assert!(bitmap.len() > SPARSE_TOGGLES_AGAIN);
        }
        Block::Split(children) => {
            assert!(place.bits > BITMAP_BITS);
            assert!(block.len() != Some(0), "a split of one verdict");
            children.iter().zip(place.children()).for_each(|(child, place)| check_kinds(child, place));
        }
    }
}

fn kinds(block: &Block) -> (usize, usize, usize) {
    match block {
        Block::Uniform(_) => (0, 0, 0),
        Block::Sparse(_) => (1, 0, 0),
        Block::Bitmap(_) => (0, 1, 0),
        Block::Split(children) => children
            .iter()
            .map(kinds)
            .fold((0, 0, 1), |all, own| (all.0 + own.0, all.1 + own.1, all.2 + own.2)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_radix_tree_equals_a_flag_for_each_address(
        dense in any::<bool>(),
        edits in prop::collection::vec(
            (0..CELLS, prop_oneof![9 => 0..3_usize, 1 => 0..CELLS], any::<bool>()),
            1..400,
        ),
    ) {
        let (mut radix, mut cells) = (Radix::default(), vec![false; CELLS]);
        if dense {
            (0..CELLS).step_by(2).for_each(|cell| cells[cell] = true);
            let single = |cell| (address(cell), address(cell));
            radix = Radix::from_rising((0..CELLS).step_by(2).map(single));
        }
        prop_assert_eq!(kinds(&radix.0).1 > 0, dense);
        let mut kept = Vec::new();
        for (at, (first, more, blacklisted)) in edits.iter().enumerate() {
            // Within one stretch, because the addresses between two of them have no flag.
            let last = (first + more).min((first / WINDOW as usize + 1) * WINDOW as usize - 1);
            radix.set(address(*first), address(last), verdict(*blacklisted));
            cells[*first..=last].fill(*blacklisted);
            if at % 100 == 0 {
                kept.push((radix.clone(), cells.clone()));
            }
        }
        check(&radix, &cells);
        kept.iter().for_each(|(radix, cells)| check(radix, cells));
    }

    #[test]
    fn a_built_tree_equals_one_of_edits(
        starts in prop::collection::btree_set(any::<u32>(), 0..3_000),
        width in 0..5_000_u32,
    ) {
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u32::MAX]);
        let range = |(start, end): (&u32, u32)| (*start, end.min(start.saturating_add(width)));
        let ranges: Vec<Reach> = starts.iter().zip(ends).map(range).collect();
        let built = Radix::from_rising(ranges.iter().copied());
        let mut edited = Radix::default();
        ranges.iter().for_each(|range| edited.set(range.0, range.1, Verdict::Blacklisted));
        prop_assert!(built.ranges().eq(edited.ranges()));
        for range in &ranges {
            for address in [range.0, range.1, range.0.wrapping_sub(1), range.1.wrapping_add(1)] {
                prop_assert_eq!(built.lookup(address), edited.lookup(address));
            }
        }
        check_kinds(&edited.0, Place::ALL);
    }
}

#[test]
fn a_dense_list_is_split_and_becomes_bitmaps_and_goes_back_again() {
    let mut radix = Radix::default();
    let addresses = || (0..20_000_u32).map(|at| (9 << 24) + 7 * at);
    addresses().for_each(|address| radix.set(address, address, Verdict::Blacklisted));
    let (_, bitmaps, splits) = kinds(&radix.0);
    assert!(bitmaps >= 2 && splits >= 4, "{bitmaps} bitmaps, {splits} splits");
    addresses().skip(10).for_each(|address| radix.set(address, address, Verdict::Free));
    assert_eq!(radix.ranges().count(), 10);
    assert_eq!(kinds(&radix.0), (1, 0, 2), "one sparse block for the whole /8");
    addresses().take(10).for_each(|address| radix.set(address, address, Verdict::Free));
    assert!(matches!(radix.0, Block::Uniform(Verdict::Free)));
}

#[test]
fn a_bucket_with_more_toggles_than_lanes_is_searched() {
    // All of them in one of the many buckets that a /8 has.
    let ranges: Vec<Reach> = (0..200).map(|at| ((1 << 24) + 3 * at, (1 << 24) + 3 * at)).collect();
    let radix = Radix::from_rising(ranges.into_iter());
    for at in 0..600 {
        assert_eq!(radix.lookup((1 << 24) + at), verdict(at % 3 == 0), "{at}");
    }
    assert_eq!(radix.lookup((1 << 24) + 600), Verdict::Free);
}

#[test]
fn the_whole_family_takes_one_block() {
    let mut radix = Radix::from_rising([(0, u32::MAX)].into_iter());
    assert_eq!(kinds(&radix.0), (0, 0, 0));
    assert!(radix.ranges().eq([(0, u32::MAX)]));
    radix.set(7, 7, Verdict::Free);
    assert!(radix.ranges().eq([(0, 6), (8, u32::MAX)]));
    radix.set(7, 7, Verdict::Blacklisted);
    assert!(radix.ranges().eq([(0, u32::MAX)]));
    assert_eq!(kinds(&radix.0), (0, 0, 0));
}

#[test]
fn an_edit_that_changes_nothing_copies_nothing() {
    let dense = (0..20_000_u32).map(|at| (9 << 24) + 3 * at);
    let sparse = (0..1_000_u32).map(|at| (11 << 24) + 5_000 * at);
    let single: Vec<u32> = dense.chain(sparse).collect();
    let mut radix = Radix::from_rising(single.iter().map(|address| (*address, *address)));
    let Block::Split(before) = radix.0.clone() else {
        unreachable!("it is wider than a sparse block may be")
    };
    for address in single {
        radix.set(address, address, Verdict::Blacklisted);
        radix.set(address + 1, address + 2, Verdict::Free);
    }
    radix.set(1 << 24, (9 << 24) - 1, Verdict::Free);
    assert!(matches!(&radix.0, Block::Split(after) if Arc::ptr_eq(&before, after)));
    radix.set(0, u32::MAX, Verdict::Free);
    assert!(matches!(radix.0, Block::Uniform(Verdict::Free)));
}
