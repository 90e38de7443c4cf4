//! Projectors that are killed or stopped while commands are written.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::rig::{Process, Settings, Site, StopOnDrop, WITH_TABLE, WITHOUT_TABLE};
use super::support::kafka::shared_broker;

/// Writes pairs of commands until it is told to stop; returns how many.
fn write(sidecar: &Process, stop: &AtomicBool) -> u32 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let [start, middle] = [0, 9].map(|at| Ipv4Addr::from_bits((10 << 24) | (count << 6) | at));
        let (status, answer) = sidecar.post("", &format!("BLACKLIST {start}/26\nWHITELIST {middle}"));
        assert_eq!(status, 201, "{answer}");
        count += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    count
}

#[test]
fn a_standby_takes_over_from_one_that_is_killed_and_from_one_that_is_stopped() {
    let site = Site::begun(shared_broker(), "roles");
    let mut first = site.projector(&WITH_TABLE, &[]);
    first.wait_role("active");
    let second = site.projector(&WITH_TABLE, &[]);
    second.wait_role("standby");
    // It never takes over by itself: only a role that is released is for it.
    let third = site.projector(&Settings { takeover_after: "1h", ..WITH_TABLE }, &[]);
    third.wait_role("standby");
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    sidecars.iter().for_each(|sidecar| sidecar.wait_ready());
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&sidecars[0], &stop));
        // A failure must not leave the writer writing for ever.
        let _stopped = StopOnDrop(&stop);
        let goes_on = |projector: &Process| {
            let end = site.end(&WITH_TABLE);
            projector.wait("the table goes on", |it| {
                it["role"] == "active" && it["position"].as_u64() > Some(end)
            });
        };
        goes_on(&first);
        first.kill();
        goes_on(&second);
        assert_eq!(third.status()["role"], "standby");
        second.end(Signal::SIGTERM);
        goes_on(&third);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("all was taken")
    });
    site.agree(&WITH_TABLE, &[&third, &sidecars[0], &sidecars[1]], &[]);
    assert_eq!(site.end(&WITH_TABLE), u64::from(written) * 2);
}
