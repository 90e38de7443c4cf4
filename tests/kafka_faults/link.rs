//! A link to the broker that swallows what is sent through it, wholly or for the readers only.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// How often the threads of a link look whether it is still there.
const LOOK: Duration = Duration::from_millis(50);
/// The key of a fetch in Kafka's protocol.
const FETCH: u16 = 1;
/// So many fetches only a reader sends on one connection: who asks a question sends one or two.
const READER_FETCHES: usize = 10;

/// Leads connections to a broker. What swallows a byte of a connection keeps that connection open and silent
/// for good, as a firewall does that has forgotten it.
pub(crate) struct Link {
    port: u16,
    way: Arc<Way>,
}

/// What the threads of a link share.
#[derive(Default)]
struct Way {
    target: OnceLock<SocketAddr>,
    is_cut: AtomicBool,
    is_gone: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
}

#[derive(Default)]
struct Connection {
    fetches: AtomicUsize,
    is_silent: AtomicBool,
}

impl Link {
    /// A link that does not lead anywhere yet: the broker has to be told of it before it starts.
    pub(crate) fn new() -> Self {
        // Below those that the system gives to outgoing connections.
        let free = |port| TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (port, listener));
        let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
        let (port, listener) = ports.find_map(free).expect("it never ends");
        listener.set_nonblocking(true).expect("it can be");
        let way = Arc::new(Way::default());
        let accepting = Arc::clone(&way);
        thread::spawn(move || accepting.accept(&listener));
        Self { port, way }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Where clients connect to.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn lead_to(&self, bootstrap: &str) {
        self.way.target.set(bootstrap.parse().expect("an address")).expect("it is led once");
    }

    /// Swallows everything from now on. New connections are taken and hear nothing.
    pub(crate) fn cut(&self) {
        self.way.is_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.way.is_cut.store(false, Ordering::Relaxed);
    }

    /// Swallows what goes over the connections that read a log, as they are open now; says how many.
    pub(crate) fn silence_readers(&self) -> usize {
        let connections = self.way.connections.lock().expect("no panic");
        let is_reader = |it: &&Arc<Connection>| it.fetches.load(Ordering::Relaxed) >= READER_FETCHES;
        let silenced = connections.iter().filter(is_reader).filter(|reader| {
            let was_silent = reader.is_silent.swap(true, Ordering::Relaxed);
            !was_silent
        });
        silenced.count()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.way.is_gone.store(true, Ordering::Relaxed);
    }
}

impl Way {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while !self.is_gone.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((client, _)) => self.connect(client),
                Err(_) => thread::sleep(LOOK / 10),
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Some(broker) = self.target.get().and_then(|target| TcpStream::connect(target).ok()) else {
            return;
        };
        let connection = Arc::new(Connection::default());
        connection.is_silent.store(self.is_cut.load(Ordering::Relaxed), Ordering::Relaxed);
        self.connections.lock().expect("no panic").push(Arc::clone(&connection));
        for stream in [&client, &broker] {
            stream.set_nonblocking(false).expect("it can be");
            stream.set_nodelay(true).expect("it can be");
            stream.set_read_timeout(Some(LOOK)).expect("a timeout");
        }
        let halves = (client.try_clone().expect("a descriptor"), broker.try_clone().expect("a descriptor"));
        let (out, back) = (Arc::clone(self), Arc::clone(self));
        let (there, here) = (Arc::clone(&connection), connection);
        thread::spawn(move || out.pass_on(client, broker, &there, Frames::default()));
        thread::spawn(move || {
            back.pass_on(halves.1, halves.0, &here, Frames { is_counted: false, ..Frames::default() });
        });
    }

    /// Passes on what comes from one side to the other, unless it is swallowed.
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream, connection: &Connection, mut frames: Frames) {
        let mut buffer = vec![0; 64 * 1024];
        while !self.is_gone.load(Ordering::Relaxed) {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            connection.fetches.fetch_add(frames.fetches(&buffer[..read]), Ordering::Relaxed);
            if self.is_cut.load(Ordering::Relaxed) {
                connection.is_silent.store(true, Ordering::Relaxed);
            }
            if !connection.is_silent.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // The end of a connection is swallowed, too.
        if !connection.is_silent.load(Ordering::Relaxed) {
            let _gone = to.shutdown(Shutdown::Both);
        }
    }
}

/// Finds the requests in what a client sends: four bytes of length, then two that say what is asked.
struct Frames {
    is_counted: bool,
    head: Vec<u8>,
    rest: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { is_counted: true, head: Vec::new(), rest: 0 }
    }
}

impl Frames {
    /// How many requests to fetch begin in these bytes.
    fn fetches(&mut self, mut bytes: &[u8]) -> usize {
        let mut fetches = 0;
        while self.is_counted && !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let taken = (6 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [a, b, c, d, high, low] = self.head[..] {
                fetches += usize::from(u16::from_be_bytes([high, low]) == FETCH);
                self.rest = usize::try_from(u32::from_be_bytes([a, b, c, d])).expect("it is short") - 2;
                self.head.clear();
            }
        }
        fetches
    }
}
