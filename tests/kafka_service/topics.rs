//! Topics that are not there, not begun, or set as they must not be.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::rig::{Site, WITH_TABLE, WITHOUT_TABLE, code, stderr, stdout};
use super::support::kafka::{Broker, shared_broker, succeeded};

#[test]
fn a_topic_that_is_not_there_is_named_and_awaited() {
    let site = Site::new(shared_broker(), "absent");
    let mut sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    let projector = site.projector(&WITH_TABLE, &[]);
    for process in sidecars.iter().chain([&projector]) {
        let status = process.wait_message("Kafka has no topic absent.");
        assert!(status["message"].as_str().is_some_and(|it| it.contains("portcullis topics create")));
        assert_eq!(status["ready"], false);
        assert_eq!((process.get("/readyz").0, process.get("/healthz").0), (503, 200));
        assert!(process.log().contains("Kafka has no topic absent."), "{}", process.log());
    }
    let (status, answer) = sidecars[0].post("", "BLACKLIST 192.0.2.1");
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("not_ready")));
    let check = site.topics(&WITH_TABLE, &["check"]);
    let said = stderr(&check);
    assert!(
        code(&check) == 3 && said.contains("no topic absent.commands") && said.lines().count() == 1,
        "{said}"
    );
    // A role that it never had is nothing to release.
    projector.end(Signal::SIGTERM);

    let created = site.topics(&WITH_TABLE, &["create"]);
    assert_eq!(code(&created), 0, "{}", stderr(&created));
    for sidecar in &mut sidecars {
        sidecar.wait_ready();
        assert!(sidecar.runs());
    }
    let projector = site.projector(&WITH_TABLE, &[]);
    assert_eq!(code(&sidecars[1].run(&["blacklist", "192.0.2.1", "--wait"])), 0);
    site.agree(&WITH_TABLE, &[&projector, &sidecars[0], &sidecars[1]], &[]);
}

