//! Kafka over TLS, with users and passwords: that everything works so, and what is said while something is
//! wrong.
#![cfg(feature = "kafka")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test panics where it fails")]

#[path = "kafka_security/certificates.rs"]
mod certificates;
#[path = "kafka_service/rig.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use more of it")]
mod rig;
mod support;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;

use certificates::{Authority, Validity};
use rig::{Settings, Site, WITH_TABLE, code, stderr, stdout};
use support::kafka::{Broker, BrokerOptions, succeeded};
use tempfile::TempDir;

/// Each has a certificate of its own; `MUTUAL` also wants one of whoever comes.
const LISTENERS: [&str; 5] = ["GOOD", "MUTUAL", "EXPIRED", "MISNAMED", "STRANGE"];

const OF_ALICE: &str = "open sesame";
const OF_BOB: &str = "swordfish";
const WRONG: &str = "hunter2";

/// A broker with all of these listeners, and who signed its certificates.
struct Secured {
    broker: Broker,
    ours: Authority,
    _folder: TempDir,
}

/// The broker that both tests share.
fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = Authority::new(folder.path(), "ca");
        let strangers = Authority::new(folder.path(), "strangers");
        for name in ["good", "mutual"] {
            ours.sign(name, &["127.0.0.1"], Validity::Valid);
        }
        ours.sign("expired", &["127.0.0.1"], Validity::Expired);
        ours.sign("misnamed", &["kafka.elsewhere"], Validity::Valid);
        strangers.sign("strange", &["127.0.0.1"], Validity::Valid);
        ours.sign("client", &[], Validity::Valid);
        ours.sign("client-expired", &[], Validity::Expired);
        let broker = options(&ours).start();
        Secured { broker, ours, _folder: folder }
    })
}

/// The property of one listener, as Kafka calls it.
fn of(listener: &str, property: &str) -> String {
    format!("listener.name.{}.{property}", listener.to_lowercase())
}

fn options(ours: &Authority) -> BrokerOptions {
    let mut options = BrokerOptions::default()
        .property("sasl.enabled.mechanisms", "SCRAM-SHA-256,SCRAM-SHA-512")
        .property(&of("MUTUAL", "ssl.client.auth"), "required")
        .scram_user("SCRAM-SHA-512", "alice", OF_ALICE)
        .scram_user("SCRAM-SHA-512", "carol", OF_ALICE)
        .scram_user("SCRAM-SHA-256", "bob", OF_BOB);
    for listener in LISTENERS {
        let users = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        options = options
            .listener(listener, "SASL_SSL")
            .property(&of(listener, "ssl.keystore.type"), "PEM")
            .property(&of(listener, "ssl.keystore.location"), &ours.file(&listener.to_lowercase()))
            .property(&of(listener, "ssl.truststore.type"), "PEM")
            .property(&of(listener, "ssl.truststore.location"), &ours.file("ca"))
            .property(&of(listener, "scram-sha-256.sasl.jaas.config"), users)
            .property(&of(listener, "scram-sha-512.sasl.jaas.config"), users);
    }
    options
}

impl Secured {
    /// What is right for `GOOD`, but for these.
    fn settings(&self, others: &[(&'static str, &str)]) -> Settings {
        let ca = self.ours.file("ca");
        let right = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &*ca),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "alice"),
            ("sasl.password", OF_ALICE),
        ];
        let all: BTreeMap<&'static str, &str> = right.iter().chain(others).copied().collect();
        let client = all.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        Settings { client, ..WITH_TABLE }
    }

    /// The same with a certificate of our own.
    fn with_certificate(&self, name: &str) -> Settings {
        let file = self.ours.file(name);
        self.settings(&[("ssl.certificate.location", &file), ("ssl.key.location", &file)])
    }

    fn bootstrap(&self, listener: &str) -> String {
        match listener {
            "PLAINTEXT" => self.broker.bootstrap(),
            listener => self.broker.bootstrap_of(listener),
        }
    }

    /// Makes the broker read the certificate of a listener again.
    fn read_certificate(&self, listener: &str) {
        let file = self.ours.file(&listener.to_lowercase());
        let config = format!("{}={file}", of(listener, "ssl.keystore.location"));
        let args = ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", &config];
        succeeded(&self.broker.tool("configs", &args, ""));
    }
}

