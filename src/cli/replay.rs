//! `portcullis replay`: what the commands come to, up to a position or a time.
//!
//! ```text
//!   on Kafka            the log itself, as the configuration says
//!   embedded log        the service, which has its file open ─► no service is there ─► the file
//! ```
//!
//! A service that was named is the only one that is asked, as by every verb.

use clap::Args;
use serde_json::Value;

use crate::cli::connect::{Intent, Target, ask};
use crate::cli::failure::{Exit, Failure, shown};
use crate::cli::output::{Format, Output, note};
use crate::cli::process::ConfigArgs;
use crate::cli::project::parse_offset;
use crate::cli::reading::Reading;
use crate::cli::status::words;
#[cfg(feature = "kafka")]
use crate::cli::table::read;
use crate::config::Config;
use crate::http::client::Request;
use crate::http::summary;
use crate::log::Log;
use crate::log::embedded::FILE_NAME;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::log::settings::KafkaSettings;
use crate::record::{Offset, Timestamp};
use crate::replay::{Plan, ReplayError, Until, replay};
use crate::service::IdleLog;

/// The flags of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Up to where: everything before this position, or up to the last command of this time
    /// [default: the end of the log]
    #[arg(long, value_name = "TIME|POSITION", value_parser = parse_until)]
    until: Option<Until>,
    /// Pass over the command of a later release at this offset; repeatable
    #[arg(long = "skip-offset", value_name = "N", value_parser = parse_offset)]
    skip_offsets: Vec<Offset>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl ReplayArgs {
    fn plan(&self, config: &Config) -> Plan {
        Plan {
            until: self.until.unwrap_or_default(),
            skipped: config.log.skip_offsets.iter().copied().collect(),
            skip_offsets: self.skip_offsets.iter().copied().collect(),
        }
    }
}

/// For clap: a position, or a time with any offset.
fn parse_until(text: &str) -> Result<Until, String> {
    let hint = "write a position like 814, or a time like 2026-12-01T00:00:00Z or 2026-12-01T02:00:00+02:00";
    let time = || text.parse().ok().map(|time: jiff::Timestamp| time.as_millisecond());
    let until = text.parse().ok().or_else(|| time().map(Timestamp::from_millis).map(Until::Time));
    until.ok_or_else(|| hint.to_owned())
}

/// Folds the log and prints what it comes to.
///
/// # Errors
/// [`Exit::Usage`] when the log does not reach to where it is to be folded; [`Exit::Refused`] when a command
/// of the future stands in the way; [`Exit::Unavailable`] when the log can't be read.
pub fn run(args: &ReplayArgs, target: &Target) -> Result<Exit, Failure> {
    let config = args.config.load(target)?;
    let kafka = config.log.kafka().map_err(Failure::usage)?;
    let asks_service = target.args.url.is_some() || target.args.data.is_some();
    let summary = match kafka {
        Some(_) if asks_service && args.config.is_given() => {
            return Err(Failure::usage(
                "replay reads Kafka as --config says, or asks the service of --url or --data: name one of them",
            ));
        }
        Some(settings) if !asks_service => of_kafka(settings, args, &config)?,
        _ => of_service(args, &config, target)?,
    };
    let mut output = Output::lock();
    match Format::from(args.json) {
        Format::Json => output.line(&summary)?,
        Format::Text => lines(&summary).iter().try_for_each(|line| output.line(line))?,
    }
    output.flush()?;
    if summary.get("began").and_then(Value::as_u64).is_some_and(|began| began > 0) {
        note("the log no longer begins with its first command: this is no list that any reader has");
    }
    Ok(Exit::Done)
}

/// What the topic comes to. What the table's watermark says is passed over, every reader passes over.
#[cfg(feature = "kafka")]
fn of_kafka(settings: KafkaSettings, args: &ReplayArgs, config: &Config) -> Result<Value, Failure> {
    let log = KafkaLog::new(settings).map_err(Failure::usage)?;
    let mut plan = args.plan(config);
    if log.table_topic().is_some() {
        let table = read(&log).map_err(Failure::unavailable)?;
        if let Some(Ok(watermark)) = table.watermark() {
            plan.skipped.clone_from(&watermark.skipped);
        }
    }
    folded(&log, &plan)
}

/// The configuration refuses Kafka in this build before that.
#[cfg(not(feature = "kafka"))]
fn of_kafka(_: KafkaSettings, _: &ReplayArgs, _: &Config) -> Result<Value, Failure> {
    Err(Failure::usage("this program was built without Kafka"))
}

