//! The projector as a process: a log with a table, the projector that keeps the table, and the listener that
//! tells how it is.
//!
//! ```text
//!   main ──────────► waits for SIGINT, SIGTERM, or the end of the projector
//!     projector      folds, tells the time                         ─┐ events, bounded
//!       reader       one for each open reader of the log           ─┤
//!       questions    one for the client that answers questions     ─┤
//!       table-writer one for each claim of the writer's role       ─┘
//!     admin-…        started by http
//! ```
//!
//! It ends with its role, which a standby waits for: first the projector writes what it has and releases the
//! table, then the listener closes. A projector that panics ends the process with an error, for a supervisor
//! to start it anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::gethostname;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::opening::table_log;
use super::projecting::Projecting;
use super::{DRAIN_MAX, EndSignals, First, ServeError, panicked, places, raise_descriptor_limit};
use crate::config::Config;
use crate::http::{ProjectorApp, Server};
use crate::log::TableLog;
use crate::projector::{Projector, Settings, Status};
use crate::record::Offset;

/// How long a projector may take to release its role once it is told to end: time for the transaction that is
/// under way and for a last one. After that a standby has to wait until it is taken for dead.
pub const STOP_MAX: Duration = Duration::from_secs(10);

/// Keeps the table until SIGINT or SIGTERM, then releases the role. A second signal ends it at once. Commands
/// of the future at `skip_offsets` are passed over, for every reader and for good.
///
/// Blocks the calling thread for the whole life of the projector. To be called once, by a process that has no
/// other use for these two signals.
///
/// # Errors
/// [`Configuration`](ServeError::Configuration) when the configuration names no log with a table;
/// [`Unavailable`](ServeError::Unavailable) when a port is taken, a thread can't be had, or the projector
/// panicked. A log that can't be reached is none: it is waited for.
pub fn project(config: &Config, skip_offsets: BTreeSet<Offset>) -> Result<(), ServeError> {
    project_on(table_log(config, "project")?, config, skip_offsets)
}

fn project_on(
    log: Arc<dyn TableLog>,
    config: &Config,
    skip_offsets: BTreeSet<Offset>,
) -> Result<(), ServeError> {
    raise_descriptor_limit();
    let mut signals = EndSignals::new()?;
    let settings = settings(config, skip_offsets);
    let name = settings.projector.clone();
    let (shown, status) = watch::channel(Status::default());
    let app = ProjectorApp { status, version: env!("CARGO_PKG_VERSION") };
    let server = Server::start_projector(app, &config.projector.listen, &config.http)?;
    info!(projector = name, listen = places(server.admin()), "projecting");
    let mut projecting = Projecting::start(Projector::new(settings, Instant::now()), log, shown)?;
    let end = signals.or(projecting.ended());
    if let First::Signal(signal) = end {
        info!(signal, "ending");
        release(projecting, &mut signals);
    }
    server.shutdown(DRAIN_MAX);
    match end {
        First::Signal(_) => Ok(()),
        First::Other(()) => Err(panicked("the projector")),
    }
}

/// How to project, and under which name: by it people see in a watermark who wrote it.
pub(super) fn settings(config: &Config, skip_offsets: BTreeSet<Offset>) -> Settings {
    let host = gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
    Settings {
        projector: format!("{host}/{}", std::process::id()),
        takeover_after: config.projector.takeover_after.duration(),
        skip_offsets,
        // Another one at each start: no two projectors may draw the same.
        seed: fastrand::u64(..),
    }
}

/// Lets the projector release its role, within its time.
fn release(mut projecting: Projecting, signals: &mut EndSignals) {
    projecting.stop();
    // A timeout can be made where there is a runtime only.
    match signals.or(async { timeout(STOP_MAX, projecting.ended()).await }) {
        First::Other(Ok(())) => {}
        First::Other(Err(_)) => warn!("it did not stop in time: a standby takes over once it is missed"),
        First::Signal(signal) => warn!(signal, "ending at once: a standby takes over once we are missed"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;
    use crate::http::client::{Client, Endpoint, Request};
    use crate::http::settings::Listen;
    use crate::service::projecting::tests::{Shared, wait_until};

    #[test]
    fn a_signal_ends_it_and_releases_the_role() {
        let log = Shared::begun();
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("projector.sock");
        let mut config = Config::default();
        config.projector.listen = vec![Listen::Unix(socket.clone())];
        let running = {
            let log = log.clone();
            thread::spawn(move || project_on(Arc::new(log), &config, BTreeSet::new()))
        };
        log.command("BLACKLIST 203.0.113.0/24");
        let endpoint = Endpoint::Unix(socket.clone());
        wait_until("the table is written", || {
            let status = Request { path: "/v1/status".to_owned(), ..Request::default() };
            let answer = Client::connect(&endpoint).ok().and_then(|mut client| client.send(&status).ok());
            answer.is_some_and(|answer| {
                let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
                (&status["role"], &status["rows"]) == (&"active".into(), &1.into())
            })
        });
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        running.join().expect("no panic").expect("it ends well");
        let table = log.table();
        let watermark = table.check().expect("the table is whole");
        assert!(watermark.released && watermark.projector.ends_with(&format!("/{pid}")), "{watermark:?}");
        assert!(!socket.exists());
    }
}
