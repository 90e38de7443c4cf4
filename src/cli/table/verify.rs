//! `portcullis table verify`: every row of the table against the fold of the commands.

use clap::Args;
use serde_json::json;

use super::read;
use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure, shown};
use crate::cli::output::{Format, Output, counted};
use crate::cli::process::{ConfigArgs, kafka_log};
use crate::cli::reading::Reading;
use crate::verify::{Findings, verify};

/// How many differences are told one by one, unless all are asked for.
const TOLD_MAX: usize = 100;

/// The flags of `table verify`.
#[derive(Args, Clone, Debug)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Tell every difference; without it the first 100 and how many more there are
    #[arg(long)]
    all: bool,
    /// Print one JSON object, with every difference
    #[arg(long)]
    json: bool,
}

/// Compares the table with the fold of the commands.
pub(super) fn run(args: &VerifyArgs, target: &Target) -> Result<Exit, Failure> {
    let log = kafka_log("table verify", &args.config, target)?;
    if log.table_topic().is_none() {
        return Err(Failure::usage(
            "table verify needs table_topic in [log]: it names the topic of the table",
        ));
    }
    let table = read(&log).map_err(Failure::unavailable)?;
    let mut reading = Reading::new();
    let findings = verify(&table, &log, &mut |progress| reading.goes_on(progress));
    let findings = findings.map_err(Failure::unavailable)?;
    let mut output = Output::lock();
    show(&findings, args, &mut output)?;
    output.flush()?;
    Ok(if findings.count() == 0 { Exit::Done } else { Exit::No })
}

fn show(findings: &Findings, args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    if Format::from(args.json) == Format::Json {
        return output.line(json!(findings));
    }
    let told_max = if args.all { usize::MAX } else { TOLD_MAX };
    for line in findings.lines().take(told_max) {
        // A key may hold anything.
        output.line(shown(&line))?;
    }
    match findings.count() {
        0 => output.line(healthy(findings)),
        count if count > told_max => {
            output.line(format!("and {} more: --all tells them", count.saturating_sub(told_max)))
        }
        _ => Ok(()),
    }
}

fn healthy(findings: &Findings) -> String {
    let position = findings.position.unwrap_or_default();
    let rows = counted(findings.rows.unwrap_or_default().into(), "row", "rows");
    format!("the table holds exactly the fold of the commands before position {position}: {rows}")
}
