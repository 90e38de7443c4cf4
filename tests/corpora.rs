//! The pinned corpora: what a record means must not change from release to release.

#![allow(clippy::indexing_slicing, reason = "a case that is not as expected fails the test")]

use portcullis::command::{Command, DecodeError};
use portcullis::record::{Offset, Record, Timestamp};
use portcullis::table::{Anchor, Fingerprint, Row};
use serde_json::Value;

#[test]
fn every_reader_decodes_a_command_alike() {
    for line in include_str!("commands.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("the corpus is JSON");
        let name = case["name"].as_str().expect("a case has a name");
        let value = match case["value"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => bytes_of(case["value_hex"].as_str().expect("a case has a value")),
        };
        let found = match Command::decode(&value) {
            Ok(command) => ("command", Some(command.encode())),
            Err(DecodeError::Undecodable(_)) => ("undecodable", None),
            Err(DecodeError::Future { .. }) => ("future", None),
        };
        let expected = (
            case["is"].as_str().expect("a case has a result"),
            case["encodes_to"].as_str().map(str::to_owned),
        );
        assert_eq!(found, expected, "{name}");
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("the corpus is hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The vectors come from another implementation of XXH3-128 than ours.
#[test]
fn fingerprints_and_anchors_are_the_same_everywhere() {
    let corpus: Value = serde_json::from_str(include_str!("fingerprint.json")).expect("the corpus is JSON");
    for case in corpus["rows"].as_array().expect("a list of tables") {
        let decode = |row: &Value| {
            let key = row["key"].as_str().expect("a row has a key");
            Row::decode(key.as_bytes(), row["value"].to_string().as_bytes()).expect("the corpus holds rows")
        };
        let rows: Vec<Row> = case["rows"].as_array().expect("a list of rows").iter().map(decode).collect();
        let fingerprint = rows.iter().collect::<Fingerprint>().to_string();
        assert_eq!(Some(fingerprint.as_str()), case["fingerprint"].as_str(), "{}", case["name"]);
    }
    for case in corpus["records"].as_array().expect("a list of records") {
        let bytes = |field: &str| case[field].as_str().map(|text| text.as_bytes().to_vec());
        let record = Record {
            offset: Offset::new(case["offset"].as_u64().expect("an offset")),
            timestamp: Timestamp::from_millis(case["timestamp"].as_i64().expect("a timestamp")),
            key: bytes("key"),
            value: bytes("value"),
        };
        assert_eq!(
            Some(Anchor::of(&record).hash.to_string().as_str()),
            case["hash"].as_str(),
            "{}",
            case["name"]
        );
    }
}
