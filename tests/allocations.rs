//! What a lookup takes besides time: memory, and writes to its socket.
//!
//! Counted on the calling thread and compared with a plain hyper service that answers with as many headers;
//! both speak to the same client in memory.
#![allow(unreachable_pub, missing_docs, reason = "tests and what they stand on")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use allocation_counter::measure;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis::address::{Address, Number, Range};
use portcullis::http::handler::Handler;
use portcullis::record::{Offset, Position, Timestamp};
use portcullis::snapshot::Verdict;
use portcullis::table::{Cause, Row};
use portcullis::view::Effect;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[path = "support/listed.rs"]
mod listed;

use listed::Listed;

/// What passed through a connection.
#[derive(Default)]
struct Passed {
    writes: usize,
    bytes: Vec<u8>,
}

/// A client in memory: sends the same bytes so many times, each as soon as the server reads, and then closes.
struct Client {
    bytes: &'static [u8],
    times: usize,
    passed: Rc<RefCell<Passed>>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(times) = self.times.checked_sub(1) {
            self.times = times;
            buffer.put_slice(self.bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut passed = self.passed.borrow_mut();
        passed.writes += 1;
        slices.iter().for_each(|slice| passed.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Answers every request as a lookup is answered, without looking anything up.
async fn serve_plain(client: Client) {
    let answer = |_| async {
        let mut answer = Response::new(Full::new(Bytes::from_static(br#"{"blacklisted":true}"#)));
        for (name, value) in [
            (CONTENT_TYPE, "application/json"),
            (HeaderName::from_static("portcullis-blacklisted"), "1"),
            (HeaderName::from_static("portcullis-position"), "1"),
            (HeaderName::from_static("portcullis-age-ms"), "0"),
        ] {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok::<_, Infallible>(answer)
    };
    let served = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(client), service_fn(answer));
    served.await.expect("a client that asks rightly");
}

/// Rows that blacklist one address of each family.
fn rows() -> impl Iterator<Item = Row> {
    let cause = Cause { command: Offset::new(0), expires_at: None };
    ["203.0.113.7", "2001:db8::7"].into_iter().map(move |text| Row { range: range(text), cause })
}

fn range(text: &str) -> Range {
    text.parse().expect(text)
}

/// Runs what serves a connection, with a client that sends so many times; what it allocated, and what passed.
fn serve<F: Future<Output = ()>>(
    bytes: &'static [u8],
    times: usize,
    serve: impl FnOnce(Client) -> F,
) -> (u64, Passed) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let passed = Rc::new(RefCell::new(Passed { bytes: Vec::with_capacity(1 << 20), ..Passed::default() }));
    let client = Client { bytes, times, passed: Rc::clone(&passed) };
    let counted = measure(|| runtime.block_on(serve(client)));
    (counted.count_total, passed.take())
}

/// What a hundred requests more allocate, so that what a connection takes once does not count.
fn of_a_hundred(mut serve_times: impl FnMut(usize) -> u64) -> u64 {
    serve_times(300) - serve_times(200)
}

const REQUESTS: [&[u8]; 3] = [
    b"GET /v1/check/203.0.113.7 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/check/2001:db8::7 HTTP/1.1\r\nHost: 127.0.0.1:8181\r\nAccept: */*\r\nUser-Agent: curl/8.0\r\n\r\n",
    b"GET /v1/check/2001%3Adb8%3A%3A8 HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n",
];

#[test]
fn a_check_allocates_no_more_than_a_plain_answer_of_hyper() {
    let listed = Listed::new(rows());
    let handler = Handler::new(listed.app.clone());
    for request in REQUESTS {
        let (_, passed) = serve(request, 1, |client| handler.serve(client));
        assert!(passed.bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let ours = of_a_hundred(|times| serve(request, times, |client| handler.serve(client)).0);
        let plain = of_a_hundred(|times| serve(request, times, serve_plain).0);
        assert!(ours <= plain, "{ours} instead of {plain} in 100 of {}", request.escape_ascii());
    }
}

#[test]
fn an_answer_leaves_in_one_write() {
    let listed = Listed::new(rows());
    let handler = Handler::new(listed.app.clone());
    let pipelined: &[u8] = REQUESTS.concat().leak();
    for (requests, number) in [(REQUESTS[0], 1), (REQUESTS[1], 1), (pipelined, 3)] {
        let (_, passed) = serve(requests, 10, |client| handler.serve(client));
        let answers = String::from_utf8_lossy(&passed.bytes).matches("HTTP/1.1 200 OK").count();
        assert_eq!((answers, passed.writes), (10 * number, 10 * number));
    }
}

#[test]
fn a_lookup_allocates_nothing() {
    // Enough for a bitmap, for branches, and for buckets that have to be searched.
    let cause = Cause { command: Offset::new(0), expires_at: None };
    let v4 = (0..20_000_u32).map(|at| (11 << 24) + 2 * at).map(|start| start.range(start));
    let v6 = (0..2_000_u128).map(|at| (0x2001_0db9 << 96) + at * at * at).map(|start| start.range(start));
    let many = v4.chain(v6).map(|range| Row { range, cause });
    let Listed { app, mut draft, mut publisher } = Listed::new(rows().chain(many));
    let mut reader = app.readers.reader();
    let texts =
        ["203.0.113.7", "203.0.113.8", "2001:db8::7", "2001:db8::8", "::ffff:203.0.113.7", "10.0.0.0"];
    let more = (0..3_000_u128).map(|at| Address::from(((0x2001_0db9 << 96) + at * 1_000_000).ip()));
    let dense = (0..3_000_u32).map(|at| Address::from(((11 << 24) + 7 * at).ip()));
    let named = texts.iter().map(|text| text.parse().expect("an address"));
    let addresses: Vec<Address> = named.chain(more).chain(dense).collect();
    let mut blacklisted = 0;
    for position in 2..100 {
        let counted = measure(|| {
            for address in &addresses {
                let snapshot = reader.snapshot().expect("one was published");
                blacklisted += usize::from(snapshot.lookup(*address) == Verdict::Blacklisted);
            }
        });
        assert_eq!((counted.count_total, counted.count_current), (0, 0), "at position {position}");
        let change =
            Effect::Blacklist { range: range(&format!("10.{position}.0.0/16")), until: Timestamp::MAX };
        draft.apply(&[change]);
        publisher.publish(draft.snapshot(Position::new(position)));
    }
    assert!(blacklisted > 3 * 98 && blacklisted < 98 * addresses.len(), "some are, some are not");
}

#[test]
fn reading_an_address_allocates_nothing() {
    for text in ["203.0.113.7", "2001:db8::7", "::ffff:203.0.113.7"] {
        let counted = measure(|| assert!(text.parse::<Address>().is_ok()));
        assert_eq!(counted.count_total, 0, "{text}");
    }
}
