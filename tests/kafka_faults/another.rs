//! A log that is another one than the one that was followed.

use std::process::Command;
use std::time::Duration;

use portcullis::log::{Answer, Log as _, Question, Topic};
use portcullis::record::Position;
use serde_json::{Value, json};

use super::foreign::{producer, recreate, write_values};
use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE, code};
use super::support::kafka::{Broker, BrokerOptions, shared_broker, wait_until};

/// Settings that the commands need.
const COMMANDS: [(&str, &str); 2] = [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")];
/// How long a topic is away that somebody deletes and makes anew by hand: questions about it fail meanwhile.
const AS_PEOPLE_DO: Duration = Duration::from_secs(3);
/// Longer than what was asked of the log counts.
const LONGER_THAN_TRUSTED: Duration = Duration::from_secs(8);
/// In which a projector would have written, and a sidecar published.
const WHILE: Duration = Duration::from_secs(7);

/// What was there before the log was replaced.
struct Before {
    site: Site,
    projector: Process,
    sidecars: [Process; 2],
    /// Position and fingerprint of all of them.
    served: (Value, Value),
    watermark: Value,
}

fn served(process: &Process) -> (Value, Value) {
    let status = process.status();
    (status["position"].clone(), status["fingerprint"].clone())
}

fn watermark(site: &Site) -> Value {
    let table = site.table(&WITH_TABLE);
    let watermark = table.check().expect("the table is whole");
    json!([watermark.position, watermark.fingerprint])
}

impl Before {
    fn new(site: Site) -> Self {
        let projector = site.projector(&WITH_TABLE, &[]);
        let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
        sidecars.iter().for_each(Process::wait_ready);
        for number in 1..=10 {
            let (status, answer) = sidecars[0].post("", &format!("BLACKLIST 192.0.2.{number}"));
            assert_eq!(status, 201, "{answer}");
        }
        let before =
            Self { served: (json!(10), Value::Null), watermark: Value::Null, site, projector, sidecars };
        before.site.agree(&WITH_TABLE, &[&before.projector, &before.sidecars[0], &before.sidecars[1]], &[]);
        Self { served: served(&before.sidecars[0]), watermark: watermark(&before.site), ..before }
    }

    /// All say that it is another log; what was served is, and nothing is written.
    fn hold_still(&self) {
        for sidecar in &self.sidecars {
            let status = sidecar.wait("it is said", |status| status["alarm"] == "another_log");
            assert_eq!((&status["ready"], &status["phase"]), (&json!(true), &json!("alarm")), "{status:#}");
        }
        let status = self.projector.wait_role("stopped");
        assert_eq!(status["reason"], "another_log", "{status:#}");
        std::thread::sleep(WHILE);
        for sidecar in &self.sidecars {
            assert_eq!(served(sidecar), self.served, "{:#}", sidecar.status());
            assert!(sidecar.blocks("192.0.2.10") && !sidecar.blocks("203.0.113.1"));
            let (status, answer) = sidecar.post("", "BLACKLIST 192.0.2.99");
            assert_eq!((status, &answer["error"]["code"]), (503, &json!("alarm")), "{answer}");
            assert_eq!((sidecar.get("/readyz").0, sidecar.get("/readyz?strict").0), (200, 503));
        }
        assert_eq!(self.projector.status()["role"], "stopped");
    }

    /// The commands made anew, with so many others.
    fn replace(&self, broker: &Broker, count: usize, after: Duration) {
        recreate(&broker.bootstrap(), &self.site.commands_topic, &COMMANDS, after);
        // Until the broker has done what it says, it takes records into the old one.
        let mut questioner = self.site.log(&WITH_TABLE).questioner();
        let is_new = |answer| matches!(answer, Answer::Ends(_, ends) if ends.high == Position::START);
        wait_until("the new topic is there", || is_new(questioner.ask(Question::Ends(Topic::Commands))));
        let others: Vec<String> = (1..=count).map(|number| format!("BLACKLIST 203.0.113.{number}")).collect();
        let others: Vec<&[u8]> = others.iter().map(String::as_bytes).collect();
        write_values(&producer(&broker.bootstrap(), &[]), &self.site.commands_topic, &others);
    }
}

pub(crate) fn a_topic_made_anew_and_shorter_is_not_gone_on_with() {
    let broker = shared_broker();
    let before = Before::new(Site::begun(broker, "shorter"));
    before.replace(broker, 4, AS_PEOPLE_DO);
    before.hold_still();
    assert_eq!(watermark(&before.site), before.watermark);
    // Whoever begins now is told the same, and has no list to serve.
    let late = before.site.sidecar(&WITH_TABLE);
    let status = late.wait("it is said", |status| status["alarm"] == "another_log");
    assert_eq!((&status["ready"], late.get("/v1/check/192.0.2.1").0), (&json!(false), 503));
}

pub(crate) fn a_topic_made_anew_and_longer_is_not_gone_on_with() {
    let broker = shared_broker();
    let before = Before::new(Site::begun(broker, "longer"));
    before.replace(broker, 40, AS_PEOPLE_DO);
    before.hold_still();
    assert_eq!(watermark(&before.site), before.watermark);
    let late = before.site.sidecar(&WITH_TABLE);
    let status = late.wait("it is said", |status| status["alarm"] == "another_log");
    assert_eq!((&status["ready"], late.get("/v1/check/192.0.2.1").0), (&json!(false), 503));
}

pub(crate) fn a_topic_made_anew_and_longer_at_once_raises_the_alarm_and_is_not_projected() {
    let broker = shared_broker();
    let before = Before::new(Site::begun(broker, "at-once"));
    // No error tells the readers, so that a sidecar may take in some of it before it asks the next time.
    before.replace(broker, 40, Duration::ZERO);
    let status = before.projector.wait_role("stopped");
    assert_eq!(status["reason"], "another_log", "{status:#}");
    for sidecar in &before.sidecars {
        sidecar.wait("it is said", |status| status["alarm"] == "another_log");
    }
    assert_eq!(watermark(&before.site), before.watermark);
}

pub(crate) fn a_topic_made_anew_while_nobody_looked_is_not_gone_on_with() {
    let broker = shared_broker();
    let mut before = Before::new(Site::begun(broker, "unseen"));
    // It sleeps, and wakes up to a longer log; no error tells it.
    let Before { projector, sidecars, .. } = &mut before;
    projector.kill();
    sidecars.iter().for_each(|sidecar| sidecar.signal(nix::sys::signal::Signal::SIGSTOP));
    before.replace(broker, 40, LONGER_THAN_TRUSTED);
    let Before { projector, sidecars, .. } = &mut before;
    sidecars.iter().for_each(|sidecar| sidecar.signal(nix::sys::signal::Signal::SIGCONT));
    projector.start_again();
    before.hold_still();
    assert_eq!(watermark(&before.site), before.watermark);
}

/// Copies a folder, or puts a copy in its place.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().expect("it runs");
    assert!(done.success());
}

