//! `portcullis blacklist` and `portcullis whitelist`: a few ranges, now.
//!
//! All ranges of a call become commands in their order, usually of one group, which is taken as a whole or
//! not at all. Times are made absolute here: `--for` counts from the moment at which it is parsed, so that a
//! repetition of the same request means the same end.
//!
//! What is printed is the command and where it ended up, as far as that is certain. Where the service says
//! that a command is refused, that is no success, though the log has it: the exit code says so.

use std::time::SystemTime;

use clap::Args;
use jiff::Span;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::address::Range;
use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::list::in_words;
use crate::cli::output::{Format, Output, counted, note};
use crate::cli::write::{CommandArgs, Mode, Refused, Verdict, Writer};
use crate::command::{Action, Command};
use crate::http::{GROUP_COMMANDS_MAX, exact};
use crate::record::Timestamp;

/// The flags of `blacklist`.
#[derive(Args, Clone, Debug)]
pub struct BlacklistArgs {
    #[command(flatten)]
    edit: EditArgs,
    /// How long the ban lasts: 90s, 2h, 3d 12h, 1 month [default: for ever]
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "until", value_parser = parse_for)]
    expires_in: Option<Timestamp>,
    /// When the ban ends: 2026-12-01T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_until)]
    until: Option<Timestamp>,
}

/// The flags of `whitelist`.
#[derive(Args, Clone, Debug)]
pub struct WhitelistArgs {
    #[command(flatten)]
    edit: EditArgs,
}

/// What both verbs are told.
#[derive(Args, Clone, Debug)]
struct EditArgs {
    /// The ranges: 203.0.113.7, 203.0.113.0/24 or 203.0.113.0-203.0.113.99, IPv4 or IPv6
    #[arg(required = true, value_name = "RANGE", value_parser = parse_range)]
    ranges: Vec<Range>,
    #[command(flatten)]
    command: CommandArgs,
    /// Change nothing; say what would change
    #[arg(long)]
    dry_run: bool,
    /// Wait until lookups know it
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl EditArgs {
    /// What the flags ask for; clap keeps `--wait` out of a dry run.
    const fn mode(&self) -> Mode {
        match (self.dry_run, self.wait) {
            (true, _) => Mode::DryRun,
            (false, true) => Mode::WriteAndWait,
            (false, false) => Mode::Write,
        }
    }
}

/// For clap: errors say what was probably meant.
fn parse_range(text: &str) -> Result<Range, String> {
    text.parse().map_err(|error| in_words(&error))
}

/// Reads a duration and counts it from now; months and years are those of the UTC calendar.
fn parse_for(text: &str) -> Result<Timestamp, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}; write it like 90s, 2h or 3d 12h"))?;
    let now = Timestamp::from(SystemTime::now());
    expiry(span, now).ok_or_else(|| "a ban ends after it begins, and before the year 9999 ends".to_owned())
}

/// The end of a ban; none if it would not come after now, or is later than a command can hold.
fn expiry(span: Span, now: Timestamp) -> Option<Timestamp> {
    let start = jiff::Timestamp::from_millisecond(now.millis()).ok()?.to_zoned(TimeZone::UTC);
    let end = Timestamp::from_millis(start.checked_add(span).ok()?.timestamp().as_millisecond());
    (now < end && end <= Timestamp::LATEST).then_some(end)
}

/// Reads a time with any offset, and cuts it to milliseconds. One that is over already is left to the service
/// to refuse, whose clock counts.
fn parse_until(text: &str) -> Result<Timestamp, String> {
    let hint = "write it like 2026-12-01T00:00:00Z or 2026-12-01T02:00:00+02:00";
    let time: jiff::Timestamp = text.parse().map_err(|error| format!("{error}; {hint}"))?;
    let time = Timestamp::from_millis(time.as_millisecond());
    if time > Timestamp::LATEST { Err(format!("a ban ends by {}", Timestamp::LATEST)) } else { Ok(time) }
}

/// Blacklists the ranges, for ever or until an end.
///
/// # Errors
/// When they are not taken. Of several groups, those before stay taken.
pub fn blacklist(args: &BlacklistArgs, target: &Target) -> Result<Exit, Failure> {
    run(&args.edit, Action::Blacklist { expires_at: args.expires_in.or(args.until) }, target)
}

/// Frees the ranges.
///
/// # Errors
/// When they are not taken.
pub fn whitelist(args: &WhitelistArgs, target: &Target) -> Result<Exit, Failure> {
    run(&args.edit, Action::Whitelist, target)
}

/// Both verbs: sends the commands and prints what became of them, group by group.
fn run(args: &EditArgs, action: Action, target: &Target) -> Result<Exit, Failure> {
    let commands = args.command.commands(action, &args.ranges)?;
    let groups = commands.chunks(GROUP_COMMANDS_MAX);
    let mut writer = Writer::connect(target, args.mode(), groups.len())?;
    let mut output = Output::lock();
    let mut exit = Exit::Done;
    for group in groups {
        let verdict = writer.send(group, &note)?;
        print(&mut output, group, &verdict, args.json.into())?;
        exit = worse(exit, judge(&verdict));
    }
    output.flush()?;
    Ok(exit)
}

