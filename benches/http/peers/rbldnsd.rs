//! rbldnsd: the list as a DNS blacklist, asked over UDP.

use std::net::Ipv4Addr;
use std::path::Path;

use nix::unistd::Uid;

use super::{Peer, Stage, text};
use crate::client::Place;
use crate::dialect::{Answer, Dialect, Reading};
use crate::process;

pub(crate) const NAME: &str = "rbldnsd, DNS over UDP";
const ZONE: &str = "bench";
/// What stands before the answers of a message.
const HEADER_BYTES: usize = 12;
/// One question for an address of the Internet.
const TYPE_A_CLASS_IN: [u8; 4] = [0, 1, 0, 1];

/// It refuses to run as root. If it were left to become another user by itself, the kernel would forget that
/// it is to end with the bench.
const AS_NOBODY: [&str; 4] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=TERM"];

struct Dns;

impl Dialect for Dns {
    fn question(&self, address: Ipv4Addr) -> Vec<u8> {
        let [a, b, c, d] = address.octets();
        // The id tells an answer from one to another question.
        let mut message = vec![c, d, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let labels = [d, c, b, a].map(|octet| octet.to_string());
        for label in labels.iter().map(String::as_str).chain([ZONE]) {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(TYPE_A_CLASS_IN);
        message
    }

    fn read(&self, address: Ipv4Addr, answer: &[u8]) -> Reading {
        let [.., c, d] = address.octets();
        let Some([id @ .., flags_high, flags_low, _, _, _, answers]) = answer.get(..8) else {
            return Reading::Wrong;
        };
        let (is_answer, code) = (flags_high & 0x80 != 0, flags_low & 0x0f);
        match (code, answers) {
            _ if id != [c, d] || !is_answer || answer.len() < HEADER_BYTES => Reading::Wrong,
            (0, 1..) => Reading::Whole(Answer::Blacklisted),
            // There is no such name.
            (3, 0) => Reading::Whole(Answer::Free),
            _ => Reading::Wrong,
        }
    }
}

pub(crate) fn start(program: &Path, stage: Stage<'_>) -> Result<Peer, String> {
    let address = process::free_address();
    stage.write("list", &stage.list.lines(|start, end| format!("{start}-{end}")));
    let listen = format!("{}/{}", address.ip(), address.port());
    let zone = format!("{ZONE}:ip4set:list");
    let args = ["-n", "-b", &listen, "-w", ".", &zone];
    let running = if Uid::effective().is_root() {
        stage.start(Path::new("setpriv"), &[&AS_NOBODY[..], &[text(program)], &args].concat())
    } else {
        stage.start(program, &args)
    };
    let server = stage.server(NAME, Place::Udp(address), Dns);
    stage.peer(format!("rbldnsd {}", process::version(program, &["-h"])), running, vec![server])
}
