//! A secured broker: what is said to a user who may not, and what exactly each has to be granted.

use std::process::Output;

use serde_json::json;

use super::rig::{Process, Site, WITH_TABLE, WITHOUT_TABLE, code, stderr, stdout};
use super::support::kafka::{Broker, BrokerOptions};

/// Grants a user operations on a resource, in the words of Kafka's own tool.
fn grant(broker: &Broker, user: &str, operations: &[&str], resource: &[&str]) {
    let principal = format!("User:{user}");
    let operations = operations.iter().flat_map(|operation| ["--operation", operation]);
    let args: Vec<&str> = ["--add", "--allow-principal", &principal].into_iter().chain(operations).collect();
    broker.acl(&[&args[..], resource].concat());
}

/// Holds a verb to having failed with one line, and returns that.
fn denied(output: &Output) -> &str {
    let said = stderr(output);
    assert!(code(output) == 3 && said.lines().count() == 1, "{said}");
    said
}

/// Holds a process to having told of something once, for as long as it lasts, and of no topic that is missing:
/// one that is hidden looks like that.
fn assert_told_once(process: &Process, what: &str) {
    let log = process.log();
    assert_eq!(log.matches(what).count(), 1, "{log}");
    assert!(!log.contains("has no topic"), "{log}");
}

/// A broker that takes these users, and lets them do nothing yet.
fn secured(users: &[&str]) -> Broker {
    users.iter().fold(BrokerOptions::default(), |options, user| options.user(user, "secret")).start()
}

#[test]
fn a_user_is_told_what_it_lacks_and_needs_no_more_than_that() {
    let users = ["operator", "projector", "sidecar", "reader"];
    let mut broker = secured(&users);
    let site = Site::new(&broker, "rights");
    let [operator, projector, sidecar, _] = users.map(|user| WITH_TABLE.user(user, "secret"));
    let reader = WITHOUT_TABLE.user("reader", "secret");
    let (commands, table) = (&*site.commands_topic, &*site.table_topic);
    let writer = format!("portcullis.project:{table}");
    let (topics, role) = (["--topic", commands, "--topic", table], ["--transactional-id", &*writer]);

    let mut wrong = site.sidecar(&WITH_TABLE.user("sidecar", "wrong"));
    let mut waiting = site.sidecar(&sidecar);
    let powerless = site.projector(&projector, &[]);
    let lacks =
        "Kafka does not let our user at the topic rights.commands: grant Read and DescribeConfigs on it";
    waiting.wait_message(lacks);
    powerless.wait_message("Kafka does not let our user at the topic rights.");
    drop(powerless);
    let refused = "Kafka refuses our user: SASL authentication error: Authentication failed: Invalid username or \
                   password; see sasl.username and sasl.password in [log.client]";
    assert_eq!(wrong.wait_message(refused)["ready"], false);
    let check = site.topics(&operator.user("operator", "wrong"), &["check"]);
    assert!(denied(&check).contains(refused));

    // Whoever makes the topics also writes the first watermark, as a projector would.
    let create = || site.topics(&operator, &["create"]);
    assert!(denied(&create()).contains("at the topic rights.commands: grant "));
    grant(&broker, "operator", &["Describe"], &topics);
    assert!(denied(&create()).contains("at the topic rights.commands: grant Create on it"));
    grant(&broker, "operator", &["Create"], &topics);
    grant(&broker, "operator", &["Read", "Write"], &["--topic", table]);
    assert!(denied(&create()).contains(&format!("grant Write on the transactional id {writer};")));
    grant(&broker, "operator", &["Write"], &role);
    assert_eq!(code(&create()), 0);
    let check = site.topics(&operator, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, ""), "nothing was seen, and nothing found");
    for topic in [commands, table] {
        let unseen = format!("we may not see how {topic} is set: grant DescribeConfigs on it");
        assert!(stderr(&check).contains(&unseen), "{}", stderr(&check));
    }
    grant(&broker, "operator", &["DescribeConfigs"], &topics);
    let check = site.topics(&operator, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, "all settings are as they are to be\n"));
    assert!(wrong.runs() && waiting.runs());
    assert_told_once(&wrong, refused);
    assert_told_once(&waiting, lacks);

    // Reading takes no right to see settings, nor to write; what is missing is told when it is needed.
    grant(&broker, "reader", &["Read"], &["--topic", commands]);
    let reads = site.sidecar(&reader);
    reads.wait_ready();
    assert_told_once(&reads, "we may not see how the topic is set: grant DescribeConfigs on it");
    let assert_refused = |why: &str| {
        let (status, answer) = reads.post("", "BLACKLIST 192.0.2.1");
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("log_unavailable")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("nothing was written: ") && message.contains(why), "{message}");
    };
    // To Kafka it makes a difference whether a user may write anywhere.
    assert_refused("does not let our user write: grant Write on the topic rights.commands;");
    assert_refused("does not let our user write: grant Write on the topic rights.commands;");
    grant(&broker, "reader", &["Write"], &["--topic", "elsewhere"]);
    assert_refused("does not let our user at the topic rights.commands: grant Write on it;");

    grant(&broker, "sidecar", &["Read", "DescribeConfigs"], &topics);
    grant(&broker, "sidecar", &["Write"], &["--topic", commands]);
    waiting.wait_ready();
    let edit = waiting.run(&["blacklist", "192.0.2.1", "--wait"]);
    assert_eq!(code(&edit), 0, "{}", stderr(&edit));

    grant(&broker, "projector", &["Read", "DescribeConfigs"], &topics);
    let unnamed = site.projector(&projector, &[]);
    unnamed.wait_message(&format!("grant Write on the transactional id {writer};"));
    drop(unnamed);
    grant(&broker, "projector", &["Write"], &role);
    let keeps = site.projector(&projector, &[]);
    keeps.wait_message("does not let our user at the topic rights.table: grant Write on it;");
    grant(&broker, "projector", &["Write"], &["--topic", table]);
    site.agree(&projector, &[&keeps, &waiting, &reads], &[]);
    for process in [&keeps, &waiting, &reads] {
        process.wait("all is well", |status| status["message"].is_null());
    }

    // The verbs of the table, and replay, read the commands as well.
    let verb = |args: &[&str]| site.verb(&operator, args).output().expect("the program runs");
    assert!(denied(&verb(&["table", "verify"])).contains("at the topic rights.commands: grant Read"));
    assert!(denied(&verb(&["replay"])).contains("at the topic rights.commands: grant Read"));
    grant(&broker, "operator", &["Read"], &["--topic", commands]);
    for args in [&["table", "verify"][..], &["table", "rebuild"], &["replay"]] {
        let output = verb(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    }

    // That nobody may see the group is nobody's business, and no reason for anything.
    broker.kill();
    waiting.wait_message("no answer from Kafka at ");
}

