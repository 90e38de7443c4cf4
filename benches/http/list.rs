//! The list that every peer holds, and the addresses that are asked about.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Subnets;

/// How many addresses are asked about, over and over: many, so that lookups find little in the caches.
const ASKED: usize = 16_384;
/// No two ranges begin in the same slice of this many addresses, so that they are disjoint.
const SLICE: u32 = 40_000;
/// Single addresses, networks and odd widths.
const WIDTHS: [u32; 5] = [1, 256, 3, 1, 100];

/// Disjoint ranges, by rising start; start and end are both in.
#[derive(Clone, Debug)]
pub(crate) struct List(Vec<(u32, u32)>);

impl List {
    /// Ranges of mixed width, the same ones in every run.
    pub(crate) fn mixed(ranges: u32) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut range = |number: u32| {
            let width = random.choice(WIDTHS).expect("there are some");
            let start = number * SLICE + 256 + random.u32(..SLICE / 2);
            let start = if width == 256 { start / 256 * 256 } else { start };
            (start, start + width - 1)
        };
        Self((0..ranges).map(&mut range).collect())
    }

    /// The first addresses of this many of its ranges.
    pub(crate) fn first_addresses(&self, addresses: usize) -> Self {
        let step = self.0.len() / addresses;
        Self(self.0.iter().step_by(step).map(|(start, _)| (*start, *start)).collect())
    }

    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        let behind = self.0.partition_point(|(start, _)| *start <= address);
        behind.checked_sub(1).is_some_and(|at| address <= self.0[at].1)
    }

    /// A text with a line for each range.
    pub(crate) fn lines(&self, mut line: impl FnMut(Ipv4Addr, Ipv4Addr) -> String) -> String {
        self.0.iter().fold(String::new(), |mut text, (start, end)| {
            let line = line(Ipv4Addr::from_bits(*start), Ipv4Addr::from_bits(*end));
            writeln!(text, "{line}").expect("a text grows");
            text
        })
    }

    /// A text with a line for each prefix that its ranges come to, for peers that know no other ranges.
    pub(crate) fn prefix_lines(&self, mut line: impl FnMut(ipnet::Ipv4Net) -> String) -> String {
        let prefixes = |(start, end): &(u32, u32)| {
            Ipv4Subnets::new(Ipv4Addr::from_bits(*start), Ipv4Addr::from_bits(*end), 0)
        };
        self.0.iter().flat_map(prefixes).fold(String::new(), |mut text, prefix| {
            writeln!(text, "{}", line(prefix)).expect("a text grows");
            text
        })
    }

    /// Addresses to ask about in no order: half of them in the list, half of them anywhere.
    pub(crate) fn asked(&self) -> Vec<Ipv4Addr> {
        let mut random = fastrand::Rng::with_seed(11);
        let mut address = |number: usize| {
            let (start, end) = random.choice(&self.0).expect("the list is not empty");
            let listed = random.u32(*start..=*end);
            Ipv4Addr::from_bits(if number.is_multiple_of(2) { listed } else { random.u32(..) })
        };
        let mut asked: Vec<Ipv4Addr> = (0..ASKED).map(&mut address).collect();
        random.shuffle(&mut asked);
        asked
    }
}
