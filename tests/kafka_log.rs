//! The log on a real Kafka: what its readers, questioners and writers promise to the state machines.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use portcullis::log::kafka::KafkaLog;
use portcullis::log::kafka::topics::Severity;
use portcullis::log::settings::KafkaSettings;
use portcullis::log::{
    Answer, AppendError, CommandSink, Ends, Log, Question, Questioner, ReadEvent, Reader, TableLog, Topic,
    WriteError,
};
use portcullis::record::{Offset, Position, Record};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use support::kafka::{Broker, BrokerOptions, shared_broker, succeeded, wait_until};

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(60);

/// A log of its own on a broker: both topics are named after the test.
fn log_on(broker: &Broker, name: &str) -> KafkaLog {
    let settings = KafkaSettings {
        bootstrap_servers: broker.bootstrap(),
        commands_topic: format!("{name}.commands"),
        table_topic: Some(format!("{name}.table")),
        client: BTreeMap::new(),
        allow_finite_retention: false,
    };
    KafkaLog::new(settings).expect("right settings")
}

/// A log on the broker that these tests share, with topics as we create them.
fn log(name: &str) -> KafkaLog {
    let log = log_on(shared_broker(), name);
    let created = log.create_topics().expect("the broker answers");
    assert!(created.iter().all(|topic| topic.created), "{created:?}");
    log
}

fn append(sink: &dyn CommandSink, values: &[&str]) -> Result<Vec<Offset>, AppendError> {
    let (told, outcome) = channel();
    let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    sink.append(values, Box::new(move |outcome| told.send(outcome).unwrap_or_default()));
    outcome.recv_timeout(LONG).expect("every append has an outcome")
}

fn ask(questioner: &mut dyn Questioner, question: Question) -> Answer {
    let until = Instant::now() + LONG;
    loop {
        match questioner.ask(question) {
            // A topic that was created a moment ago may have no leader yet.
            Answer::Failed(_, reason) => assert!(Instant::now() < until, "{question:?}: {reason}"),
            answer => return answer,
        }
    }
}

fn ends(questioner: &mut dyn Questioner, topic: Topic) -> (u64, u64, u64) {
    match ask(questioner, Question::Ends(topic)) {
        Answer::Ends(_, Ends { start, high, stable }) => (start.number(), high.number(), stable.number()),
        other => panic!("{other:?}"),
    }
}

/// Everything up to the next end, and the position of that.
fn read_to_end(reader: &mut dyn Reader) -> (Vec<Record>, Position) {
    let (mut all, until) = (Vec::new(), Instant::now() + LONG);
    loop {
        assert!(Instant::now() < until, "no end");
        match reader.poll(Duration::from_millis(200)) {
            Some(ReadEvent::Records(records)) => all.extend(records),
            Some(ReadEvent::End(position)) => return (all, position),
            Some(ReadEvent::Failed(reason)) => panic!("{reason}"),
            None => {}
        }
    }
}

fn values(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.value.clone().unwrap_or_default());
    records.iter().map(|record| text(record).expect("UTF-8")).collect()
}

/// Why a reader fails.
fn failure(mut reader: Box<dyn Reader>) -> String {
    let until = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < until, "it does not fail");
        match reader.poll(Duration::from_millis(200)) {
            Some(ReadEvent::Failed(reason)) => return reason,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
}

fn write(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))
}

#[test]
fn a_group_of_commands_is_read_in_order_from_where_it_was_acknowledged() {
    let log = log("order");
    let sink = log.commands().expect("a thread");
    assert_eq!(append(&sink, &["a", "b"]), Ok(vec![Offset::new(0), Offset::new(1)]));
    let thousand: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let group: Vec<&str> = thousand.iter().map(String::as_str).collect();
    let offsets = append(&sink, &group).expect("the broker takes it");
    assert_eq!(offsets, (2..1_002).map(Offset::new).collect::<Vec<_>>());

    let mut reader = log.open(Topic::Commands, Position::START).expect("it is there");
    let (records, end) = read_to_end(&mut *reader);
    assert_eq!((values(&records[..2]), end), (vec!["a".to_owned(), "b".to_owned()], Position::new(1_002)));
    assert_eq!(values(&records[2..]), thousand);
    assert!(
        records.iter().all(|record| record.timestamp.millis() > 1_700_000_000_000 && record.key.is_none())
    );

    // What comes later is reported to the same reader, and its end anew.
    append(&sink, &["c"]).expect("the broker takes it");
    let (records, end) = read_to_end(&mut *reader);
    assert_eq!((values(&records), end), (vec!["c".to_owned()], Position::new(1_003)));

    let mut later = log.open(Topic::Commands, Position::new(1_002)).expect("it is there");
    assert_eq!(values(&read_to_end(&mut *later).0), ["c"]);
}

