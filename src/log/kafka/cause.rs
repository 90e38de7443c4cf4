//! Why Kafka does not do what was asked of it, as one sentence that says what to do.
//!
//! librdkafka tells errors in two places: a call fails with a code, which often is no more than "timed out",
//! and the client reports on the side why it has no connection. The newest report of each client is kept, so
//! that the sentence can name the real cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::transactional_id;
use crate::log::settings::KafkaSettings;

/// What a user needs at a topic: whoever reads it …
pub(super) const READ: &str = "Read and DescribeConfigs";
/// … whoever writes it …
pub(super) const WRITE: &str = "Write";
/// … and whoever makes it.
pub(super) const CREATE: &str = "Create";

/// What librdkafka says when a user may write to no topic at all: the code behind it is told nowhere else.
const MAY_NOT_WRITE: &str = "Cluster authorization failed";

/// What is told of a connection that is gone without a word, in whatever way that was noticed. So does a port
/// that wants something else of who comes: most often TLS, or none.
const CLOSED: &str = "it closes the connection";

/// What librdkafka says of it, in its own words and in those of the system and of OpenSSL.
const CLOSED_TEXTS: [&str; 3] = ["closed by peer", "Broken pipe", "Connection reset"];

/// What OpenSSL says when the other side gives up, before its word for why.
const ALERT: &str = "ssl/tls alert ";
/// What librdkafka says when we give up, whatever is wrong with the certificate …
const NOT_TRUSTED: &str = "certificate verify failed";
/// … and when the other side knows nothing of TLS.
const NO_TLS: &str = "PLAINTEXT broker listener";

/// For how long a report that names the cause is not replaced by a vaguer one: after a refused password the
/// connection is gone, too, and only the first of the two says why.
const CAUSE_KEPT: Duration = Duration::from_secs(10);

/// What a client reports on the side. (Its log goes through `tracing`, by a feature of the crate.)
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Option<Report>>);

/// One report.
#[derive(Clone, Debug)]
struct Report {
    at: Instant,
    code: Code,
    text: String,
}

/// Codes that name a cause that somebody has to mend, rather than that something did not work. That our user
/// has no right to a group is none: the group is never joined.
const fn names_cause(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Codes that mean no more than that no broker could be asked.
pub(super) const fn is_outage(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::Resolve
            | Code::NodeUpdate
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::WaitingForCoordinator
            | Code::NetworkException
    )
}

impl Reports {
    fn note(&self, code: Code, text: &str) {
        let (code, text) = named(code, text);
        // That all brokers are down says only that each failed, which has said why itself; and the end of a
        // topic, which comes this way, too, is no reason for anything.
        if code == Code::AllBrokersDown || !(is_outage(code) || names_cause(code)) {
            return;
        }
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keeps = newest.as_ref().is_some_and(|kept| {
            names_cause(kept.code) && !names_cause(code) && kept.at.elapsed() < CAUSE_KEPT
        });
        if !keeps {
            *newest = Some(Report { at: Instant::now(), code, text: text.to_owned() });
        }
    }

    /// Forgets what was reported: it was said of connections before this one.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn newest(&self) -> Option<Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a producer was ended because its user may write to no topic at all.
    pub(super) fn may_not_write(&self) -> bool {
        self.newest().is_some_and(|report| report.code == Code::ClusterAuthorizationFailed)
    }

    /// Why a call failed, as one sentence; `topic` is what it was about, and `right` what it takes there.
    pub(super) fn explain(
        &self,
        error: &KafkaError,
        topic: &str,
        right: &str,
        settings: &KafkaSettings,
    ) -> String {
        let sentence = |code, text: &str| sentence(code, text, topic, right, settings);
        match error.rdkafka_error_code() {
            Some(code) if is_outage(code) => match self.newest() {
                Some(report) => sentence(report.code, &report.text),
                // Whatever else fails is told on the side.
                None if matches!(code, Code::BrokerTransportFailure | Code::AllBrokersDown) => {
                    sentence(code, CLOSED)
                }
                None => sentence(code, &code.to_string()),
            },
            Some(code) => sentence(code, &code.to_string()),
            None => error.to_string(),
        }
    }
}

/// The code that fits what was told, if the text knows more than the code that came with it.
fn named(code: Code, text: &str) -> (Code, &str) {
    let says = |part: &str| text.contains(part);
    match code {
        // What ended a producer for good stands in the text only.
        Code::Fatal if says(MAY_NOT_WRITE) => (Code::ClusterAuthorizationFailed, text),
        Code::BrokerTransportFailure if says(ALERT) || says(NO_TLS) => (Code::SSL, text),
        Code::BrokerTransportFailure if CLOSED_TEXTS.into_iter().any(says) => (code, CLOSED),
        code => (code, text),
    }
}

