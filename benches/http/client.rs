//! The client: one thread, and any number of connections.
//!
//! Every answer is read whole and compared with what it must be, after its time was taken.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::dialect::{Answer, Dialect, Reading};

/// How long any answer may take: long, because a machine or a process may be stopped for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server is asked.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// A connection as a file, because reading and writing is all that is done with any of the three.
    pub(crate) fn connect(&self) -> io::Result<File> {
        let socket: OwnedFd = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.into()
            }
            Self::Udp(address) => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(address)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.into()
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.into()
            }
        };
        Ok(socket.into())
    }
}

/// One question, made before anything is measured, and what must be answered.
pub(crate) struct Question {
    pub(crate) address: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Answer,
}

/// A server and what it is asked.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) dialect: Box<dyn Dialect>,
    pub(crate) questions: Vec<Question>,
}

impl Server {
    /// Asks about this many addresses, one after the other; what is wrong with it, if anything.
    pub(crate) fn probe(&self, questions: usize) -> Result<(), String> {
        let mut connection = Connection::new(self).map_err(|error| error.to_string())?;
        self.questions.iter().take(questions).try_for_each(|question| {
            connection.ask(question, Instant::now()).map_err(|error| error.to_string())?;
            while connection.receive()?.is_none() {}
            Ok(())
        })
    }

    /// All questions for ever, beginning at another one in each round.
    fn endless(&self, round: usize) -> impl Iterator<Item = &Question> {
        self.questions.iter().cycle().skip(round * 1_009)
    }
}

/// One connection, and the question that it waits for the answer to.
struct Connection<'a> {
    server: &'a Server,
    socket: File,
    buffer: [u8; 4096],
    filled: usize,
    asked: Option<(&'a Question, Instant)>,
}

impl<'a> Connection<'a> {
    fn new(server: &'a Server) -> io::Result<Self> {
        let socket = server.place.connect()?;
        Ok(Self { server, socket, buffer: [0; 4096], filled: 0, asked: None })
    }

    /// Asks. The latency counts from `since`.
    fn ask(&mut self, question: &'a Question, since: Instant) -> io::Result<()> {
        self.asked = Some((question, since));
        self.filled = 0;
        self.socket.write_all(&question.bytes)
    }

    /// Reads what has come, or waits for it; the latency once the answer is whole.
    fn receive(&mut self) -> Result<Option<Duration>, String> {
        let read = match self.socket.read(&mut self.buffer[self.filled..]) {
            // It was stopped and goes on.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            read => read.map_err(|error| error.to_string())?,
        };
        let at = Instant::now();
        self.filled += read;
        let (question, since) = self.asked.expect("it is read after it was asked");
        let answer = &self.buffer[..self.filled];
        match self.server.dialect.read(question.address, answer) {
            Reading::Whole(answer) if answer == question.expected => Ok(Some(at - since)),
            Reading::Partial if read > 0 => Ok(None),
            _ => Err(format!("{}: {}", question.address, String::from_utf8_lossy(answer).escape_debug())),
        }
    }

    /// The same while it is measured, where nothing may go wrong any more.
    fn measured(&mut self) -> Option<Duration> {
        self.receive().unwrap_or_else(|wrong| panic!("{}: wrong answer about {wrong}", self.server.name))
    }
}

/// Latencies in nanoseconds.
pub(crate) type Latencies = Histogram<u64>;

pub(crate) fn latencies() -> Latencies {
    Histogram::new(3).expect("3 digits")
}

fn record(latencies: &mut Latencies, latency: Duration) {
    latencies.record(latency.as_nanos() as u64).expect("it grows with what it holds");
}

/// One connection that asks again as soon as it is answered.
pub(crate) fn closed_one(server: &Server, round: usize, time: Duration) -> Latencies {
    let mut connection = Connection::new(server).expect("it listens");
    let (mut latencies, until) = (latencies(), Instant::now() + time);
    for question in server.endless(round) {
        let since = Instant::now();
        if since >= until {
            break;
        }
        connection.ask(question, since).expect("it is open");
        loop {
            if let Some(latency) = connection.measured() {
                record(&mut latencies, latency);
                break;
            }
        }
    }
    latencies
}

