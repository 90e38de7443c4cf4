//! What the README lists is what the program has.

use portcullis::http::codes::ERROR_CODES;

const README: &str = include_str!("../README.md");

#[test]
fn every_error_code_stands_in_the_readme() {
    let (_, rest) = README.split_once("by a test -->\n").expect("the table begins");
    let (table, _) = rest.split_once("<!-- /errors -->").expect("the table ends");
    let row = |code: &portcullis::http::codes::ErrorCode| {
        format!("| {} | `{}` | {} |\n", code.status.as_u16(), code.word, code.meaning)
    };
    let rows: String = ERROR_CODES.iter().map(row).collect();
    let expected = format!("| status | code | when |\n|---|---|---|\n{rows}");
    assert!(table == expected, "the table in the README should be:\n{expected}");
}

/// The configuration that the README shows is the default one, and complete.
#[test]
fn the_configuration_in_the_readme_is_the_default() {
    let (_, rest) = README.split_once("```toml\n").expect("the configuration begins");
    let (toml, _) = rest.split_once("```").expect("the configuration ends");
    let shown = portcullis::config::Config::parse(toml, "README.md".as_ref()).expect("it is right");
    assert_eq!(shown, portcullis::config::Config::default());
}

/// The examples are configurations of this release; nothing is asked of the brokers that they name.
#[cfg(feature = "kafka")]
#[test]
fn the_examples_of_kafka_are_right() {
    use portcullis::config::Config;

    let parse = |text: &str| Config::parse(text, "example.toml".as_ref()).expect("it is right");
    let local = parse(include_str!("../examples/kafka/local.toml"));
    let local = local.log.kafka().expect("it is complete").expect("it is on Kafka");
    assert_eq!(local.table_topic.as_deref(), Some("portcullis.table"));
    let secured = include_str!("../examples/kafka/tls-sasl.toml");
    // The authority that it names is not on this machine.
    let secured = parse(&secured.replacen("/etc/portcullis/ca.pem", "probe", 1));
    let secured = secured.log.kafka().expect("it is complete").expect("it is on Kafka");
    assert!(secured.client.contains_key("security.protocol"));
}