/// A verdict is bad news when the log has the commands and they do nothing, or nothing yet.
fn judge(verdict: &Verdict) -> Exit {
    match &verdict.refused {
        Some(refused) if refused.failures() > 0 => Exit::Refused,
        _ if verdict.pending => {
            note("not applied yet, and the wait is over; the commands are in the log and will be");
            Exit::Unavailable
        }
        _ => Exit::Done,
    }
}

/// The exit code that matters more to a script: the higher one.
fn worse(a: Exit, b: Exit) -> Exit {
    if (a as u8) < (b as u8) { b } else { a }
}

/// A line for each command, and one for the effect of the group; of one command all in one line.
fn print(output: &mut Output, group: &[Command], verdict: &Verdict, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output.line(as_json(group, verdict));
    }
    if let [command] = group {
        let effect = effect(verdict).map(|effect| format!(" {effect}")).unwrap_or_default();
        return output.line(format!("{}{effect}", place(command, Place::of(0, group, verdict))));
    }
    for (index, command) in group.iter().enumerate() {
        output.line(place(command, Place::of(index, group, verdict)))?;
    }
    effect_of_group(group.len(), verdict).map_or(Ok(()), |effect| output.line(effect))
}

/// Where a command of a group ended up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Nowhere: it was a dry run.
    Nowhere,
    /// At this offset.
    At(u64),
    /// At this offset or before, with others of its group that were in the log already.
    UpTo(u64),
    /// In the log already, at this offset or before.
    Known(u64),
}

impl Place {
    /// A group is written at once, so that its offsets follow each other.
    fn of(index: usize, group: &[Command], verdict: &Verdict) -> Self {
        let Some(last) = verdict.offset.map(|offset| offset.number()) else { return Self::Nowhere };
        let behind = (group.len() - 1).saturating_sub(index) as u64;
        let whole = verdict.count.is_none_or(|count| count == group.len() as u64);
        match last.checked_sub(behind) {
            _ if verdict.duplicate => Self::Known(last),
            Some(offset) if whole => Self::At(offset),
            _ => Self::UpTo(last),
        }
    }
}

/// A command and where it is, in words.
fn place(command: &Command, place: Place) -> String {
    let until = match command.action {
        Action::Blacklist { expires_at: Some(expires_at) } => format!(" until {expires_at}"),
        _ => String::new(),
    };
    let edit = format!("{} {}{until}", command.action.verb(), command.range);
    match place {
        Place::Nowhere => edit,
        Place::At(offset) => format!("{edit} at offset {offset}"),
        Place::UpTo(offset) => format!("{edit} in the log by offset {offset}"),
        Place::Known(offset) => format!("{edit} already in the log by offset {offset}"),
    }
}

/// What became of a command, or would; none where that is not known.
fn effect(verdict: &Verdict) -> Option<String> {
    match &verdict.refused {
        Some(reason) => Some(format!("{}: {reason}", refused(verdict))),
        None => change(verdict),
    }
}

/// The same for several commands together, of which some may have an effect and some not.
fn effect_of_group(commands: usize, verdict: &Verdict) -> Option<String> {
    let ranges = counted(commands as u128, "range", "ranges");
    let Some(Refused::Several(count)) = verdict.refused else {
        return effect(verdict).map(|effect| format!("{ranges} {effect}"));
    };
    let some = format!("{count} of {ranges} {}", refused(verdict));
    let rest = change(verdict).filter(|_| count < commands as u64);
    Some(match rest {
        // The service takes all commands of a request or none of them.
        Some(change) if verdict.is_dry() => {
            format!("{some}, so that none would be taken; the rest alone {change}")
        }
        Some(change) => format!("{some}; the rest {change}"),
        None => some,
    })
}

fn change(verdict: &Verdict) -> Option<String> {
    let Some(rows) = verdict.rows_changed else {
        return verdict.changed.map(|rows| format!("changed {}", counted(rows, "row", "rows")));
    };
    let addresses = counted(verdict.addresses_changed.unwrap_or_default(), "address", "addresses");
    Some(format!("would change {}, {addresses}", counted(rows, "row", "rows")))
}

const fn refused(verdict: &Verdict) -> &'static str {
    if verdict.is_dry() { "would be refused" } else { "refused" }
}

