//! The real program on three brokers: one of them dies under load, too few of them keep the commands, all of
//! them come back.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

#[path = "kafka_service/rig.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use more of it")]
mod rig;
mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::command::Command;
use portcullis::log::{AppendError, CommandSink, Topic};
use portcullis::record::Offset;
use rig::{Process, Site, StopOnDrop, WITH_TABLE, WITHOUT_TABLE};
use serde_json::{Value, json};
use support::kafka::{Cluster, wait_until};

/// So long that only what hangs gets there.
const LONG: Duration = Duration::from_secs(90);

/// The cluster of all tests, which have it in turn: eight nodes at once are many for two cores.
fn cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start()));
    cluster.lock().unwrap_or_else(|failed| {
        // Nobody knows what the test that failed has left of it.
        cluster.clear_poison();
        let mut cluster = failed.into_inner();
        *cluster = Cluster::start();
        cluster
    })
}

/// A log on the cluster, with everybody who reads it.
struct Scene {
    site: Site,
    projector: Process,
    sidecars: [Process; 2],
}

impl Scene {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let site = Site::at(cluster.bootstrap(), name);
        site.begin(&WITH_TABLE);
        let projector = site.projector(&WITH_TABLE, &[]);
        let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
        sidecars.iter().for_each(Process::wait_ready);
        projector.wait_role("active");
        Self { site, projector, sidecars }
    }

    /// Holds everybody to the same list, and the log to what was acknowledged.
    fn agree(&self, acknowledged: &BTreeMap<String, u64>) {
        let [one, two] = &self.sidecars;
        self.site.agree(&WITH_TABLE, &[&self.projector, one, two], &[]);
        self.assert_applied_once(acknowledged);
    }

    /// Each acknowledged command is where that was said, or was there before; of all that carry its id only
    /// the first has a row. Each of them blacklists an address of its own.
    fn assert_applied_once(&self, acknowledged: &BTreeMap<String, u64>) {
        let mut carrying: BTreeMap<String, Vec<Offset>> = BTreeMap::new();
        for record in self.site.records(&WITH_TABLE, Topic::Commands) {
            let command = record.value.as_deref().and_then(|value| Command::decode(value).ok());
            let id = command.and_then(|command| command.id).expect("all commands are ours, and have an id");
            carrying.entry(id.as_str().to_owned()).or_default().push(record.offset);
        }
        let view = self.site.fold(&WITH_TABLE, &[]);
        let causes: Vec<Offset> = view.blacklist().rows().map(|row| row.cause.command).collect();
        let firsts: Vec<Offset> = carrying.values().map(|offsets| offsets[0]).collect();
        assert_eq!(sorted(causes), sorted(firsts), "each id has an effect once");
        for (id, offset) in acknowledged {
            let offsets = carrying.get(id).unwrap_or_else(|| panic!("{id} was acknowledged, and is lost"));
            assert!(offsets.contains(&Offset::new(*offset)), "{id} at {offset}, found at {offsets:?}");
        }
    }
}

fn sorted(mut offsets: Vec<Offset>) -> Vec<Offset> {
    offsets.sort();
    offsets
}

/// Sends a command with this key once; the offset, if it was acknowledged.
fn send(sidecar: &Process, key: &str, number: u64) -> Result<u64, (u16, Value)> {
    let address = Ipv4Addr::from_bits((10 << 24) + 2 * u32::try_from(number).expect("few"));
    let (status, answer) = sidecar.post_as(Some(key), "", &format!("BLACKLIST {address}"));
    match status {
        200 | 201 => Ok(answer["offset"].as_u64().expect("a number")),
        _ => Err((status, answer)),
    }
}

/// Sends a command until it is acknowledged, always with the same key; an answer is either that or a word of
/// what is the matter. Returns its offset.
fn insist(sidecar: &Process, key: &str, number: u64) -> u64 {
    let began = Instant::now();
    loop {
        match send(sidecar, key, number) {
            Ok(offset) => return offset,
            Err((status @ (503 | 504), answer)) => {
                let expected = if status == 503 { "log_unavailable" } else { "outcome_unknown" };
                assert_eq!(answer["error"]["code"], expected, "{answer}");
            }
            Err((status, answer)) => panic!("{status}: {answer}"),
        }
        assert!(began.elapsed() < LONG, "{key} is never taken\n{}", sidecar.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn whatever_broker_dies_the_next_leader_is_followed_and_nothing_is_lost() {
    let mut cluster = cluster();
    let scene = Scene::new(&cluster, "leaders");
    let [one, two] = &scene.sidecars;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let acknowledged = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acknowledged = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let number = written.fetch_add(1, Ordering::Relaxed);
                let key = format!("under-load-{number}");
                acknowledged
                    .insert(format!("{key}/1"), insist([one, two][number as usize % 2], &key, number));
                thread::sleep(Duration::from_millis(5));
            }
            acknowledged
        });
        let _stopped = StopOnDrop(&stop);
        let led = ["__transaction_state", &*scene.site.table_topic, &*scene.site.commands_topic];
        for topic in led {
            let leader = cluster.leader(topic);
            cluster.brokers[leader].kill();
            // The writer is at its next command but one only if the one before was taken after the kill.
            let before = written.load(Ordering::Relaxed);
            let goes_on = |_: &Value| written.load(Ordering::Relaxed) > before + 2;
            one.wait("commands are taken by the next leader", goes_on);
            wait_until("another broker leads", || cluster.led_by(topic).is_some_and(|new| new != leader));
            let end = scene.site.end(&WITH_TABLE);
            let beyond = |status: &Value| status["position"].as_u64() >= Some(end);
            for process in [&scene.projector, one, two] {
                process.wait("it is beyond what was there", beyond);
            }
            cluster.brokers[leader].restart();
            cluster.wait_in_sync(&led);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("each command was taken in the end")
    });
    scene.agree(&acknowledged);
}

