//! A service that answers from a script and remembers what it was asked: for errors that a real one
//! would have to be broken for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// One answer of the script.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a whole body.
    Whole(u16, String),
    /// A 200 with this whole body, and then the end of the connection.
    Last(String),
    /// The head of a 200, a piece of its body, and the end of the connection.
    CutOff(String),
    /// The end of the connection, and no answer.
    Nothing,
}

/// A whole answer.
pub fn reply(status: u16, body: &str) -> Reply {
    Reply::Whole(status, body.to_owned())
}

/// An error in the one shape that errors have.
pub fn error(status: u16, code: &str) -> Reply {
    reply(status, &format!(r#"{{"error":{{"code":"{code}","message":"it is {code}","hint":"try less"}}}}"#))
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Which connection it came over.
    pub connection: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn lines(&self) -> Vec<&str> {
        self.body.lines().collect()
    }
}

#[derive(Default)]
struct Shared {
    replies: VecDeque<Reply>,
    asked: Vec<Asked>,
    connections: usize,
}

/// The service; its threads end with the test.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Mutex<Shared>>,
    pub url: String,
}

impl Service {
    pub fn tcp(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let service = Self::new(replies, url);
        let serving = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream: TcpStream = stream.expect("a connection");
                let (reading, serving) = (stream.try_clone().expect("a clone"), serving.clone());
                thread::spawn(move || {
                    serving.converse(reading, &stream);
                    stream.shutdown(Shutdown::Both)
                });
            }
        });
        service
    }

    pub fn unix(path: &Path, replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let service = Self::new(replies, format!("unix:{}", path.display()));
        let serving = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream: UnixStream = stream.expect("a connection");
                let reading = stream.try_clone().expect("a clone");
                serving.converse(reading, &stream);
            }
        });
        service
    }

    fn new(replies: impl IntoIterator<Item = Reply>, url: String) -> Self {
        let shared = Shared { replies: replies.into_iter().collect(), ..Shared::default() };
        Self { shared: Arc::new(Mutex::new(shared)), url }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().expect("no panic").asked.clone()
    }

    fn converse(&self, reading: impl Read, mut writing: impl Write) {
        let mut reading = BufReader::new(reading);
        let connection = {
            let mut shared = self.shared.lock().expect("no panic");
            shared.connections += 1;
            shared.connections
        };
        while let Some(asked) = read_request(&mut reading) {
            let reply = {
                let mut shared = self.shared.lock().expect("no panic");
                shared.asked.push(Asked { connection, ..asked });
                shared.replies.pop_front()
            };
            // A client that hangs up early is a case under test.
            let _ = match reply.unwrap_or_else(|| self::reply(418, "the script has ended")) {
                Reply::Whole(status, body) => writing.write_all(whole(status, &body).as_bytes()),
                Reply::Last(body) => {
                    let _ = writing.write_all(whole(200, &body).as_bytes());
                    return;
                }
                Reply::CutOff(piece) => {
                    let head = "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n";
                    let _ = writing.write_all(format!("{head}{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
                    return;
                }
                Reply::Nothing => return,
            };
        }
    }
}

fn whole(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nportcullis-position: 7\r\n\r\n{body}")
}

fn read_request(reading: &mut impl BufRead) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reading.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers: Vec<(String, String)> = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a length"))];
    reading.read_exact(&mut body).ok()?;
    let line = lines.first()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, headers, body: String::from_utf8(body).expect("UTF-8"), connection: 0 })
}