/// The same for programs: an offset that is not certain is null.
fn as_json(group: &[Command], verdict: &Verdict) -> Value {
    let commands = group.iter().enumerate().map(|(index, command)| {
        let offset = match Place::of(index, group, verdict) {
            Place::At(offset) => Some(offset),
            _ => None,
        };
        json!({"action": command.action.verb(), "range": command.range.to_string(), "offset": offset})
    });
    json!({
        "commands": commands.collect::<Vec<_>>(),
        "offset": verdict.offset,
        "duplicate": verdict.duplicate,
        "rows_changed": verdict.changed.or(verdict.rows_changed).map(exact),
        "addresses_changed": verdict.addresses_changed.map(exact),
        "refused": verdict.refused,
        "pending": verdict.pending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Offset;

    fn time(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    #[test]
    fn a_duration_counts_from_now() {
        let now = time("2026-01-31T12:00:00Z");
        for (text, end) in [
            ("90s", "2026-01-31T12:01:30Z"),
            ("2h", "2026-01-31T14:00:00Z"),
            ("3d 12h", "2026-02-04T00:00:00Z"),
            ("2 weeks", "2026-02-14T12:00:00Z"),
            ("1 month", "2026-02-28T12:00:00Z"),
            ("PT1H", "2026-01-31T13:00:00Z"),
        ] {
            assert_eq!(expiry(text.parse().expect(text), now), Some(time(end)), "{text}");
        }
        for text in ["0s", "-2h", "9000y", "2h ago"] {
            assert_eq!(expiry(text.parse().expect(text), now), None, "{text}");
        }
        for text in ["", "2", "soon", "2 hours or so", "0s"] {
            assert!(parse_for(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339() {
        assert_eq!(parse_until("2026-12-01T02:00:00+02:00"), Ok(time("2026-12-01T00:00:00Z")));
        assert_eq!(parse_until("2026-12-01T00:00:00.1239Z"), Ok(time("2026-12-01T00:00:00.123Z")));
        for text in ["", "tomorrow", "2026-12-01", "2026-12-01T00:00:00", "9999-12-30T22:00:01Z"] {
            assert!(parse_until(text).is_err(), "{text}");
        }
    }

    fn group(length: usize) -> Vec<Command> {
        let range = "203.0.113.0/24".parse().expect("a range");
        vec![Command::new(Action::Whitelist, range); length]
    }

    #[test]
    fn offsets_are_told_only_where_they_are_known() {
        let taken = |count, duplicate| Verdict {
            offset: Some(Offset::new(815)),
            count,
            duplicate,
            ..Verdict::default()
        };
        let places = |length, verdict: Verdict| {
            let group = group(length);
            (0..length).map(|index| Place::of(index, &group, &verdict)).collect::<Vec<_>>()
        };
        assert_eq!(places(2, taken(Some(2), false)), [Place::At(814), Place::At(815)]);
        assert_eq!(places(2, taken(Some(1), false)), [Place::UpTo(815); 2]);
        assert_eq!(places(2, taken(None, true)), [Place::Known(815); 2]);
        assert_eq!(places(2, Verdict::default()), [Place::Nowhere; 2]);
    }

    fn only(word: &str) -> Option<Refused> {
        Some(Refused::Only(word.to_owned()))
    }

    fn changed(rows: u128, refused: Option<Refused>) -> Verdict {
        Verdict { changed: Some(rows), refused, ..Verdict::default() }
    }

    fn would_change(rows: u128, addresses: u128, refused: Option<Refused>) -> Verdict {
        let (rows_changed, addresses_changed) = (Some(rows), Some(addresses));
        Verdict { rows_changed, addresses_changed, refused, ..Verdict::default() }
    }

    #[test]
    fn the_effect_is_told_in_words() {
        let cases = [
            (changed(2, None), Some("changed 2 rows")),
            (changed(1, None), Some("changed 1 row")),
            (would_change(2, 250, None), Some("would change 2 rows, 250 addresses")),
            (would_change(0, 0, only("expired")), Some("would be refused: expired")),
            (changed(0, only("too_broad")), Some("refused: too_broad")),
            (Verdict::default(), None),
        ];
        for (verdict, text) in cases {
            assert_eq!(effect(&verdict).as_deref(), text);
        }
    }

    #[test]
    fn of_a_group_is_told_how_many_are_refused_and_what_becomes_of_the_rest() {
        let several = |count| Some(Refused::Several(count));
        let cases = [
            (changed(2, None), Some("3 ranges changed 2 rows")),
            (would_change(2, 250, None), Some("3 ranges would change 2 rows, 250 addresses")),
            (
                would_change(1, 1 << 24, several(2)),
                Some(
                    "2 of 3 ranges would be refused, so that none would be taken; \
                     the rest alone would change 1 row, 16777216 addresses",
                ),
            ),
            (would_change(0, 0, several(3)), Some("3 of 3 ranges would be refused")),
            (changed(1, several(1)), Some("1 of 3 ranges refused; the rest changed 1 row")),
            (changed(0, several(3)), Some("3 of 3 ranges refused")),
            (Verdict::default(), None),
        ];
        for (verdict, text) in cases {
            assert_eq!(effect_of_group(3, &verdict).as_deref(), text);
        }
    }

    #[test]
    fn what_has_no_effect_is_no_success() {
        assert_eq!(judge(&changed(0, only("too_broad"))), Exit::Refused);
        assert_eq!(judge(&changed(0, only("duplicate"))), Exit::Done);
        assert_eq!(judge(&changed(1, Some(Refused::Several(1)))), Exit::Refused);
        assert_eq!(judge(&Verdict { pending: true, ..Verdict::default() }), Exit::Unavailable);
    }
}
