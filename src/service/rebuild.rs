//! Writing the table anew: a projector with that purpose, from the first look at the log to its end.
//!
//! ```text
//!   look: settings, start, name ──► fence ──► read the table ──► fold all commands ──► one transaction
//!   refused here: nobody is disturbed          until then the table is what it was     released
//! ```
//!
//! What would be refused in any case is found out before anybody is fenced: a projector that works is worth
//! more than a rebuild that can't.

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::timeout;

use super::opening::table_log;
use super::project::{STOP_MAX, settings};
use super::projecting::Projecting;
use super::{EndSignals, First, ServeError};
use crate::config::Config;
use crate::log::{Answer, Identity, Question, TableLog, Topic};
use crate::projector::{Projector, Reason, Rebuild, Role, Status};
use crate::record::{Offset, Position};
use crate::verify::BEGIN_ANEW;

/// What became of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rebuilt {
    /// What the table says of itself now.
    pub status: Status,
    /// How many rows were written.
    pub written: usize,
    /// How many keys were taken away.
    pub taken_away: usize,
}

/// Why the table was not written anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// It could not be begun.
    #[error(transparent)]
    Start(#[from] ServeError),
    /// It must not be, until somebody mends what is told.
    #[error("{0}")]
    Refused(String),
    /// It did not come to its end, and may another time.
    #[error("{0}")]
    Unfinished(String),
}

/// Writes the table of the configuration's log anew, from all of its commands. Commands of the future at
/// `skip_offsets` are passed over, for every reader and for good. `told` hears how it gets on.
///
/// Blocks until that is done. SIGINT and SIGTERM end it, as long as nothing is written; to be called once, by
/// a process that has no other use for these two signals.
///
/// # Errors
/// [`Refused`](RebuildError::Refused) when the topics are not set as they must be, the log does not begin with
/// its first command, or a command of the future stands in it; [`Unfinished`](RebuildError::Unfinished) when
/// the log can't be reached or written, another projector took over, or a signal came.
pub fn rebuild(
    config: &Config,
    skip_offsets: BTreeSet<Offset>,
    told: &mut dyn FnMut(&Status),
) -> Result<Rebuilt, RebuildError> {
    let log = table_log(config, "table rebuild")?;
    let identity = look(&*log)?;
    // Until here a signal ends the process by itself: there is nothing to end well.
    let mut signals = EndSignals::new()?;
    let projector = Projector::rebuilding(settings(config, skip_offsets), identity, Instant::now());
    let (shown, mut status) = watch::channel(Status::default());
    let mut projecting = Projecting::start(projector, log, shown)?;
    let signalled = follow(&mut projecting, &mut status, &mut signals, told);
    let status = status.borrow().clone();
    outcome(status, signalled)
}

/// Tells how it gets on until it ends; returns the signal that ended it, if one did.
fn follow(
    projecting: &mut Projecting,
    status: &mut watch::Receiver<Status>,
    signals: &mut EndSignals,
    told: &mut dyn FnMut(&Status),
) -> Option<&'static str> {
    loop {
        match signals.or(status.changed()) {
            First::Other(Ok(())) => told(&status.borrow_and_update()),
            // The sender ends with the projector.
            First::Other(Err(_)) => return None,
            First::Signal(signal) => {
                projecting.stop();
                // A transaction that is under way is waited for: it may be the one.
                let _ended_or_late = signals.or(async { timeout(STOP_MAX, projecting.ended()).await });
                return Some(signal);
            }
        }
    }
}

/// Finds out what the log is called, and whether a rebuild may begin.
fn look(log: &dyn TableLog) -> Result<Identity, RebuildError> {
    let mut questioner = log.questioner();
    let mut ask = |question| match questioner.ask(question) {
        Answer::Failed(_, reason) => Err(RebuildError::Unfinished(reason)),
        answer => Ok(answer),
    };
    if let Answer::TopicSettings(Err(reason)) = ask(Question::TopicSettings)? {
        return Err(RebuildError::Refused(reason));
    }
    if let Answer::Ends(_, ends) = ask(Question::Ends(Topic::Commands))?
        && ends.start > Position::START
    {
        return Err(RebuildError::Refused(format!(
            "the commands log begins at {}: what came before is gone, and a table without it would free what \
             that blacklisted; {BEGIN_ANEW}",
            ends.start
        )));
    }
    match ask(Question::Identity)? {
        Answer::Identity(identity) => Ok(identity),
        _ => Err(RebuildError::Unfinished("the log did not say what it is called".to_owned())),
    }
}

/// What the last status means.
fn outcome(status: Status, signalled: Option<&str>) -> Result<Rebuilt, RebuildError> {
    if let Some(Rebuild::Done { written, taken_away }) = status.rebuild {
        return Ok(Rebuilt { status, written, taken_away });
    }
    if let Some(signal) = signalled {
        return Err(RebuildError::Unfinished(format!(
            "ended by {signal} before it was done; `portcullis table verify` tells what the table holds"
        )));
    }
    let reason = status.message.unwrap_or_else(|| "the projector panicked, which is a bug".to_owned());
    Err(match status.role {
        Role::Stopped(Reason::Gap | Reason::Unrepairable | Reason::FutureCommand(_)) => {
            RebuildError::Refused(reason)
        }
        _ => RebuildError::Unfinished(format!("{reason}; the table was not rebuilt")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_is_told_as_done() {
        let status =
            |role, rebuild| Status { role, rebuild, message: Some("why".to_owned()), ..Status::default() };
        let done = Some(Rebuild::Done { written: 3, taken_away: 2 });
        let stopped = status(Role::Stopped(Reason::Stop), done);
        let rebuilt = outcome(stopped.clone(), Some("SIGINT")).expect("it came to its end all the same");
        assert_eq!(rebuilt, Rebuilt { status: stopped, written: 3, taken_away: 2 });
        let folding = Some(Rebuild::Folding { position: Position::START, end: Position::START });
        let ended = outcome(status(Role::Stopped(Reason::Stop), folding), Some("SIGTERM"));
        assert!(
            matches!(ended, Err(RebuildError::Unfinished(reason)) if reason.starts_with("ended by SIGTERM"))
        );
        let lost = outcome(status(Role::Standby, folding), None);
        assert!(matches!(lost, Err(RebuildError::Unfinished(reason)) if reason.starts_with("why; ")));
        for reason in [Reason::Gap, Reason::Unrepairable, Reason::FutureCommand(Offset::new(1))] {
            let refused = outcome(status(Role::Stopped(reason), folding), None);
            assert!(matches!(refused, Err(RebuildError::Refused(told)) if told == "why"), "{reason:?}");
        }
    }
}
