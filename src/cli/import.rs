//! `portcullis import`: a list from a file, taken only if all of it is valid.
//!
//! ```text
//!   file ─► ranges and bad lines ─► commands ─► groups of 1,000 ─► POST, one after the other
//!           any bad line, any range                 each under a key of its own;
//!           too wide: nothing is sent               the last one waits until it is applied
//! ```
//!
//! The whole file is judged before the first group is sent, so that a mistake in its last line leaves nothing
//! half done. From then on groups that were taken stay taken. That is safe to repeat in two ways: a group
//! that got no answer is sent again under the same key, and what it has written already is left out; and a
//! file that is imported again changes nothing where its ranges are blacklisted already.
//!
//! It only adds: a range that is gone from the file stays blacklisted.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::address::Range;
use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::list::{BadLine, List, ListFormat};
use crate::cli::output::{Format, Output, counted, note};
use crate::cli::write::{CommandArgs, Mode, Refused, Verdict, Width, Writer};
use crate::command::{Action, Command};
use crate::http::{GROUP_COMMANDS_MAX, exact};
use crate::record::Position;
use crate::view::is_too_wide;

/// The longest file that is taken, in bytes. It is held in memory, because all of it is judged first.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How many lines of a file are complained about one by one: enough to see what is wrong with the rest.
const REPORTED_LINES_MAX: usize = 10;

/// The flags of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The file; - is standard input
    file: PathBuf,
    /// How its lines are written
    #[arg(long, value_enum, default_value_t = ListFormat::Auto, value_name = "FORMAT")]
    format: ListFormat,
    /// Leave out the lines that hold no range
    #[arg(long)]
    skip_invalid: bool,
    #[command(flatten)]
    command: CommandArgs,
    /// Change nothing; say what would change
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What an import has come to so far. The sums of changes are those of a dry run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ranges: usize,
    lines_skipped: usize,
    groups: usize,
    position: Option<Position>,
    rows_changed: u128,
    addresses_changed: u128,
    /// How many commands were or would be refused, each group of a dry run judged alone. Of what is written it
    /// is known of the last group only, because only that one is waited for.
    refused: u64,
}

/// Blacklists every range of a file, for ever.
///
/// # Errors
/// [`Exit::Usage`] when the file can't be read, is too long, holds no range, or has a line without one
/// (unless these are skipped); [`Exit::Refused`] when a range is too wide without force; what the service
/// answers when it does not take a group. In the first two cases nothing was sent.
pub fn run(args: &ImportArgs, target: &Target) -> Result<Exit, Failure> {
    let name = args.name();
    let list = List::parse(&args.read()?, args.format);
    let judged = if args.skip_invalid { Invalid::Skip } else { Invalid::Refuse };
    judge_lines(&name, &list, judged)?;
    judge_width(&name, &list, args.command.width())?;
    let ranges: Vec<Range> = list.ranges.iter().map(|listed| listed.range).collect();
    let commands = args.command.commands(Action::Blacklist { expires_at: None }, &ranges)?;
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Write };
    let tally = Tally { ranges: ranges.len(), lines_skipped: list.bad.len(), ..Tally::default() };
    let tally = send(&commands, target, mode, tally)?;
    let mut output = Output::lock();
    output.line(show(&tally, mode, args.json.into()))?;
    output.flush()?;
    Ok(if tally.refused > 0 { Exit::Refused } else { Exit::Done })
}

impl ImportArgs {
    /// What the file is called in notes and errors.
    fn name(&self) -> String {
        if self.is_standard_input() { "standard input".to_owned() } else { self.file.display().to_string() }
    }

    fn is_standard_input(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// All bytes of the file. One byte beyond the limit is asked for, so that a file that is too long is
    /// refused rather than cut.
    fn read(&self) -> Result<Vec<u8>, Failure> {
        let unreadable =
            |error: io::Error| Failure::usage(format!("{}: cannot be read: {error}", self.name()));
        let mut input: Box<dyn Read> = match self.is_standard_input() {
            true => Box::new(io::stdin().lock()),
            false => Box::new(File::open(&self.file).map_err(unreadable)?),
        };
        let mut bytes = Vec::new();
        input.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Failure::usage(format!("{}: longer than {FILE_BYTES_MAX} bytes", self.name())));
        }
        Ok(bytes)
    }
}

/// What is done about lines that hold no range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Invalid {
    Refuse,
    Skip,
}

/// Tells which lines are bad, also those that are skipped, and refuses the list for them unless they are.
fn judge_lines(name: &str, list: &List, invalid: Invalid) -> Result<(), Failure> {
    report(name, &list.bad);
    let bad = counted(list.bad.len() as u128, "line holds", "lines hold");
    if !list.bad.is_empty() && invalid == Invalid::Refuse {
        return Err(Failure::usage(format!(
            "{name}: {bad} no range, so that nothing was taken; --skip-invalid leaves them out"
        )));
    }
    if list.ranges.is_empty() {
        return Err(Failure::usage(format!("{name}: there is no range in it")));
    }
    Ok(())
}

