//! Writers and askers that go on whatever happens to the log.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::http::client::{Client, Endpoint, Request};
use serde_json::Value;

use super::rig::StopOnDrop;

/// How many write at a time.
const WRITERS: u64 = 2;
/// Between two groups of one writer.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Between two questions to one sidecar.
const ASK_PAUSE: Duration = Duration::from_millis(2);
/// How long a writer repeats its last group once all is well again.
const PATIENCE: Duration = Duration::from_secs(90);
/// Where all addresses lie that are written and asked about: few enough to meet.
const BASE: u32 = 10 << 24;

/// A group of commands that somebody said is in the log.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    pub(crate) key: String,
    pub(crate) commands: usize,
    /// The last one's.
    pub(crate) offset: u64,
    pub(crate) at: Instant,
}

/// What a sidecar said of an address.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When it was asked.
    pub(crate) sent: Instant,
    pub(crate) address: Ipv4Addr,
    pub(crate) blacklisted: bool,
    pub(crate) position: u64,
    pub(crate) age: Option<Duration>,
}

/// Everything that was said while writers and askers were at work.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) answers: Vec<Answer>,
}

/// Writes to and asks all of these sidecars while something happens, until that is over and all that was sent
/// is acknowledged.
pub(crate) fn under_load<T>(sockets: &[PathBuf], seed: u64, happens: impl FnOnce() -> T) -> (T, Heard) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> =
            (0..WRITERS).map(|number| scope.spawn(move || write(sockets, seed, number, stop))).collect();
        let askers: Vec<_> =
            sockets.iter().map(|socket| scope.spawn(move || ask_all_the_time(socket, seed, stop))).collect();
        let stopped = StopOnDrop(stop);
        let outcome = happens();
        drop(stopped);
        let mut heard = Heard::default();
        writers.into_iter().for_each(|it| heard.acknowledged.extend(it.join().expect("all was taken")));
        askers.into_iter().for_each(|it| heard.answers.extend(it.join().expect("it was answered")));
        (outcome, heard)
    })
}

/// A few commands over few addresses, so that rows are split, joined and freed all the time.
fn group(random: &mut fastrand::Rng) -> Vec<String> {
    let mut command = || {
        let verb = if random.u8(..3) > 0 { "BLACKLIST" } else { "WHITELIST" };
        let start = BASE + u32::from(random.u16(..));
        format!("{verb} {}-{}", Ipv4Addr::from_bits(start), Ipv4Addr::from_bits(start + random.u32(..64)))
    };
    let commands = [command(), command(), command()];
    commands[..random.usize(1..=3)].to_vec()
}

fn write(sockets: &[PathBuf], seed: u64, number: u64, stop: &AtomicBool) -> Vec<Acknowledged> {
    let mut random = fastrand::Rng::with_seed(seed + number);
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let group = group(&mut random);
        let key = format!("w{number}-{}", acknowledged.len());
        let offset = write_until_taken(sockets, &key, &group.join("\n"), &mut random, stop);
        acknowledged.push(Acknowledged { key, commands: group.len(), offset, at: Instant::now() });
        thread::sleep(WRITE_PAUSE);
    }
    acknowledged
}

/// Sends a group to any sidecar, with the same key again and again, until one says that it is there.
fn write_until_taken(
    sockets: &[PathBuf],
    key: &str,
    body: &str,
    random: &mut fastrand::Rng,
    stop: &AtomicBool,
) -> u64 {
    let mut until = None;
    loop {
        // What happens to the log may take as long as it likes; once it is over, there is an end to it.
        if stop.load(Ordering::Relaxed) {
            let until = *until.get_or_insert(Instant::now() + PATIENCE);
            assert!(Instant::now() < until, "{key} is not taken");
        }
        let socket = &sockets[random.usize(..sockets.len())];
        match post(socket, key, body) {
            Some((200 | 201, answer)) => return answer["offset"].as_u64().expect("an offset"),
            None | Some((503 | 504, _)) => thread::sleep(Duration::from_millis(random.u64(20..100))),
            Some((status, answer)) => panic!("{status}: {answer}"),
        }
    }
}

/// The answer to a group; none if the connection is lost.
fn post(socket: &Path, key: &str, body: &str) -> Option<(u16, Value)> {
    let mut client = Client::connect(&Endpoint::Unix(socket.to_owned())).ok()?;
    let request = Request {
        path: "/v1/commands".to_owned(),
        body: Some(body.to_owned().into()),
        key: Some(key.to_owned()),
        ..Request::default()
    };
    let answer = client.send(&request).ok()?;
    Some((answer.status, serde_json::from_slice(&answer.body).expect("JSON")))
}

/// Asks one sidecar about addresses; it may be gone at any time, or have no list.
fn ask_all_the_time(socket: &Path, seed: u64, stop: &AtomicBool) -> Vec<Answer> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            // A process never goes back; another one may begin before.
            let mut position = 0;
            while !stop.load(Ordering::Relaxed)
                && let Ok(answer) = ask(&mut stream, Ipv4Addr::from_bits(BASE + u32::from(random.u16(..))))
            {
                if let Some(answer) = answer {
                    assert!(answer.position >= position, "{answer:?} comes after {position}");
                    position = answer.position;
                    answers.push(answer);
                }
                thread::sleep(ASK_PAUSE);
            }
        }
        thread::sleep(ASK_PAUSE);
    }
    answers
}

/// What is said of an address; nothing if the sidecar says that it has no list.
pub(crate) fn ask(stream: &mut UnixStream, address: Ipv4Addr) -> io::Result<Option<Answer>> {
    let sent = Instant::now();
    stream.write_all(format!("GET /v1/check/{address} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend(&buffer[..read]),
        }
        if let Some(answer) = read_answer(&bytes, sent, address) {
            return Ok(answer);
        }
    }
}

/// An answer, once it is complete.
fn read_answer(bytes: &[u8], sent: Instant, address: Ipv4Addr) -> Option<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).expect("HTTP") else { return None };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| str::from_utf8(header.value).expect("ASCII"))
    };
    let number = |name: &str| header(name).map(|value| value.parse::<u64>().expect("a number"));
    if bytes.len() < head + usize::try_from(number("Content-Length")?).expect("it is short") {
        return None;
    }
    match response.code {
        Some(503) => return Some(None),
        code => assert_eq!(code, Some(200)),
    }
    Some(Some(Answer {
        sent,
        address,
        blacklisted: header("Portcullis-Blacklisted") == Some("1"),
        position: number("Portcullis-Position").expect("every answer has one"),
        age: number("Portcullis-Age-Ms").map(Duration::from_millis),
    }))
}