/// Holds what somebody can see to showing no secret.
fn assert_no_secret(shown: &str) {
    for secret in [OF_ALICE, OF_BOB, WRONG, "PRIVATE KEY"] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

#[test]
fn over_tls_a_user_with_a_password_or_a_certificate_too_can_do_everything() {
    let secured = secured();
    let sha512 = secured.settings(&[]);
    let sha256 = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "bob"), ("sasl.password", OF_BOB)];
    let sha256 = secured.settings(&sha256);
    let (good, mutual) = (secured.bootstrap("GOOD"), secured.bootstrap("MUTUAL"));
    let site = Site::at(good, "works");
    site.begin(&sha512);
    let both = Site::at(mutual, "works");
    let certified = secured.with_certificate("client");
    let check = both.topics(&certified, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, "all settings are as they are to be\n"));
    let projector = site.projector(&sha256, &[]);
    let sidecars = [site.sidecar(&sha512), site.sidecar(&sha256), both.sidecar(&certified)];
    for (at, sidecar) in sidecars.iter().enumerate() {
        sidecar.wait_ready();
        let edit = sidecar.run(&["blacklist", &format!("192.0.2.{}", 2 * at), "--wait"]);
        assert_eq!(code(&edit), 0, "{}", stderr(&edit));
    }
    let [one, two, three] = &sidecars;
    site.agree(&sha512, &[&projector, one, two, three], &[]);
    let standby = both.projector(&certified, &[]);
    standby.wait_role("standby");
    for process in [&projector, one, two, three, &standby] {
        assert_no_secret(&format!("{}{}", process.log(), process.status()));
        assert!(process.status()["message"].is_null(), "{}", process.status());
    }
}

/// Something that keeps us from Kafka.
struct Case {
    listener: &'static str,
    settings: Settings,
    /// What is said of it, but for the address.
    says: &'static str,
    /// What an operator of Kafka does about it, if that is theirs to mend.
    mend: Option<fn(&Secured)>,
}

impl Case {
    /// Begins without it being mended, and ends well once it is.
    fn run(&self, secured: &Secured) {
        let site = Site::at(secured.bootstrap(self.listener), "works-not");
        let says = self.says.replace("ADDRESS", &secured.bootstrap(self.listener));
        let (mut sidecar, projector) = (site.sidecar(&self.settings), site.projector(&self.settings, &[]));
        for process in [&sidecar, &projector] {
            assert_eq!(process.wait_message(&says)["ready"], false);
        }
        for verb in ["check", "create"] {
            let output = site.topics(&self.settings, &[verb]);
            let said = stderr(&output);
            assert_eq!((code(&output), stdout(&output), said.lines().count()), (3, "", 1), "{said}");
            assert!(said.contains(&says), "{said}\nand not: {says}");
            assert_no_secret(said);
        }
        let (status, answer) = sidecar.post("", "BLACKLIST 192.0.2.1");
        assert_eq!(status, 503, "{answer}");
        for process in [&sidecar, &projector] {
            let log = process.log();
            assert_eq!(log.matches(&says).count(), 1, "{log}");
            assert_no_secret(&format!("{log}{}", process.status()));
        }
        if let Some(mend) = self.mend {
            mend(secured);
            sidecar.wait_ready();
            projector.wait("it has a role", |status| status["ready"] == true);
            for process in [&sidecar, &projector] {
                process.wait("all is well", |status| status["message"].is_null());
            }
        }
        assert!(sidecar.runs());
    }
}

