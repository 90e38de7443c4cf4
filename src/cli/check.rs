//! `portcullis check`: is this address blacklisted?
//!
//! The addresses are judged before anything is sent, and sent in their canonical form; what is printed is the
//! text as it was typed, so that a script can match it. Answers of one request are of one position.

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::address::Address;
use crate::cli::connect::{Intent, Target, ask};
use crate::cli::failure::{Exit, Failure};
use crate::cli::list::in_words;
use crate::cli::output::{Format, Output};
use crate::http::LOOKUP_BATCH_ADDRESSES_MAX;
use crate::http::client::{Client, Request};

/// The flags of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The addresses, IPv4 or IPv6
    #[arg(required = true, value_name = "ADDRESS", value_parser = parse_asked)]
    addresses: Vec<Asked>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// An address, and how the user wrote it.
#[derive(Clone, Debug)]
struct Asked {
    text: String,
    address: Address,
}

/// For clap, which shows the error with the argument that it belongs to.
fn parse_asked(text: &str) -> Result<Asked, String> {
    let address = text.parse().map_err(|error| in_words(&error))?;
    Ok(Asked { text: text.to_owned(), address })
}

/// Asks about every address and prints the answers in the order given. It ends with [`Exit::No`] if at least
/// one is blacklisted, so that `portcullis check A && …` reads as "if A is free".
///
/// # Errors
/// When the service can't be asked, or has no snapshot yet: not knowing is never "free".
pub fn run(args: &CheckArgs, target: &Target) -> Result<Exit, Failure> {
    let mut client = target.connect(Intent::Read)?;
    let mut output = Output::lock();
    let mut exit = Exit::Done;
    // What every listener takes, because `--url` may name a lookup listener.
    for batch in args.addresses.chunks(LOOKUP_BATCH_ADDRESSES_MAX) {
        let blacklisted = check(&mut client, batch)?;
        for line in batch.iter().zip(&blacklisted) {
            output.line(show(line, args.json.into()))?;
        }
        if blacklisted.contains(&true) {
            exit = Exit::No;
        }
    }
    output.flush()?;
    Ok(exit)
}

/// One request: whether each address is blacklisted. As many answers as addresses, or it is a failure.
fn check(client: &mut Client, batch: &[Asked]) -> Result<Vec<bool>, Failure> {
    let lines: Vec<String> = batch.iter().map(|asked| asked.address.to_string()).collect();
    let body = Some(Bytes::from(lines.join("\n") + "\n"));
    let answer = ask(client, &Request { path: "/v1/check".to_owned(), body, ..Request::default() })?;
    let answers: Option<Vec<bool>> =
        answer.trim_ascii_end().split(|byte| *byte == b'\n').map(parse_answer).collect();
    answers.filter(|answers| answers.len() == batch.len()).ok_or_else(|| {
        Failure::unavailable("the answer of the service makes no sense: not one 0 or 1 for each address")
    })
}

/// One line of the answer; none for anything but a verdict.
const fn parse_answer(line: &[u8]) -> Option<bool> {
    match line {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

/// One line of the result.
fn show((asked, blacklisted): (&Asked, &bool), format: Format) -> String {
    match format {
        Format::Text => format!("{} {}", asked.text, u8::from(*blacklisted)),
        Format::Json => json!({"address": asked.text, "blacklisted": blacklisted}).to_string(),
    }
}
