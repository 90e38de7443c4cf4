//! The real program on a real Kafka that is killed, frozen, cut off, emptied, replaced or damaged: whatever
//! happens, what is served is the fold of the log up to the position that is stated, and nothing that was
//! acknowledged is lost.
//!
//! Most of it is waiting, so that scenarios run beside each other, on brokers of their own where they
//! disturb.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

#[path = "kafka_faults/another.rs"]
mod another;
#[path = "kafka_faults/chaos.rs"]
mod chaos;
#[path = "kafka_faults/compaction.rs"]
mod compaction;
#[path = "kafka_faults/cut.rs"]
mod cut;
#[path = "kafka_faults/damaged.rs"]
mod damaged;
#[path = "kafka_faults/foreign.rs"]
mod foreign;
#[path = "kafka_faults/frozen.rs"]
mod frozen;
#[path = "kafka_faults/judge.rs"]
mod judge;
#[path = "kafka_faults/link.rs"]
mod link;
#[path = "kafka_faults/load.rs"]
mod load;
#[path = "kafka_faults/poison.rs"]
mod poison;
#[path = "kafka_service/rig.rs"]
#[allow(dead_code, reason = "each test target uses its own part")]
mod rig;
#[path = "kafka_faults/start.rs"]
mod start;
mod support;
#[path = "kafka_faults/transactions.rs"]
mod transactions;

use std::thread;

/// Runs scenarios beside each other, and fails with the names of those that failed.
fn together(scenarios: &[(&str, fn())]) {
    let failed: Vec<&str> = thread::scope(|scope| {
        let started: Vec<_> = scenarios
            .iter()
            .map(|(name, scenario)| {
                let thread = thread::Builder::new().name((*name).to_owned());
                (*name, thread.spawn_scoped(scope, scenario).expect("a thread"))
            })
            .collect();
        started.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "these failed, as is said above: {failed:?}");
}

#[test]
fn a_link_that_is_cut_a_broker_that_freezes_and_logs_that_are_others_leave_no_wrong_list() {
    together(&[
        ("link", cut::a_link_that_swallows_everything_is_noticed_and_waited_out),
        ("frozen", frozen::a_broker_that_stands_still_is_waited_out),
        ("restored", another::a_log_that_was_restored_from_an_old_backup_is_not_gone_on_with),
        ("cluster", another::another_cluster_under_the_same_address_is_not_gone_on_with),
    ]);
}

#[test]
fn topics_that_are_made_anew_and_foreign_transactions_leave_no_wrong_list() {
    together(&[
        ("shorter", another::a_topic_made_anew_and_shorter_is_not_gone_on_with),
        ("longer", another::a_topic_made_anew_and_longer_is_not_gone_on_with),
        ("at once", another::a_topic_made_anew_and_longer_at_once_raises_the_alarm_and_is_not_projected),
        ("unseen", another::a_topic_made_anew_while_nobody_looked_is_not_gone_on_with),
        ("transactions", transactions::a_foreign_transaction_hides_what_is_behind_it_and_that_is_said),
    ]);
}

#[test]
fn damaged_records_and_a_log_that_lost_its_beginning_leave_no_wrong_list() {
    together(&[
        ("poison", poison::records_of_every_wrong_kind_are_passed_over_alike),
        ("table", poison::a_table_that_others_wrote_to_is_not_taken_and_is_mended),
        ("damaged", damaged::a_damaged_batch_stops_the_fold_and_is_told),
        ("start", start::a_log_that_lost_its_beginning_is_a_gap_if_that_is_needed),
    ]);
}