const NOT_TRUSTED: &str = "no TLS with Kafka: its certificate has expired, or is not signed by ssl.ca.location in \
                           [log.client], or names another host; `openssl s_client -verify_return_error \
                           -verify_hostname HOST -CAfile FILE -connect ADDRESS` says which";
const CLOSED: &str = "no answer from Kafka at ADDRESS: it closes the connection; is it running, and does \
                      security.protocol in [log.client] fit that port?";

/// What the settings of whoever comes have wrong.
fn cases_of_settings(secured: &Secured) -> Vec<Case> {
    let case = |listener, settings, says| Case { listener, settings, says, mend: None };
    let protocol = |protocol| secured.settings(&[("security.protocol", protocol)]);
    vec![
        case(
            "GOOD",
            secured.settings(&[("sasl.mechanism", "PLAIN")]),
            "Kafka refuses our user: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: \
             broker's supported mechanisms: ",
        ),
        case(
            "MUTUAL",
            secured.with_certificate("client-expired"),
            "Kafka does not take our certificate (certificate unknown): is there one in ssl.certificate.location \
             and ssl.key.location in [log.client], has it expired, and does Kafka know who signed it?",
        ),
        case(
            "MUTUAL",
            secured.settings(&[]),
            "Kafka does not take our certificate (bad certificate): is there one",
        ),
        case("GOOD", WITH_TABLE, CLOSED),
        case("GOOD", protocol("SASL_PLAINTEXT"), CLOSED),
        case(
            "PLAINTEXT",
            protocol("SASL_SSL"),
            "no TLS with Kafka at ADDRESS: that port takes none; see security.protocol in [log.client], and \
             bootstrap_servers in [log]",
        ),
    ]
}

/// What its operator can mend at the broker.
fn cases_of_broker(secured: &Secured) -> Vec<Case> {
    let case = |listener, settings, says, mend| Case { listener, settings, says, mend: Some(mend) };
    vec![
        case(
            "GOOD",
            secured.settings(&[("sasl.username", "carol"), ("sasl.password", WRONG)]),
            "Kafka refuses our user: SASL authentication error: Authentication failed during authentication due to \
             invalid credentials with SASL mechanism SCRAM-SHA-512; see sasl.username and sasl.password in \
             [log.client]",
            |secured| {
                let password = format!("SCRAM-SHA-512=[password={WRONG}]");
                let user = ["--alter", "--entity-type", "users", "--entity-name", "carol"];
                let args = [&user[..], &["--add-config", &password]].concat();
                succeeded(&secured.broker.tool("configs", &args, ""));
            },
        ),
        // A certificate that is renewed must be of the same name, and for the same hosts at least.
        case("EXPIRED", secured.settings(&[]), NOT_TRUSTED, |secured| {
            secured.ours.sign("expired", &["127.0.0.1"], Validity::Valid);
            secured.read_certificate("EXPIRED");
        }),
        case("MISNAMED", secured.settings(&[]), NOT_TRUSTED, |secured| {
            secured.ours.sign("misnamed", &["kafka.elsewhere", "127.0.0.1"], Validity::Valid);
            secured.read_certificate("MISNAMED");
        }),
        case("STRANGE", secured.settings(&[]), NOT_TRUSTED, |secured| {
            secured.ours.sign("strange", &["127.0.0.1"], Validity::Valid);
            secured.read_certificate("STRANGE");
        }),
    ]
}

#[test]
fn what_keeps_us_from_kafka_is_told_in_one_line_and_once_it_is_mended_all_go_on() {
    let secured = secured();
    Site::at(secured.bootstrap("GOOD"), "works-not").begin(&secured.settings(&[]));
    let cases: Vec<Case> = cases_of_settings(secured).into_iter().chain(cases_of_broker(secured)).collect();
    thread::scope(|scope| {
        for case in &cases {
            scope.spawn(|| case.run(secured));
        }
    });
}