/// One sentence on a code, what was said with it, and what to do.
fn sentence(code: Code, text: &str, topic: &str, right: &str, settings: &KafkaSettings) -> String {
    let text = plain(text);
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => {
            format!("Kafka refuses our user: {text}; see {} in [log.client]", wrong_of_user(text))
        }
        Code::SSL => no_tls(text, &settings.bootstrap_servers),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => no_topic(topic),
        Code::TopicAuthorizationFailed => format!(
            "Kafka does not let our user at the topic {topic}: grant {right} on it; the README lists all under \"Rights\""
        ),
        // Who may write to a topic, to whichever, is given an id to write with.
        Code::ClusterAuthorizationFailed => format!(
            "Kafka does not let our user write: grant {WRITE} on the topic {topic}; the README lists all under \"Rights\""
        ),
        Code::TransactionalIdAuthorizationFailed => format!(
            "Kafka does not let our user write as the projector: grant {WRITE} on the transactional id {}; \
             the README lists all under \"Rights\"",
            transactional_id(topic)
        ),
        Code::GroupAuthorizationFailed => {
            format!("Kafka denies it to our user ({text}): the README lists what to grant under \"Rights\"")
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange => {
            format!("the topic {topic} does not reach to where we are")
        }
        // It is never passed over: what stands behind it would be folded without it.
        Code::BadMessage | Code::InvalidMessage | Code::BadCompression => format!(
            "a record of the topic {topic} is damaged on the broker's disk ({text}): restore that file from another \
             replica or a backup; nothing behind it is read until then"
        ),
        Code::BrokerTransportFailure | Code::AllBrokersDown if text == CLOSED => format!(
            "no answer from Kafka at {}: {text}; is it running, and does security.protocol in [log.client] fit that port?",
            settings.bootstrap_servers
        ),
        code if is_outage(code) => format!(
            "no answer from Kafka at {}: {text}; is it running, and is bootstrap_servers in [log] right?",
            settings.bootstrap_servers
        ),
        _ => format!("Kafka, topic {topic}: {text}"),
    }
}

/// Which settings to look at when our user is refused.
fn wrong_of_user(text: &str) -> &'static str {
    let says = |part: &str| text.contains(part);
    match says("mechanism handshake failed") {
        // It knows no user at all.
        true if says("not valid in current SASL state") => "security.protocol",
        true => "sasl.mechanism",
        false => "sasl.username and sasl.password",
    }
}

/// The sentence on TLS that does not come about. Of a certificate that is not to be trusted librdkafka does not
/// say why, so that the sentence names all that may be, and what tells it.
fn no_tls(text: &str, servers: &str) -> String {
    let alert = text.split_once(ALERT).map(|(_, rest)| rest.split(':').next().unwrap_or(rest));
    match alert {
        Some(alert) if alert.contains("certificate") || alert == "unknown ca" => format!(
            "Kafka does not take our certificate ({alert}): is there one in ssl.certificate.location and \
             ssl.key.location in [log.client], has it expired, and does Kafka know who signed it?"
        ),
        Some(alert) => format!("no TLS with Kafka: it refuses ours ({alert}); see ssl.* in [log.client]"),
        None if text.contains(NOT_TRUSTED) => format!(
            "no TLS with Kafka: its certificate has expired, or is not signed by ssl.ca.location in [log.client], or \
             names another host; `openssl s_client -verify_return_error -verify_hostname HOST -CAfile FILE -connect \
             {servers}` says which"
        ),
        None if text.contains(NO_TLS) => format!(
            "no TLS with Kafka at {servers}: that port takes none; see security.protocol in [log.client], and \
             bootstrap_servers in [log]"
        ),
        None => format!("no TLS with Kafka: {text}; see ssl.* in [log.client]"),
    }
}

/// The sentence on a topic that is not there.
pub(super) fn no_topic(name: &str) -> String {
    format!(
        "Kafka has no topic {name}: make it by `portcullis topics create`, or mend its name in [log] (a broker that \
         has just started may not know it yet)"
    )
}

/// What librdkafka says, without what it begins with, which are single words for one of its connections, and
/// without what it ends with, which is how long that took.
fn plain(text: &str) -> &str {
    let mut text = text.split_once(" (after ").map_or(text, |(before, _)| before);
    while let Some((_, rest)) = text.split_once(": ").filter(|(word, _)| !word.contains(' ')) {
        text = rest;
    }
    text
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(code, reason);
        }
    }
}

