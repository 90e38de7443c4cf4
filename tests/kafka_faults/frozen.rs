//! A broker that stands still: connections stay open, and nothing is answered.

use std::thread;
use std::time::Duration;

use portcullis::log::Topic;

use super::judge::judge;
use super::load::under_load;
use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::BrokerOptions;

/// How long the broker stands still.
const FROZEN: Duration = Duration::from_secs(20);
/// The smallest age that a policy may call too old.
const STALE_MS: u64 = 3_000;

pub(crate) fn a_broker_that_stands_still_is_waited_out() {
    let broker = BrokerOptions::default().start();
    let site = Site::begun(&broker, "still");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(Process::wait_ready);
    let sockets: Vec<_> = sidecars.iter().map(|sidecar| sidecar.socket().to_owned()).collect();
    let ((), heard) = under_load(&sockets, 2, || {
        thread::sleep(Duration::from_secs(2));
        broker.freeze();
        thread::sleep(FROZEN);
        for sidecar in &sidecars {
            let status = sidecar.status();
            assert!(status["age_ms"].as_u64() > Some(STALE_MS), "{status:#}");
            assert!(
                status["message"].as_str().is_some_and(|it| it.contains("no answer from Kafka")),
                "{status:#}"
            );
            assert_eq!(sidecar.get("/readyz").0, 200);
        }
        broker.thaw();
        for sidecar in &sidecars {
            sidecar.wait("it follows again", |status| status["age_ms"].as_u64() < Some(STALE_MS));
        }
    });
    site.agree(&WITH_TABLE, &[&projector, &sidecars[0], &sidecars[1]], &[]);
    judge(&heard, &site.records(&WITH_TABLE, Topic::Commands)).hold("frozen");
}
