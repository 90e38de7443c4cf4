//! The fold against an oracle that keeps a cause for every address.

mod support;

use portcullis::command::{Action, Command};
use portcullis::record::{Offset, Position, Record, Timestamp};
use portcullis::view::{Refusal, View};
use proptest::prelude::*;
use support::{oracle, strategies};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_fold_equals_the_oracle(steps in strategies::log(60)) {
        oracle::check(&steps);
    }
}

fn record(offset: u64, millis: i64, value: &str) -> Record {
    let timestamp = Timestamp::from_millis(millis);
    Record { offset: Offset::new(offset), timestamp, key: None, value: Some(value.into()) }
}

fn outcome(view: &mut View, offset: u64, value: &str) -> Result<(), Refusal> {
    view.apply(&record(offset, 0, value)).expect("no command is of the future").outcome
}

fn with_id(id: &str, range: &str) -> String {
    let mut command = Command::new(Action::Whitelist, range.parse().expect(range));
    command.id = Some(id.parse().expect(id));
    command.encode()
}

#[test]
fn an_id_counts_for_ten_thousand_offsets_and_each_use_renews_it() {
    let mut view = View::default();
    assert_eq!(outcome(&mut view, 0, &with_id("a", "1.2.3.4")), Ok(()));
    assert_eq!(outcome(&mut view, 10_000, &with_id("a", "1.2.3.4")), Err(Refusal::Duplicate));
    assert_eq!(outcome(&mut view, 20_000, &with_id("a", "1.2.3.4")), Err(Refusal::Duplicate));
    assert_eq!(outcome(&mut view, 30_001, &with_id("a", "1.2.3.4")), Ok(()));
}

#[test]
fn an_id_that_is_used_twice_counts_from_its_last_use() {
    let mut view = View::default();
    assert_eq!(outcome(&mut view, 0, &with_id("a", "1.2.3.4")), Ok(()));
    assert_eq!(outcome(&mut view, 1, &with_id("a", "1.2.3.4")), Err(Refusal::Duplicate));
    let mut late = view.clone();
    assert_eq!(outcome(&mut view, 10_001, &with_id("a", "1.2.3.4")), Err(Refusal::Duplicate));
    assert_eq!(outcome(&mut late, 10_002, &with_id("a", "1.2.3.4")), Ok(()));
}

#[test]
fn an_id_of_a_refused_command_is_carried() {
    let mut view = View::default();
    assert_eq!(outcome(&mut view, 0, &with_id("a", "0.0.0.0/0")), Err(Refusal::TooBroad));
    assert_eq!(outcome(&mut view, 1, &with_id("a", "1.2.3.4")), Err(Refusal::Duplicate));
}

#[test]
fn a_range_may_be_a_slash_8_or_a_slash_19_and_no_wider_without_force() {
    let mut view = View::default();
    let cases = [
        ("10.0.0.0/8", true),
        ("10.0.0.0-11.0.0.0", false),
        ("2000::/19", true),
        ("2000::-2000:2000::", false),
    ];
    for (offset, (range, fits)) in (0..).zip(cases) {
        for (at, verb) in ["BLACKLIST", "WHITELIST"].into_iter().enumerate() {
            let expected = if fits { Ok(()) } else { Err(Refusal::TooBroad) };
            assert_eq!(
                outcome(&mut view, offset * 2 + at as u64, &format!("{verb} {range}")),
                expected,
                "{verb} {range}"
            );
        }
    }
}

#[test]
fn a_quarter_of_ipv4_is_the_most_without_force() {
    let mut view = View::default();
    for first in 0..64 {
        assert_eq!(outcome(&mut view, first, &format!("BLACKLIST {first}.0.0.0/8")), Ok(()));
    }
    assert_eq!(outcome(&mut view, 64, "BLACKLIST 64.0.0.0"), Err(Refusal::TooBroad));
    assert_eq!(outcome(&mut view, 65, "BLACKLIST 63.0.0.0/8"), Ok(()), "it adds nothing");
    assert_eq!(outcome(&mut view, 66, "BLACKLIST 2001:db8::/32"), Ok(()), "IPv6 does not count");
    assert_eq!(outcome(&mut view, 67, "WHITELIST 0.0.0.0"), Ok(()));
    assert_eq!(outcome(&mut view, 68, "BLACKLIST 64.0.0.0"), Ok(()));
    assert_eq!(outcome(&mut view, 69, "WHITELIST 64.0.0.0"), Ok(()));
    assert_eq!(outcome(&mut view, 70, "BLACKLIST 63.255.255.255-64.0.0.0"), Ok(()), "it adds one address");
    assert_eq!(outcome(&mut view, 71, "BLACKLIST 64.0.0.0-64.0.0.1"), Err(Refusal::TooBroad));
}

#[test]
fn a_future_command_leaves_the_view_as_it_was_unless_it_is_skipped() {
    let mut view = View::default();
    assert_eq!(outcome(&mut view, 0, "BLACKLIST 1.2.3.4"), Ok(()));
    let before = view.clone();
    let future = view.apply(&record(1, i64::MAX, r#"{"v":2}"#)).expect_err("it is of the future");
    assert_eq!((future.offset, future.version.as_str()), (Offset::new(1), "2"));
    assert_eq!(view, before);
    view.skip(Offset::new(1));
    assert_eq!(outcome(&mut view, 1, r#"{"v":2}"#), Err(Refusal::Undecodable));
    assert_eq!(view.position(), Position::new(2));
}

#[test]
fn a_skipped_command_neither_acts_nor_carries_its_id() {
    let mut view = View::new([Offset::new(0)].into());
    assert_eq!(outcome(&mut view, 0, &with_id("a", "1.2.3.4")), Err(Refusal::Undecodable));
    assert_eq!(outcome(&mut view, 1, &with_id("a", "1.2.3.4")), Ok(()));
}

#[test]
fn a_row_is_dropped_an_hour_after_its_expiry_by_log_time_and_not_before() {
    let hour = 3_600_000;
    let mut view = View::default();
    let ban = r#"{"v":1,"action":"BLACKLIST","range":"1.2.3.4","expires_at":"1970-01-01T00:00:01Z"}"#;
    view.apply(&record(0, 0, ban)).expect("a command");
    view.apply(&record(1, 1_000 + hour - 1, "no command")).expect("a record");
    assert_eq!(view.blacklist().row_counts().ipv4, 1);
    let applied = view.apply(&record(2, 1_000 + hour, "no command")).expect("a record");
    assert_eq!(applied.changes.in_safe_order().count(), 1);
    assert_eq!(view.blacklist().row_counts().ipv4, 0);
}

#[test]
fn whitelisting_one_address_of_all_counts_one() {
    let mut view = View::default();
    let all = |action, range: &str| {
        Command { force: true, ..Command::new(action, range.parse().expect(range)) }.encode()
    };
    let blacklist = Action::Blacklist { expires_at: None };
    assert_eq!(
        view.apply(&record(0, 0, &all(blacklist, "::/0"))).expect("a command").addresses_changed,
        u128::MAX
    );
    assert_eq!(
        view.apply(&record(1, 0, &all(Action::Whitelist, "::1"))).expect("a command").addresses_changed,
        1
    );
    assert_eq!(view.apply(&record(2, 0, &all(blacklist, "::/120"))).expect("a command").addresses_changed, 1);
}