#[test]
fn questions_are_answered_for_the_log_that_is_there() {
    let log = log("questions");
    let mut questioner = log.questioner();
    assert_eq!(ends(&mut *questioner, Topic::Commands), (0, 0, 0));
    let sink = log.commands().expect("a thread");
    append(&sink, &["a", "b"]).expect("the broker takes it");
    assert_eq!(ends(&mut *questioner, Topic::Commands), (0, 2, 2));
    for (offset, expected) in [(0, Some("a")), (1, Some("b")), (2, None), (700, None)] {
        let Answer::RecordAt(_, found) = ask(&mut *questioner, Question::RecordAt(Offset::new(offset)))
        else {
            panic!("another answer")
        };
        let found = found.map(|record| (record.offset, values(&[record]).remove(0)));
        assert_eq!(found, expected.map(|value| (Offset::new(offset), value.to_owned())));
    }
    let Answer::Identity(identity) = ask(&mut *questioner, Question::Identity) else { panic!("another") };
    assert_eq!(identity, log.identity().expect("the broker answers"));
    assert_eq!((identity.commands_topic.as_str(), identity.cluster_id.len()), ("questions.commands", 22));
    assert_eq!(ask(&mut *questioner, Question::TopicSettings), Answer::TopicSettings(Ok(())));
}

#[test]
fn a_transaction_is_read_whole_or_not_at_all_and_its_mark_counts_to_the_end() {
    let log = log("transactions");
    let (mut first, mut second) = (log.table_writer(), log.table_writer());
    assert!(
        matches!(first.commit(vec![write("a", "1")]), Err(WriteError::Unknown(_))),
        "it fenced nobody yet"
    );
    first.fence().expect("the broker answers");
    first.commit(vec![write("a", "1"), (b"b".to_vec(), None)]).expect("nobody else writes");
    let mut questioner = log.questioner();
    // The commit returns before its mark is there to be read.
    wait_until("the mark is there", || ends(&mut *questioner, Topic::Table) == (0, 3, 3));
    let mut reader = log.open(Topic::Table, Position::START).expect("it is there");
    let (records, end) = read_to_end(&mut *reader);
    assert_eq!((records.len(), end), (2, Position::new(3)), "the mark has an offset and is no record");
    assert_eq!((records[0].value.as_deref(), records[1].value.as_deref()), (Some(&b"1"[..]), None));

    // Whoever fences later is the one that writes.
    second.fence().expect("the broker answers");
    assert_eq!(first.commit(vec![write("a", "2")]), Err(WriteError::Fenced));
    second.commit(vec![write("a", "3")]).expect("nobody else writes");
    let (records, _) = read_to_end(&mut *reader);
    assert_eq!(values(&records), ["3"], "nothing of the fenced one");
    first.fence().expect("the role can be claimed again");
    assert_eq!(second.commit(vec![write("a", "4")]), Err(WriteError::Fenced));
}

/// A producer of somebody else's, with a transaction of its own.
fn foreign_producer() -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", shared_broker().bootstrap()).set("transactional.id", "somebody else");
    let producer: BaseProducer = config.create().expect("right settings");
    producer.init_transactions(LONG).expect("the broker answers");
    producer
}

