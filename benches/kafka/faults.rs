//! What each fault of a broker costs: how soon a sidecar says so, and how soon it is over.
//!
//! Commands are written to one sidecar and lookups asked of it all the time, with the same key until each
//! command is acknowledged; afterwards all that was said is held to the log. Times count from the fault's
//! begin, or from its end.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::http::client::{Client, Endpoint, Request};
use portcullis::log::Topic;
use rdkafka::producer::Producer as _;
use serde_json::Value;

use crate::foreign::{producer, transactional, write_values};
use crate::judge::judge;
use crate::link::Link;
use crate::load::{Heard, under_load};
use crate::rig::{Process, Site, StopOnDrop, WITH_TABLE};
use crate::support::kafka::{Broker, BrokerOptions};

/// The smallest age that a policy may call too old.
const STALE: Duration = Duration::from_secs(3);
/// Between two looks at what sidecar and projector say.
const LOOK: Duration = Duration::from_millis(10);
/// How long everything goes on before and after a fault.
const CALM: Duration = Duration::from_secs(5);
/// How long anything may take to be well again.
const PATIENCE: Duration = Duration::from_secs(120);
/// When nobody else would end a transaction of ours.
const LONG: Duration = Duration::from_secs(60);

/// Who plays.
struct Scene {
    broker: Broker,
    link: Option<Link>,
    site: Site,
    direct: Site,
    sidecar: Process,
    projector: Process,
}

impl Scene {
    fn new(link: Option<Link>) -> Self {
        let options = BrokerOptions::default();
        let broker = link.iter().fold(options, |options, link| options.advertise(link.port())).start();
        link.iter().for_each(|link| link.lead_to(&broker.bootstrap()));
        let direct = Site::begun(&broker, "faults").over(broker.inner_bootstrap());
        let site = direct.over(link.as_ref().map_or_else(|| broker.bootstrap(), Link::bootstrap));
        let projector = site.projector(&WITH_TABLE, &[]);
        let sidecar = site.sidecar(&WITH_TABLE);
        sidecar.wait_ready();
        projector.wait_role("active");
        Self { broker, link, site, direct, sidecar, projector }
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("this fault has one")
    }
}

/// What both said at one time.
struct Look {
    at: Instant,
    sidecar: Value,
    projector: Value,
}

impl Look {
    /// Since when the sidecar knows that it is at the end.
    fn proven(&self) -> Option<Instant> {
        self.at.checked_sub(Duration::from_millis(self.sidecar["age_ms"].as_u64()?))
    }

    fn says_why(&self) -> bool {
        ["message", "degraded", "alarm"].iter().any(|word| !self.sidecar[*word].is_null())
    }

    fn position(&self, of: fn(&Self) -> &Value) -> u64 {
        of(self)["position"].as_u64().unwrap_or_default()
    }
}

/// A fault: done to a scene, and over when it returns the time of its end.
type Fault = fn(&mut Scene) -> Instant;

fn killed(scene: &mut Scene) -> Instant {
    scene.broker.restart();
    Instant::now()
}

fn stopped(scene: &mut Scene) -> Instant {
    scene.broker.stop();
    thread::sleep(Duration::from_secs(60));
    scene.broker.restart();
    Instant::now()
}

fn frozen(scene: &mut Scene) -> Instant {
    scene.broker.freeze();
    thread::sleep(Duration::from_secs(20));
    scene.broker.thaw();
    Instant::now()
}

fn cut(scene: &mut Scene) -> Instant {
    scene.link().cut();
    thread::sleep(Duration::from_secs(90));
    scene.link().heal();
    Instant::now()
}

fn reader_silent(scene: &mut Scene) -> Instant {
    let silenced = scene.link().silence_readers();
    assert!(silenced > 0, "nobody reads");
    Instant::now()
}

fn hanging(scene: &mut Scene) -> Instant {
    let producer = transactional(&scene.broker.bootstrap(), "hangs", LONG);
    producer.begin_transaction().expect("it may");
    write_values(&producer, &scene.site.commands_topic, &[b"BLACKLIST 192.0.2.1"]);
    thread::sleep(Duration::from_secs(20));
    producer.abort_transaction(LONG).expect("it may");
    Instant::now()
}

/// Measures each fault, and prints a table.
pub(crate) fn measure() {
    println!(
        "| fault | age above 3 s after | says why after | follows again after its end | the table there again \
         | \
         groups acknowledged | repeated | answers | wrong | lost |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let direct: [(&str, Fault); 4] = [
        ("broker killed (`kill -9`), started at once", killed),
        ("broker stopped for 60 s", stopped),
        ("broker frozen for 20 s (SIGSTOP)", frozen),
        ("foreign transaction hangs for 20 s", hanging),
    ];
    direct.into_iter().for_each(|(name, fault)| row(name, Scene::new(None), fault));
    let linked: [(&str, Fault); 2] = [
        ("link swallows everything for 90 s", cut),
        ("link swallows the readers' connections", reader_silent),
    ];
    linked.into_iter().for_each(|(name, fault)| row(name, Scene::new(Some(Link::new())), fault));
    recreated();
}

