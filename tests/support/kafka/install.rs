//! Kafka's jars, fetched once for all tests that run on this machine, now and later.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::{Broker, BrokerOptions, PATIENCE};

/// Where Cargo puts what it makes, and `examples/kafka/run` what it fetches.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside of target")
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kafka/run");

/// `examples/kafka/run`, told where to look.
pub fn script() -> Command {
    told(Command::new(SCRIPT))
}

/// The same, killed when it takes too long: the script becomes Java, so that there is one process to kill.
pub fn bounded_script() -> Command {
    let mut command = Command::new("timeout");
    // In the foreground it stays in the process group that it is put into.
    command.args(["--foreground", "--signal=KILL", &PATIENCE.as_secs().to_string(), SCRIPT]);
    told(command)
}

fn told(mut command: Command) -> Command {
    command.env("CARGO_TARGET_DIR", target());
    command
}

/// Held by whoever makes something that others wait for, in whatever process.
fn lock() -> File {
    fs::create_dir_all(target().join("kafka")).expect("a folder");
    let file = File::create(target().join("kafka/lock")).expect("it is our folder");
    file.lock().expect("a file of ours can be locked");
    file
}

/// Makes sure that the jars are there. What is missing for that fails every test that needs them.
pub fn fetch() {
    static FETCHED: OnceLock<Result<(), String>> = OnceLock::new();
    let fetched = FETCHED.get_or_init(|| {
        let _lock = lock();
        let output = script().arg("fetch").output().expect("bash runs");
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
    });
    if let Err(said) = fetched {
        panic!("these tests run a real Kafka, and that is not to be had:\n{said}");
    }
}

/// The options for Java to take its classes from an archive, already parsed and checked: a broker starts in
/// little more than half the time then, and a tool in half. An archive that does not fit, Java passes over; no
/// options, if it can make none.
pub fn shared_classes() -> String {
    static OPTIONS: OnceLock<String> = OnceLock::new();
    let options = OPTIONS.get_or_init(|| {
        // Beside the jars, because it goes with them.
        let archive = target().join("kafka/jars/classes.jsa");
        let _lock = lock();
        if !archive.exists() {
            let new = archive.with_extension("new");
            let options = format!("-XX:ArchiveClassesAtExit={}", new.display());
            let mut broker = Broker::start_with(BrokerOptions::default(), options);
            broker.stop();
            if fs::rename(new, &archive).is_err() {
                return String::new();
            }
        }
        // An archive of jars that were copied since is no use, which Java would say in the output of every tool.
        format!("-XX:SharedArchiveFile={} -Xlog:disable -Xlog:all=warning:stderr", archive.display())
    });
    options.clone()
}
