//! Reading addresses and ranges strictly, and finding out what was meant where that fails.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{Address, Range, RangeError};

impl FromStr for Range {
    type Err = RangeError;

    /// Parses an address, a prefix (`a/len`, host bits zero) or `start-end`, strictly.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        if let Some((address, length)) = text.split_once('/') {
            return parse_prefix(address, length);
        }
        if let Some((start, end)) = text.split_once('-') {
            return Self::between(parse_ip(start)?, parse_ip(end)?);
        }
        parse_ip(text).map(|ip| Address::from(ip).into())
    }
}

impl Range {
    /// The range that a person means by two ends: both IPv4-mapped is the IPv4 range. All parsing of
    /// ranges comes through here.
    ///
    /// # Errors
    /// As [`Range::new`], and when exactly one end is IPv4-mapped: the two readings of that differ.
    ///
    /// ```
    /// use portcullis::address::{Range, RangeError};
    ///
    /// let mapped: Range = "::ffff:203.0.113.0-::ffff:203.0.113.9".parse()?;
    /// assert_eq!(mapped.to_string(), "203.0.113.0-203.0.113.9");
    /// let half = "::-::ffff:203.0.113.9".parse::<Range>();
    /// assert!(matches!(half, Err(RangeError::Mapped { .. })));
    /// # Ok::<(), RangeError>(())
    /// ```
    pub fn between(start: IpAddr, end: IpAddr) -> Result<Self, RangeError> {
        match (is_mapped(start), is_mapped(end)) {
            (false, false) => Self::new(start, end),
            (true, true) => Self::new(start.to_canonical(), end.to_canonical()),
            _ => Err(RangeError::Mapped { start, end }),
        }
    }
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn parse_prefix(address: &str, length: &str) -> Result<Range, RangeError> {
    let ip = parse_ip(address)?;
    let length_error =
        || RangeError::PrefixLength { text: shown(length), max: if ip.is_ipv4() { 32 } else { 128 } };
    // `u8::from_str` accepts a sign and leading zeros, which are two readings of one prefix.
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length: u8 =
        if plain { length.parse().map_err(|_| length_error())? } else { return Err(length_error()) };
    let net = IpNet::new(ip, length).map_err(|_| length_error())?;
    // Looked at first, so that no prefix is proposed that would be refused in turn.
    let range = Range::between(net.network(), net.broadcast())?;
    if net.network() != ip {
        return Err(RangeError::HostBits { address: ip, length, meant: net.trunc() });
    }
    Ok(range)
}

/// The standard parser is as strict as we want it: no leading zeros, no zone, no port, no blanks. Only its
/// error says nothing, so that what is wrong is found out once it has failed.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, RangeError> {
    if let Some(ip) = parse_groups(text.as_bytes()) {
        return Ok(ip.into());
    }
    text.parse().map_err(|_| {
        let (reason, meant) = diagnose(text);
        RangeError::Address { text: shown(text), reason, meant }
    })
}

/// Reads the usual form of an IPv6 address: groups of hex digits, and at most one gap. All else is left to
/// the standard parser, which takes three times as long, because at each group it looks whether an IPv4
/// address begins there.
fn parse_groups(text: &[u8]) -> Option<Ipv6Addr> {
    let (mut bits, mut groups, mut before_gap) = (0_u128, 0, None);
    let mut rest = text;
    if let Some(behind) = rest.strip_prefix(b"::") {
        (before_gap, rest) = (Some(0), behind);
    }
    while !rest.is_empty() {
        let (group, behind) = parse_group(rest)?;
        (bits, groups) = (bits << 16 | u128::from(group), groups + 1);
        rest = match behind {
            [] => behind,
            [b':', b':', behind @ ..] if before_gap.is_none() => {
                before_gap = Some(groups);
                behind
            }
            [b':', behind @ ..] if !behind.is_empty() && groups < 8 => behind,
            _ => return None,
        };
    }
    match before_gap {
        None if groups == 8 => Some(bits.into()),
        Some(before) if groups < 8 => {
            let low = !(u128::MAX << (16 * (groups - before)));
            let high = (bits & !low).checked_shl(16 * (8 - groups)).unwrap_or_default();
            Some((high | bits & low).into())
        }
        _ => None,
    }
}

/// One group, and what follows it.
fn parse_group(text: &[u8]) -> Option<(u16, &[u8])> {
    const DIGITS_MAX: usize = 4;
    let mut group = 0;
    for (digits, byte) in text.iter().enumerate() {
        match char::from(*byte).to_digit(16) {
            Some(digit) if digits < DIGITS_MAX => group = group << 4 | digit,
            None if digits > 0 => return Some((u16::try_from(group).ok()?, text.get(digits..)?)),
            _ => return None,
        }
    }
    Some((u16::try_from(group).ok()?, &[]))
}

/// The longest text that is looked at for what was meant; no way to write an address is longer.
const DIAGNOSED_BYTES_MAX: usize = 128;

/// Says what is wrong with a text that is no address, and what was probably meant. What it proposes always
/// parses: a hint that is refused in turn would be worse than none.
fn diagnose(text: &str) -> (&'static str, Option<String>) {
    let parses = |text: &str| text.parse::<IpAddr>().is_ok().then(|| text.to_owned());
    if text.is_empty() {
        return ("it is empty", None);
    }
    // What follows walks over the text several times; whoever sends megabytes gets no help with them.
    if text.len() > DIAGNOSED_BYTES_MAX {
        return ("it is too long", None);
    }
    if text.trim() != text {
        return ("it has blanks around it", parses(text.trim()));
    }
    if let Some((address, _)) = text.split_once('%') {
        return ("a zone has no meaning in a blacklist", parses(address));
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return ("it has a port", Some(socket.ip().to_string()));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return ("it has brackets around it", parses(inner));
    }
    let octets: Vec<&str> = text.split('.').collect();
    let decimal = |octet: &&str| !octet.is_empty() && octet.bytes().all(|b| b.is_ascii_digit());
    if octets.iter().all(decimal) {
        if octets.len() != 4 {
            return ("an IPv4 address has four numbers", None);
        }
        let trimmed = octets.iter().map(|octet| match octet.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        });
        return match parses(&trimmed.collect::<Vec<_>>().join(".")) {
            Some(meant) => ("a leading zero may mean octal", Some(meant)),
            None => ("a number is above 255", None),
        };
    }
    ("it is neither IPv4 nor IPv6", None)
}

/// Foreign text as an error may show it: at most 64 characters of it, and none that a terminal obeys.
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let cut = text.chars().nth(SHOWN_CHARS_MAX).is_some();
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if cut {
        shown.push('…');
    }
    shown
}
