//! A batch as lines: an address on each, blank ones passed over.

use super::{Addresses, Progress, SLICE_ADDRESSES, SLICE_BYTES, address, too_many};
use crate::address::Address;
use crate::http::answer::Problem;

/// The lines of a body that are still to be read.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    /// How many lines and addresses were read.
    lines: usize,
    addresses: usize,
    addresses_max: usize,
}

impl<'a> Lines<'a> {
    pub(super) const fn new(body: &'a [u8], addresses_max: usize) -> Self {
        Self { rest: body, lines: 0, addresses: 0, addresses_max }
    }

    /// The next line without its end, LF or CRLF. None behind the last one.
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.lines += 1;
        match self.rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let (line, rest) = self.rest.split_at(end);
                self.rest = rest.get(1..).unwrap_or_default();
                Some(line.strip_suffix(b"\r").unwrap_or(line))
            }
            None => Some(std::mem::take(&mut self.rest)),
        }
    }
}

impl Addresses for Lines<'_> {
    /// The first line that is no address ends it. A problem names the line as an editor counts it, and the
    /// number of the address.
    fn read(&mut self, slice: &mut Vec<Address>) -> Result<Progress, Problem> {
        let slice_ends = self.rest.len().saturating_sub(SLICE_BYTES);
        for _ in 0..SLICE_ADDRESSES {
            if self.rest.len() < slice_ends {
                break;
            }
            let Some(line) = self.next() else { return Ok(Progress::End) };
            if line.trim_ascii().is_empty() {
                continue;
            }
            if self.addresses == self.addresses_max {
                return Err(too_many(self.addresses_max));
            }
            let address = address(line);
            slice.push(address.map_err(|problem| problem.line(Some(self.lines)).index(self.addresses))?);
            self.addresses += 1;
        }
        Ok(Progress::More)
    }
}
