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
