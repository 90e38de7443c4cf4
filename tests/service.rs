//! The real program, started, written to, killed, and started again.

#![allow(clippy::panic, clippy::indexing_slicing, reason = "what is not as expected fails the test")]

#[path = "support/output.rs"]
mod output;
#[path = "service/process.rs"]
mod process;
#[path = "service/replay.rs"]
mod replay;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use output::{code, stderr, stdout};
use process::{Serving, portcullis, wait_until};

#[test]
fn what_was_acknowledged_is_there_after_twenty_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = fastrand::Rng::with_seed(20);
    let mut acknowledged: Vec<Ipv4Addr> = Vec::new();
    for kill in 0..20_u32 {
        let mut serving = Serving::start(folder.path());
        serving.wait_ready();
        assert_all_blacklisted(&serving, &acknowledged);
        let (stop, url) = (AtomicBool::new(false), &serving.client_url.clone());
        let written = std::thread::scope(|scope| {
            let stop = &stop;
            let writer = |writer: u32| {
                // Before the kill, however busy the machine is.
                let mut client = process::client(url);
                scope.spawn(move || {
                    let mut written = Vec::new();
                    for at in 0..=u32::from(u16::MAX) {
                        let address = Ipv4Addr::from_bits((10 << 24) | (kill << 18) | (writer << 16) | at);
                        let body = format!("BLACKLIST {address}");
                        if stop.load(Ordering::Relaxed) || process::post(&mut client, &body) != Some(201) {
                            break;
                        }
                        written.push(address);
                    }
                    written
                })
            };
            let writers = [writer(0), writer(1), writer(2)];
            std::thread::sleep(Duration::from_millis(random.u64(20..150)));
            serving.kill();
            stop.store(true, Ordering::Relaxed);
            writers.map(|writer| writer.join().expect("a writer ends")).concat()
        });
        acknowledged.extend(written);
    }
    assert!(acknowledged.len() > 20, "something was written");
    println!("{} commands acknowledged before 20 kills", acknowledged.len());
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    assert_all_blacklisted(&serving, &acknowledged);
}

fn assert_all_blacklisted(serving: &Serving, addresses: &[Ipv4Addr]) {
    for addresses in addresses.chunks(2_000) {
        let texts: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let output = serving
            .run(&[&["check"], texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        let lost = stdout(&output).lines().find(|line| !line.ends_with(" 1"));
        assert_eq!(lost, None);
    }
}

#[test]
fn the_write_side_gives_way_to_lookups() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    let niceness = serving.niceness();
    let of = |name: &str| {
        let named: Vec<i64> =
            niceness.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, nice)| *nice).collect();
        assert!(!named.is_empty(), "{name} is none of {niceness:?}");
        named
    };
    let lookups = *of("lookup-0").first().expect("a worker");
    assert!(of("lookup-accept").iter().all(|nice| *nice == lookups));
    for writing in ["follower", "commands-writer", "admin-0"] {
        let expected = (lookups + 10).min(19);
        assert!(of(writing).iter().all(|nice| *nice == expected), "{writing}: {niceness:?}");
    }
}

#[test]
fn a_signal_ends_it_cleanly_and_the_list_is_there_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for (at, signal) in ["-INT", "-TERM"].into_iter().enumerate() {
        let mut serving = Serving::start(folder.path());
        let address = format!("203.0.113.{at}");
        assert_eq!(code(&serving.run(&["blacklist", &address, "--wait"])), 0);
        assert_eq!(serving.end(signal), Some(0));
        assert!(!folder.path().join("admin.sock").exists(), "it takes its socket along");
    }
    // A file that was not well closed is looked through, and written anew, at the next start.
    let saw_repair = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&saw_repair);
    let mut builder = redb::Builder::new();
    builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
    drop(builder.open(folder.path().join("commands.redb")).expect("nobody else has it open"));
    assert!(!saw_repair.load(Ordering::Relaxed), "the log was not well closed");
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    assert_eq!(stdout(&serving.run(&["export"])), "203.0.113.0-203.0.113.1\n");
}

