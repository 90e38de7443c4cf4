//! Random logs.

use proptest::prelude::*;

use super::oracle::{Ban, CELLS, Family, Step, TimedStep, WINDOW};

/// Two cells of a family, mostly in one window.
fn cells() -> impl Strategy<Value = (usize, usize)> {
    let low = (0..WINDOW, 0..WINDOW);
    let high = (WINDOW + 1..CELLS, WINDOW + 1..CELLS);
    prop_oneof![8 => low, 8 => high, 1 => (0..CELLS, 0..CELLS)]
}

fn ban() -> impl Strategy<Value = Ban> {
    prop_oneof![3 => Just(Ban::Lifted), 3 => Just(Ban::ForEver), 6 => (-5..180_i64).prop_map(Ban::Minutes)]
}

fn step() -> impl Strategy<Value = Step> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let force = prop::bool::weighted(0.3);
    let edit = (family, cells(), ban(), prop::option::weighted(0.3, 0..8_u8), force)
        .prop_map(|(family, cells, ban, id, force)| Step::Edit { family, cells, ban, id, force });
    prop_oneof![12 => edit, 1 => Just(Step::Garbage)]
}

/// A log of up to `records` records; its clock mostly moves on and sometimes back.
pub fn log(records: usize) -> impl Strategy<Value = Vec<TimedStep>> {
    let minutes = prop_oneof![8 => 0..5_i64, 2 => 30..200_i64, 1 => -20..0_i64];
    prop::collection::vec((step(), minutes), 1..=records)
}
