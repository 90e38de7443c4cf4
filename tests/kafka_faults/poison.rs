//! Records of every kind that ours never write, on both topics.

use portcullis::log::Topic;

use super::foreign::{Pair, producer, write, write_values};
use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::shared_broker;

/// As long as the broker takes a record, but for what is around it.
const LARGE: usize = 900_000;

/// A command as somebody's editor saves it.
fn utf_16(command: &str) -> Vec<u8> {
    [0xfeff_u16].into_iter().chain(command.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

pub(crate) fn records_of_every_wrong_kind_are_passed_over_alike() {
    let broker = shared_broker();
    let site = Site::begun(broker, "poison");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    let bootstrap = broker.bootstrap();
    let large = vec![b'B'; LARGE];
    let mut wrong: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0\0\0\0".to_vec(),
        b"\xff\xfe\xfd".to_vec(),
        b"BLACKLIST 192.0.2.200\xc3\x28".to_vec(),
        utf_16("BLACKLIST 192.0.2.201"),
        b"\xef\xbb\xbfBLACKLIST 192.0.2.202".to_vec(),
        b"{\"v\":1,\"action\":\"BLACKLIST\",\"range\":".to_vec(),
        b"[\"BLACKLIST 192.0.2.203\"]".to_vec(),
        vec![b' '; 5_000],
        "BLACKLIST １９２.0.2.204".as_bytes().to_vec(),
    ];
    wrong.push(large.clone());
    let mut count = 0;
    // Whatever a batch is compressed with, it is read; what is wrong in it is wrong all the same.
    for (number, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let producer = producer(&bootstrap, &[("compression.codec", codec), ("linger.ms", "50")]);
        let right = format!("BLACKLIST 192.0.2.{number}");
        write(
            &producer,
            &site.commands_topic,
            &[(Some(b"\xff a key means nothing"), Some(right.as_bytes()))],
        );
        write(&producer, &site.commands_topic, &[(Some(b"@watermark"), None)]);
        write_values(&producer, &site.commands_topic, &wrong.iter().map(Vec::as_slice).collect::<Vec<_>>());
        count += wrong.len() + 1;
    }
    // Times that their senders made up: the fold goes by them, wherever they lie.
    broker.alter_topic(&site.commands_topic, &[("message.timestamp.type", "CreateTime")]);
    let dated = producer(&bootstrap, &[]);
    for (time, text) in [
        (0, "BLACKLIST 192.0.2.10"),
        (4_000_000_000_000, "BLACKLIST 192.0.2.11"),
        (1, r#"{"v":1,"action":"BLACKLIST","range":"192.0.2.12","expires_at":"2100-01-01T00:00:00Z"}"#),
    ] {
        let record =
            rdkafka::producer::BaseRecord::<(), str>::to(&site.commands_topic).payload(text).timestamp(time);
        dated.send(record).expect("there is room");
    }
    write(&dated, &site.commands_topic, &[]);
    broker.alter_topic(&site.commands_topic, &[("message.timestamp.type", "LogAppendTime")]);
    // The last record is the one that the log is known by.
    write_values(&dated, &site.commands_topic, &[&large]);
    count += 1;

    site.agree(&WITH_TABLE, &[&projector, &sidecars[0], &sidecars[1]], &[]);
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    site.agree(&WITH_TABLE, &[&late], &[]);
    for sidecar in &sidecars {
        assert_eq!(sidecar.status()["refused"]["undecodable"], count, "{:#}", sidecar.status());
        assert!((0..5).all(|number| sidecar.blocks(&format!("192.0.2.{number}"))));
        assert!((200..205).all(|number| !sidecar.blocks(&format!("192.0.2.{number}"))));
    }
}

pub(crate) fn a_table_that_others_wrote_to_is_not_taken_and_is_mended() {
    let broker = shared_broker();
    let site = Site::begun(broker, "scribbled");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    assert_eq!(sidecar.post("?wait=applied", "BLACKLIST 192.0.2.0-192.0.2.9\nBLACKLIST 198.51.100.7").0, 201);
    site.agree(&WITH_TABLE, &[&projector, &sidecar], &[]);

    let foreign = producer(&broker.bootstrap(), &[]);
    let large = vec![b'{'; LARGE];
    let harmless: [Pair<'_>; 2] = [(Some(b"@foreign"), Some(b"whatever")), (Some(b"@foreign"), None)];
    write(&foreign, &site.table_topic, &harmless);
    let late = site.sidecar(&WITH_TABLE);
    late.wait_ready();
    let rows: [Pair<'_>; 7] = [
        // A row that no command made, one that is changed, and one that is gone.
        (Some(b"203.0.113.0"), Some(br#"{"end":"203.0.113.255","command":0}"#)),
        (Some(b"192.0.2.0"), Some(br#"{"end":"192.0.2.255","command":0}"#)),
        (Some(b"198.51.100.7"), None),
        // Keys and values that are no rows.
        (Some(b"192.0.2.000"), Some(br#"{"end":"192.0.2.9","command":0}"#)),
        (Some(b"\xff\xfe"), Some(b"\xff")),
        (Some(b""), Some(b"")),
        (Some(b"10.0.0.0"), Some(&large)),
    ];
    write(&foreign, &site.table_topic, &rows);
    // One that begins now waits, until the projector finds out and mends it.
    let waiting = site.sidecar(&WITH_TABLE);
    waiting.wait_ready();
    assert_eq!(sidecar.post("?wait=applied", "BLACKLIST 192.0.2.77").0, 201);
    site.agree(&WITH_TABLE, &[&projector, &sidecar, &late, &waiting], &[]);

    // A watermark that is taken away comes again with the next thing that the projector has to say.
    write(&foreign, &site.table_topic, &[(Some(b"@watermark"), None)]);
    let next = site.sidecar(&WITH_TABLE);
    next.wait_ready();
    site.agree(&WITH_TABLE, &[&projector, &sidecar, &next], &[]);
    assert!(!next.blocks("203.0.113.7") && next.blocks("198.51.100.7"));
    assert!(site.records(&WITH_TABLE, Topic::Table).len() > rows.len());
}
