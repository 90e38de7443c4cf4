//! Ours: the program as it is shipped, on the embedded log, over TCP and over a Unix socket.

use std::path::{Path, PathBuf};

use super::{Peer, Stage, text, wait};
use crate::client::Place;
use crate::dialect::{Answer, Http};
use crate::process;

pub(crate) const TCP: &str = "portcullis";
pub(crate) const UNIX: &str = "portcullis, Unix socket";
pub(crate) const DIALECT: Http = Http { path: "/v1/check/", headers: String::new(), verdict };

fn verdict(body: &[u8]) -> Option<Answer> {
    match body {
        br#"{"blacklisted":true}"# => Some(Answer::Blacklisted),
        br#"{"blacklisted":false}"# => Some(Answer::Free),
        _ => None,
    }
}

/// Where the sidecar takes commands.
pub(crate) fn admin_socket(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

pub(crate) fn start(stage: Stage<'_>) -> Result<Peer, String> {
    let program = Path::new(env!("CARGO_BIN_EXE_portcullis"));
    let (tcp, socket) = (process::free_address(), stage.folder().join("lookup.sock"));
    let places = (tcp.to_string(), format!("unix:{}", socket.display()), process::free_address().to_string());
    // On the disk of the build, because the folder of the sockets may be memory.
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let config = stage.write("portcullis.toml", "");
    let data_path = data.path().display().to_string();
    let args = ["serve", "--config", text(&config), "--data", &data_path];
    let listen = ["--lookup", &places.0, "--lookup", &places.1, "--admin", &places.2];
    let running = stage.start(program, &[&args[..], &listen].concat());
    import(program, &stage)?;
    let servers =
        vec![stage.server(TCP, Place::Tcp(tcp), DIALECT), stage.server(UNIX, Place::Unix(socket), DIALECT)];
    let about = format!("portcullis {}", env!("CARGO_PKG_VERSION"));
    Ok(stage.peer(about, running, servers)?.keeping(data))
}

/// Has the sidecar take the list, as an operator would.
fn import(program: &Path, stage: &Stage<'_>) -> Result<(), String> {
    let list = stage.write("list.txt", &stage.list.lines(|start, end| format!("{start}-{end}")));
    let admin = format!("unix:{}", admin_socket(stage.folder()).display());
    wait(|| process::run(program, &["status", "--url", &admin]))?;
    process::run(program, &["import", text(&list), "--url", &admin]).map(drop)
}
