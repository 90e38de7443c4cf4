//! Addresses and ranges: parsed once, strictly, into types that keep their promise.
//!
//! A range is written in one of three forms, and shown in the first one that fits:
//!
//! ```text
//! address      203.0.113.7                   the range of one
//! prefix       203.0.113.0/24                the address must be the first one of the prefix
//! start-end    203.0.113.0-203.0.113.6       both ends included
//! ```
//!
//! Nothing here guesses. A text that could be read in two ways (an octal-looking `010.0.0.1`, a prefix
//! with host bits) is refused with the reason and, where there is one, the text that was probably meant.
//!
//! IPv4-mapped IPv6 addresses (`::ffff:a.b.c.d`) are the one place where two families meet. As an
//! [`Address`], one is always the IPv4 address. As the end of a [`Range`] it depends on who speaks:
//! [`Range::between`] reads what a person writes, [`Range::new`] takes the ends of a table's row as they
//! stand, because a WHITELIST may have cut a wide IPv6 row inside `::ffff:0:0/96`.

mod parse;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use self::parse::parse_ip;

/// One IPv4 or IPv6 address; `::ffff:a.b.c.d` is always the IPv4 address.
///
/// ```
/// use portcullis::address::Address;
///
/// let address: Address = "::ffff:203.0.113.7".parse()?;
/// assert_eq!(address.to_string(), "203.0.113.7");
///
/// let error = "010.0.0.1".parse::<Address>().expect_err("octal or decimal?");
/// assert_eq!(error.code(), "address_invalid");
/// assert_eq!(error.to_string(), "`010.0.0.1` is not an address: a leading zero may mean octal");
/// assert_eq!(error.hint(), "did you mean 10.0.0.1?");
/// # Ok::<(), portcullis::address::RangeError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address(IpAddr);

impl Address {
    /// The address as the standard library knows it; never an IPv4-mapped one.
    pub const fn ip(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for Address {
    #[inline]
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = RangeError;

    /// Strict: no leading zeros, no zone, no port, no blanks.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        parse_ip(text).map(Self::from)
    }
}

/// A family's addresses as plain numbers, so that one algorithm serves both families: `u32` is IPv4, `u128`
/// is IPv6. Nothing else implements it.
pub trait Number: Copy + Ord + fmt::Debug + Send + Sync + 'static {
    /// The first address of the family.
    const FIRST: Self;
    /// The last address of the family.
    const LAST: Self;

    /// The address after this one; none after the last.
    fn next(self) -> Option<Self>;
    /// The address before this one; none before the first.
    fn previous(self) -> Option<Self>;
    /// The range between two addresses of the family, whichever is the lower one: it cannot fail.
    fn range(self, other: Self) -> Range;
    /// The address itself.
    fn ip(self) -> IpAddr;
}

impl Number for u32 {
    const FIRST: Self = Self::MIN;
    const LAST: Self = Self::MAX;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn range(self, other: Self) -> Range {
        Range(Ends::V4(self.min(other), self.max(other)))
    }

