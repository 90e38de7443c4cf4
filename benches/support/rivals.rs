//! The structures that ours is measured beside: what else one would look addresses up in.

use ip_network::IpNetwork;
use ip_network_table::IpNetworkTable;
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use portcullis::address::Number;
use portcullis::record::{Position, Timestamp};
use portcullis::snapshot::{Draft, Publisher, Verdict};
use portcullis::view::View;
use prefix_trie::{Prefix, PrefixSet};
use rangemap::RangeInclusiveSet;
use roaring::RoaringBitmap;

use super::input::Family;

/// Something that can be asked for addresses, each known by its number among those that are asked for.
pub(super) trait Lookups {
    fn name(&self) -> &'static str;
    /// How many of these are blacklisted.
    fn count(&mut self, numbers: std::ops::Range<usize>) -> usize;
    /// Whether this one is.
    fn one(&mut self, number: usize) -> bool;
}

/// A lookup in a structure, over the form of address that it takes.
pub(super) struct Asked<K, F> {
    pub(super) name: &'static str,
    pub(super) keys: Vec<K>,
    pub(super) lookup: F,
}

impl<K, F: FnMut(&K) -> bool> Lookups for Asked<K, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn count(&mut self, numbers: std::ops::Range<usize>) -> usize {
        let keys = self.keys.get(numbers).expect("numbers of addresses");
        keys.iter().filter(|key| (self.lookup)(key)).count()
    }

    fn one(&mut self, number: usize) -> bool {
        (self.lookup)(self.keys.get(number).expect("the number of an address"))
    }
}

/// Ours, through the public reader, asked anew for its snapshot at each lookup.
pub(super) fn ours<N: Family>(view: &View, asked: &[N]) -> Box<dyn Lookups> {
    let (mut publisher, readers) = Publisher::new();
    publisher.publish(Draft::new(view, Timestamp::from_millis(0)).snapshot(Position::START));
    let mut reader = readers.reader();
    let lookup = move |number: &N| {
        reader.snapshot().is_some_and(|snapshot| snapshot.lookup(number.address()) == Verdict::Blacklisted)
    };
    Box::new(Asked { name: "portcullis", keys: asked.to_vec(), lookup })
}

pub(super) fn range_set<N: Family>(ranges: &[(N, N)]) -> RangeInclusiveSet<N> {
    ranges.iter().map(|(start, end)| *start..=*end).collect()
}

pub(super) fn rangemap<N: Family>(ranges: &[(N, N)], asked: &[N]) -> Box<dyn Lookups> {
    let set = range_set(ranges);
    Box::new(Asked { name: "rangemap", keys: asked.to_vec(), lookup: move |number: &N| set.contains(number) })
}

/// Ranges by rising start in one vector.
pub(super) fn sorted<N: Family>(ranges: &[(N, N)], asked: &[N]) -> Box<dyn Lookups> {
    let ranges = ranges.to_vec();
    let lookup = move |number: &N| {
        let after = ranges.partition_point(|range| range.0 <= *number);
        after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| *number <= range.1)
    };
    Box::new(Asked { name: "sorted Vec", keys: asked.to_vec(), lookup })
}

/// All addresses of IPv4 in one compressed bitmap.
pub(super) fn bitmap(ranges: &[(u32, u32)]) -> RoaringBitmap {
    let mut bitmap = RoaringBitmap::new();
    for (start, end) in ranges {
        bitmap.insert_range(*start..=*end);
    }
    bitmap.optimize();
    bitmap
}

pub(super) fn roaring(ranges: &[(u32, u32)], asked: &[u32]) -> Box<dyn Lookups> {
    let bitmap = bitmap(ranges);
    Box::new(Asked {
        name: "roaring",
        keys: asked.to_vec(),
        lookup: move |number: &u32| bitmap.contains(*number),
    })
}

/// The ranges cut into prefixes, as a routing table has them.
fn prefixes<N: Number>(ranges: &[(N, N)]) -> impl Iterator<Item = IpNet> {
    ranges.iter().flat_map(|(start, end)| -> Box<dyn Iterator<Item = IpNet>> {
        match (start.ip(), end.ip()) {
            (std::net::IpAddr::V4(start), std::net::IpAddr::V4(end)) => {
                Box::new(Ipv4Subnets::new(start, end, 0).map(IpNet::V4))
            }
            (std::net::IpAddr::V6(start), std::net::IpAddr::V6(end)) => {
                Box::new(Ipv6Subnets::new(start, end, 0).map(IpNet::V6))
            }
            _ => Box::new(std::iter::empty()),
        }
    })
}

pub(super) fn network_table<N: Number>(ranges: &[(N, N)]) -> IpNetworkTable<()> {
    let mut table = IpNetworkTable::new();
    for prefix in prefixes(ranges) {
        let network = IpNetwork::new(prefix.network(), prefix.prefix_len()).expect("a prefix");
        table.insert(network, ());
    }
    table
}

pub(super) fn ip_network_table<N: Family>(ranges: &[(N, N)], asked: &[N]) -> Box<dyn Lookups> {
    let table = network_table(ranges);
    let keys: Vec<_> = asked.iter().map(|number| number.ip()).collect();
    let lookup = move |ip: &std::net::IpAddr| table.longest_match(*ip).is_some();
    Box::new(Asked { name: "ip_network_table", keys, lookup })
}

pub(super) fn v4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

pub(super) fn v6(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net),
    }
}

/// One family a tree: the trie's keys are the bare prefixes of one.
pub(super) fn prefix_set<N: Number, P: Prefix>(
    ranges: &[(N, N)],
    of_family: fn(IpNet) -> Option<P>,
) -> PrefixSet<P> {
    prefixes(ranges).filter_map(of_family).collect()
}

pub(super) fn prefix_trie<N: Family>(ranges: &[(N, N)], asked: &[N]) -> Box<dyn Lookups> {
    match N::NAME {
        "IPv4" => trie(ranges, asked, v4),
        _ => trie(ranges, asked, v6),
    }
}

fn trie<N: Number, P: Prefix + 'static>(
    ranges: &[(N, N)],
    asked: &[N],
    of_family: fn(IpNet) -> Option<P>,
) -> Box<dyn Lookups> {
    let set = prefix_set(ranges, of_family);
    let keys = asked.iter().filter_map(|number| of_family(IpNet::from(number.ip()))).collect();
    Box::new(Asked { name: "prefix-trie", keys, lookup: move |net: &P| set.get_lpm(net).is_some() })
}
