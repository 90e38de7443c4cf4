//! `portcullis table rebuild`: the table written anew, into its topic, under fencing.

use clap::Args;
use serde_json::json;

use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output, counted};
use crate::cli::process::{ConfigArgs, refuse_service};
use crate::cli::project::parse_offset;
use crate::cli::reading::bar;
use crate::projector::{Rebuild, Status};
use crate::record::Offset;
use crate::service::{self, RebuildError, Rebuilt, ServeError};

/// The flags of `table rebuild`.
#[derive(Args, Clone, Debug)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Pass over the command of a later release at this offset, for every reader and for good; repeatable
    #[arg(long = "skip-offset", value_name = "N", value_parser = parse_offset)]
    skip_offsets: Vec<Offset>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Rebuilds the table.
pub(super) fn run(args: &RebuildArgs, target: &Target) -> Result<Exit, Failure> {
    refuse_service("table rebuild", target)?;
    let config = args.config.load(target)?;
    let bar = bar();
    let mut told = |status: &Status| {
        if let Some(Rebuild::Folding { position, end }) = status.rebuild {
            bar.set_length(end.number());
            bar.set_position(position.number());
        }
    };
    let rebuilt = service::rebuild(&config, args.skip_offsets.iter().copied().collect(), &mut told);
    bar.finish_and_clear();
    let rebuilt = rebuilt.map_err(failure)?;
    let table = config.log.table_topic.as_deref().unwrap_or_default();
    let mut output = Output::lock();
    output.line(show(&rebuilt, table, args.json.into()))?;
    output.flush()?;
    Ok(Exit::Done)
}

fn failure(error: RebuildError) -> Failure {
    match error {
        RebuildError::Start(ServeError::Configuration(reason)) => Failure::usage(reason),
        RebuildError::Refused(reason) => Failure::refused(reason),
        RebuildError::Unfinished(reason) | RebuildError::Start(ServeError::Unavailable(reason)) => {
            Failure::unavailable(reason)
        }
    }
}

fn show(Rebuilt { status, written, taken_away }: &Rebuilt, table: &str, format: Format) -> String {
    let Status { position, rows, fingerprint, .. } = status;
    match format {
        Format::Json => json!({
            "topic": table, "position": position, "rows": rows, "fingerprint": fingerprint,
            "written": written, "taken_away": taken_away,
        })
        .to_string(),
        Format::Text => format!(
            "rebuilt {table}: position {position}, {} ({written} written, {taken_away} taken away)",
            counted(u128::from(*rows), "row", "rows")
        ),
    }
}
