//! Runs the real program.

use std::fs;
use std::process::{Command, Output, Stdio};

use portcullis::command::Command as Edit;

use crate::scripted::{Asked, Service};

/// The program without any environment, so that nothing of this machine has a say.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

pub fn run(args: &[&str]) -> Output {
    program(args).output().expect("the program runs")
}

/// Runs a verb against a service.
pub fn run_at(service: &Service, args: &[&str]) -> Output {
    run(&[&["--url", &service.url], args].concat())
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

pub fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("UTF-8")
}

pub fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("UTF-8")
}

pub fn edits(asked: &Asked) -> Vec<Edit> {
    asked.lines().iter().map(|line| Edit::decode(line.as_bytes()).expect("a command")).collect()
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A file with this content, and its path as text.
pub fn file(folder: &tempfile::TempDir, content: impl AsRef<[u8]>) -> String {
    let path = folder.path().join("list.txt");
    fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}
