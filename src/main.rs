//! The `portcullis` program; all of it is in the library, so that tests and other programs can use every
//! part.

use std::process::ExitCode;

use portcullis::config::Environment;

fn main() -> ExitCode {
    portcullis::cli::run(std::env::args_os(), Environment::of_process())
}
