//! How each protocol asks about an address, and how an answer is read: just enough to know that it is whole
//! and what it says.

use std::net::Ipv4Addr;

/// What an answer says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Blacklisted,
    Free,
    /// That of a floor, which knows no list.
    Nothing,
}

/// What the bytes that have come so far are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reading {
    Partial,
    Whole(Answer),
    Wrong,
}

/// One protocol.
pub(crate) trait Dialect {
    /// The bytes that ask about an address.
    fn question(&self, address: Ipv4Addr) -> Vec<u8>;
    /// Reads an answer about this address.
    fn read(&self, address: Ipv4Addr, answer: &[u8]) -> Reading;
}

/// HTTP/1.1 over a connection that is kept.
pub(crate) struct Http {
    /// What stands before the address in the target.
    pub(crate) path: &'static str,
    /// More header lines, each with its end.
    pub(crate) headers: String,
    /// What a body says; none if it is not as it should be.
    pub(crate) verdict: fn(&[u8]) -> Option<Answer>,
}

impl Dialect for Http {
    fn question(&self, address: Ipv4Addr) -> Vec<u8> {
        format!("GET {}{address} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", self.path, self.headers).into()
    }

    fn read(&self, _: Ipv4Addr, answer: &[u8]) -> Reading {
        match body(answer) {
            Ok(None) => Reading::Partial,
            Ok(Some(body)) => (self.verdict)(body).map_or(Reading::Wrong, Reading::Whole),
            Err(NotOk) => Reading::Wrong,
        }
    }
}

/// An answer that is no HTTP, or not 200.
pub(crate) struct NotOk;

/// The body of an answer that is whole.
pub(crate) fn body(answer: &[u8]) -> Result<Option<&[u8]>, NotOk> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).map_err(|_| NotOk)? else {
        return Ok(None);
    };
    let named = |header: &&httparse::Header| header.name.eq_ignore_ascii_case("content-length");
    let length = response.headers.iter().find(named).ok_or(NotOk)?;
    let length: usize =
        std::str::from_utf8(length.value).ok().and_then(|length| length.parse().ok()).ok_or(NotOk)?;
    if !matches!(response.code, Some(200 | 201)) {
        return Err(NotOk);
    }
    Ok(answer.get(head..head + length))
}

/// A body that is `1` or `0`.
pub(crate) fn digit(body: &[u8]) -> Option<Answer> {
    match body {
        b"1" => Some(Answer::Blacklisted),
        b"0" => Some(Answer::Free),
        _ => None,
    }
}
