use proptest::prelude::*;

use super::*;

fn error(text: &str) -> (&'static str, String) {
    let error = text.parse::<Range>().expect_err(text);
    (error.code(), error.hint())
}

#[test]
fn a_range_is_an_address_a_prefix_or_two_ends() {
    for (text, start, end) in [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.0", "203.0.113.255"),
        ("203.0.113.3-203.0.113.9", "203.0.113.3", "203.0.113.9"),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.0/120", "203.0.113.0", "203.0.113.255"),
        ("::ffff:203.0.113.0-::ffff:203.0.113.3", "203.0.113.0", "203.0.113.3"),
    ] {
        let range: Range = text.parse().expect(text);
        assert_eq!(
            (range.start().to_string(), range.end().to_string()),
            (start.into(), end.into()),
            "{text}"
        );
    }
}

#[test]
fn a_bad_range_says_what_was_probably_meant() {
    let cases = [
        ("203.0.113.7/24", "range_host_bits", "did you mean 203.0.113.0/24?"),
        // Its prefix begins outside the IPv4-mapped addresses, and would be refused in turn.
        ("::ffff:0:0/95", "range_mapped", "write IPv4 addresses as 203.0.113.7"),
        ("203.0.113.07", "address_invalid", "did you mean 203.0.113.7?"),
        ("010.0.0.1", "address_invalid", "did you mean 10.0.0.1?"),
        ("fe80::1%eth0", "address_invalid", "did you mean fe80::1?"),
        ("203.0.113.7:80", "address_invalid", "did you mean 203.0.113.7?"),
        ("[2001:db8::1]:80", "address_invalid", "did you mean 2001:db8::1?"),
        ("[2001:db8::1]", "address_invalid", "did you mean 2001:db8::1?"),
        (" 203.0.113.7", "address_invalid", "did you mean 203.0.113.7?"),
        ("203.0.113.9-203.0.113.3", "range_inverted", "did you mean 203.0.113.3-203.0.113.9?"),
        ("203.0.113.9-2001:db8::", "range_families", "write one range for each family"),
        ("::ffff:1.2.3.4-1.2.3.5", "range_mapped", "write IPv4 addresses as 203.0.113.7"),
        ("::fffe:0:0/95", "range_mapped", "write IPv4 addresses as 203.0.113.7"),
        ("10.0.0.0/33", "range_prefix_length", "write the length as a number from 0 to 32"),
        ("10.0.0.0/08", "range_prefix_length", "write the length as a number from 0 to 32"),
        ("10.0.0.0/+8", "range_prefix_length", "write the length as a number from 0 to 32"),
        ("10.0.0.0/", "range_prefix_length", "write the length as a number from 0 to 32"),
        ("2001:db8::/129", "range_prefix_length", "write the length as a number from 0 to 128"),
    ];
    for (text, code, hint) in cases {
        assert_eq!(error(text), (code, hint.to_owned()), "{text}");
    }
    for text in [
        "",
        "-",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "0x7f.0.0.1",
        "1.2.3.4 - 1.2.3.5",
        "localhost",
        "1.2.3.4-1.2.3.5-1.2.3.6",
        "1.2.3.4/24/24",
    ] {
        assert_eq!(
            error(text).0,
            if text.ends_with("/24/24") { "range_prefix_length" } else { "address_invalid" },
            "{text}"
        );
    }
}

#[test]
fn a_text_that_is_no_address_is_told_what_is_wrong_with_it() {
    for (text, reason) in [
        ("", "it is empty"),
        ("1.2.3", "an IPv4 address has four numbers"),
        ("1.2.3.256", "a number is above 255"),
        ("1..2.3", "it is neither IPv4 nor IPv6"),
        ("a.b.c.d", "it is neither IPv4 nor IPv6"),
        ("localhost", "it is neither IPv4 nor IPv6"),
    ] {
        let message = text.parse::<Address>().expect_err(text).to_string();
        assert_eq!(message, format!("`{text}` is not an address: {reason}"));
    }
}

#[test]
fn an_error_shows_little_of_a_long_or_hostile_text() {
    let message = |text: &str| text.parse::<Address>().expect_err("no address").to_string();
    let hostile = message(&"\u{1b}[31m".repeat(1_000));
    assert!(hostile.len() < 1_000 && !hostile.contains('\u{1b}'), "{hostile}");
    let (fits, long) = ("x".repeat(64), "x".repeat(65));
    assert!(message(&fits).starts_with(&format!("`{fits}`")));
    assert!(message(&long).starts_with(&format!("`{fits}…`")));
}

fn ranges(texts: &[&str]) -> Vec<Range> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[test]
fn a_range_is_shown_in_the_shortest_form_that_fits() {
    for text in [
        "203.0.113.7",
        "203.0.113.6/31",
        "203.0.113.7-203.0.113.8",
        "0.0.0.0/0",
        "2001:db8::7",
        "2001:db8::/32",
        "2001:db8::4/127",
        "2001:db8::7-2001:db8::8",
        "::/0",
    ] {
        let range: Range = text.parse().expect(text);
        assert_eq!(Range::between(range.start(), range.end()).map(|it| it.to_string()), Ok(text.to_owned()));
    }
}