/// Looked at before anything is sent, because the service would refuse the group in the middle of the list.
fn judge_width(name: &str, list: &List, width: Width) -> Result<(), Failure> {
    let wide = list.ranges.iter().filter(|listed| width == Width::Limited && is_too_wide(listed.range));
    let wide: Vec<BadLine> = wide
        .map(|listed| BadLine { line: listed.line, reason: format!("{} is too broad", listed.range) })
        .collect();
    if wide.is_empty() {
        return Ok(());
    }
    report(name, &wide);
    let ranges = counted(wide.len() as u128, "range is", "ranges are");
    Err(Failure::refused(format!(
        "{name}: {ranges} wider than a /8 of IPv4 or a /19 of IPv6, so that nothing was taken; --force allows it"
    )))
}

/// Notes the first lines as `name:line: reason`, which editors can jump to, and how many more there are.
fn report(name: &str, lines: &[BadLine]) {
    for BadLine { line, reason } in lines.iter().take(REPORTED_LINES_MAX) {
        note(&format!("{name}:{line}: {reason}"));
    }
    if let more @ 1.. = lines.len().saturating_sub(REPORTED_LINES_MAX) {
        note(&format!("{name}: and {more} more lines"));
    }
}

/// Sends all groups in order and adds up what became of them.
fn send(commands: &[Command], target: &Target, mode: Mode, mut tally: Tally) -> Result<Tally, Failure> {
    let groups = commands.chunks(GROUP_COMMANDS_MAX);
    let total = groups.len();
    let mut writer = Writer::connect(target, mode, total)?;
    let bar = progress(commands.len());
    let started = Instant::now();
    for (sent, group) in groups.enumerate() {
        // The log's order is the fold's order: once the last group is applied, all of them are.
        if sent + 1 == total {
            writer.wait_until_applied();
        }
        // The bar gives way to the note, else the two would mix on the terminal.
        let verdict = writer.send(group, &|line| bar.suspend(|| note(line)));
        let verdict = verdict
            .map_err(|failure| cut_short(failure, &tally, total))
            .inspect_err(|_| bar.finish_and_clear())?;
        tally.add(&verdict);
        bar.inc(group.len() as u64);
    }
    bar.finish_and_clear();
    tell_rate(commands.len(), started.elapsed());
    Ok(tally)
}

/// Told on a terminal only, like the progress before it: it is no trouble that a script should look at.
fn tell_rate(commands: usize, elapsed: Duration) {
    if io::stderr().is_terminal() {
        let seconds = elapsed.as_secs_f64();
        let rate = commands as f64 / seconds.max(f64::MIN_POSITIVE);
        let commands = counted(commands as u128, "command", "commands");
        note(&format!("{commands} in {seconds:.2} s, {rate:.0} commands/s"));
    }
}

impl Tally {
    /// Adds what became of one group.
    fn add(&mut self, verdict: &Verdict) {
        self.groups += 1;
        self.position = verdict.position().or(self.position);
        self.rows_changed += verdict.rows_changed.unwrap_or_default();
        self.addresses_changed =
            self.addresses_changed.saturating_add(verdict.addresses_changed.unwrap_or_default());
        self.refused += verdict.refused.as_ref().map_or(0, Refused::failures);
    }
}

/// A failure on the way, with what was taken before it. Groups that were taken stay taken, and to import a
/// list twice changes nothing.
fn cut_short(failure: Failure, tally: &Tally, total: usize) -> Failure {
    match tally.position {
        Some(position) => failure.and(&format!(
            "{} of {total} groups were taken, up to position {position}; importing the whole file again is harmless",
            tally.groups
        )),
        None => failure,
    }
}

/// A bar in commands, drawn on a terminal only.
fn progress(commands: usize) -> ProgressBar {
    let bar = ProgressBar::new(commands as u64);
    let template = "{wide_bar} {human_pos}/{human_len} commands, {per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The result in one line. The groups of a dry run are each judged against the list as it is, so that their
/// sum counts twice what two of them would change.
fn show(tally: &Tally, mode: Mode, format: Format) -> String {
    let Tally { ranges, lines_skipped, groups, position, rows_changed, addresses_changed, refused } = *tally;
    if format == Format::Json {
        let dry = |count| (mode == Mode::DryRun).then(|| exact(count));
        return json!({
            "ranges": ranges, "lines_skipped": lines_skipped, "groups": groups, "position": position,
            "rows_changed": dry(rows_changed), "addresses_changed": dry(addresses_changed),
            "refused": refused,
        })
        .to_string();
    }
    let ranges = counted(ranges as u128, "range", "ranges");
    let lines = counted(lines_skipped as u128, "line", "lines");
    let in_groups = format!("({lines} skipped) in {}", counted(groups as u128, "group", "groups"));
    let rows = counted(rows_changed, "row", "rows");
    let addresses = counted(addresses_changed, "address", "addresses");
    match (mode, position) {
        (Mode::DryRun, _) if refused > 0 => format!(
            "{ranges} {in_groups}, each judged alone: {refused} would be refused, and an import ends before the \
             first group with one; the rest alone would change {rows}, {addresses}"
        ),
        (Mode::DryRun, _) => {
            format!("would import {ranges} {in_groups}, each judged alone: change {rows}, {addresses}")
        }
        (_, Some(position)) if refused > 0 => format!(
            "imported {ranges} {in_groups}; position {position}; {refused} of the last group had no effect"
        ),
        (_, Some(position)) => format!("imported {ranges} {in_groups}; position {position}"),
        (_, None) => format!("imported {ranges} {in_groups}"),
    }
}
