//! The rules of the two topics: what each setting is to be, how bad it is if it is not, and why.

use std::collections::HashMap;

use super::{Finding, Severity, TopicPartitions};
use crate::log::Topic;
use crate::log::kafka::client::Clients;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// Exactly this.
    Is(&'static str),
    /// At least so much.
    AtLeast(i64),
    /// At most so much.
    AtMost(i64),
    /// One less than there are replicas, but at least one.
    AllReplicasButOne,
}

/// A rule about one setting.
pub(super) struct Rule {
    pub(super) setting: &'static str,
    pub(super) want: Want,
    severity: Severity,
    why: &'static str,
}

const fn refused(setting: &'static str, want: Want, why: &'static str) -> Rule {
    Rule { setting, want, severity: Severity::Refused, why }
}

const fn advised(setting: &'static str, want: Want, why: &'static str) -> Rule {
    Rule { setting, want, severity: Severity::Advised, why }
}

const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const HOUR_MS: i64 = 3_600_000;

const COMMANDS_RULES: [Rule; 4] = [
    refused("cleanup.policy", Want::Is("delete"), "compaction would take commands away"),
    refused(
        "message.timestamp.type",
        Want::Is("LogAppendTime"),
        "a sender's clock would decide when bans end",
    ),
    refused(RETENTION_MS, Want::Is("-1"), "commands would be forgotten, and with them what they blacklist"),
    refused(
        RETENTION_BYTES,
        Want::Is("-1"),
        "commands would be forgotten, and with them what they blacklist",
    ),
];

const TABLE_RULES: [Rule; 6] = [
    refused("cleanup.policy", Want::Is("compact"), "rows would be deleted by age, or never tidied up"),
    advised(
        "delete.retention.ms",
        Want::AtLeast(24 * HOUR_MS),
        "a reader that is slower than this misses that a row is gone",
    ),
    advised(
        "segment.ms",
        Want::AtMost(HOUR_MS),
        "the open segment is never compacted, and every start reads it",
    ),
    advised(
        "segment.bytes",
        Want::AtMost(64 << 20),
        "the open segment is never compacted, and every start reads it",
    ),
    advised("min.cleanable.dirty.ratio", Want::Is("0.1"), "every start reads what is not compacted yet"),
    advised(
        "max.compaction.lag.ms",
        Want::AtMost(24 * HOUR_MS),
        "every start reads what is not compacted yet",
    ),
];

const RULES_OF_BOTH: [Rule; 2] = [
    advised(
        MIN_INSYNC_REPLICAS,
        Want::AllReplicasButOne,
        "with fewer one broker could lose what was acknowledged, with more one could stop all writing",
    ),
    advised(
        "unclean.leader.election.enable",
        Want::Is("false"),
        "a broker that missed records could take over and drop them",
    ),
];

/// The rules of a topic.
pub(super) fn rules(topic: Topic) -> impl Iterator<Item = &'static Rule> {
    let own: &[Rule] = match topic {
        Topic::Commands => &COMMANDS_RULES,
        Topic::Table => &TABLE_RULES,
    };
    own.iter().chain(&RULES_OF_BOTH)
}

impl Want {
    /// The value that a topic with so many replicas is given.
    pub(super) fn value(self, replicas: usize) -> String {
        match self {
            Self::Is(text) => text.to_owned(),
            Self::AtLeast(number) | Self::AtMost(number) => number.to_string(),
            Self::AllReplicasButOne => replicas.saturating_sub(1).max(1).to_string(),
        }
    }

    /// Whether a value is as it is to be.
    fn is_met(self, found: &str, replicas: usize) -> bool {
        let number = || found.parse::<i64>().ok();
        match self {
            Self::Is(text) => found == text || numbers_agree(found, text),
            Self::AtLeast(least) => number().is_some_and(|number| number >= least),
            Self::AtMost(most) => number().is_some_and(|number| number <= most),
            Self::AllReplicasButOne => found == self.value(replicas),
        }
    }

    /// In words, for a finding.
    fn words(self, replicas: usize) -> String {
        let value = self.value(replicas);
        match self {
            Self::AtLeast(_) => format!("at least {value}"),
            Self::AtMost(_) => format!("at most {value}"),
            Self::Is(_) | Self::AllReplicasButOne => value,
        }
    }
}

/// Whether two texts are the same number, however it is written.
fn numbers_agree(one: &str, other: &str) -> bool {
    matches!((one.parse::<f64>(), other.parse::<f64>()), (Ok(one), Ok(other)) if one == other)
}

