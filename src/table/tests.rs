use super::*;
use crate::record::Position;

fn row(range: &str, command: u64, expires_at: Option<i64>) -> Row {
    let expires_at = expires_at.map(Timestamp::from_millis);
    Row { range: range.parse().expect(range), cause: Cause { command: Offset::new(command), expires_at } }
}

fn watermark(rows: &[Row]) -> Watermark {
    Watermark {
        position: Position::new(814),
        anchor: None,
        rows: rows.len() as u64,
        fingerprint: rows.iter().collect(),
        skipped: BTreeSet::new(),
        cluster_id: "cluster".into(),
        commands_topic: "portcullis.commands".into(),
        projector: "test".into(),
        released: true,
        written_at: Timestamp::from_millis(0),
    }
}

fn record(key: &[u8], value: Option<&[u8]>) -> Record {
    let (key, value) = (Some(key.to_vec()), value.map(<[u8]>::to_vec));
    Record { offset: Offset::new(0), timestamp: Timestamp::from_millis(0), key, value }
}

fn put(row: &Row) -> Record {
    let (key, value) = RowChange::Put(*row).encode();
    record(&key, value.as_deref())
}

#[test]
fn a_row_is_written_as_the_contract_says() {
    let row = row("203.0.113.0-203.0.113.6", 812, Some(1_796_083_200_000));
    let (key, value) = RowChange::Put(row).encode();
    assert_eq!(key, b"203.0.113.0");
    let value = value.expect("a row has a value");
    assert_eq!(value, br#"{"end":"203.0.113.6","command":812,"expires_at":"2026-12-01T00:00:00.000Z"}"#);
    assert_eq!(Row::decode(&key, &value), Some(row));
    assert_eq!(RowChange::Tombstone(row.range.start()).encode(), (key, None));
}

#[test]
fn a_row_may_start_at_a_mapped_address_and_stays_ipv6() {
    let range =
        Range::new("::ffff:0:0".parse().expect("an address"), "::1:0:0:0".parse().expect("an address"));
    let row = Row { range: range.expect("a range"), ..row("::1", 1, None) };
    let (key, value) = RowChange::Put(row).encode();
    assert_eq!(Row::decode(&key, &value.expect("a row has a value")), Some(row));
}

#[test]
fn a_table_is_whole_when_watermark_count_and_fingerprint_agree() {
    let rows = [row("203.0.113.0/24", 1, None), row("2001:db8::/32", 2, None)];
    let mut table = Table::default();
    assert_eq!(table.check(), Err(TableError::NoWatermark));
    rows.iter().for_each(|row| table.apply(&put(row)));
    assert_eq!(table.check(), Err(TableError::NoWatermark));
    let watermark = watermark(&rows);
    table.apply(&record(WATERMARK_KEY, Some(&watermark.encode())));
    assert_eq!(table.check(), Ok(&watermark));
    table.apply(&record(ALIVE_KEY, Some(b"{}")));
    assert_eq!(table.check(), Ok(&watermark));
    table.apply(&put(&row("198.51.100.0/24", 3, None)));
    assert_eq!(table.check(), Err(TableError::Unfinished));
    table.apply(&record(WATERMARK_KEY, Some(&watermark.encode())));
    assert!(matches!(table.check(), Err(TableError::Mismatch { rows: 3, rows_expected: 2, .. })));
    table.apply(&record(b"198.51.100.0", None));
    table.apply(&record(WATERMARK_KEY, Some(&watermark.encode())));
    assert_eq!(table.check(), Ok(&watermark));
}

#[test]
fn an_undecodable_row_is_left_out_and_its_key_remembered_until_it_is_mended() {
    let mut table = Table::default();
    let good = row("203.0.113.0/24", 1, None);
    table.apply(&put(&good));
    for key in [b"203.0.113.0".as_slice(), b"203.0.113.000", b"::ffff:203.0.113.9x", b"\xff"] {
        table.apply(&record(key, Some(b"{}")));
    }
    table.apply(&record(b"2001:DB8::", Some(br#"{"end":"2001:db8::1","command":1}"#)));
    table.apply(&record(WATERMARK_KEY, Some(&watermark(&[good]).encode())));
    assert!(matches!(table.check(), Err(TableError::Mismatch { rows: 0, rows_expected: 1, undecodable: 5 })));
    table.apply(&put(&good));
    for key in [b"203.0.113.000".as_slice(), b"::ffff:203.0.113.9x", b"\xff", b"2001:DB8::"] {
        table.apply(&record(key, None));
    }
    table.apply(&record(WATERMARK_KEY, Some(&watermark(&[good]).encode())));
    assert!(table.check().is_ok());
    assert_eq!(table.undecodable_keys().count(), 0);
}

#[test]
fn a_watermark_of_another_version_is_recognised_whatever_else_it_holds() {
    let decode = |text: &str| Watermark::decode(Some(text.as_bytes())).map(|_| ());
    assert_eq!(decode(r#"{"v":2,"rows":"many"}"#), Err(WatermarkError::Version { v: 2 }));
    assert_eq!(decode(r#"{"v":1,"fold":7,"rows":"many"}"#), Err(WatermarkError::Fold { fold: 7 }));
    assert_eq!(decode(r#"{"v":1,"fold":1}"#), Err(WatermarkError::Undecodable));
    assert_eq!(decode("position 5"), Err(WatermarkError::Undecodable));
    assert_eq!(Watermark::decode(None), Err(WatermarkError::Undecodable));
}

#[test]
fn a_watermark_survives_its_text() {
    let record = put(&row("203.0.113.0/24", 1, None));
    let watermark = Watermark {
        anchor: Some(Anchor::of(&record)),
        skipped: [Offset::new(3), Offset::new(900)].into(),
        ..watermark(&[])
    };
    assert_eq!(Watermark::decode(Some(&watermark.encode())), Ok(watermark));
}

#[test]
fn an_anchor_depends_on_everything_a_log_keeps() {
    let record =
        Record { key: Some(b"ab".to_vec()), value: Some(b"c".to_vec()), ..put(&row("::1", 1, None)) };
    let others = [
        Record { offset: Offset::new(1), ..record.clone() },
        Record { timestamp: Timestamp::from_millis(1), ..record.clone() },
        Record { key: Some(b"a".to_vec()), value: Some(b"bc".to_vec()), ..record.clone() },
        Record { key: None, ..record.clone() },
        Record { value: None, ..record.clone() },
        Record { key: Some(Vec::new()), ..record.clone() },
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(RecordHash::of(&record), RecordHash::of(other), "{at}");
    }
}
