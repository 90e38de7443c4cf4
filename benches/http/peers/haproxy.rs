//! HAProxy: the list as a map of prefixes, because `map_ip` knows no other ranges.

use std::path::Path;

use super::{Peer, Stage};
use crate::client::Place;
use crate::dialect::{Http, digit};
use crate::process;

pub(crate) const NAME: &str = "HAProxy `map_ip`";
const CONFIG: &str = include_str!("haproxy.cfg");

pub(crate) fn start(program: &Path, stage: Stage<'_>) -> Result<Peer, String> {
    let address = process::free_address();
    stage.write("list.map", &stage.list.prefix_lines(|prefix| format!("{prefix} 1")));
    let config = CONFIG.replace("{address}", &address.to_string());
    stage.write("haproxy.cfg", &config);
    let running = stage.start(program, &["-db", "-f", "haproxy.cfg"]);
    let dialect = Http { path: "/check?ip=", headers: String::new(), verdict: digit };
    let server = stage.server(NAME, Place::Tcp(address), dialect);
    stage.peer(format!("HAProxy {}", process::version(program, &["-v"])), running, vec![server])
}
