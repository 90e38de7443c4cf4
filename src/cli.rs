//! The command line: everything that a person does with portcullis.
//!
//! ```text
//!   arguments ─► clap ─► verb ─► Target: which sidecar? ─► HTTP ─► Output ─► exit code
//!                          ├─► serve, project: the sidecar, the projector itself
//!                          └─► topics, table, replay: Kafka
//! ```
//!
//! `serve` and `project` run in this process; `topics`, `table` and, on Kafka, [`replay`] talk to Kafka
//! itself. Every other verb is a client of a service that runs: it opens no log and folds nothing, so that
//! what it prints is what that service says. (`replay` opens the file of an embedded log where no service runs.)
//!
//! What scripts rely on holds for all verbs: results go to standard output and everything else to standard
//! error, a failure ends with one line that says why, and the exit code is one of [`Exit`]. Nothing is ever
//! asked interactively, and progress is drawn on terminals only.
//!
//! Each verb has a file: [`serve`], [`project`], `topics`, `table`, [`replay`], [`check`], [`edit`] (blacklist
//! and whitelist), [`import`], [`export`], [`status`]. They share [`connect`] (finding the sidecar),
//! [`write`](mod@write) (sending commands), [`list`] (reading files), [`output`] and [`failure`]; [`process`]
//! is what those share that are no clients, and `reading` what those share that read a whole log.

pub mod check;
pub mod connect;
pub mod edit;
pub mod export;
pub mod failure;
pub mod import;
pub mod list;
pub mod output;
pub mod process;
pub mod project;
mod reading;
pub mod replay;
pub mod serve;
pub mod status;
#[cfg(feature = "kafka")]
pub mod table;
#[cfg(feature = "kafka")]
pub mod topics;
pub mod write;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::check::CheckArgs;
use self::connect::{Target, TargetArgs};
use self::edit::{BlacklistArgs, WhitelistArgs};
use self::export::ExportArgs;
use self::failure::{Exit, Failure};
use self::import::ImportArgs;
use self::output::note;
use self::project::ProjectArgs;
use self::replay::ReplayArgs;
use self::serve::ServeArgs;
use self::status::StatusArgs;
#[cfg(feature = "kafka")]
use self::table::TableArgs;
#[cfg(feature = "kafka")]
use self::topics::TopicsArgs;
use crate::config::Environment;

/// What stands below the help of every verb.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the answer is no: an address is blacklisted (check), something is wrong (topics check,
table verify); 2 wrong usage or bad input; 3 the service can't be reached or can't answer now; 4 refused";

/// Answers one question for the processes on its host: is this address blacklisted?
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the sidecar
    #[command(after_help = "Example: portcullis serve --data /var/lib/portcullis --lookup 127.0.0.1:8181")]
    Serve(ServeArgs),
    /// Run a projector, which keeps the table of a log on Kafka; any number may run, one of them works
    #[command(after_help = "Example: portcullis project --config portcullis.toml")]
    Project(ProjectArgs),
    /// Ask whether addresses are blacklisted: ADDRESS 1 or ADDRESS 0 a line, exit code 1 if any is
    #[command(after_help = "Example: portcullis check 203.0.113.7 2001:db8::7")]
    Check(CheckArgs),
    /// Blacklist ranges
    #[command(after_help = "Example: portcullis blacklist 203.0.113.0/24 --for 2h --reason 'bot farm'")]
    Blacklist(BlacklistArgs),
    /// Free ranges, whatever blacklisted them
    #[command(after_help = "Example: portcullis whitelist 203.0.113.7 --by alice")]
    Whitelist(WhitelistArgs),
    /// Show how the service is
    #[command(after_help = "Example: portcullis status --wait && portcullis check 203.0.113.7")]
    Status(StatusArgs),
    /// Print what is blacklisted, neighbours merged: START-END a line
    #[command(after_help = "Example: portcullis export > blacklist.txt")]
    Export(ExportArgs),
    /// Blacklist every range of a file; if a line of it is wrong, nothing is taken
    #[command(after_help = "Examples: portcullis import ipsum.txt --reason ipsum\n          \
                            curl -s https://lists.example/ranges.csv | portcullis import - --format csv")]
    Import(ImportArgs),
    /// Create the topics of Kafka, or check how they are set
    #[cfg(feature = "kafka")]
    #[command(after_help = "Example: portcullis topics create --config portcullis.toml")]
    Topics(TopicsArgs),
    /// Compare the table of Kafka with the commands, or write it anew
    #[cfg(feature = "kafka")]
    #[command(after_help = "Example: portcullis table verify --config portcullis.toml")]
    Table(TableArgs),
    /// Fold the log anew, up to a position or a time, and print what that comes to
    #[command(after_help = "Examples: portcullis replay\n          \
                            portcullis replay --until 2026-12-01T00:00:00Z --json")]
    Replay(ReplayArgs),
}

/// Does what the arguments say and tells how it ended. The first argument is the program's own name.
///
/// All of `main`: it prints, blocks until the verb is done, and hands back the exit code to end with.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    match obey(&cli.verb, &Target { args: cli.target, environment }) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            note(&failure.to_string());
            failure.exit().into()
        }
    }
}

/// Each verb is one call, which ends well, with a "no", or with a failure.
fn obey(verb: &Verb, target: &Target) -> Result<Exit, Failure> {
    match verb {
        Verb::Serve(args) => serve::run(args, target),
        Verb::Project(args) => project::run(args, target),
        Verb::Check(args) => check::run(args, target),
        Verb::Blacklist(args) => edit::blacklist(args, target),
        Verb::Whitelist(args) => edit::whitelist(args, target),
        Verb::Status(args) => status::run(args, target),
        Verb::Export(args) => export::run(args, target),
        Verb::Import(args) => import::run(args, target),
        #[cfg(feature = "kafka")]
        Verb::Topics(args) => topics::run(args, target),
        #[cfg(feature = "kafka")]
        Verb::Table(args) => table::run(args, target),
        Verb::Replay(args) => replay::run(args, target),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent_and_every_verb_has_an_example() {
        Cli::command().debug_assert();
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{}", verb.get_name());
        }
    }
}
