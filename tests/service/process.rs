//! Runs the real service on free ports, and talks to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis::http::client::{Client, Endpoint, Request};

use super::output::{code, stderr};

/// How long anything may take that has to happen; generous, because a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    data: PathBuf,
    /// The URL of its admin socket.
    pub(crate) client_url: String,
}

/// Runs the program to its end, with a data directory and nothing else of this machine's environment.
pub(crate) fn portcullis(data: &Path, args: &[&str]) -> Output {
    command(data, args).output().expect("the program runs")
}

/// Starts the program without waiting for anything.
pub(crate) fn spawn(data: &Path, args: &[&str]) -> Child {
    command(data, args).spawn().expect("the program starts")
}

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).env_clear().env("STATE_DIRECTORY", data).env("RUST_LOG", "error").stdin(Stdio::null());
    command
}

impl Serving {
    /// Starts the service and waits until its admin socket answers.
    pub(crate) fn start(data: &Path) -> Self {
        let socket = data.join("admin.sock");
        let child = command(data, &["serve", "--lookup", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).spawn();
        let child = child.expect("the program starts");
        let serving = Self { child, data: data.to_owned(), client_url: format!("unix:{}", socket.display()) };
        wait_until("the admin socket answers", || {
            serving.client_url.parse::<Endpoint>().is_ok_and(|endpoint| Client::connect(&endpoint).is_ok())
        });
        serving
    }

    /// Waits until it has a list.
    pub(crate) fn wait_ready(&self) {
        let output = self.run(&["status", "--wait"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }

    /// Runs a verb against it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        portcullis(&self.data, &[&["--url", &self.client_url], args].concat())
    }

    /// The name of each of its threads, and how nice it is.
    pub(crate) fn niceness(&self) -> Vec<(String, i64)> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stats =
            threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        // `pid (name) state …`, of which the 17th field behind the name is the niceness.
        let named = |stat: String| {
            let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
            Some((name.to_owned(), fields.split(' ').nth(16)?.parse().ok()?))
        };
        stats.filter_map(named).collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }

    /// Sends a signal, waits for the end, and tells the exit code.
    pub(crate) fn end(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        self.child.wait().expect("it was ours").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already, as the test wanted it to.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn client(url: &str) -> Client {
    Client::connect(&url.parse().expect("a URL")).expect("it listens")
}

/// Posts commands; the status of the answer, if there was one.
pub(crate) fn post(client: &mut Client, body: &str) -> Option<u16> {
    let request =
        Request { path: "/v1/commands".into(), body: Some(body.to_owned().into()), ..Request::default() };
    client.send(&request).ok().map(|answer| answer.status)
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