#[test]
fn a_table_that_was_never_begun_is_no_empty_list() {
    let broker = shared_broker();
    let site = Site::new(broker, "unbegun");
    let commands = [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")];
    broker.create_topic(&site.commands_topic, &commands);
    broker.create_topic(&site.table_topic, &[("cleanup.policy", "compact")]);
    broker.console_produce(&site.commands_topic, "BLACKLIST 192.0.2.1\n");
    let sidecar = site.sidecar(&WITH_TABLE);
    let projector = site.projector(&WITH_TABLE, &[]);
    let status =
        sidecar.wait_message("the table has no watermark: it was never begun (`portcullis topics create`)");
    assert_eq!((&status["ready"], sidecar.get("/readyz").0), (&json!(false), 503));
    assert_eq!(sidecar.get("/v1/check/192.0.2.1").0, 503);
    let status = projector.wait_role("stopped");
    assert_eq!(status["reason"], "no_watermark");
    assert!(status["message"].as_str().is_some_and(|it| it.contains("portcullis topics create")), "{status}");

    let check = site.topics(&WITH_TABLE, &["check", "--json"]);
    let found: Value = serde_json::from_str(stdout(&check)).expect("JSON");
    let first = &found["findings"][0];
    assert_eq!(
        (code(&check), &first["setting"], &first["severity"]),
        (1, &json!("watermark"), &json!("refused"))
    );
    assert_eq!(first["mend"], "portcullis topics create");
    let created = site.topics(&WITH_TABLE, &["create"]);
    let told = "unbegun.commands is there already; `portcullis topics check` looks at it\n\
                unbegun.table is there already; `portcullis topics check` looks at it\n\
                began the table in unbegun.table: position 0, no rows\n";
    assert_eq!((code(&created), stdout(&created)), (0, told), "{}", stderr(&created));
    sidecar.wait_ready();
    assert!(sidecar.blocks("192.0.2.1"));
}

/// Does what a finding says: a line of Kafka's own tool, as people would type it.
fn carry_out(broker: &Broker, mend: &str) {
    let words: Vec<&str> = mend.split(' ').collect();
    let [tool, "--bootstrap-server", bootstrap, args @ ..] = &words[..] else { panic!("{mend}") };
    assert_eq!((*tool, *bootstrap), ("kafka-configs.sh", &*broker.bootstrap()));
    succeeded(&broker.tool("configs", args, ""));
}

fn findings(check: &Output) -> Vec<Value> {
    assert_eq!(code(check), 1, "{}", stderr(check));
    let found: Value = serde_json::from_str(stdout(check)).expect("JSON");
    found["findings"].as_array().expect("a list").clone()
}

#[test]
fn topics_that_are_set_wrongly_are_told_with_what_mends_them() {
    let broker = shared_broker();
    let site = Site::begun(broker, "wrong");
    let wrong = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "CreateTime"),
        ("retention.ms", "86400000"),
    ];
    broker.alter_topic(&site.commands_topic, &wrong);
    let sidecars = [site.sidecar(&WITH_TABLE), site.sidecar(&WITHOUT_TABLE)];
    let projector = site.projector(&WITH_TABLE, &[]);
    for sidecar in &sidecars {
        let status = sidecar.wait("alarm", |status| status["alarm"] == "topic_settings");
        assert_eq!((&status["ready"], &status["phase"]), (&json!(false), &json!("alarm")));
        let message = status["message"].as_str().unwrap_or_default();
        let told = "the topic wrong.commands has cleanup.policy=compact, and wants delete: ";
        assert!(message.starts_with(told) && message.contains("`portcullis topics check`"), "{message}");
        assert_eq!((sidecar.get("/readyz").0, sidecar.get("/healthz").0), (503, 200));
    }
    let status = projector.wait_role("stopped");
    assert_eq!(status["reason"], "topic_settings");
    assert!(status["message"].as_str().is_some_and(|it| it.contains("cleanup.policy=compact")), "{status}");

    let check = site.topics(&WITH_TABLE, &["check"]);
    assert_eq!(code(&check), 1);
    let first = "wrong: the topic wrong.commands has cleanup.policy=compact, and wants delete: \
                 compaction would take commands away\n    mend it: kafka-configs.sh ";
    assert!(stdout(&check).starts_with(first), "{}", stdout(&check));
    let found = findings(&site.topics(&WITH_TABLE, &["check", "--json"]));
    let shown: Vec<_> = found.iter().map(|it| (it["setting"].as_str(), it["found"].as_str())).collect();
    assert_eq!(shown, wrong.map(|(setting, value)| (Some(setting), Some(value))));
    found.iter().for_each(|finding| carry_out(broker, finding["mend"].as_str().expect("a text")));
    let check = site.topics(&WITH_TABLE, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, "all settings are as they are to be\n"));

    // Those that run look again after a minute; one that starts is there at once.
    let (sidecar, next) = (site.sidecar(&WITH_TABLE), site.projector(&WITH_TABLE, &[]));
    sidecar.wait_ready();
    next.wait_role("active");
}

#[test]
fn a_topic_of_two_partitions_has_no_order_and_is_refused() {
    let broker = shared_broker();
    let site = Site::new(broker, "split");
    let two = ["--create", "--topic", &site.commands_topic, "--partitions", "2"];
    let configs = ["--config", "message.timestamp.type=LogAppendTime", "--config", "retention.ms=-1"];
    succeeded(&broker.tool("topics", &[&two[..], &configs].concat(), ""));
    // What is there stays as it is; the table is made and begun.
    let created = site.topics(&WITH_TABLE, &["create"]);
    assert_eq!(code(&created), 0, "{}", stderr(&created));
    let (sidecar, projector) = (site.sidecar(&WITH_TABLE), site.projector(&WITH_TABLE, &[]));
    let status = sidecar.wait("alarm", |status| status["alarm"] == "topic_settings");
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("the topic split.commands has partitions=2, and wants 1: "), "{message}");
    assert_eq!(projector.wait_role("stopped")["reason"], "topic_settings");
    let found = findings(&site.topics(&WITH_TABLE, &["check", "--json"]));
    assert_eq!(found[0]["setting"], "partitions");
    assert!(found[0]["mend"].as_str().is_some_and(|it| it.contains("set a new name in [log]")), "{found:?}");
}
