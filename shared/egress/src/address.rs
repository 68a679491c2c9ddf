//! Which addresses may be called: public ones, and those that the operator opened.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Decides whether an address may be called. An IPv4-mapped address counts as the IPv4 address that it reaches.
#[derive(Debug, Clone)]
pub struct AddressGuard {
    allow: Vec<IpNet>,
    never_open_loopback_or_link_local: bool,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule that the address falls under.
    pub rule: Rule,
    /// Whether a setting can open it here.
    pub openable: bool,
}

/// A range that is not public, after the registries of special-purpose addresses
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What the range is for.
    pub name: &'static str,
    /// The range.
    pub range: IpNet,
}

impl AddressGuard {
    /// A guard that lets public addresses through, and those in `allow`; with `never_open_loopback_or_link_local`
    /// `allow` says nothing about loopback and link-local addresses.
    pub fn new(allow: Vec<IpNet>, never_open_loopback_or_link_local: bool) -> Self {
        Self { allow, never_open_loopback_or_link_local }
    }

    /// Refuses an address that may not be called.
    ///
    /// # Errors
    /// The first rule that it falls under.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        let address = address.to_canonical();
        let Some(rule) = rule(address) else { return Ok(()) };
        let openable = !(self.never_open_loopback_or_link_local && is_local(address));
        if openable && self.allow.iter().any(|range| range.contains(&address)) {
            return Ok(());
        }
        Err(Denied { rule, openable })
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its address is not public ({}, {})", self.rule.name, self.rule.range)?;
        if self.openable {
            f.write_str("; the operator can open it with `--egress-allow` or TIDEGATE_EGRESS_ALLOW")?;
        }
        Ok(())
    }
}

impl std::error::Error for Denied {}

/// Whether an address, or the IPv4 address within it, is the machine itself or its link, where clouds keep credentials.
fn is_local(address: IpAddr) -> bool {
    let v4_is_local = |v4: Ipv4Addr| v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0;
    match address {
        IpAddr::V4(v4) => v4_is_local(v4),
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let link_local = segments[0] & 0xffc0 == 0xfe80;
            // fd00:ec2::/32: the services of a link that have unique local addresses, such as EC2's metadata and EKS's
            // credentials.
            let metadata = segments[..2] == [0xfd00, 0xec2];
            v6.is_loopback() || link_local || metadata || embedded(v6).is_some_and(v4_is_local)
        }
    }
}

/// The IPv4 address that a translator or tunnel would take out of an IPv6 address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        // IPv4-compatible, and NAT64 in the well-known and the local-use prefix.
        [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo holds the client's address inverted.
        [0x2001, 0, .., high, low] => v4(!high, !low),
        _ => None,
    }
}

fn rule(address: IpAddr) -> Option<Rule> {
    match address {
        IpAddr::V4(v4) => V4_RULES
            .iter()
            .find(|(range, _)| range.contains(&v4))
            .map(|&(range, name)| Rule { name, range: IpNet::V4(range) }),
        IpAddr::V6(v6) => V6_RULES
            .iter()
            .find(|(range, _)| range.contains(&v6))
            .map(|&(range, name)| Rule { name, range: IpNet::V6(range) })
            // What is not yet assigned for global use may be anything by the time that somebody uses it.
            .or((!GLOBAL_UNICAST.contains(&v6))
                .then_some(Rule { name: "not global unicast", range: IpNet::V6(ALL_V6) })),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)
}

const fn v6(segments: [u16; 8], prefix_len: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len)
}

const V4_RULES: [(Ipv4Net, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared address space"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "Azure's host"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

const ALL_V6: Ipv6Net = v6([0; 8], 0);
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const V6_RULES: [(Ipv6Net, &str); 17] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4-compatible"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "NAT64"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "NAT64"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo"),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), "benchmarking"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "unique local"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];