#[test]
fn records_of_open_and_aborted_transactions_are_not_read_but_count_to_the_end() {
    let log = log("hidden");
    let sink = log.commands().expect("a thread");
    append(&sink, &["a"]).expect("the broker takes it");
    let mut questioner = log.questioner();
    let mut reader = log.open(Topic::Commands, Position::START).expect("it is there");
    assert_eq!(read_to_end(&mut *reader).1, Position::new(1));

    let producer = foreign_producer();
    producer.begin_transaction().expect("it may");
    producer.send(BaseRecord::<(), str>::to("hidden.commands").payload("b")).expect("there is room");
    producer.flush(LONG).expect("the broker takes it");
    append(&sink, &["c"]).expect("the broker takes it");
    // What was acknowledged behind the open transaction is there, and nobody may read it yet.
    assert_eq!(ends(&mut *questioner, Topic::Commands), (0, 3, 1));
    assert_eq!(reader.poll(Duration::from_secs(1)), None);
    producer.abort_transaction(LONG).expect("it may");
    let (records, end) = read_to_end(&mut *reader);
    assert_eq!((values(&records), end), (vec!["c".to_owned()], Position::new(4)), "the mark is behind it");
    assert_eq!(ends(&mut *questioner, Topic::Commands), (0, 4, 4));

    // Nothing but a mark and what it hides: an end further on, and no record.
    producer.begin_transaction().expect("it may");
    producer.send(BaseRecord::<(), str>::to("hidden.commands").payload("d")).expect("there is room");
    producer.flush(LONG).expect("the broker takes it");
    producer.abort_transaction(LONG).expect("it may");
    assert_eq!(read_to_end(&mut *reader), (vec![], Position::new(6)));
    let hidden = ask(&mut *questioner, Question::RecordAt(Offset::new(4)));
    assert_eq!(hidden, Answer::RecordAt(Offset::new(4), None));
}

#[test]
fn a_large_transaction_waits_for_the_broker_and_is_whole() {
    let log = log("large");
    let mut writer = log.table_writer();
    writer.fence().expect("the broker answers");
    // More than librdkafka's queue holds.
    let rows = (0..150_000).map(|number| write(&number.to_string(), "row")).collect();
    writer.commit(rows).expect("nobody else writes");
    let mut reader = log.open(Topic::Table, Position::START).expect("it is there");
    let (mut count, mut end) = (0, Position::START);
    while end < Position::new(150_001) {
        let (records, reached) = read_to_end(&mut *reader);
        (count, end) = (count + records.len(), reached);
    }
    assert_eq!(count, 150_000);
}

#[test]
fn a_reader_never_begins_elsewhere_than_it_was_told() {
    let log = log("elsewhere");
    let sink = log.commands().expect("a thread");
    append(&sink, &["a", "b", "c"]).expect("the broker takes it");
    let beyond = log.open(Topic::Commands, Position::new(7)).expect("opening asks nothing");
    assert!(failure(beyond).contains("does not reach to where we are"));
    shared_broker().delete_records("elsewhere.commands", 2);
    let before = log.open(Topic::Commands, Position::new(1)).expect("opening asks nothing");
    assert!(failure(before).contains("does not reach to where we are"));
    let mut questioner = log.questioner();
    assert_eq!(ends(&mut *questioner, Topic::Commands), (2, 3, 3));
    let gone = ask(&mut *questioner, Question::RecordAt(Offset::new(1)));
    assert_eq!(gone, Answer::RecordAt(Offset::new(1), None));
}

