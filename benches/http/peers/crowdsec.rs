//! CrowdSec: its local API with 10,000 decisions on single addresses, asked as bouncers ask it.

use std::path::Path;

use super::{Peer, Stage, wait};
use crate::client::Place;
use crate::dialect::{Answer, Http};
use crate::process;

pub(crate) const NAME: &str = "CrowdSec, 10,000 decisions";
const DECISIONS: usize = 10_000;
const CONFIG: &str = include_str!("crowdsec.yaml");
/// What decides about alerts; there are none here, but it does not start without.
const PROFILES: &str =
    "name: none\nfilters: [\"false\"]\ndecisions: [{type: ban, duration: 4h}]\non_success: break\n";
const PASSWORD: &str = "only-for-the-time-of-the-bench";
const BOUNCER_KEY: &str = "only-for-the-time-of-the-bench";

fn verdict(body: &[u8]) -> Option<Answer> {
    match body {
        b"null" => Some(Answer::Free),
        [b'[', .., b']'] => Some(Answer::Blacklisted),
        _ => None,
    }
}

pub(crate) fn start(program: &Path, stage: Stage<'_>) -> Result<Peer, String> {
    let cscli = process::find("cscli").ok_or("its cscli is not there")?;
    let list = stage.list.first_addresses(DECISIONS);
    let stage = Stage { list: &list, ..stage };
    let address = process::free_address();
    let config = configure(&stage, &address.to_string());
    let cscli = |args: &[&str]| process::run(&cscli, &[&["-c", &config], args].concat());
    let dump = stage.folder().join("dump.yaml").display().to_string();
    cscli(&["machines", "add", "bench", "--password", PASSWORD, "-f", &dump])?;
    cscli(&["bouncers", "add", "bench", "-k", BOUNCER_KEY])?;
    let running = stage.start(program, &["-c", &config, "-no-cs"]);
    let place = Place::Tcp(address);
    wait(|| place.connect().map_err(|error| error.to_string()))?;
    let decisions = stage.list.lines(|address, _| format!("{address},Ip,24h,bench,ban"));
    let file = stage.write("list.csv", &format!("value,scope,duration,reason,type\n{decisions}"));
    cscli(&["decisions", "import", "-i", &file.display().to_string()])?;
    let headers = format!("X-Api-Key: {BOUNCER_KEY}\r\n");
    let dialect = Http { path: "/v1/decisions?ip=", headers, verdict };
    let server = stage.server(NAME, place, dialect);
    stage.peer(format!("CrowdSec {}", process::version(program, &["-version"])), running, vec![server])
}

/// Writes what it reads at its start; the path of its configuration.
fn configure(stage: &Stage<'_>, address: &str) -> String {
    let client = format!("url: http://{address}\nlogin: bench\npassword: {PASSWORD}\n");
    stage.write("client.yaml", &client);
    stage.write("profiles.yaml", PROFILES);
    stage.write("simulation.yaml", "simulation: off\n");
    stage.write("index.json", "{}");
    let config = CONFIG.replace("{folder}", &stage.folder().display().to_string());
    stage.write("crowdsec.yaml", &config.replace("{address}", address)).display().to_string()
}