impl ConsumerContext for Reports {}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: "kafka:9092".to_owned(),
            commands_topic: "c".to_owned(),
            table_topic: None,
            client: Default::default(),
            allow_finite_retention: false,
        }
    }

    fn timed_out(reports: &Reports) -> String {
        reports.explain(&KafkaError::MetadataFetch(Code::OperationTimedOut), "c", READ, &settings())
    }

    #[test]
    fn what_the_connection_said_explains_what_a_call_did_not() {
        let reports = Reports::default();
        let refused = "kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
        reports.note(Code::BrokerTransportFailure, refused);
        reports.note(Code::AllBrokersDown, "1/1 brokers are down");
        reports.note(Code::PartitionEOF, "Fetch from broker 1 reached end of partition at offset 3");
        reports.note(Code::GroupAuthorizationFailed, "FindCoordinator response error");
        assert_eq!(
            timed_out(&reports),
            "no answer from Kafka at kafka:9092: Connect to ipv4#10.0.0.1:9092 failed: Connection refused; \
             is it running, and is bootstrap_servers in [log] right?"
        );
        let known = "GroupCoordinator: kafka:9092: Connect to ipv4#10.0.0.1:9092 failed: Connection refused";
        reports.note(Code::BrokerTransportFailure, known);
        assert!(
            timed_out(&reports).starts_with("no answer from Kafka at kafka:9092: Connect to ipv4#10.0.0.1")
        );
        reports.clear();
        assert!(!timed_out(&reports).contains("refused"), "it was said of connections before");
    }

    #[test]
    fn a_refused_password_is_told_though_the_connection_is_gone_behind_it() {
        let reports = Reports::default();
        let refused = "sasl_plaintext://kafka:9092/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 5ms in state AUTH_REQ)";
        reports.note(Code::Authentication, refused);
        reports.note(Code::BrokerTransportFailure, "sasl_plaintext://kafka:9092/bootstrap: Disconnected");
        let said = timed_out(&reports);
        assert!(said.starts_with("Kafka refuses our user: SASL authentication error"), "{said}");
        assert!(said.contains("Invalid username or password; see sasl.username"), "{said}");
    }

    #[test]
    fn what_keeps_tls_from_coming_about_is_told_apart_as_far_as_librdkafka_does() {
        let said = |code, text: &str| {
            let reports = Reports::default();
            reports.note(code, text);
            // It comes behind, or in its place.
            reports.note(
                Code::BrokerTransportFailure,
                "ssl://kafka:9093/bootstrap: Disconnected: SSL connection closed by peer",
            );
            timed_out(&reports)
        };
        let alert = "ssl://kafka:9093/1: Receive failed: ssl/record/rec_layer_s3.c:918:ssl3_read_bytes \
                     error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46";
        let ours = said(Code::BrokerTransportFailure, alert);
        assert!(ours.starts_with("Kafka does not take our certificate (certificate unknown): "), "{ours}");
        let untrusted = "ssl://kafka:9093/bootstrap: SSL handshake failed: error:0A000086:SSL \
                         routines::certificate verify failed: broker certificate could not be verified";
        let theirs = said(Code::SSL, untrusted);
        assert!(theirs.starts_with("no TLS with Kafka: its certificate has expired, or "), "{theirs}");
        let plaintext = "ssl://kafka:9092/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by \
                         peer: connecting to a PLAINTEXT broker listener?";
        let none = said(Code::BrokerTransportFailure, plaintext);
        assert!(none.starts_with("no TLS with Kafka at kafka:9092: that port takes none; "), "{none}");
        let refused =
            said(Code::BrokerTransportFailure, &alert.replace("certificate unknown", "protocol version"));
        assert_eq!(
            refused,
            "no TLS with Kafka: it refuses ours (protocol version); see ssl.* in [log.client]"
        );
    }

    #[test]
    fn a_connection_that_is_closed_is_told_in_the_same_words_however_it_was_noticed() {
        let closed = "no answer from Kafka at kafka:9092: it closes the connection; is it running, and does \
                      security.protocol in [log.client] fit that port?";
        let reports = Reports::default();
        for code in [Code::AllBrokersDown, Code::BrokerTransportFailure] {
            let said = reports.explain(&KafkaError::MetadataFetch(code), "c", READ, &settings());
            assert_eq!(said, closed);
        }
        for text in
            ["Send failed: tls_common.c:1949 error:80000020:system library::Broken pipe", "closed by peer"]
        {
            reports.note(Code::BrokerTransportFailure, text);
            assert_eq!(timed_out(&reports), closed);
        }
    }

    #[test]
    fn a_user_that_is_refused_is_told_which_setting_to_look_at() {
        let said = |text| {
            let reports = Reports::default();
            reports.note(Code::Authentication, text);
            timed_out(&reports)
        };
        let mechanism = "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's \
                         supported mechanisms: SCRAM-SHA-512";
        assert!(said(mechanism).ends_with("mechanisms: SCRAM-SHA-512; see sasl.mechanism in [log.client]"));
        let no_user =
            "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state";
        assert!(said(no_user).ends_with("; see security.protocol in [log.client]"));
    }

    #[test]
    fn what_is_missing_is_named_with_where_it_is_to_be_granted() {
        let denied = |code, right| {
            Reports::default().explain(&KafkaError::MetadataFetch(code), "t", right, &settings())
        };
        let said = denied(Code::TopicAuthorizationFailed, READ);
        assert!(said.contains("at the topic t: grant Read and DescribeConfigs on it"), "{said}");
        let said = denied(Code::TransactionalIdAuthorizationFailed, WRITE);
        assert!(said.contains("grant Write on the transactional id portcullis.project:t;"), "{said}");
        let reports = Reports::default();
        assert!(!reports.may_not_write());
        let text = "Fatal error: Broker: Cluster authorization failed: Failed to acquire idempotence PID from broker";
        reports.note(Code::Fatal, text);
        assert!(reports.may_not_write());
    }
}