/// What the log of a service comes to. Where none runs, its file is read, unless a service was named.
fn of_service(args: &ReplayArgs, config: &Config, target: &Target) -> Result<Value, Failure> {
    let plan = args.plan(config);
    match target.connect(Intent::Read) {
        Ok(mut client) => {
            let body = ask(&mut client, &request(&plan))?;
            serde_json::from_slice(&body).map_err(|error| {
                Failure::unavailable(format!("the answer of the service makes no sense: {error}"))
            })
        }
        Err(failure) if failure.exit() != Exit::Unavailable || target.names_url() => Err(failure),
        Err(failure) => match target.data() {
            Ok(data) if data.join(FILE_NAME).exists() => {
                let idle = IdleLog::open(&data).map_err(Failure::unavailable)?;
                folded(idle.log(), &plan)
            }
            _ => Err(failure.and(&format!("and there is no {FILE_NAME} to read in its place"))),
        },
    }
}

/// The question for a service, which knows itself what is passed over.
fn request(plan: &Plan) -> Request {
    let until = (plan.until != Until::End).then(|| format!("until={}", plan.until));
    let offsets: Vec<String> = plan.skip_offsets.iter().map(Offset::to_string).collect();
    let skip = (!offsets.is_empty()).then(|| format!("skip_offsets={}", offsets.join(",")));
    let query: Vec<String> = until.into_iter().chain(skip).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    Request { path: format!("/v1/replay{mark}{}", query.join("&")), ..Request::default() }
}

/// Folds a log here.
fn folded(log: &dyn Log, plan: &Plan) -> Result<Value, Failure> {
    let mut reading = Reading::new();
    let replayed = replay(log, plan, &mut |progress| reading.goes_on(progress));
    replayed.map(|replayed| summary(&replayed)).map_err(|error| failure(&error))
}

fn failure(error: &ReplayError) -> Failure {
    match error {
        ReplayError::Future(future) => {
            Failure::refused(format!("{future}; upgrade portcullis, or --skip-offset {}", future.offset))
        }
        ReplayError::Log(_) | ReplayError::GivenUp(_) => Failure::unavailable(error),
        _ => Failure::usage(error),
    }
}

/// The lines for people.
fn lines(summary: &Value) -> Vec<String> {
    let text = |key: &str| shown(&words(summary.get(key).unwrap_or(&Value::Null)));
    let by_family = |key: &str| {
        let count = |family| summary.get(key).and_then(|counts| counts.get(family)).map(words);
        let [ipv4, ipv6] = ["ipv4", "ipv6"].map(|family| count(family).unwrap_or_default());
        shown(&format!("{ipv4} IPv4, {ipv6} IPv6"))
    };
    let began = text("began");
    let began = match began.as_str() {
        "0" => began,
        _ => format!("{began}: what came before is gone, and not in it"),
    };
    let skipped = summary.get("skipped").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let skipped: Vec<String> = skipped.iter().map(words).collect();
    let skipped = if skipped.is_empty() { "nothing".to_owned() } else { skipped.join(", ") };
    let named = [
        ("position", text("position")),
        ("time", text("time")),
        ("rows", by_family("rows")),
        ("addresses", by_family("addresses")),
        ("fingerprint", text("fingerprint")),
        ("refused", text("refused")),
        ("skipped", skipped),
        ("began", began),
    ];
    named.into_iter().map(|(name, text)| format!("{name:<11} {text}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Position;

    #[test]
    fn until_is_a_position_or_a_time_in_any_zone() {
        assert_eq!(parse_until("814"), Ok(Until::Position(Position::new(814))));
        let time = Ok(Until::Time(Timestamp::from_millis(1_796_083_200_000)));
        assert_eq!(parse_until("2026-12-01T00:00:00Z"), time);
        assert_eq!(parse_until("2026-12-01T02:00:00+02:00"), time);
        for text in ["", "-1", "tomorrow", "2026-12-01"] {
            assert!(parse_until(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_is_asked_for_no_more_than_was_asked_for() {
        assert_eq!(request(&Plan::default()).path, "/v1/replay");
        let until = Until::Time(Timestamp::from_millis(0));
        let skip_offsets = [Offset::new(7), Offset::new(9)].into();
        let plan = Plan { until, skip_offsets, skipped: [Offset::new(1)].into() };
        assert_eq!(request(&plan).path, "/v1/replay?until=1970-01-01T00:00:00.000Z&skip_offsets=7,9");
    }
}
