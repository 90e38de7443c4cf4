//! A table that is compacted all the time, tombstones and all, while fresh sidecars begin from it.

use std::time::{Duration, Instant};

use portcullis::log::Topic;
use portcullis::table::WATERMARK_KEY;

use super::judge::judge;
use super::load::under_load;
use super::rig::{Process, Site, WITH_TABLE};
use super::support::kafka::Broker;

/// For how long sidecars begin anew.
const LENGTH: Duration = Duration::from_secs(25);

/// Small segments, cleaned at once.
const COMPACTED: [(&str, &str); 4] = [
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("max.compaction.lag.ms", "1000"),
    // Tombstones go, too, soon after they are written; a reader that is through within this time has them.
    ("delete.retention.ms", "2000"),
];

#[test]
fn sidecars_that_begin_while_the_table_is_compacted_have_no_wrong_list() {
    let broker = Broker::start();
    let site = Site::begun(&broker, "compacted");
    broker.alter_topic(&site.table_topic, &COMPACTED);
    let projector = site.projector(&WITH_TABLE, &[]);
    let sidecar = site.sidecar(&WITH_TABLE);
    sidecar.wait_ready();
    let mut begun: Vec<Process> = Vec::new();
    let ((), heard) = under_load(&[sidecar.socket().to_owned()], 4, || {
        let began = Instant::now();
        while began.elapsed() < LENGTH {
            let fresh = site.sidecar(&WITH_TABLE);
            fresh.wait_ready();
            // Those that go on are few: what they hold is compared with the fold as they come to the end.
            begun.truncate(2);
            begun.push(fresh);
        }
    });
    let all: Vec<&Process> = begun.iter().chain([&projector, &sidecar]).collect();
    site.agree(&WITH_TABLE, &all, &[]);
    judge(&heard, &site.records(&WITH_TABLE, Topic::Commands)).hold("compaction");
    // Uncompacted, every offset is a record, or the mark of a transaction, which ends with a watermark.
    let table = site.records(&WITH_TABLE, Topic::Table);
    let last = table.last().expect("it is begun").offset.number();
    let watermarks = table.iter().filter(|record| record.key.as_deref() == Some(WATERMARK_KEY)).count();
    assert!(
        (table.len() + watermarks + 20) as u64 <= last,
        "nothing was compacted: {} of {last}",
        table.len()
    );
}
