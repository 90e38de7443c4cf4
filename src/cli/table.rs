//! `portcullis table`: is the table what the commands come to, and if it is not, or nobody may go on from it,
//! is it to be written anew?
//!
//! These verbs talk to Kafka itself, as the configuration says, and to no running service. Both may run beside
//! sidecars and projectors.

mod rebuild;
mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};

use self::rebuild::RebuildArgs;
use self::verify::VerifyArgs;
use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::reading::Silence;
use crate::log::{Log, ReadEvent, Topic};
use crate::record::Position;
use crate::table::Table;

/// The flags of `table`.
#[derive(Args, Clone, Debug)]
pub struct TableArgs {
    #[command(subcommand)]
    verb: TableVerb,
}

#[derive(Clone, Debug, Subcommand)]
enum TableVerb {
    /// Compare the table with the fold of all commands, row by row; exit code 1 if anything differs
    #[command(after_help = "Example: portcullis table verify --config portcullis.toml")]
    Verify(VerifyArgs),
    /// Write the table anew from all commands, in one transaction
    #[command(
        long_about = "Write the table anew from all commands, in one transaction.\n\n\
        The way on from everything that a projector stops at: a table without a watermark or with one of \
        another release, of a log that was replaced, with rows that nobody can explain.\n\n\
        It takes the role from the projector that works, which stands by meanwhile; whoever stands by takes \
        over again once it is done. Until then the table is what it was. Sidecars follow the commands as \
        before; those in alarm, because their log was replaced, take up the new table by themselves, even at \
        a lower position. It destroys nothing that the commands do not bring back.",
        after_help = "Example: portcullis table rebuild --config portcullis.toml"
    )]
    Rebuild(RebuildArgs),
}

/// Verifies the table, or rebuilds it.
///
/// # Errors
/// [`Exit::Usage`] when the configuration is wrong or names no table; [`Exit::Unavailable`] when Kafka can't
/// be asked, or what is asked for can't be known; [`Exit::Refused`] when a rebuild must not be.
pub fn run(args: &TableArgs, target: &Target) -> Result<Exit, Failure> {
    match &args.verb {
        TableVerb::Verify(args) => verify::run(args, target),
        TableVerb::Rebuild(args) => rebuild::run(args, target),
    }
}

/// Reads what is in the table topic, all of it.
pub(super) fn read(log: &dyn Log) -> Result<Table, String> {
    let mut reader = log.open(Topic::Table, Position::START).map_err(|error| error.0)?;
    let mut table = Table::default();
    let mut silence = Silence::new();
    loop {
        match reader.poll(Duration::from_millis(200)) {
            Some(ReadEvent::Records(records)) => {
                silence.broken();
                records.iter().for_each(|record| table.apply(record));
            }
            Some(ReadEvent::End(_)) => return Ok(table),
            Some(ReadEvent::Failed(reason)) => return Err(reason),
            None => silence.bounded("the table topic")?,
        }
    }
}
