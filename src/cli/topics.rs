//! `portcullis topics`: the two topics of Kafka, created as they are to be, and checked.
//!
//! These verbs talk to Kafka itself, as the configuration says, and to no running service.

mod genesis;

use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::json;

use self::genesis::{When, begin, is_empty};
use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output, note};
use crate::cli::process::{ConfigArgs, kafka_log};
use crate::cli::table::read;
use crate::log::Identity;
use crate::log::kafka::KafkaLog;
use crate::log::kafka::topics::{Created, Finding, Severity};
use crate::record::{Position, Timestamp};
use crate::verify::BEGIN_ANEW;

/// The flags of `topics`.
#[derive(Args, Clone, Debug)]
pub struct TopicsArgs {
    #[command(subcommand)]
    verb: TopicsVerb,
}

#[derive(Clone, Debug, Subcommand)]
enum TopicsVerb {
    /// Create what is not there, set as it is to be; what is there stays as it is
    #[command(after_help = "Example: portcullis topics create --config portcullis.toml")]
    Create(TopicsFlags),
    /// Say what is not set as it is to be, why that matters and what mends it; exit code 1 if anything is
    #[command(after_help = "Example: portcullis topics check --json")]
    Check(TopicsFlags),
}

/// The flags that both have.
#[derive(Args, Clone, Debug)]
struct TopicsFlags {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Creates the topics, or checks them.
///
/// # Errors
/// [`Exit::Usage`] when the configuration is wrong or names no Kafka; [`Exit::Unavailable`] when Kafka can't
/// be asked, or does not let us.
pub fn run(args: &TopicsArgs, target: &Target) -> Result<Exit, Failure> {
    match &args.verb {
        TopicsVerb::Create(flags) => create(&kafka_log("topics", &flags.config, target)?, flags.json.into()),
        TopicsVerb::Check(flags) => check(&kafka_log("topics", &flags.config, target)?, flags.json.into()),
    }
}

fn create(log: &KafkaLog, format: Format) -> Result<Exit, Failure> {
    let mut output = Output::lock();
    let created = log.create_topics().map_err(Failure::unavailable)?;
    for topic in &created {
        output.line(show_created(topic, format))?;
    }
    if let Some(table) = log.table_topic() {
        let identity = log.identity().map_err(Failure::unavailable)?;
        let is_new = created.iter().any(|topic| topic.created && topic.topic == table);
        let topic_created = if is_new { When::Now } else { When::Before };
        let now = Timestamp::from(SystemTime::now());
        let begun = begin(log, identity, topic_created, now).map_err(Failure::unavailable)?;
        output.line(show_begun(table, begun, format))?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

fn show_created(Created { topic, created, replicas }: &Created, format: Format) -> String {
    match (format, created) {
        (Format::Json, _) => json!({"topic": topic, "created": created, "replicas": replicas}).to_string(),
        (Format::Text, true) => format!("created {topic}: 1 partition, replicas: {replicas}"),
        (Format::Text, false) => format!("{topic} is there already; `portcullis topics check` looks at it"),
    }
}

fn show_begun(table: &str, begun: When, format: Format) -> String {
    match (format, begun) {
        (Format::Json, begun) => json!({"topic": table, "watermark_written": begun == When::Now}).to_string(),
        (Format::Text, When::Now) => format!("began the table in {table}: position 0, no rows"),
        (Format::Text, When::Before) => format!("the table in {table} is begun already"),
    }
}

fn check(log: &KafkaLog, format: Format) -> Result<Exit, Failure> {
    let mut found = log.check_topics().map_err(Failure::unavailable)?;
    if let Some(table) = log.table_topic() {
        let finding = check_table(log, table).map_err(Failure::unavailable)?;
        finding.into_iter().for_each(|finding| found.findings.insert(0, finding));
    }
    let lost = check_start(log).map_err(Failure::unavailable)?;
    lost.into_iter().for_each(|finding| found.findings.insert(0, finding));
    for topic in &found.unseen {
        note(&format!("we may not see how {topic} is set: grant DescribeConfigs on it"));
    }
    let mut output = Output::lock();
    match format {
        Format::Json => output.line(json!(found))?,
        Format::Text => {
            for finding in &found.findings {
                output.line(show_finding(finding))?;
            }
            if found.findings.is_empty() && found.unseen.is_empty() {
                output.line("all settings are as they are to be")?;
            }
        }
    }
    output.flush()?;
    Ok(if found.findings.is_empty() { Exit::Done } else { Exit::No })
}

/// What is wrong with the table itself: that it was never begun, or belongs to another log.
fn check_table(log: &KafkaLog, name: &str) -> Result<Option<Finding>, String> {
    let table = read(log)?;
    let anew = "portcullis table rebuild";
    let finding = |found: String, wanted: String, why, mend: &str| Finding {
        severity: Severity::Refused,
        topic: name.to_owned(),
        setting: "watermark",
        found,
        wanted,
        why,
        mend: mend.to_owned(),
    };
    let watermark = match table.watermark() {
        Some(Ok(watermark)) => watermark,
        Some(Err(error)) => {
            let why = "this release must not build on it";
            return Ok(Some(finding(error.to_string(), "one of this release".to_owned(), why, anew)));
        }
        None => {
            let why = "nobody can tell an empty blacklist from a table that was lost";
            let mend = if is_empty(&table) { "portcullis topics create" } else { anew };
            return Ok(Some(finding("none".to_owned(), "one".to_owned(), why, mend)));
        }
    };
    let Identity { cluster_id, commands_topic } = log.identity()?;
    let (_, end) = log.commands_ends()?;
    let made_from = format!("{} of {}", watermark.commands_topic, watermark.cluster_id);
    let there = format!("{commands_topic} of {cluster_id}");
    let why = "the table was made from another log, or from one that was replaced";
    Ok(if made_from != there {
        Some(finding(made_from, there, why, anew))
    } else if watermark.position > end {
        let found = format!("position {}", watermark.position);
        Some(finding(found, format!("at most {end}, where the commands end"), why, anew))
    } else {
        None
    })
}

/// What is wrong if the commands no longer begin with the first: nobody can fold them any more.
fn check_start(log: &KafkaLog) -> Result<Option<Finding>, String> {
    let (start, _) = log.commands_ends()?;
    Ok((start > Position::START).then(|| Finding {
        severity: Severity::Advised,
        topic: log.commands_topic().to_owned(),
        setting: "log start",
        found: start.to_string(),
        wanted: Position::START.to_string(),
        why: "a table that is lost can't be made anew, and who starts may find a gap",
        mend: BEGIN_ANEW.to_owned(),
    }))
}

fn show_finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Refused => "wrong",
        Severity::Advised => "advice",
    };
    format!("{severity}: {finding}\n    mend it: {}", finding.mend)
}
