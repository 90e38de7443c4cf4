//! A link that goes silent, wholly or for the readers only.

use std::thread;
use std::time::Duration;

use portcullis::log::Topic;

use super::judge::judge;
use super::link::Link;
use super::load::under_load;
use super::rig::{Process, Settings, Site, WITH_TABLE};
use super::support::kafka::{BrokerOptions, wait_until};

/// For how long nothing comes through.
const CUT: Duration = Duration::from_secs(90);

/// A client that would wait for an answer for a minute: our own watch notices its silence sooner.
fn patient() -> Settings {
    Settings { client: vec![("socket.timeout.ms", "60000".to_owned())], ..WITH_TABLE }
}

pub(crate) fn a_link_that_swallows_everything_is_noticed_and_waited_out() {
    let link = Link::new();
    let broker = BrokerOptions::default().advertise(link.port()).start();
    link.lead_to(&broker.bootstrap());
    let direct = Site::begun(&broker, "link").over(broker.inner_bootstrap());
    let linked = direct.over(link.bootstrap());
    // One that is cut off, and one that is not, so that the log goes on meanwhile.
    let (projector, beside) = (direct.projector(&WITH_TABLE, &[]), direct.sidecar(&WITH_TABLE));
    let behind = linked.projector(&WITH_TABLE, &[]);
    let sidecars = [linked.sidecar(&WITH_TABLE), linked.sidecar(&patient())];
    sidecars.iter().chain([&beside]).for_each(Process::wait_ready);
    readers_alone(&link, &beside, &sidecars);

    let sockets: Vec<_> = [&beside, &sidecars[0]].map(|sidecar| sidecar.socket().to_owned()).into();
    let ((), heard) = under_load(&sockets, 3, || {
        link.cut();
        let cut_off = |status: &serde_json::Value| status["age_ms"].as_u64() > Some(3_000);
        sidecars.iter().for_each(|sidecar| drop(sidecar.wait("it is known to be old", cut_off)));
        let told = sidecars[0].wait_message("no answer from Kafka at ");
        assert_eq!((&told["ready"], &told["alarm"]), (&true.into(), &serde_json::Value::Null));
        thread::sleep(CUT);
        let age = sidecars[0].status()["age_ms"].as_u64();
        assert!(age > Some(u64::try_from(CUT.as_millis()).expect("it is short")), "{age:?}");
        link.heal();
        for sidecar in &sidecars {
            sidecar.wait("it follows again", |status| !cut_off(status));
        }
    });
    let all = [&projector, &behind, &beside, &sidecars[0], &sidecars[1]];
    direct.agree(&WITH_TABLE, &all, &[]);
    judge(&heard, &direct.records(&WITH_TABLE, Topic::Commands)).hold("link");
}

/// Questions are answered, and nothing more comes of the log: only the distance to its end tells.
fn readers_alone(link: &Link, beside: &Process, sidecars: &[Process; 2]) {
    let mut silenced = 0;
    wait_until("both readers are silent", || {
        silenced += link.silence_readers();
        silenced >= 2
    });
    assert_eq!(beside.post("", "BLACKLIST 192.0.2.1").0, 201);
    for sidecar in sidecars {
        sidecar
            .wait("it follows again", |status| status["lag"] == 0 && status["position"].as_u64() > Some(0));
        assert!(sidecar.blocks("192.0.2.1"));
    }
}
