//! Redis: the list as a sorted set, each range by its end. The first range that ends at or behind an address
//! is the only one that can hold it, so that one command finds it, and the client compares its start.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use super::{Peer, Stage, wait};
use crate::client::Place;
use crate::dialect::{Answer, Dialect, Reading};
use crate::process;

pub(crate) const NAME: &str = "Redis sorted set";
/// Ranges that are added with one command.
const ADDED_AT_ONCE: usize = 1_000;

struct Resp;

impl Dialect for Resp {
    fn question(&self, address: Ipv4Addr) -> Vec<u8> {
        let end = address.to_bits().to_string();
        command(&["ZRANGEBYSCORE", "list", &end, "+inf", "LIMIT", "0", "1"])
    }

    fn read(&self, address: Ipv4Addr, answer: &[u8]) -> Reading {
        let mut lines = answer.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
        if !answer.ends_with(b"\r\n") {
            return Reading::Partial;
        }
        match (lines.next(), lines.next(), lines.next().map(range_start)) {
            (Some(b"*0"), ..) => Reading::Whole(Answer::Free),
            (Some(b"*1"), Some([b'$', ..]), Some(Some(start))) if start <= address => {
                Reading::Whole(Answer::Blacklisted)
            }
            (Some(b"*1"), Some([b'$', ..]), Some(Some(_))) => Reading::Whole(Answer::Free),
            (Some(b"*1"), _, Some(None) | None) => Reading::Partial,
            _ => Reading::Wrong,
        }
    }
}

fn range_start(line: &[u8]) -> Option<Ipv4Addr> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// A command as the protocol writes it.
fn command(words: &[&str]) -> Vec<u8> {
    let bulk: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulk}", words.len()).into()
}

pub(crate) fn start(program: &Path, stage: Stage<'_>) -> Result<Peer, String> {
    let address = process::free_address();
    let place = Place::Tcp(address);
    let port = address.port().to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let running = stage.start(program, &args);
    let mut connection = wait(|| place.connect().map_err(|error| error.to_string()))?;
    load(&mut connection, &stage)?;
    let server = stage.server(NAME, place, Resp);
    stage.peer(format!("Redis {}", process::version(program, &["--version"])), running, vec![server])
}

fn load(connection: &mut File, stage: &Stage<'_>) -> Result<(), String> {
    let scored = stage.list.lines(|start, end| format!("{} {start}", end.to_bits()));
    let words: Vec<&str> = scored.split_ascii_whitespace().collect();
    let mut answer = [0; 64];
    for added in words.chunks(2 * ADDED_AT_ONCE) {
        let added = command(&[&["ZADD", "list"], added].concat());
        connection.write_all(&added).map_err(|error| error.to_string())?;
        let read = connection.read(&mut answer).map_err(|error| error.to_string())?;
        if !answer[..read].starts_with(b":") {
            return Err(String::from_utf8_lossy(&answer[..read]).into_owned());
        }
    }
    Ok(())
}
