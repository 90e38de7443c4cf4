//! Processes that end with the bench, however it ends.
//!
//! A process is started through this program itself (`--launch`), which binds itself to a core, asks the
//! kernel to be ended with the bench, and becomes the program that is meant.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cores;

/// The first argument that makes this program launch another one.
pub(crate) const LAUNCH: &str = "--launch";
/// How long a process may take to end when it is asked to.
const ENDING: Duration = Duration::from_secs(3);
/// Where servers are that are not for everybody's `PATH`.
const SERVER_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A running process; ended when dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts a program in this folder, on this core. What it prints goes into a file there.
    pub(crate) fn start(program: &Path, args: &[&str], folder: &Path, core: usize) -> Self {
        let output = folder.join("output");
        let file = File::create(&output).expect("the folder is ours");
        let mut command = Command::new(std::env::current_exe().expect("Linux tells it"));
        command.arg(LAUNCH).arg(core.to_string()).arg(program).args(args).current_dir(folder);
        command.env("RUNTIME_DIRECTORY", folder).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("it is open")).stderr(file);
        Self { child: command.spawn().expect("this program can be started"), output }
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("Linux has no such ids"))
    }

    /// What it has printed last.
    pub(crate) fn last_words(&self) -> String {
        let printed = std::fs::read_to_string(&self.output).unwrap_or_default();
        printed.lines().next_back().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = kill(self.id(), Signal::SIGTERM);
        let until = Instant::now() + ENDING;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Becomes the program that the arguments name, behind the core to run it on. The ends of a master and its
/// workers are one only with SIGTERM: killed, nginx leaves its workers behind.
pub(crate) fn launch(mut args: impl Iterator<Item = OsString>) {
    let core = args.next().and_then(|core| core.to_str().and_then(|core| core.parse().ok()));
    cores::bind(Pid::from_raw(0), core.expect("a core"));
    set_pdeathsig(Signal::SIGTERM).expect("the signal exists");
    let error = Command::new(args.next().expect("a program")).args(args).exec();
    eprintln!("{error}");
}

/// Where a program is; none if it is not installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(SERVER_FOLDERS.split(':'));
    folders.map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// Runs a program to its end: what it prints, on either output, or why it failed.
pub(crate) fn run(program: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    if output.status.success() { Ok(printed) } else { Err(format!("{}: {printed}", output.status)) }
}

/// The first word of what a program prints that looks like a version.
pub(crate) fn version(program: &Path, args: &[&str]) -> String {
    let (Ok(printed) | Err(printed)) = run(program, args);
    let mut words = printed.split([' ', '/', '=', '\n']).map(|word| word.trim_start_matches('v'));
    let looks = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.find(looks).unwrap_or("of an unknown version").to_owned()
}

/// A free address on loopback. Nobody holds it, but the kernel does not give it to the next who asks.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("it is bound")
}