#[test]
fn a_start_that_hangs_can_be_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("admin.token");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut hanging =
        process::spawn(folder.path(), &["serve", "--lookup", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    // Whether it has come to hang or ended with an error by then, it ends.
    std::thread::sleep(Duration::from_millis(200));
    let _ended = std::process::Command::new("kill").args(["-TERM", &hanging.id().to_string()]).status();
    wait_until("the program ends", || hanging.try_wait().expect("it is ours").is_some());
}

#[test]
fn a_second_service_on_the_same_data_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Serving::start(folder.path());
    let second = portcullis(folder.path(), &["serve", "--lookup", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(code(&second), 3);
    let said = stderr(&second);
    assert!(said.contains("another process uses the data directory") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_ports_answer_while_the_log_is_being_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    // A creation that was cut short is looked through to its end, which here takes longer than any test. The
    // file is one hole, and takes no room.
    let file = fs::File::create(folder.path().join("commands.redb")).expect("a file");
    file.set_len(64 << 30).expect("it is empty but long");
    let mut serving = Serving::start(folder.path());
    let early = serving.run(&["status", "--json"]);
    assert!(code(&early) == 0 && stdout(&early).contains(r#""ready":false"#), "{}", stdout(&early));
    let write = serving.run(&["blacklist", "192.0.2.1"]);
    assert!(code(&write) == 3 && stderr(&write).contains("no snapshot yet"), "{}", stderr(&write));
    assert_eq!(serving.end("-TERM"), Some(0), "it can be ended meanwhile");
    file.set_len(0).expect("it is ours");
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    assert_eq!(code(&serving.run(&["blacklist", "192.0.2.1"])), 0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").to_string();
    let output = portcullis(folder.path(), &["serve", "--lookup", &port, "--admin", "127.0.0.1:0"]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains(&port) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
}

#[test]
fn a_configuration_mistake_ends_it_at_once_with_the_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, "[lookup]\nworker = 2\n").expect("written");
    let output = portcullis(folder.path(), &["serve", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(
        said.contains("portcullis.toml:2") && said.contains("workers") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("commands.redb");
    fs::write(&file, "this is no database").expect("written");
    let output = portcullis(folder.path(), &["serve", "--lookup", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("commands.redb"), "{}", stderr(&output));
    assert_eq!(fs::read(&file).expect("it is there"), b"this is no database");
}

#[test]
fn a_ban_ends_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    assert_eq!(code(&serving.run(&["blacklist", "203.0.113.7", "--for", "2s", "--wait"])), 0);
    assert_eq!(stdout(&serving.run(&["check", "203.0.113.7"])), "203.0.113.7 1\n");
    wait_until("the ban is over", || code(&serving.run(&["check", "203.0.113.7"])) == 0);
}

#[test]
fn every_verb_works_against_the_real_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    assert_eq!(code(&serving.run(&["status", "--wait"])), 0);
    let dry = serving.run(&["blacklist", "203.0.113.0/24", "--dry-run"]);
    assert_eq!(
        (code(&dry), stdout(&dry)),
        (0, "BLACKLIST 203.0.113.0/24 would change 1 row, 256 addresses\n")
    );
    assert_eq!(stdout(&serving.run(&["export"])), "");
    let wait = serving.run(&["blacklist", "203.0.113.0/24", "--reason", "a test", "--wait"]);
    assert_eq!((code(&wait), stdout(&wait)), (0, "BLACKLIST 203.0.113.0/24 at offset 0 changed 1 row\n"));
    let freed = serving.run(&["whitelist", "203.0.113.7", "--wait"]);
    assert_eq!(stdout(&freed), "WHITELIST 203.0.113.7 at offset 1 changed 2 rows\n");
    let check = serving.run(&["check", "203.0.113.6", "203.0.113.7", "::ffff:203.0.113.8"]);
    assert_eq!((code(&check), stdout(&check)), (1, "203.0.113.6 1\n203.0.113.7 0\n::ffff:203.0.113.8 1\n"));
    assert_eq!(stdout(&serving.run(&["export"])), "203.0.113.0-203.0.113.6\n203.0.113.8-203.0.113.255\n");
    let broad = serving.run(&["blacklist", "0.0.0.0/7"]);
    assert_eq!(code(&broad), 4, "{}", stderr(&broad));
    let bits = serving.run(&["blacklist", "203.0.113.7/24"]);
    assert_eq!(code(&bits), 2);
    assert!(
        stderr(&bits).contains("host bits set") && stderr(&bits).contains("did you mean 203.0.113.0/24?")
    );
    let past = serving.run(&["blacklist", "203.0.113.7", "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(code(&past), 4, "{}", stderr(&past));
    let list = folder.path().join("list.csv");
    fs::write(&list, "192.0.2.0,192.0.2.9,\"a, name\",x\n192.0.2.7,192.0.2.20,another\n").expect("written");
    let imported = serving.run(&["import", list.to_str().expect("UTF-8")]);
    assert_eq!(
        (code(&imported), stdout(&imported)),
        (0, "imported 2 ranges (0 lines skipped) in 1 group; position 4\n")
    );
    // What an import says is done is seen by the next question.
    assert_eq!(stdout(&serving.run(&["check", "192.0.2.20"])), "192.0.2.20 1\n");
    let status = serving.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(stdout(&status)).expect("JSON");
    assert_eq!((&status["position"], &status["rows"]["ipv4"]), (&4.into(), &4.into()));
}

#[test]
fn a_dry_run_says_what_the_write_would() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    serving.wait_ready();
    assert_eq!(code(&serving.run(&["blacklist", "11.0.0.0/8", "--wait"])), 0);
    // With these the list would pass its limit of addresses by two ranges of 65.
    let list = folder.path().join("list.txt");
    let ranges: String = (20..85).map(|first| format!("{first}.0.0.0/8\n")).collect();
    fs::write(&list, ranges).expect("written");
    let import = ["import", list.to_str().expect("UTF-8")];
    let dry = serving.run(&[&import[..], &["--dry-run"]].concat());
    let told = "65 ranges (0 lines skipped) in 1 group, each judged alone: 2 would be refused, and an import ends \
                before the first group with one; the rest alone would change 63 rows, 1056964608 addresses\n";
    assert_eq!((code(&dry), stdout(&dry)), (4, told));
    let real = serving.run(&import);
    assert_eq!((code(&real), stdout(&real)), (4, ""));
    assert!(stderr(&real).contains("too_broad"), "{}", stderr(&real));
    assert_eq!(stdout(&serving.run(&["export"])), "11.0.0.0-11.255.255.255\n", "nothing was taken");

    assert_eq!(code(&serving.run(&["import", list.to_str().expect("UTF-8"), "--force"])), 0);
    let edit = ["blacklist", "100.0.0.0/8", "30.0.0.0/8"];
    let dry = serving.run(&[&edit[..], &["--dry-run"]].concat());
    let told = "BLACKLIST 100.0.0.0/8\nBLACKLIST 30.0.0.0/8\n1 of 2 ranges would be refused, so that none would be \
                taken; the rest alone would change 0 rows, 0 addresses\n";
    assert_eq!((code(&dry), stdout(&dry)), (4, told));
    assert_eq!(code(&serving.run(&edit)), 4);
}

/// The real lists, where they are at hand: every range of them is blacklisted, and nothing beside them.
#[test]
fn real_lists_are_blacklisted_range_by_range() {
    let lists = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(folder.path());
    let mut random = fastrand::Rng::with_seed(3);
    let mut ranges: BTreeMap<u32, u32> = BTreeMap::new();
    let made: String = (0..3_000).map(|_| format!("{}\n", Ipv4Addr::from_bits(random.u32(..)))).collect();
    let own = folder.path().join("made.txt");
    fs::write(&own, made).expect("written");
    let files = [own, lists.join("datacenters.csv"), lists.join("ipsum.txt")];
    for file in files.iter().filter(|file| file.exists()) {
        let output = serving.run(&["import", file.to_str().expect("UTF-8")]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        for (start, end) in parse(&fs::read_to_string(file).expect("it can be read")) {
            let known = ranges.entry(start).or_insert(end);
            *known = end.max(*known);
        }
    }
    let starts: Vec<u32> = ranges.keys().copied().collect();
    let member = |random: &mut fastrand::Rng| {
        let start = starts[random.usize(..starts.len())];
        random.u32(start..=ranges[&start])
    };
    let asked: Vec<u32> =
        (0..2_000).map(|at| if at % 2 == 0 { member(&mut random) } else { random.u32(..) }).collect();
    let is_member = |address: u32| ranges.iter().any(|(start, end)| (*start..=*end).contains(&address));
    let texts: Vec<String> = asked.iter().map(|bits| Ipv4Addr::from_bits(*bits).to_string()).collect();
    let output =
        serving.run(&[&["check"], texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    let expected: String = asked
        .iter()
        .zip(&texts)
        .map(|(bits, text)| format!("{text} {}\n", u8::from(is_member(*bits))))
        .collect();
    assert!(stdout(&output) == expected, "a verdict differs");
}

/// First and last address of each line of a list, read the simplest way.
fn parse(text: &str) -> Vec<(u32, u32)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let address = |text: &str| text.trim().parse::<Ipv4Addr>().expect("an address").to_bits();
    let range = |line: &str| match line.split(',').collect::<Vec<_>>()[..] {
        [start, end, ..] => (address(start), address(end)),
        _ => {
            let only = address(line.split_whitespace().next().unwrap_or_default());
            (only, only)
        }
    };
    lines.map(range).collect()
}
