//! The commands that are written: in a small space, so that they meet, and with all that may go wrong in one.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portcullis::log::Topic;
use portcullis::log::memory::Ending;
use portcullis::record::{Offset, Timestamp};

use super::world::{Action, World};

/// How many addresses there are commands about.
const ADDRESSES: u32 = 512;

/// What the writers remember.
#[derive(Debug, Default)]
pub struct Load {
    /// The newest commands, one of which may be sent again because its writer heard no answer.
    recent: Vec<Vec<u8>>,
    ids: u64,
    /// The commands of the future that are in the log.
    pub future: Vec<Offset>,
}

/// An address of the space; every fourth is IPv6.
pub fn address(number: u32) -> IpAddr {
    let number = number % ADDRESSES;
    match number % 4 {
        3 => Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + u128::from(number / 4)).into(),
        family => Ipv4Addr::from_bits((10 << 24) + (family << 8) + number / 4).into(),
    }
}

fn range(random: &mut fastrand::Rng) -> (IpAddr, IpAddr) {
    let start = random.u32(..ADDRESSES);
    let width = if random.u8(..8) == 0 { 64 } else { 4 };
    let end = start + 4 * random.u32(0..width);
    match end < ADDRESSES {
        true => (address(start), address(end)),
        false => (address(start), address(start)),
    }
}

impl World {
    /// Writes a few commands, and has the next ones written later.
    pub fn load_once(&mut self) {
        if !self.restless {
            return;
        }
        if self.broker == super::transport::Reach::Open {
            match self.random.u8(..16) {
                0 => self.foreign_transaction(),
                _ => (0..self.random.u8(1..4)).for_each(|_| self.command()),
            }
        }
        let wait = self.between(Duration::from_millis(1), Duration::from_millis(4_000));
        self.at(self.now + wait, Action::Load);
    }

    /// Writes one command, or something else that is no command.
    pub fn command(&mut self) {
        let (time, value) = self.next_command();
        if self.random.u16(..200) == 0 {
            self.append(time, Some(b"2026-01-01T00:00:00Z"), None);
            return;
        }
        self.append(time, None, Some(&value));
    }

    /// A command that only a later release understands.
    pub fn command_of_the_future(&mut self) {
        let time = self.log_time();
        let offset = self.append(time, None, Some(br#"{"v":2,"action":"EXPLODE"}"#));
        self.load.future.push(offset);
    }

    /// The broker's clock, which is nearly right.
    fn log_time(&mut self) -> Timestamp {
        let skew = self.random.i64(-500..=500);
        self.wall(skew)
    }

    fn next_command(&mut self) -> (Timestamp, Vec<u8>) {
        let time = self.log_time();
        let again = self.random.u8(..12) == 0 && !self.load.recent.is_empty();
        if again {
            let at = self.random.usize(..self.load.recent.len());
            return (time, self.load.recent[at].clone());
        }
        let value = match self.random.u8(..20) {
            0 => b"BLACKLIST 10.0.0.0/33".to_vec(),
            1 => b"BLACKLIST 0.0.0.0/1".to_vec(),
            2..10 => self.text(),
            _ => self.json(time),
        };
        self.load.recent.push(value.clone());
        if self.load.recent.len() > 16 {
            self.load.recent.remove(0);
        }
        (time, value)
    }

    fn text(&mut self) -> Vec<u8> {
        let (start, end) = range(&mut self.random);
        let verb = if self.random.u8(..3) == 0 { "WHITELIST" } else { "BLACKLIST" };
        format!("{verb} {start}-{end}").into_bytes()
    }

    fn json(&mut self, time: Timestamp) -> Vec<u8> {
        let (start, end) = range(&mut self.random);
        let verb = if self.random.u8(..3) == 0 { "WHITELIST" } else { "BLACKLIST" };
        self.load.ids += 1;
        let mut text =
            format!(r#"{{"v":1,"id":"{}","action":"{verb}","range":"{start}-{end}""#, self.load.ids);
        if verb == "BLACKLIST" && self.random.bool() {
            let seconds = self.random.u64(0..300);
            let end = time.after(Duration::from_secs(seconds));
            write!(text, r#","expires_at":"{end}""#).expect("a text grows");
        }
        (text + "}").into_bytes()
    }

    /// A producer of somebody else's that writes in a transaction, and takes its time to end it.
    fn foreign_transaction(&mut self) {
        let id = self.log.begin();
        for _ in 0..self.random.u8(1..4) {
            let (timestamp, value) = self.next_command();
            let write = (Vec::new(), Some(value));
            let offset = self.log.append_to(id, Topic::Commands, timestamp, write.clone());
            let (key, value) = (Some(write.0), write.1);
            let record = portcullis::record::Record { offset, timestamp, key, value };
            self.ledger.append_open(self.now, id, record);
        }
        let ending = if self.random.bool() { Ending::Commit } else { Ending::Abort };
        let hangs = self.chance(0.1);
        let most = Duration::from_secs(if hangs { 40 } else { 2 });
        let wait = self.between(Duration::ZERO, most);
        self.at(self.now + wait, Action::EndForeign(id, ending));
        self.wake(Topic::Commands);
    }
}