pub(crate) fn a_log_that_was_restored_from_an_old_backup_is_not_gone_on_with() {
    let mut broker = BrokerOptions::default().start();
    let site = Site::begun(&broker, "restored");
    write_values(&producer(&broker.bootstrap(), &[]), &site.commands_topic, &[b"BLACKLIST 198.51.100.1"]);
    broker.stop();
    let [data, backup] = ["data", "backup"].map(|name| broker.folder().join(name));
    copy(&data, &backup);
    broker.restart();
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    for number in 1..=10 {
        assert_eq!(sidecars[0].post("", &format!("BLACKLIST 192.0.2.{number}")).0, 201);
    }
    site.agree(&WITH_TABLE, &[&projector, &sidecars[0], &sidecars[1]], &[]);
    let had = served(&sidecars[0]);

    broker.stop();
    std::fs::remove_dir_all(&data).expect("it is there");
    copy(&backup, &data);
    broker.restart();
    // It goes on without them, and comes to be longer than it was.
    let others: Vec<String> = (1..=30).map(|number| format!("BLACKLIST 203.0.113.{number}")).collect();
    let others: Vec<&[u8]> = others.iter().map(String::as_bytes).collect();
    write_values(&producer(&broker.bootstrap(), &[]), &site.commands_topic, &others);
    for sidecar in &sidecars {
        let status = sidecar.wait("it is said", |status| status["alarm"] == "another_log");
        assert_eq!(status["ready"], true);
        assert_eq!(served(sidecar), had, "{status:#}");
    }
    // The table is as old as the commands, so that a projector may go on with the two, and a sidecar that
    // has the table takes that up by itself; one that has not stays as it is.
    let projected = projector.wait("the table goes on", |status| status["position"] == 31);
    let status = sidecars[0].wait("it takes it up", |status| status["position"] == 31);
    assert_eq!((&status["alarm"], &status["fingerprint"]), (&Value::Null, &projected["fingerprint"]));
    assert!(sidecars[0].log().contains("the list was replaced by that of another log"));
    assert_eq!((served(&sidecars[1]), &sidecars[1].status()["alarm"]), (had, &json!("another_log")));
    site.agree(&WITH_TABLE, &[&projector, &sidecars[0]], &[]);
}

pub(crate) fn another_cluster_under_the_same_address_is_not_gone_on_with() {
    let mut broker = BrokerOptions::default().start();
    let before = Before::new(Site::begun(&broker, "cluster"));
    broker.wipe_and_restart();
    // Its topics have the same names; the table is begun, and says of no record which log it belongs to.
    // (The projector may be at it, too, which knows no more of the log than what the table says.)
    wait_until("the topics are there", || code(&before.site.topics(&WITH_TABLE, &["create"])) == 0);
    before.hold_others(&broker);
}

impl Before {
    fn hold_others(&self, broker: &Broker) {
        let others: Vec<String> = (1..=40).map(|number| format!("BLACKLIST 203.0.113.{number}")).collect();
        let others: Vec<&[u8]> = others.iter().map(String::as_bytes).collect();
        write_values(&producer(&broker.bootstrap(), &[]), &self.site.commands_topic, &others);
        for sidecar in &self.sidecars {
            let status = sidecar.wait("it is said", |status| status["alarm"] == "another_log");
            assert_eq!(status["ready"], true);
            assert_eq!(served(sidecar), self.served, "{status:#}");
            assert_eq!(sidecar.post("", "BLACKLIST 192.0.2.99").0, 503);
        }
    }
}
