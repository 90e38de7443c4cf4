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

use super::projecting::Projecting;
use super::{DRAIN_MAX, EndSignals, First, ServeError, panicked, places, raise_descriptor_limit};
use crate::config::{Config, LogKind};
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
    let log = projector_log(config)?;
    raise_descriptor_limit();
    let mut signals = EndSignals::new()?;
    let settings = settings(config, skip_offsets);
    info!(projector = settings.projector, "starting");
    let (shown, status) = watch::channel(Status::default());
    let app = ProjectorApp { status, version: env!("CARGO_PKG_VERSION") };
    let server = Server::start_projector(app, &config.projector.listen, &config.http)?;
    info!(listen = places(server.admin()), "projecting");
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

/// The log whose table is kept.
fn projector_log(config: &Config) -> Result<Arc<dyn TableLog>, ServeError> {
    match config.log.kind {
        LogKind::Embedded => Err(ServeError::Configuration(
            "portcullis project needs [log] kind = \"kafka\": the embedded log has no table".to_owned(),
        )),
    }
}

/// How to project, and under which name: by it people see in a watermark who wrote it.
fn settings(config: &Config, skip_offsets: BTreeSet<Offset>) -> Settings {
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
    match signals.or(timeout(STOP_MAX, projecting.ended())) {
        First::Other(Ok(())) => {}
        First::Other(Err(_)) => warn!("it did not stop in time: a standby takes over once it is missed"),
        First::Signal(signal) => warn!(signal, "ending at once: a standby takes over once we are missed"),
    }
}
