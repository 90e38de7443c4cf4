//! `portcullis export`: all that is blacklisted, to standard output as it comes.
//!
//! A list of any length passes through in pieces; nothing of it is kept. It is whole if the exit code is 0:
//! the service marks the end, so that a connection that breaks is not taken for it.

use std::io;

use clap::Args;

use crate::cli::connect::{Intent, Target, lost};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, unwritable};
use crate::http::client::{Request, RequestError};

/// The flags of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Print a JSON object a line, one for each row, with the offset of its command and its expiry
    #[arg(long)]
    json: bool,
}

/// Prints the blacklist. A reader that stops early (`| head`) has what it wanted, and is no failure.
///
/// # Errors
/// When the service can't be asked, sends a list to somebody else at the moment, or its answer is cut off;
/// what came before is printed by then.
pub fn run(args: &ExportArgs, target: &Target) -> Result<Exit, Failure> {
    let accept = if args.json { None } else { Some("text/plain") };
    let request = Request { path: "/v1/ranges".to_owned(), accept, ..Request::default() };
    let mut client = target.connect(Intent::Read)?;
    let mut output = Output::lock();
    let answer = client.stream(&request, &mut |piece| {
        output.bytes(piece)?;
        // Nobody reads on, so that there is no sense in fetching the rest.
        if output.is_gone() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    output.flush()?;
    match answer {
        Ok(answer) if answer.status != 200 => Err(Failure::answered(&answer)),
        Ok(_) => Ok(Exit::Done),
        Err(RequestError::Sink(_)) if output.is_gone() => Ok(Exit::Done),
        Err(RequestError::Sink(error)) => Err(unwritable(&error)),
        Err(error) => Err(lost(&client, &error)),
    }
}
