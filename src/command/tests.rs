use proptest::prelude::*;

use super::*;
use crate::address::Number;

#[test]
fn the_server_takes_short_fields_without_control_characters() {
    let command = Command::new(Action::Whitelist, Range::ALL_IPV4);
    let code = |command: Command| command.check_fields().map_err(|error| (error.code(), error.field()));
    assert_eq!(code(command.clone()), Ok(()));
    let long = Command { reason: Some("x".repeat(REASON_BYTES_MAX + 1)), ..command.clone() };
    assert_eq!(code(long), Err(("field_too_long", Some("reason"))));
    let long = Command { by: Some("x".repeat(NAME_BYTES_MAX + 1)), ..command.clone() };
    assert_eq!(code(long), Err(("field_too_long", Some("by"))));
    let broken = Command { source: Some("a\nb".to_owned()), ..command.clone() };
    assert_eq!(code(broken), Err(("field_control_character", Some("source"))));
    let broken = Command { id: Some("a\tb".parse().expect("3 bytes")), ..command.clone() };
    assert_eq!(code(broken), Err(("field_control_character", Some("id"))));
    let longest = Command {
        id: Some("x".repeat(ID_BYTES_MAX).parse().expect("64 bytes")),
        reason: Some("x".repeat(REASON_BYTES_MAX)),
        by: Some("x".repeat(NAME_BYTES_MAX)),
        source: Some("x".repeat(NAME_BYTES_MAX)),
        ..command
    };
    assert_eq!(code(longest), Ok(()));
}

#[test]
fn a_bad_command_says_what_is_wrong_where_and_what_to_do() {
    let json = |fields: &str| format!(r#"{{"v":1,"range":"1.2.3.4",{fields}}}"#);
    let cases = [
        ("BLOCK 1.2.3.4".to_owned(), "command_invalid", None, "write it like `BLACKLIST 203.0.113.0/24`"),
        ("BLACKLIST 1.2.3.4/24".to_owned(), "range_host_bits", Some("range"), "did you mean 1.2.3.0/24?"),
        (json(r#""id":"a""#), "field_missing", Some("action"), "write it like {"),
        (json(r#""action":"BLOCK""#), "field_invalid", Some("action"), "write BLACKLIST or WHITELIST"),
        (
            json(r#""action":"WHITELIST","expires_at":"2026-12-01T00:00:00Z""#),
            "expires_at_invalid",
            Some("expires_at"),
            "leave it out, or BLACKLIST until then",
        ),
        (
            json(r#""action":"BLACKLIST","expires_at":"tomorrow""#),
            "expires_at_invalid",
            Some("expires_at"),
            "write it in UTC",
        ),
    ];
    for (value, code, field, hint) in cases {
        let Err(DecodeError::Undecodable(error)) = Command::decode(value.as_bytes()) else {
            panic!("{value} was decoded");
        };
        assert_eq!((error.code(), error.field()), (code, field), "{value}");
        assert!(error.hint().starts_with(hint), "{value}: {}", error.hint());
    }
}

#[test]
fn a_json_command_may_nest_deeply_in_what_is_skipped() {
    let nested = format!(
        r#"{{"v":1,"action":"WHITELIST","range":"1.2.3.4","x":{}{}}}"#,
        "[".repeat(1_900),
        "]".repeat(1_900)
    );
    assert!(Command::decode(nested.as_bytes()).is_ok());
}

prop_compose! {
    fn any_command()(
        range in prop_oneof![(any::<u32>(), any::<u32>()).prop_map(|(a, b)| a.range(b)), any::<u64>().prop_map(|a| (u128::from(a) << 64).range(u128::MAX))],
        action in prop_oneof![Just(Action::Whitelist), prop::option::of((0..=Timestamp::LATEST.millis()).prop_map(Timestamp::from_millis)).prop_map(|expires_at| Action::Blacklist { expires_at })],
        id in prop::option::of("\\PC{1,16}".prop_map(|id| id.parse().expect("1 to 64 bytes"))),
        texts in prop::array::uniform3(prop::option::of("\\PC{0,30}")),
        force in any::<bool>(),
    ) -> Command {
        let [reason, by, source] = texts;
        Command { action, range, id, reason, by, source, force }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same_command(command in any_command()) {
        prop_assert_eq!(Command::decode(command.encode().as_bytes()), Ok(command));
    }

    #[test]
    fn no_bytes_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
    }
}