    fn ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Number for u128 {
    const FIRST: Self = Self::MIN;
    const LAST: Self = Self::MAX;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn range(self, other: Self) -> Range {
        Range(Ends::V6(self.min(other), self.max(other)))
    }

    fn ip(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// First and last address of a [`Range`], by family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ends {
    /// First and last address of an IPv4 range.
    V4(u32, u32),
    /// First and last address of an IPv6 range.
    V6(u128, u128),
}

/// A range of addresses, both ends included: one family, never empty, never inverted.
///
/// Ordered by family (IPv4 first), then start, then end.
///
/// ```
/// use portcullis::address::Range;
///
/// let range: Range = "203.0.113.0-203.0.113.255".parse()?;
/// assert_eq!(range.to_string(), "203.0.113.0/24"); // the shortest form
/// assert_eq!(range.addresses(), 256);
///
/// let both = range.intersection("203.0.113.200-203.0.114.7".parse()?);
/// assert_eq!(both, Some("203.0.113.200-203.0.113.255".parse()?));
///
/// let error = "203.0.113.7/24".parse::<Range>().expect_err("it does not begin the prefix");
/// assert_eq!(error.code(), "range_host_bits");
/// assert_eq!(error.hint(), "did you mean 203.0.113.0/24?");
/// # Ok::<(), portcullis::address::RangeError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Range(Ends);

impl Range {
    /// All IPv4 addresses.
    pub const ALL_IPV4: Self = Self(Ends::V4(u32::MIN, u32::MAX));
    /// All IPv6 addresses, the IPv4-mapped ones among them.
    pub const ALL_IPV6: Self = Self(Ends::V6(u128::MIN, u128::MAX));
    /// The IPv4-mapped part of IPv6, `::ffff:0:0/96`: no lookup ever reaches it, because such an
    /// address is the IPv4 address.
    pub const MAPPED: Self = Self(Ends::V6(0xffff_0000_0000, 0xffff_ffff_ffff));

    /// The range from `start` to `end` as they stand: an IPv4-mapped end stays an IPv6 address, as the
    /// table needs it, whose rows may begin anywhere.
    ///
    /// # Errors
    /// When the ends are of two families, or `start` is above `end`.
    pub fn new(start: IpAddr, end: IpAddr) -> Result<Self, RangeError> {
        match (start, end) {
            (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ok(Self(Ends::V4(a.to_bits(), b.to_bits()))),
            (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ok(Self(Ends::V6(a.to_bits(), b.to_bits()))),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                Err(RangeError::Inverted { start, end })
            }
            _ => Err(RangeError::Families { start, end }),
        }
    }

    /// Both ends as numbers of their family.
    pub const fn ends(self) -> Ends {
        self.0
    }

    /// The first address. An IPv6 range may start at an IPv4-mapped address; it stays IPv6 here.
    pub fn start(self) -> IpAddr {
        match self.0 {
            Ends::V4(start, _) => start.ip(),
            Ends::V6(start, _) => start.ip(),
        }
    }

    /// The last address, included.
    pub fn end(self) -> IpAddr {
        match self.0 {
            Ends::V4(_, end) => end.ip(),
            Ends::V6(_, end) => end.ip(),
        }
    }

    /// The number of addresses; the whole of IPv6, one more than a `u128` holds, counts as `u128::MAX`.
    pub const fn addresses(self) -> u128 {
        match self.0 {
            Ends::V4(start, end) => (end - start) as u128 + 1,
            Ends::V6(start, end) => (end - start).saturating_add(1),
        }
    }

    /// The addresses that lie in both ranges; none if there are none, and so for two families.
    pub fn intersection(self, other: Self) -> Option<Self> {
        match (self.0, other.0) {
            (Ends::V4(a, b), Ends::V4(c, d)) if a <= d && c <= b => Some(a.max(c).range(b.min(d))),
            (Ends::V6(a, b), Ends::V6(c, d)) if a <= d && c <= b => Some(a.max(c).range(b.min(d))),
            _ => None,
        }
    }

    /// The same addresses as disjoint ranges that rise, IPv4 first. Ranges that overlap are joined; those
    /// that only touch stay two. Costs the sorting.
    pub fn merged(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_unstable();
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.intersection(range).is_some() => {
                    *last = Self::new(last.start(), last.end().max(range.end())).unwrap_or(*last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }

    /// The part of this range that lies above another one of the same family; none if nothing does, or if
    /// the families differ. A walk in slices goes on with it behind the last row that it has.
    pub fn after(self, other: Self) -> Option<Self> {
        match (self.0, other.0) {
            (Ends::V4(start, end), Ends::V4(_, b)) => {
                b.next().map(|from| from.max(start)).filter(|from| *from <= end).map(|from| from.range(end))
            }
            (Ends::V6(start, end), Ends::V6(_, b)) => {
                b.next().map(|from| from.max(start)).filter(|from| *from <= end).map(|from| from.range(end))
            }
            _ => None,
        }
    }

    /// The prefix that is exactly this range, if there is one.
    ///
    /// The bits in which start and end differ must be the lowest ones without a hole (adding one to such a
    /// number leaves none of its bits), and the start must have none of them.
    fn prefix(self) -> Option<IpNet> {
        let (host_bits, aligned) = match self.0 {
            Ends::V4(start, end) => {
                let host = start ^ end;
                (host.count_ones(), host & host.wrapping_add(1) == 0 && start & host == 0)
            }
            Ends::V6(start, end) => {
                let host = start ^ end;
                (host.count_ones(), host & host.wrapping_add(1) == 0 && start & host == 0)
            }
        };
        let bits = if matches!(self.0, Ends::V4(..)) { 32 } else { 128 };
        let length = u8::try_from(bits - host_bits).ok()?;
        if aligned { IpNet::new(self.start(), length).ok() } else { None }
    }
}

impl From<Address> for Range {
    fn from(address: Address) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self(Ends::V4(ip.to_bits(), ip.to_bits())),
            IpAddr::V6(ip) => Self(Ends::V6(ip.to_bits(), ip.to_bits())),
        }
    }
}

impl fmt::Display for Range {
    /// The shortest of the three forms that fits: address, prefix, `start-end`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start(), self.end());
        match self.prefix() {
            _ if start == end => start.fmt(f),
            Some(prefix) => prefix.fmt(f),
            None => write!(f, "{start}-{end}"),
        }
    }
}

/// Why a text is no address or range. Its text says what is wrong, [`RangeError::hint`] what to write.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// An address that is none.
    #[error("`{text}` is not an address: {reason}")]
    Address {
        /// The text, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// The address that was probably meant.
        meant: Option<String>,
    },
    /// A prefix length that is none, or too long for its family.
    #[error("`{text}` is not a prefix length: a plain number from 0 to {max}")]
    PrefixLength {
        /// The text behind the `/`, shortened.
        text: String,
        /// The longest prefix of the family.
        max: u8,
    },
    /// A prefix whose address is not its first one.
    #[error("{address}/{length} has host bits set")]
    HostBits {
        /// The address before the `/`.
        address: IpAddr,
        /// The length behind it.
        length: u8,
        /// The prefix that was probably meant.
        meant: IpNet,
    },
    /// A range that ends before it starts.
    #[error("the range starts at {start}, above its end {end}")]
    Inverted {
        /// The start as written.
        start: IpAddr,
        /// The end as written.
        end: IpAddr,
    },
    /// A range from one family to the other.
    #[error("{start} and {end} are of two families")]
    Families {
        /// The start as written.
        start: IpAddr,
        /// The end as written.
        end: IpAddr,
    },
    /// A range with exactly one IPv4-mapped end.
    #[error("exactly one of {start} and {end} is an IPv4-mapped address")]
    Mapped {
        /// The start as written.
        start: IpAddr,
        /// The end as written.
        end: IpAddr,
    },
}

impl RangeError {
    /// The stable code of the error, for programs: it stays the same while texts may be reworded.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => "address_invalid",
            Self::PrefixLength { .. } => "range_prefix_length",
            Self::HostBits { .. } => "range_host_bits",
            Self::Inverted { .. } => "range_inverted",
            Self::Families { .. } => "range_families",
            Self::Mapped { .. } => "range_mapped",
        }
    }

    /// What to do about it, in one sentence for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Address { meant: Some(meant), .. } => format!("did you mean {meant}?"),
            Self::Address { .. } => "write it like 203.0.113.7 or 2001:db8::7".to_owned(),
            Self::PrefixLength { max, .. } => format!("write the length as a number from 0 to {max}"),
            Self::HostBits { meant, .. } => format!("did you mean {meant}?"),
            Self::Inverted { start, end } => format!("did you mean {end}-{start}?"),
            Self::Families { .. } => "write one range for each family".to_owned(),
            Self::Mapped { .. } => "write IPv4 addresses as 203.0.113.7".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
