//! Checks of one address: is it blacklisted?
//!
//! A text that is no address is 400, and a sidecar without a snapshot 503. Neither is answered as free:
//! whoever asks decides what to make of not knowing.

use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::answer::Problem;
use super::codes;
use super::request::{self, Parameters, percent_decoded};
use super::sidecar::Sidecar;
use crate::address::Address;
use crate::record::Position;
use crate::snapshot::{Snapshot, Verdict};

/// What a lookup found, and the position of the snapshot that it was found in.
pub(super) struct Checked {
    pub(super) verdict: Verdict,
    pub(super) position: Position,
}

/// `GET /v1/check/{ip}`.
pub(super) fn check_segment(sidecar: &Sidecar, head: &Parts, segment: &str) -> Result<Checked, Problem> {
    // Most requests have no parameters, and need no list of them.
    if head.uri.query().is_some() {
        Parameters::parse(head, &[])?;
    }
    let address = match segment.contains('%') {
        false => segment.parse()?,
        // Clients that build paths with a library send the colons of an IPv6 address encoded.
        true => match decoded(segment) {
            Some(address) => address,
            None => percent_decoded(segment).ok_or_else(not_utf8)?.parse()?,
        },
    };
    check(sidecar, address)
}

/// `GET /v1/check?ip=`.
pub(super) fn check_parameter(sidecar: &Sidecar, head: &Parts) -> Result<Checked, Problem> {
    let text = Parameters::parse(head, &["ip"])?.value("ip")?;
    let missing = || request::invalid("ip", "is missing", "write it like /v1/check?ip=203.0.113.7");
    check(sidecar, text.ok_or_else(missing)?.parse()?)
}

/// The address in a percent-encoded text, read without memory of its own; none if there is none.
fn decoded(text: &str) -> Option<Address> {
    // Longer than any address, so that nothing that is cut off could be one.
    let mut bytes = [0; 64];
    let decoded = bytes.iter_mut().zip(percent_decode_str(text)).map(|(place, byte)| *place = byte).count();
    str::from_utf8(bytes.get(..decoded)?).ok()?.parse().ok()
}

/// One address, looked up in the newest snapshot. The address is read first: what can't be one is wrong
/// whether there is a snapshot or not.
fn check(sidecar: &Sidecar, address: Address) -> Result<Checked, Problem> {
    let look =
        |snapshot: &Snapshot| Checked { verdict: snapshot.lookup(address), position: snapshot.position() };
    sidecar.with_snapshot(look).ok_or_else(Problem::not_ready)
}

fn not_utf8() -> Problem {
    Problem::new(
        codes::ADDRESS_INVALID,
        "the address is not UTF-8",
        "write it like 203.0.113.7 or 2001:db8::7",
    )
}
