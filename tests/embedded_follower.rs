//! The follower over the embedded log: real threads and a real database, on a disk that fails when told to.
#![allow(clippy::panic, reason = "a test panics where it fails")]

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use portcullis::follower::{Settings, Source};
use portcullis::log::embedded::EmbeddedLog;
use portcullis::log::{AppendError, CommandSink};
use portcullis::record::{Offset, Position};
use portcullis::status::{Alarm, Phase};
use support::disk::{Cut, Disk, Fails};
use support::follower_rig::{FollowerRig, folded};
use support::port::Port;

type Rig = FollowerRig<EmbeddedLog>;

/// So long that only a log that hangs gets there.
const LONG: Duration = Duration::from_secs(120);
/// How often a test looks again, at most, …
const WAITS_MAX: usize = 6_000;
/// … after waiting so long for the threads of the log …
const WAIT: Duration = Duration::from_millis(5);
/// … while so much time passes for the follower.
const STEP: Duration = Duration::from_millis(250);

fn open(disk: &Disk) -> Arc<EmbeddedLog> {
    let disk = disk.clone();
    let log = EmbeddedLog::with_backend(Path::new("a disk"), move || Ok(disk.clone()));
    log.expect("the disk is well")
}

fn try_append(log: &EmbeddedLog, values: &[String]) -> Result<Vec<Offset>, AppendError> {
    let (told, outcome) = channel();
    let values = values.iter().map(|value| value.clone().into_bytes()).collect();
    log.append(values, Box::new(move |outcome| told.send(outcome).unwrap_or_default()));
    outcome.recv_timeout(LONG).expect("every append has an outcome")
}

/// Appends commands, and tells the position after them.
fn append(log: &EmbeddedLog, values: &[String]) -> Position {
    let offsets = try_append(log, values).expect("the disk is well");
    offsets.last().expect("something was appended").next()
}

/// The same, so many at once.
fn append_in_groups(log: &EmbeddedLog, values: &[String], commands: usize) -> Position {
    values.chunks(commands).fold(Position::START, |_, group| append(log, group))
}

/// So many commands, each of which blacklists an address of its own behind this one.
fn bans(first: Ipv4Addr, count: u32) -> Vec<String> {
    (0..count).map(|at| format!("BLACKLIST {}", Ipv4Addr::from_bits(first.to_bits() + at))).collect()
}

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
const SECOND: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);

fn follower(log: &Arc<EmbeddedLog>) -> Rig {
    let settings = Settings { source: Source::Commands, skip_offsets: [].into(), seed: 1 };
    Rig::over(Port::over(Arc::clone(log)), settings)
}

/// A follower that has caught up with the log.
fn following(log: &Arc<EmbeddedLog>, end: Position) -> Rig {
    let mut rig = follower(log);
    wait_for_position(&mut rig, end);
    rig
}

fn wait_until(rig: &mut Rig, what: &str, done: impl Fn(&Rig) -> bool) {
    for _ in 0..WAITS_MAX {
        rig.tick(STEP);
        if done(rig) {
            return;
        }
        thread::sleep(WAIT);
    }
    panic!("it never came that {what}: {:?}", rig.detail());
}

/// Waits until all before the position is served and nothing is wrong, and checks all that is to be seen.
fn wait_for_position(rig: &mut Rig, end: Position) {
    wait_until(rig, "the end is served", |rig| {
        let detail = rig.detail();
        detail.ready && detail.position == end && detail.message.is_none()
    });
    assert_eq!((rig.detail().phase, rig.detail().degraded), (Phase::Following, None));
    assert!(rig.view() == folded(&*rig.port.log, end), "the view is not the fold of the log");
    assert_eq!(published(rig).last(), Some(&end));
    assert!(published(rig).is_sorted(), "what was served was taken back");
}

fn published(rig: &Rig) -> Vec<Position> {
    rig.published.iter().map(|snapshot| snapshot.position()).collect()
}

fn says(rig: &Rig, what: &str) -> bool {
    rig.detail().message.as_ref().is_some_and(|message| message.contains(what))
}

/// Whether the status says that the database is not open.
fn says_why(rig: &Rig) -> bool {
    says(rig, "is being opened again")
}

#[test]
fn the_commands_are_folded_from_the_first_and_followed() {
    let log = open(&Disk::default());
    let mut rig = following(&log, Position::START);
    assert_eq!(rig.blacklisted("10.0.0.0"), Some(false), "an empty log is a list, too");
    for number in 1..=20 {
        let end = append(&log, &bans(Ipv4Addr::from_bits(FIRST.to_bits() + number), 1));
        wait_for_position(&mut rig, end);
    }
    assert_eq!((rig.blacklisted("10.0.0.20"), rig.blacklisted("10.0.0.21")), (Some(true), Some(false)));
    let end = append(&log, &["WHITELIST 10.0.0.20".to_owned(), "nonsense".to_owned()]);
    wait_for_position(&mut rig, end);
    assert_eq!((rig.blacklisted("10.0.0.20"), rig.detail().refused.undecodable), (Some(false), 1));
    let late = following(&log, end);
    assert!(late.view() == rig.view(), "a follower that comes late holds the same");
    assert_eq!(published(&late), [end], "nothing was served on its way");
}

#[test]
fn a_follower_that_is_far_behind_reads_all_of_it_in_order() {
    let log = open(&Disk::default());
    let end = append(&log, &bans(FIRST, 2_500));
    let mut rig = following(&log, end);
    assert_eq!(published(&rig), [end], "nothing was served on its way");
    let end = append_in_groups(&log, &bans(SECOND, 2_500), 100);
    assert_eq!(rig.blacklisted("11.0.0.0"), Some(false), "it has not looked yet");
    wait_for_position(&mut rig, end);
    assert_eq!((rig.blacklisted("11.0.9.195"), rig.blacklisted("11.0.9.196")), (Some(true), Some(false)));
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(2)), "{:?}", rig.age());
}

