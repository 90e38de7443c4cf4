//! A batch that was damaged on the broker's disk.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::{Broker, BrokerOptions};

/// The file that holds the commands.
fn segment(broker: &Broker, site: &Site) -> PathBuf {
    broker.folder().join(format!("data/{}-0/00000000000000000000.log", site.commands_topic))
}

pub(crate) fn a_damaged_batch_stops_the_fold_and_is_told() {
    let mut broker = BrokerOptions::default().start();
    let site = Site::begun(&broker, "flipped");
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    for command in ["BLACKLIST 192.0.2.1", "BLACKLIST 192.0.2.2", "BLACKLIST 192.0.2.3"] {
        assert_eq!(sidecar.post("?wait=applied", command).0, 201);
    }
    site.agree(&WITH_TABLE, &[&projector, &sidecar], &[]);
    // Until the log is known by its last record: one that is damaged would show another log.
    std::thread::sleep(Duration::from_secs(6));

    broker.stop();
    let file = segment(&broker, &site);
    let whole = fs::read(&file).expect("it is there");
    let mut damaged = whole.clone();
    let at = damaged.windows(9).position(|it| it == b"192.0.2.2").expect("it is in plain text");
    damaged[at + 8] = b'9';
    fs::write(&file, &damaged).expect("the broker is down");
    broker.restart();

    // Who has it in goes on; who must read it stops before it, says why, and never passes it over.
    sidecar.wait("it follows again", |status| status["age_ms"].as_u64() < Some(3_000));
    assert_eq!(sidecar.post("?wait=applied", "BLACKLIST 192.0.2.4").0, 201);
    let [folding, late] = [&WITHOUT_TABLE, &WITH_TABLE].map(|settings| site.sidecar(settings));
    for stopped in [&folding, &late] {
        let status = stopped.wait_message("a record of the topic flipped.commands is damaged");
        assert_eq!(
            (&status["ready"], stopped.get("/v1/check/192.0.2.1").0),
            (&false.into(), 503),
            "{status:#}"
        );
    }

    broker.stop();
    // What was written since stays behind it.
    let mut mended = fs::read(&file).expect("it is there");
    mended[..whole.len()].copy_from_slice(&whole);
    fs::write(&file, &mended).expect("the broker is down");
    broker.restart();
    [&folding, &late].into_iter().for_each(Process::wait_ready);
    site.agree(&WITH_TABLE, &[&projector, &sidecar, &folding, &late], &[]);
}
