//! Appends to the embedded log, each waited for until it is durable, by one writer and by many at once.
//!
//! `cargo bench --bench append`

#![allow(clippy::print_stdout, reason = "the table is what a bench is for")]

use std::sync::mpsc::channel;
use std::time::Instant;

use portcullis::log::CommandSink;
use portcullis::log::embedded::EmbeddedLog;

const APPENDS: u32 = 20_000;
const COMMAND: &[u8] =
    br#"{"v":1,"id":"01J9ZZZZZZZZZZZZZZZZZZZZZZ","action":"BLACKLIST","range":"203.0.113.0/24"}"#;

fn append(log: &EmbeddedLog) {
    let (answer, answered) = channel();
    let done = move |outcome| drop(answer.send(outcome));
    log.append(vec![COMMAND.to_vec()], Box::new(done));
    answered.recv().expect("every append is answered").expect("the disk is well");
}

fn main() {
    println!("| writers, each waiting for its answer | durable appends/s |\n|---|---|");
    for writers in [1, 8, 64] {
        // In the working directory, because /tmp may be memory.
        let directory = tempfile::tempdir_in(".").expect("there is room");
        let log = EmbeddedLog::open(directory.path()).expect("nobody else has it open");
        let started = Instant::now();
        std::thread::scope(|threads| {
            for _ in 0..writers {
                threads.spawn(|| (0..APPENDS / writers).for_each(|_| append(&log)));
            }
        });
        let appends = f64::from(APPENDS / writers * writers);
        println!("| {writers} | {:.0} |", appends / started.elapsed().as_secs_f64());
    }
}