#[test]
fn what_too_few_brokers_keep_is_not_acknowledged_and_repeated_it_is_applied_once() {
    let mut cluster = cluster();
    let scene = Scene::new(&cluster, "copies");
    let [one, two] = &scene.sidecars;
    let mut acknowledged = BTreeMap::from([("before/1".to_owned(), insist(one, "before", 0))]);
    let leader = cluster.leader(&scene.site.commands_topic);
    let followers = [(leader + 1) % 3, (leader + 2) % 3];

    // While the controller stands still nobody says that the followers are gone: the leader takes a command,
    // and nobody can know whether it will stay.
    cluster.controller.freeze();
    cluster.brokers[followers[0]].kill();
    cluster.brokers[followers[1]].freeze();
    let (status, answer) = send(one, "unknown", 1).expect_err("one copy is not enough");
    assert_eq!((status, &answer["error"]["code"]), (504, &json!("outcome_unknown")), "{answer}");
    assert_eq!(answer["error"]["ids"], json!(["unknown/1"]));
    assert!(!one.blocks("10.0.0.2") && !two.blocks("10.0.0.2"), "nobody folds what may go again");

    // Once the controller says so, nothing more is handed over. It has not heard of the leader either: if it
    // gives that one up first, the last copy is a follower that stands still, and nobody leads.
    cluster.controller.thaw();
    let refusals = [
        "nothing was written: the topic copies.commands has 1 in-sync replicas, and min.insync.replicas=2: \
         brokers are down, or it is set too high",
        "nothing was written: the topic copies.commands has no leader at the moment",
    ];
    let began = Instant::now();
    let status = loop {
        let (status, answer) = send(one, "refused", 2).expect_err("one copy is not enough");
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        // Until the metadata shows it, nobody knows; and brokers that are busy may not answer in time.
        if refusals.contains(&&*message) {
            break status;
        }
        assert!(matches!(status, 503 | 504) && began.elapsed() < LONG, "{status}: {answer}");
    };
    assert_eq!(status, 503);
    assert!(one.blocks("10.0.0.0") && two.blocks("10.0.0.0"), "lookups go on");

    cluster.brokers[followers[1]].thaw();
    cluster.brokers[followers[0]].restart();
    for (key, number) in [("unknown", 1), ("refused", 2), ("after", 3)] {
        acknowledged.insert(format!("{key}/1"), insist(two, key, number));
    }
    cluster.wait_in_sync(&[&scene.site.commands_topic, &scene.site.table_topic]);
    scene.agree(&acknowledged);
    assert_eq!(scene.projector.status()["rows"], 4);
}

/// Appends a command, past all sidecars; its offset, if it was acknowledged.
fn append(sink: &dyn CommandSink) -> Result<Vec<Offset>, AppendError> {
    let (told, outcome) = channel();
    let done = Box::new(move |outcome| told.send(outcome).unwrap_or_default());
    sink.append(vec![b"BLACKLIST 192.0.2.1".to_vec()], done);
    outcome.recv_timeout(LONG).expect("every append has an outcome")
}

/// Appends commands until one is acknowledged.
fn append_at_last(sink: &dyn CommandSink) {
    let began = Instant::now();
    while let Err(error) = append(sink) {
        assert!(began.elapsed() < LONG, "no command is taken any more: {error:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A producer remembers how often the leader changed, and takes a topic that was made anew for an old one.
#[test]
fn commands_are_taken_again_by_a_topic_that_was_made_anew_on_other_brokers() {
    let mut cluster = cluster();
    let log = Site::at(cluster.bootstrap(), "moved").log(&WITH_TABLE);
    log.create_topics().expect("a broker answers");
    let topic = log.commands_topic();
    let sink = log.commands().expect("a thread");
    append_at_last(&sink);
    let first = cluster.leader(topic);
    cluster.brokers[first].kill();
    append_at_last(&sink);
    cluster.brokers[first].restart();
    cluster.wait_in_sync(&[topic]);
    append_at_last(&sink);
    let leader = cluster.leader(topic);
    let broker = &cluster.brokers[leader];
    broker.delete_topic(topic);
    let others = [leader, leader + 1, leader + 2].map(|place| ((place + 1) % 3 + 1).to_string()).join(":");
    let create = ["--create", "--topic", topic, "--replica-assignment", &others];
    wait_until("the topic is gone", || broker.tool("topics", &create, "").status.success());
    append_at_last(&sink);
}