const README: &str = include_str!("../../README.md");

/// What the README tells to grant: the arguments of Kafka's own tool, a grant each.
fn grants_in_readme() -> Vec<Vec<&'static str>> {
    let (_, rest) = README.split_once("### Rights").expect("the section begins");
    let (script, _) = rest.split_once("```\n\n###").expect("the script ends");
    let (_, topics) = script.split_once("topics=\"").expect("both topics have a name");
    let (topics, _) = topics.split_once('"').expect("it ends");
    let words = |line: &'static str| {
        let words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.flat_map(|word| if word == "$topics" { topics } else { word }.split_whitespace()).collect()
    };
    script.lines().filter_map(|line| line.strip_prefix("$acls ")).map(words).collect()
}

#[test]
fn what_the_readme_tells_to_grant_is_enough_for_everybody() {
    let broker = secured(&["operator", "projector", "sidecar"]);
    let grants = grants_in_readme();
    assert!(!grants.is_empty(), "the README's script is read");
    grants.iter().for_each(|grant| drop(broker.acl(&[&["--add"], &grant[..]].concat())));
    // Named as the topics are in the README.
    let site = Site::new(&broker, "portcullis");
    let [operator, projector, sidecar] =
        ["operator", "projector", "sidecar"].map(|user| WITH_TABLE.user(user, "secret"));
    site.begin(&operator);
    let check = site.topics(&operator, &["check"]);
    assert_eq!((code(&check), stdout(&check)), (0, "all settings are as they are to be\n"));
    let (works, follows) = (site.projector(&projector, &[]), site.sidecar(&sidecar));
    follows.wait_ready();
    let edit = follows.run(&["blacklist", "192.0.2.1", "--wait"]);
    assert_eq!(code(&edit), 0, "{}", stderr(&edit));
    site.agree(&projector, &[&works, &follows], &[]);
    for process in [&works, &follows] {
        process.wait("all is well", |status| status["message"].is_null());
        assert!(!process.log().contains("grant "), "{}", process.log());
    }
}
