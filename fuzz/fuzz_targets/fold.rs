//! Command sequences: the fold against the oracle that keeps a cause for every address.

#![no_main]

#[path = "../../tests/support/oracle.rs"]
#[allow(dead_code)]
mod oracle;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use oracle::{Ban, CELLS, Family, Step};

/// The most records of one log: a failure in a short log is easier to read.
const RECORDS_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
struct Input {
    ipv6: bool,
    first: u8,
    last: u8,
    minutes_of_ban: Option<i8>,
    lifted: bool,
    id: Option<u8>,
    force: bool,
    garbage: bool,
    minutes: i8,
}

impl Input {
    fn step(&self) -> Step {
        if self.garbage {
            return Step::Garbage;
        }
        let ban = match self.minutes_of_ban {
            _ if self.lifted => Ban::Lifted,
            None => Ban::ForEver,
            Some(minutes) => Ban::Minutes(minutes.into()),
        };
        let cell = |number: u8| usize::from(number) % CELLS;
        Step::Edit {
            family: if self.ipv6 { Family::V6 } else { Family::V4 },
            cells: (cell(self.first), cell(self.last)),
            ban,
            id: self.id.map(|id| id % 8),
            force: self.force,
        }
    }
}

fuzz_target!(|inputs: Vec<Input>| {
    let timed = |input: &Input| (input.step(), i64::from(input.minutes));
    let steps: Vec<_> = inputs.iter().take(RECORDS_MAX).map(timed).collect();
    oracle::check(&steps);
});