#[test]
fn what_is_served_stays_served_while_the_disk_fails() {
    let disk = Disk::default();
    let log = open(&disk);
    let before = append(&log, &bans(FIRST, 10));
    let mut rig = following(&log, before);
    disk.fail(Fails::Everything);
    assert!(matches!(try_append(&log, &bans(SECOND, 1)), Err(AppendError::Unknown(_))));
    wait_until(&mut rig, "the status says why", says_why);
    rig.seconds(10);
    assert!(rig.age().is_some_and(|age| age >= Duration::from_secs(10)), "nothing proves the end");
    assert!(rig.detail().ready && says_why(&rig));
    assert_eq!((rig.detail().position, rig.blacklisted("10.0.0.9")), (before, Some(true)));
    assert!(matches!(try_append(&log, &bans(SECOND, 1)), Err(AppendError::Unavailable(_))));
    disk.fail(Fails::Never);
    wait_until(&mut rig, "it goes on by itself", |rig| rig.detail().message.is_none());
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(2)), "{:?}", rig.age());
    let end = append(&log, &bans(SECOND, 3));
    wait_for_position(&mut rig, end);
    assert_eq!((rig.blacklisted("10.0.0.9"), rig.blacklisted("11.0.0.2")), (Some(true), Some(true)));
}

/// More than redb keeps in memory, so that the first of it must be read from the disk: the position after it.
fn append_much(log: &EmbeddedLog) -> Position {
    let fat = |at| {
        let range = Ipv4Addr::from_bits(SECOND.to_bits() + at);
        let command = format!(r#"{{"v":1,"action":"BLACKLIST","range":"{range}"}}"#);
        format!("{command:4000}")
    };
    append_in_groups(log, &(0..5_000).map(fat).collect::<Vec<_>>(), 1_000)
}

#[test]
fn reads_that_fail_for_a_while_are_made_up_for() {
    let disk = Disk::default();
    let log = open(&disk);
    let before = append(&log, &bans(FIRST, 10));
    let mut rig = following(&log, before);
    let end = append_much(&log);
    disk.fail(Fails::Everything);
    wait_until(&mut rig, "the status says why", says_why);
    rig.seconds(10);
    let reached = rig.detail().position;
    assert!(rig.detail().ready && (before..end).contains(&reached), "{:?}", rig.detail());
    let served = rig.view();
    assert_eq!(rig.blacklisted("10.0.0.9"), Some(true));
    disk.fail(Fails::Never);
    wait_for_position(&mut rig, end);
    assert!(served == folded(&*log, reached), "what was read was served, and nothing else");
    assert_eq!((rig.blacklisted("11.0.19.135"), rig.blacklisted("11.0.19.136")), (Some(true), Some(false)));
    assert!(rig.age().is_some_and(|age| age <= Duration::from_secs(2)), "{:?}", rig.age());
}

#[test]
fn a_start_over_reads_that_fail_goes_on_once_they_succeed() {
    let disk = Disk::default();
    let log = open(&disk);
    let end = append_much(&log);
    let mut rig = follower(&log);
    disk.fail(Fails::Everything);
    wait_until(&mut rig, "the status says why", says_why);
    rig.seconds(10);
    assert!(!rig.detail().ready && rig.published.is_empty(), "not ready is no empty list");
    disk.fail(Fails::Never);
    wait_for_position(&mut rig, end);
    assert_eq!(published(&rig), [end]);
}

#[test]
fn a_log_that_was_closed_is_followed_on_once_it_is_open_again() {
    let disk = Disk::default();
    let log = open(&disk);
    let before = append(&log, &bans(FIRST, 10));
    let mut rig = following(&log, before);
    log.close();
    wait_until(&mut rig, "the status says why", |rig| rig.detail().message.is_some());
    rig.seconds(60);
    assert_eq!((rig.detail().position, rig.blacklisted("10.0.0.9")), (before, Some(true)));
    let log = open(&disk);
    let end = append(&log, &bans(SECOND, 1_500));
    rig.port.replace(Arc::clone(&log));
    wait_for_position(&mut rig, end);
    assert_eq!((rig.blacklisted("10.0.0.9"), rig.blacklisted("11.0.5.219")), (Some(true), Some(true)));
    assert!(following(&log, end).view() == rig.view(), "a new follower holds the same");
}

#[test]
fn an_older_file_in_the_place_of_the_log_is_another_log() {
    for (appended, told) in [(0, "ends at 10, before position 15"), (10, "is not the one that was folded")] {
        let disk = Disk::default();
        let log = open(&disk);
        append(&log, &bans(FIRST, 10));
        let older = disk.after(Cut::Synced);
        let before = append(&log, &bans(SECOND, 5));
        let mut rig = following(&log, before);
        log.close();
        let log = open(&older);
        if appended > 0 {
            append(&log, &bans(Ipv4Addr::new(12, 0, 0, 0), appended));
        }
        rig.port.replace(log);
        wait_until(&mut rig, "there is an alarm", |rig| rig.detail().alarm == Some(Alarm::AnotherLog));
        assert!(says(&rig, told), "{:?}", rig.detail());
        rig.seconds(300);
        assert_eq!((rig.detail().phase, rig.detail().position), (Phase::Alarm, before));
        assert_eq!((rig.blacklisted("11.0.0.4"), rig.blacklisted("12.0.0.9")), (Some(true), Some(false)));
    }
}
