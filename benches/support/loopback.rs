//! A server and its clients on one machine, each side on a core of its own: where the scheduler happens to
//! put two threads that wake each other makes more difference than what they do.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its own part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portcullis::http::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
use portcullis::http::{App, Server};
use tempfile::TempDir;

/// No answer takes as long, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Binds this thread, and those that it starts from now on, to one core; where there is only one, to that.
pub fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).expect("a core that a set can name");
    if let Err(error) = sched_setaffinity(Pid::from_raw(0), &cores) {
        eprintln!("(core {core}: {error})");
    }
}

/// Listeners that are running, and the first place of the lookup ones.
pub struct Serving {
    pub place: Listen,
    _server: Server,
    _directory: TempDir,
}

/// Any free TCP port.
pub fn any_port() -> Listen {
    Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Starts the listeners; the lookup one on any port unless the settings name a socket.
pub fn serve(app: App, mut lookup: LookupSettings) -> Serving {
    let directory = tempfile::tempdir().expect("a folder");
    if !matches!(lookup.listen.as_slice(), [Listen::Unix(_)]) {
        lookup.listen = vec![any_port()];
    }
    let admin = AdminSettings { listen: vec![any_port()], ..AdminSettings::default() };
    let server = Server::start(app, &lookup, &admin, &HttpSettings::default(), directory.path());
    let server = server.expect("free ports");
    let place = server.lookup().first().cloned().expect("one place");
    Serving { place, _server: server, _directory: directory }
}

/// A stream of either kind.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// One connection that sends a request, waits for the whole answer, and so on.
pub struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(place: &Listen) -> Self {
        let stream: Box<dyn Stream> = match place {
            Listen::Tcp(address) => {
                let stream = TcpStream::connect(address).expect("it listens");
                stream.set_nodelay(true).expect("it is open");
                stream.set_read_timeout(Some(PATIENCE)).expect("it is open");
                Box::new(stream)
            }
            Listen::Unix(path) => {
                let stream = UnixStream::connect(path).expect("it listens");
                stream.set_read_timeout(Some(PATIENCE)).expect("it is open");
                Box::new(stream)
            }
        };
        Self { stream, buffer: vec![0; 64 * 1024] }
    }

    /// How long an answer took, which must be a good one.
    pub fn ask(&mut self, request: &[u8]) -> Duration {
        let sent = Instant::now();
        self.stream.write_all(request).expect("it is open");
        let mut bytes = 0;
        loop {
            let free = self.buffer.get_mut(bytes..).expect("no answer is as long as the buffer");
            let read = self.stream.read(free).expect("an answer");
            assert!(read > 0, "the server closed the connection");
            bytes += read;
            let answer = self.buffer.get(..bytes).unwrap_or_default();
            if is_whole(answer) {
                assert!(answer.starts_with(b"HTTP/1.1 200"));
                return sent.elapsed();
            }
        }
    }
}

/// Whether an answer has as many bytes as its header announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| answer.len() == end + 4 + length)
}