#[test]
fn an_intersection_is_what_both_ranges_have() {
    for (one, other, both) in [
        ("10.0.0.0/24", "10.0.0.128-10.0.1.5", Some("10.0.0.128/25")),
        ("10.0.0.0/8", "10.0.0.7", Some("10.0.0.7")),
        ("10.0.0.0-10.0.0.7", "10.0.0.7-10.0.0.9", Some("10.0.0.7")),
        ("10.0.0.0-10.0.0.7", "10.0.0.8-10.0.0.9", None),
        ("2001:db8::/64", "2001:db8::7-2001:db8:0:1::", Some("2001:db8::7-2001:db8::ffff:ffff:ffff:ffff")),
        ("2001:db8::7", "2001:db8::7", Some("2001:db8::7")),
        ("2001:db8::7", "2001:db8::8-2001:db8::9", None),
        ("0.0.0.0/0", "::/0", None),
    ] {
        let (one, other) = (one.parse::<Range>().expect(one), other.parse::<Range>().expect(other));
        let both = both.map(|text| text.parse().expect(text));
        assert_eq!((one.intersection(other), other.intersection(one)), (both, both), "{one} and {other}");
    }
}

#[test]
fn merged_ranges_hold_the_same_addresses_without_overlap() {
    let mixed = ranges(&[
        "2001:db8::4-2001:db8::9",
        "10.0.0.128-10.0.1.5",
        "10.0.0.7",
        "2001:db8::-2001:db8::4",
        "10.0.0.0/24",
        "10.0.2.0/24",
        "::1",
    ]);
    let merged = ranges(&["10.0.0.0-10.0.1.5", "10.0.2.0/24", "::1", "2001:db8::-2001:db8::9"]);
    assert_eq!(Range::merged(mixed), merged);
}

#[test]
fn the_part_above_another_range_is_what_is_left_to_walk() {
    for (range, other, above) in [
        ("10.0.0.0/24", "10.0.0.3-10.0.0.9", Some("10.0.0.10-10.0.0.255")),
        ("10.0.0.0/24", "10.0.0.254", Some("10.0.0.255")),
        ("10.0.0.0/24", "10.0.0.255", None),
        ("0.0.0.0/0", "255.255.255.255", None),
        ("2001:db8::-2001:db8::9", "2001:db8::4", Some("2001:db8::5-2001:db8::9")),
        ("2001:db8::-2001:db8::9", "2001:db8::8", Some("2001:db8::9")),
        ("2001:db8::-2001:db8::9", "2001:db8::9", None),
        ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    ] {
        let (range, other) = (range.parse::<Range>().expect(range), other.parse::<Range>().expect(other));
        assert_eq!(range.after(other), above.map(|text| text.parse().expect(text)), "{range} above {other}");
    }
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    assert_eq!("::ffff:203.0.113.7".parse(), "203.0.113.7".parse::<Address>());
    let mapped = |text: &str| Range::from(text.parse::<Address>().expect(text));
    assert_eq!(mapped("::ffff:203.0.113.7").intersection(Range::ALL_IPV6), None);
}

fn any_range() -> impl Strategy<Value = Range> {
    let v4 = (any::<u32>(), any::<u32>(), 0..=32_u32).prop_map(|(a, b, bits)| match bits {
        0..=8 => a.range(b),
        _ => a.range(a.saturating_add(1_u32.unbounded_shl(bits))),
    });
    let v6 = (any::<u128>(), any::<u128>(), 0..=128_u32).prop_map(|(a, b, bits)| match bits {
        0..=32 => a.range(b),
        _ => (a >> bits.min(127) << bits.min(127)).range(a | 1_u128.unbounded_shl(bits).wrapping_sub(1)),
    });
    prop_oneof![v4, v6]
}

/// Groups of an IPv6 address as they might be written, empty ones among them.
fn groups() -> impl Strategy<Value = String> {
    let group = prop_oneof![8 => "[0-9a-fA-F]{1,4}", 2 => "0", 2 => "", 1 => "[0-9a-g]{0,6}", 1 => "1.2.3.4"];
    prop::collection::vec(group, 0..11).prop_map(|groups| groups.join(":"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn an_address_is_what_the_standard_library_takes_for_one(
        text in prop_oneof![groups(), "[0-9a-f:.]{0,40}"],
        (ones, zeros) in any::<(u128, u128)>(),
    ) {
        for text in [text, ones.ip().to_string(), (ones & zeros & zeros.rotate_left(1)).ip().to_string()] {
            let expected = text.parse::<IpAddr>();
            prop_assert_eq!(parse_ip(&text).ok(), expected.ok(), "{}", text);
        }
    }
}

proptest! {
    #[test]
    fn what_is_shown_parses_to_the_same_range(range in any_range()) {
        prop_assume!(range.start().to_canonical() == range.start() && range.end().to_canonical() == range.end());
        prop_assert_eq!(range.to_string().parse::<Range>(), Ok(range));
    }

    #[test]
    fn no_text_makes_an_inverted_range(text in "[0-9a-f:./-]{0,40}") {
        if let Ok(range) = text.parse::<Range>() {
            prop_assert!(range.start() <= range.end());
            prop_assert_eq!(range.start().is_ipv4(), range.end().is_ipv4());
        }
    }
}

#[test]
fn the_part_above_another_range_is_never_wider_than_the_range() {
    let range = |text: &str| text.parse::<Range>().expect(text);
    for (whole, other, part) in [
        ("10.0.0.0/24", "10.0.0.0-10.0.0.9", Some("10.0.0.10-10.0.0.255")),
        ("10.0.0.0/24", "9.0.0.0", Some("10.0.0.0/24")),
        ("10.0.0.0/24", "10.0.0.200-10.0.1.9", None),
        ("10.0.0.0/24", "::/64", None),
        ("2001:db8::/64", "2001:db7::", Some("2001:db8::/64")),
        ("255.255.255.0/24", "255.255.255.255", None),
    ] {
        assert_eq!(range(whole).after(range(other)), part.map(range), "{whole} after {other}");
    }
}