fn row(name: &str, mut scene: Scene, fault: Fault) {
    let sockets = [scene.sidecar.socket().to_owned()];
    let (looks, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let ((began, ended), heard) = under_load(&sockets, 7, || {
        thread::sleep(CALM);
        // The fault needs the scene, and who looks two sockets of it.
        let (sidecar, projector) = (scene.sidecar.socket().to_owned(), scene.projector.socket().to_owned());
        thread::scope(|scope| {
            scope.spawn(|| look(&sidecar, &projector, &looks, &stop));
            let stopped = StopOnDrop(&stop);
            let began = Instant::now();
            let ended = fault(&mut scene);
            wait_well(&looks, ended);
            thread::sleep(CALM);
            drop(stopped);
            (began, ended)
        })
    });
    let looks = looks.into_inner().expect("no panic");
    let first = |since: Instant, holds: &dyn Fn(&Look) -> bool| {
        let look = looks.iter().find(|look| look.at >= since && holds(look));
        look.map(|look| look.at.duration_since(since))
    };
    let old = first(began, &|look| look.proven().is_some_and(|proven| look.at >= proven + STALE));
    let why = first(began, &Look::says_why);
    let follows = first(ended, &|look| follows(look, ended));
    let table = first(ended, &|look| has_table(look, &looks, ended));
    finish(name, &scene, &heard, [old, why, follows, table]);
}

/// Asks both how they are until told to stop.
fn look(sidecar: &Path, projector: &Path, looks: &Mutex<Vec<Look>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let at = Instant::now();
        if let (Some(sidecar), Some(projector)) = (status(sidecar), status(projector)) {
            looks.lock().expect("no panic").push(Look { at, sidecar, projector });
        }
        thread::sleep(LOOK);
    }
}

/// What a process says of itself; nothing if it is not there.
fn status(socket: &Path) -> Option<Value> {
    let mut client = Client::connect(&Endpoint::Unix(socket.to_owned())).ok()?;
    let request = Request { path: "/v1/status".to_owned(), ..Request::default() };
    serde_json::from_slice(&client.send(&request).ok()?.body).ok()
}

fn follows(look: &Look, ended: Instant) -> bool {
    look.proven().is_some_and(|proven| proven >= ended)
}

/// Whether the table has what the sidecar had when it followed again.
fn has_table(look: &Look, looks: &[Look], ended: Instant) -> bool {
    let back = looks.iter().find(|look| look.at >= ended && follows(look, ended));
    back.is_some_and(|back| look.position(|it| &it.projector) >= back.position(|it| &it.sidecar))
}

fn wait_well(looks: &Mutex<Vec<Look>>, ended: Instant) {
    let until = Instant::now() + PATIENCE;
    let is_well = || {
        let looks = looks.lock().expect("no panic");
        looks.last().is_some_and(|look| look.at >= ended && has_table(look, &looks, ended))
    };
    while !is_well() {
        assert!(Instant::now() < until, "it is not well again");
        thread::sleep(LOOK);
    }
}

fn finish(name: &str, scene: &Scene, heard: &Heard, times: [Option<Duration>; 4]) {
    scene.direct.agree(&WITH_TABLE, &[&scene.sidecar, &scene.projector], &[]);
    let judged = judge(heard, &scene.direct.records(&WITH_TABLE, Topic::Commands));
    let times =
        times.map(|time| time.map_or("–".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())));
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} |",
        times.join(" | "),
        judged.groups,
        judged.repeated,
        judged.answers,
        judged.wrong.len(),
        judged.lost.len()
    );
}

/// A topic that is made anew, longer than it was: nobody can follow again, and what is asked is how long the
/// list stays as it was.
fn recreated() {
    let scene = Scene::new(None);
    for number in 1..=10 {
        assert_eq!(scene.sidecar.post("?wait=applied", &format!("BLACKLIST 192.0.2.{number}")).0, 201);
    }
    let before = scene.sidecar.status()["fingerprint"].clone();
    let topic = &scene.site.commands_topic;
    let began = Instant::now();
    scene.broker.delete_topic(topic);
    let args = ["--create", "--topic", topic, "--config", "message.timestamp.type=LogAppendTime"];
    while !scene.broker.tool("topics", &args, "").status.success() {
        assert!(began.elapsed() < PATIENCE, "it is not deleted");
    }
    let others: Vec<String> = (1..=40).map(|number| format!("BLACKLIST 203.0.113.{number}")).collect();
    let others: Vec<&[u8]> = others.iter().map(String::as_bytes).collect();
    write_values(&producer(&scene.broker.bootstrap(), &[]), topic, &others);
    let ended = Instant::now();
    let (mut answers, mut wrong) = (0_u32, 0_u32);
    let mut alarm = None;
    while ended.elapsed() < Duration::from_secs(20) {
        let status = scene.sidecar.status();
        (answers, wrong) = (answers + 1, wrong + u32::from(status["fingerprint"] != before));
        if status["alarm"] == "another_log" {
            alarm.get_or_insert(ended.elapsed());
        }
        thread::sleep(LOOK);
    }
    let alarm = alarm.map_or("–".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    println!(
        "commands topic deleted and made anew, longer than before: alarm {alarm} after its first records; looked \
         at {answers} times in 20 s, another list served: {wrong}"
    );
}