/// What is wrong with one topic.
pub(super) fn judge(
    topic: Topic,
    name: &str,
    partitions: TopicPartitions,
    found: &HashMap<String, String>,
    clients: &Clients,
) -> Vec<Finding> {
    let TopicPartitions { partitions, replicas, .. } = partitions;
    let servers = &clients.settings.bootstrap_servers;
    // Kafka's tools have a file of their own for what [log.client] says.
    let is_secured = clients.settings.client.contains_key("security.protocol");
    let secured = if is_secured { " --command-config client.properties" } else { "" };
    let mut findings = Vec::new();
    if partitions != 1 {
        findings.push(Finding {
            severity: Severity::Refused,
            topic: name.to_owned(),
            setting: "partitions",
            found: partitions.to_string(),
            wanted: "1".to_owned(),
            why: "commands and rows have an order within one partition only",
            mend:
                "a topic can't lose partitions: set a new name in [log], and run `portcullis topics create`"
                    .to_owned(),
        });
    }
    let allowed = |rule: &Rule| {
        let retention = topic == Topic::Commands && [RETENTION_MS, RETENTION_BYTES].contains(&rule.setting);
        retention && clients.settings.allow_finite_retention
    };
    for rule in rules(topic).filter(|rule| !allowed(rule)) {
        let Some(value) = found.get(rule.setting).filter(|value| !rule.want.is_met(value, replicas)) else {
            continue;
        };
        let setting = rule.setting;
        let wanted = rule.want.value(replicas);
        findings.push(Finding {
            severity: rule.severity,
            topic: name.to_owned(),
            setting,
            found: value.clone(),
            wanted: rule.want.words(replicas),
            why: rule.why,
            mend: format!(
                "kafka-configs.sh --bootstrap-server {servers}{secured} --alter --entity-type topics --entity-name {name} --add-config {setting}={wanted}"
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::settings::KafkaSettings;

    const ONE: TopicPartitions = TopicPartitions { partitions: 1, replicas: 3, in_sync: 3, has_leader: true };

    fn clients(allow_finite_retention: bool) -> Clients {
        Clients::new(KafkaSettings {
            bootstrap_servers: "localhost:9092".to_owned(),
            commands_topic: "c".to_owned(),
            table_topic: Some("t".to_owned()),
            client: Default::default(),
            allow_finite_retention,
        })
    }

    /// A topic as we create it, with these settings changed.
    fn settings(topic: Topic, changed: &[(&str, &str)]) -> HashMap<String, String> {
        let created = rules(topic).map(|rule| (rule.setting, rule.want.value(ONE.replicas)));
        let changed = changed.iter().map(|(setting, value)| (*setting, (*value).to_owned()));
        created.chain(changed).map(|(setting, value)| (setting.to_owned(), value)).collect()
    }

    #[test]
    fn what_is_created_is_never_complained_of() {
        for topic in [Topic::Commands, Topic::Table] {
            assert_eq!(judge(topic, "x", ONE, &settings(topic, &[]), &clients(false)), []);
        }
    }

    #[test]
    fn each_setting_is_judged_by_what_it_does_to_the_list() {
        use Severity::{Advised, Refused};
        let cases = [
            (Topic::Commands, "cleanup.policy", "compact", Refused, "delete"),
            (Topic::Commands, "cleanup.policy", "compact,delete", Refused, "delete"),
            (Topic::Commands, "message.timestamp.type", "CreateTime", Refused, "LogAppendTime"),
            (Topic::Commands, "retention.ms", "604800000", Refused, "-1"),
            (Topic::Commands, "retention.bytes", "1000", Refused, "-1"),
            (Topic::Commands, "min.insync.replicas", "1", Advised, "2"),
            (Topic::Commands, "unclean.leader.election.enable", "true", Advised, "false"),
            (Topic::Table, "cleanup.policy", "delete", Refused, "compact"),
            (Topic::Table, "cleanup.policy", "compact,delete", Refused, "compact"),
            (Topic::Table, "delete.retention.ms", "3600000", Advised, "at least 86400000"),
            (Topic::Table, "segment.ms", "604800000", Advised, "at most 3600000"),
            (Topic::Table, "segment.bytes", "1073741824", Advised, "at most 67108864"),
            (Topic::Table, "min.cleanable.dirty.ratio", "0.5", Advised, "0.1"),
            (Topic::Table, "max.compaction.lag.ms", "9223372036854775807", Advised, "at most 86400000"),
            (Topic::Table, "min.insync.replicas", "3", Advised, "2"),
        ];
        for (topic, setting, value, severity, wanted) in cases {
            let found = judge(topic, "x", ONE, &settings(topic, &[(setting, value)]), &clients(false));
            let found: Vec<_> =
                found.iter().map(|found| (found.setting, found.severity, found.wanted.as_str())).collect();
            assert_eq!(found, [(setting, severity, wanted)], "{topic:?} {setting}={value}");
        }
    }

    #[test]
    fn what_is_as_good_as_wanted_is_no_finding() {
        let cases = [
            (Topic::Table, "delete.retention.ms", "172800000"),
            (Topic::Table, "segment.ms", "1000"),
            (Topic::Table, "min.cleanable.dirty.ratio", "0.10"),
        ];
        for (topic, setting, value) in cases {
            assert_eq!(judge(topic, "x", ONE, &settings(topic, &[(setting, value)]), &clients(false)), []);
        }
        let forgets = settings(Topic::Commands, &[(RETENTION_MS, "1"), (RETENTION_BYTES, "1")]);
        assert_eq!(judge(Topic::Commands, "x", ONE, &forgets, &clients(true)), []);
        assert_eq!(judge(Topic::Commands, "x", ONE, &forgets, &clients(false)).len(), 2);
    }

    #[test]
    fn partitions_count_though_the_settings_are_hidden() {
        let three = TopicPartitions { partitions: 3, ..ONE };
        let found = judge(Topic::Table, "x", three, &HashMap::new(), &clients(false));
        assert_eq!(found.iter().map(|found| found.setting).collect::<Vec<_>>(), ["partitions"]);
    }

    #[test]
    fn a_lone_broker_wants_one_replica_in_sync() {
        assert_eq!(
            [0, 1, 2, 3].map(|replicas| Want::AllReplicasButOne.value(replicas)),
            ["1", "1", "1", "2"]
        );
    }
}
