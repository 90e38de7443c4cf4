//! nginx: the list as `geo` ranges.

use std::path::Path;

use super::{Peer, Stage};
use crate::client::Place;
use crate::dialect::{Http, digit};
use crate::process;

pub(crate) const NAME: &str = "nginx `geo`";
const CONFIG: &str = include_str!("nginx.conf");

pub(crate) fn start(program: &Path, stage: Stage<'_>) -> Result<Peer, String> {
    let address = process::free_address();
    stage.write("list.conf", &stage.list.lines(|start, end| format!("{start}-{end} 1;")));
    stage.write("nginx.conf", &CONFIG.replace("{address}", &address.to_string()));
    let folder = stage.folder().display().to_string();
    let running = stage.start(program, &["-p", &folder, "-c", "nginx.conf", "-e", "stderr"]);
    let dialect = Http { path: "/check?ip=", headers: String::new(), verdict: digit };
    let server = stage.server(NAME, Place::Tcp(address), dialect);
    stage.peer(format!("nginx {}", process::version(program, &["-v"])), running, vec![server])
}