/// Connections, and the kernel's word on which of them can be read.
struct Pool<'a> {
    connections: Vec<Connection<'a>>,
    epoll: Epoll,
}

impl<'a> Pool<'a> {
    fn new(server: &'a Server, connections: usize) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("a descriptor is free");
        let connect = |number: usize| {
            let connection = Connection::new(server).expect("it listens");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(&connection.socket, event).expect("it is a socket");
            connection
        };
        Self { connections: (0..connections).map(connect).collect(), epoll }
    }

    fn ask(&mut self, connection: usize, question: &'a Question, since: Instant) {
        self.connections[connection].ask(question, since).expect("it is open");
    }

    /// The connections that have been answered, after waiting for at most this long, with their latencies.
    fn answered(&mut self, timeout: EpollTimeout, answered: &mut Vec<(usize, Duration)>) {
        let mut events = [EpollEvent::empty(); 16];
        let ready = loop {
            match self.epoll.wait(&mut events, timeout) {
                // It was stopped and goes on.
                Err(Errno::EINTR) => {}
                ready => break ready.expect("the descriptor is ours"),
            }
        };
        answered.clear();
        answered.extend(events.iter().take(ready).filter_map(|event| {
            let connection = event.data() as usize;
            self.connections[connection].measured().map(|latency| (connection, latency))
        }));
    }
}

/// Connections that each ask again as soon as they are answered.
pub(crate) fn closed_many(server: &Server, round: usize, connections: usize, time: Duration) -> Latencies {
    let mut pool = Pool::new(server, connections);
    let (mut questions, mut latencies, mut answered) = (server.endless(round), latencies(), Vec::new());
    let (mut open, until) = (connections, Instant::now() + time);
    let mut next = || questions.next().expect("they are endless");
    (0..connections).for_each(|connection| pool.ask(connection, next(), Instant::now()));
    while open > 0 {
        pool.answered(EpollTimeout::try_from(PATIENCE).expect("it is short"), &mut answered);
        assert!(!answered.is_empty(), "{}: no answer for {PATIENCE:?}", server.name);
        for (connection, latency) in &answered {
            record(&mut latencies, *latency);
            match Instant::now() {
                now if now < until => pool.ask(*connection, next(), now),
                _ => open -= 1,
            }
        }
    }
    latencies
}

/// Questions that are due at fixed times, whether those before are answered or not.
///
/// The latency counts from when a question was due: one that has to wait because all connections wait for an
/// answer has waited for the server. The client does not sleep, so that it never adds its own waking up.
pub(crate) fn open(
    server: &Server,
    round: usize,
    connections: usize,
    rate: u32,
    time: Duration,
) -> Latencies {
    let mut pool = Pool::new(server, connections);
    let (mut questions, mut latencies, mut answered) = (server.endless(round), latencies(), Vec::new());
    let mut free: VecDeque<usize> = (0..connections).collect();
    let (began, apart) = (Instant::now(), Duration::from_secs(1) / rate);
    let all = (time.as_secs_f64() * f64::from(rate)) as u32;
    let mut sent = 0;
    while latencies.len() < u64::from(all) {
        assert!(began.elapsed() < time * 10 + PATIENCE, "{}: far from {rate} answers a second", server.name);
        let due = began + apart * sent;
        if sent < all
            && due <= Instant::now()
            && let Some(connection) = free.pop_front()
        {
            pool.ask(connection, questions.next().expect("they are endless"), due);
            sent += 1;
        }
        pool.answered(EpollTimeout::ZERO, &mut answered);
        for (connection, latency) in &answered {
            record(&mut latencies, *latency);
            free.push_back(*connection);
        }
    }
    latencies
}