#[test]
fn settings_that_give_a_wrong_list_are_refused_and_others_are_not() {
    let broker = shared_broker();
    let log = log("settings");
    assert_eq!(
        log.create_topics().expect("the broker answers").iter().filter(|made| made.created).count(),
        0
    );
    broker.alter_topic("settings.commands", &[("retention.ms", "604800000"), ("cleanup.policy", "compact")]);
    broker.alter_topic("settings.table", &[("segment.ms", "604800000")]);
    let mut questioner = log.questioner();
    let Answer::TopicSettings(Err(why)) = ask(&mut *questioner, Question::TopicSettings) else {
        panic!("refused")
    };
    assert!(
        why.starts_with("the topic settings.commands has cleanup.policy=compact, and wants delete: "),
        "{why}"
    );
    let found = log.check_topics().expect("the broker answers");
    let found: Vec<_> = found.findings.iter().map(|found| (found.setting, found.severity)).collect();
    let expected = [
        ("cleanup.policy", Severity::Refused),
        ("retention.ms", Severity::Refused),
        ("segment.ms", Severity::Advised),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_topic_that_is_not_there_is_named_and_never_made_by_mistake() {
    let log = log_on(shared_broker(), "missing");
    let mut questioner = log.questioner();
    for question in [Question::Ends(Topic::Commands), Question::TopicSettings] {
        let Answer::Failed(_, reason) = questioner.ask(question) else { panic!("it is not there") };
        assert!(reason.starts_with("Kafka has no topic missing.commands: make it by "), "{reason}");
    }
    let sink = log.commands().expect("a thread");
    let Err(AppendError::Unavailable(reason)) = append(&sink, &["a"]) else { panic!("it is not there") };
    assert!(reason.starts_with("Kafka has no topic missing.commands"), "{reason}");
    // Created, it takes commands at once: nothing was kept of its absence.
    log.create_topics().expect("the broker answers");
    wait_until("it takes commands", || append(&sink, &["a"]).is_ok());
}

#[test]
fn a_broker_that_is_gone_is_told_as_such_and_comes_back() {
    let mut broker = Broker::start();
    let log = log_on(&broker, "gone");
    log.create_topics().expect("the broker answers");
    let sink = log.commands().expect("a thread");
    wait_until("it takes commands", || append(&sink, &["a"]).is_ok());
    let mut reader = log.open(Topic::Commands, Position::START).expect("it is there");
    let mut questioner = log.questioner();
    read_to_end(&mut *reader);
    assert_eq!(ends(&mut *questioner, Topic::Commands), (0, 1, 1));

    broker.kill();
    // Who was reading is told, because it may be another log that comes back.
    let reason = failure(reader);
    let expected = format!("no answer from Kafka at {}: ", broker.bootstrap());
    assert!(reason.starts_with(&expected), "{reason}");
    let Answer::Failed(_, reason) = questioner.ask(Question::Identity) else { panic!("nobody is there") };
    assert!(reason.starts_with(&expected) && reason.contains("Connection refused"), "{reason}");
    // Who only begins to read does not wait for what may come up.
    let opened = log.open(Topic::Commands, Position::START).expect("opening asks nothing");
    let reason = failure(opened);
    assert!(reason.starts_with(&expected), "{reason}");
    // Nothing was handed over, so that nothing can be there.
    wait_until("it is noticed", || matches!(append(&sink, &["b"]), Err(AppendError::Unavailable(_))));
    let Err(AppendError::Unavailable(reason)) = append(&sink, &["b"]) else { panic!("nobody is there") };
    assert!(reason.starts_with(&expected), "{reason}");

    broker.restart();
    let mut reader = log.open(Topic::Commands, Position::START).expect("opening asks nothing");
    assert_eq!(values(&read_to_end(&mut *reader).0)[0], "a");
    wait_until("it takes commands again", || append(&sink, &["c"]).is_ok());
}

#[test]
fn a_cluster_that_took_the_place_of_another_is_known_by_its_name() {
    let mut broker = Broker::start();
    let log = log_on(&broker, "replaced");
    log.create_topics().expect("the broker answers");
    let mut questioner = log.questioner();
    let before = ask(&mut *questioner, Question::Identity);
    broker.wipe_and_restart();
    log.create_topics().expect("the broker answers");
    assert_ne!(ask(&mut *questioner, Question::Identity), before);
}

#[test]
fn a_topic_that_was_deleted_is_not_made_again_by_those_who_wrote_to_it() {
    // As Kafka is by default, and as no test of ours needs it otherwise.
    let broker = BrokerOptions::default().property("auto.create.topics.enable", "true").start();
    let log = log_on(&broker, "deleted");
    log.create_topics().expect("the broker answers");
    let sink = log.commands().expect("a thread");
    wait_until("it takes commands", || append(&sink, &["a"]).is_ok());
    let mut writer = log.table_writer();
    writer.fence().expect("the broker answers");
    writer.commit(vec![write("a", "1")]).expect("nobody else writes");
    let mut questioner = log.questioner();
    let mut reader = log.open(Topic::Commands, Position::START).expect("it is there");
    read_to_end(&mut *reader);

    broker.delete_topic("deleted.*");
    // It tries for as long as a transaction may take.
    let _trying = std::thread::spawn(move || writer.commit(vec![write("b", "1")]));
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let _refused = append(&sink, &["b"]);
        let _nobody = questioner.ask(Question::Ends(Topic::Commands));
        let _failed = reader.poll(Duration::from_millis(100));
    }
    let topics = broker.tool("topics", &["--list"], "");
    assert!(!succeeded(&topics).contains("deleted."), "it is there again");
}
