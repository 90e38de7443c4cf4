//! A client that writes bytes and reads answers, so that tests can send what no HTTP library would.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Long enough that only a test that would hang for ever runs into it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of either kind.
pub trait Stream: Read + Write {
    fn set_patience(&self, patience: Duration);
    fn close_write(&self);
}

impl Stream for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).expect("a timeout");
    }

    fn close_write(&self) {
        self.shutdown(std::net::Shutdown::Write).expect("a half that is open");
    }
}

impl Stream for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).expect("a timeout");
    }

    fn close_write(&self) {
        self.shutdown(std::net::Shutdown::Write).expect("a half that is open");
    }
}

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("an answer in UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status and code of an error, after a look at its shape.
    pub fn error(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(error["message"].is_string() && error["hint"].is_string(), "{error}");
        (self.status, error["code"].as_str().expect("a code").to_owned())
    }
}

impl Client {
    pub fn tcp(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"))
    }

    pub fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("a connection"))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        stream.set_patience(PATIENCE);
        Self { stream: Box::new(stream), unread: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("a peer that reads");
    }

    /// Sends what a peer that answers early may not take in full.
    pub fn send_some(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends all of it, unless the peer has closed the connection.
    pub fn is_taken(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn close_write(&self) {
        self.stream.close_write();
    }

    /// A request with these header lines, and its answer.
    pub fn ask(&mut self, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if method == "POST" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{request}\r\n{body}"));
        if method == "HEAD" { self.head() } else { self.reply() }
    }

    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, &[], "")
    }

    pub fn post(&mut self, target: &str, body: &str) -> Reply {
        self.ask("POST", target, &[], body)
    }

    /// The next answer, with its body.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        let chunked = reply.header("transfer-encoding") == Some("chunked");
        let length = reply.header("content-length").map(|length| length.parse().expect("a length"));
        reply.body = match length {
            _ if chunked => self.chunks(),
            Some(length) => self.bytes(length),
            None => Vec::new(),
        };
        reply
    }

    /// The next answer's header.
    pub fn head(&mut self) -> Reply {
        let status = self.line().split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Reply { status, headers, body: Vec::new() };
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).expect("a length");
            body.extend(self.bytes(length));
            assert_eq!(self.line(), "");
            if length == 0 {
                return body;
            }
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).expect("a header in UTF-8");
            }
            self.more();
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            self.more();
        }
        self.unread.drain(..length).collect()
    }

    fn more(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer).expect("an answer") {
            0 => panic!("closed behind {:?}", String::from_utf8_lossy(&self.unread)),
            read => self.unread.extend(&buffer[..read]),
        }
    }

    /// Waits until the peer closes the connection; whether it sent nothing more before that.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = std::mem::take(&mut self.unread);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether nothing comes for a moment.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_patience(Duration::from_millis(150));
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        self.stream.set_patience(PATIENCE);
        match read {
            Ok(read) => {
                self.unread.extend(&byte[..read]);
                false
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
