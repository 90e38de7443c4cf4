//! A program of its own that looks addresses up in its own process: no socket, no other process.
//!
//! ```text
//! cargo run --release --example embed                 in a directory that is gone afterwards
//! cargo run --release --example embed -- DIRECTORY    over the list of this data directory, which it adds to
//! ```

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use portcullis::address::Address;
use portcullis::config::Config;
use portcullis::record::Position;
use portcullis::service::FollowedLog;
use portcullis::snapshot::{Reader, Verdict};

/// How many random addresses are asked in a round, and in how many rounds.
const LOOKUPS: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// How long to wait for the list: a log of millions of commands is folded meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os().nth(1);
    run(directory.as_deref().map_or(temporary.path(), Path::new), &mut io::stdout())
}

/// Follows the embedded log in a directory, edits it, asks it, and tells what comes of it.
pub(crate) fn run(directory: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let followed = FollowedLog::start(&Config::default(), directory)?;
    let position = append(&followed, &["BLACKLIST 203.0.113.0/24", "WHITELIST 203.0.113.7"])?;
    if !followed.wait_for(position, WAIT_MAX) {
        return Err("the commands were not folded in time".into());
    }
    // One for each thread that looks up.
    let mut reader = followed.reader();
    for address in ["203.0.113.6", "203.0.113.7"] {
        let verdict = lookup(&mut reader, address.parse()?).ok_or("there is no list")?;
        writeln!(out, "{address} {verdict:?}")?;
    }
    let (rows, ns) = (followed.status().detail().rows.total(), lookup_ns(&mut reader));
    writeln!(out, "{ns:.1} ns a lookup of a random IPv4 address in {rows} rows")?;
    Ok(())
    // Here the log ends: the follower first, then the file is closed.
}

/// Appends commands, waits until they are durable, and tells the position after them.
fn append(followed: &FollowedLog, commands: &[&str]) -> Result<Position, Box<dyn Error>> {
    let (told, outcome) = channel();
    let values = commands.iter().map(|command| command.as_bytes().to_vec()).collect();
    followed.sink().append(values, Box::new(move |outcome| drop(told.send(outcome))));
    let offsets = outcome.recv()??;
    Ok(offsets.last().map_or(Position::START, |offset| offset.next()))
}

/// What the newest list says. There may be none yet, which is not the same as free.
fn lookup(reader: &mut Reader, address: Address) -> Option<Verdict> {
    Some(reader.snapshot()?.lookup(address))
}

/// The median over the rounds.
fn lookup_ns(reader: &mut Reader) -> f64 {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut random = || IpAddr::from(rng.u32(..).to_be_bytes()).into();
    let addresses: Vec<Address> = (0..LOOKUPS).map(|_| random()).collect();
    let mut rounds = [(); ROUNDS].map(|()| {
        let begun = Instant::now();
        let hits = addresses.iter().filter(|address| lookup(reader, **address) == Some(Verdict::Blacklisted));
        black_box(hits.count());
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
    });
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}
