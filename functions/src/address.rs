//! Which IP addresses anybody may reach, and which are somebody's own: for what functions ask, and for what
//! controllers ask for others.
//!
//! Addresses come in and a [`Class`] goes out: pure, no clock, no network. An address that is not
//! known to be public must never be called so: what the registries (RFC 6890 and its successors)
//! add later counts as special until it stands here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Whether an address belongs to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Public,
    /// Not for strangers; in words what it is for.
    Special(&'static str),
}

const PRIVATE: &str = "a private network";
const LOOPBACK: &str = "this machine";
const LINK_LOCAL: &str = "link-local, where clouds keep credentials";
const UNSPECIFIED: &str = "this machine or network";
const DOCUMENTATION: &str = "for documentation";
const RESERVED: &str = "reserved";
const MULTICAST: &str = "multicast";

/// First address, length of the prefix, what it is.
const SPECIAL_V4: [(Ipv4Addr, u32, &str); 18] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, UNSPECIFIED),
    (Ipv4Addr::new(10, 0, 0, 0), 8, PRIVATE),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "the carrier's network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, LOOPBACK),
    // Azure's services for the machine itself; in a public range, but never of the internet.
    (
        Ipv4Addr::new(168, 63, 129, 16),
        32,
        "the cloud's host machine",
    ),
    (Ipv4Addr::new(169, 254, 0, 0), 16, LINK_LOCAL),
    (Ipv4Addr::new(172, 16, 0, 0), 12, PRIVATE),
    (Ipv4Addr::new(192, 0, 0, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 0, 2, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(192, 88, 99, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 168, 0, 0), 16, PRIVATE),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(203, 0, 113, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(233, 252, 0, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "broadcast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, RESERVED),
];

/// Of 2000::/3, which is all that is given out as global unicast, and of what has a name elsewhere.
const SPECIAL_V6: [(Ipv6Addr, u32, &str); 10] = [
    (Ipv6Addr::UNSPECIFIED, 128, UNSPECIFIED),
    (Ipv6Addr::LOCALHOST, 128, LOOPBACK),
    // Teredo, ORCHID and other protocols' own.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, RESERVED),
    (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
        32,
        DOCUMENTATION,
    ),
    (
        Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0),
        20,
        DOCUMENTATION,
    ),
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "a network's own translation",
    ),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, PRIVATE),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, PRIVATE),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
];

const GLOBAL_UNICAST: Network = Network {
    first: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)),
    prefix: 3,
};

pub fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Class {
    let found = SPECIAL_V4.iter().find(|(first, prefix, _)| {
        Network {
            first: IpAddr::V4(*first),
            prefix: *prefix,
        }
        .contains(IpAddr::V4(address))
    });
    found.map_or(Class::Public, |(_, _, what)| Class::Special(what))
}

fn class_v6(address: Ipv6Addr) -> Class {
    let found = SPECIAL_V6.iter().find(|(first, prefix, _)| {
        Network {
            first: IpAddr::V6(*first),
            prefix: *prefix,
        }
        .contains(IpAddr::V6(address))
    });
    if let Some((_, _, what)) = found {
        return Class::Special(what);
    }
    if let Some(inner) = carried(address) {
        return class_v4(inner);
    }
    if GLOBAL_UNICAST.contains(IpAddr::V6(address)) {
        Class::Public
    } else {
        Class::Special(RESERVED)
    }
}

/// The IPv4 address that a packet to this IPv6 address may end at.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |segments: [u16; 8]| Ipv4Addr::from_bits(pair(segments[6], segments[7]));
    match address.segments() {
        // Mapped (the socket speaks IPv4), translated (NAT64).
        s @ ([0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..]) => Some(last(s)),
        // 6to4.
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(pair(high, low))),
        _ => None,
    }
}

fn pair(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// Addresses that share a prefix; one address is the longest prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differ = first.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }

    /// Whether all of its addresses are also in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.prefix >= other.prefix && other.contains(self.first)
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let first = address.to_canonical();
        let prefix = if first.is_ipv4() { 32 } else { 128 };
        Self { first, prefix }
    }
}

/// `10.0.0.1` or `10.0.0.0/8`; of either version, without brackets.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().map(IpAddr::into).map_err(drop);
        };
        let first: IpAddr = address.parse().map_err(drop)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        let prefix: u32 = prefix.parse().map_err(drop)?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        (prefix <= longest)
            .then_some(Self { first, prefix })
            .ok_or(())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Special(what) => what,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn is_public(address: &str) -> bool {
        class(address.parse().unwrap()) == Class::Public
    }

    #[test]
    fn the_internet_is_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(is_public(address), "{address}");
        }
    }

    #[test]
    fn what_is_somebodys_own_is_not() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.10",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1.1.1.1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address), "{address}");
        }
    }

    #[test]
    fn a_network_may_be_a_part_of_another() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.1.0.0/16", false),
            ("11.0.0.0/16", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::/0", false),
            ("fd00::1", "fd00::/8", true),
        ] {
            let [inner, outer] = [one, other].map(|text| text.parse::<Network>().unwrap());
            assert_eq!(inner.is_within(&outer), expected, "{one} in {other}");
        }
    }

    #[test]
    fn networks_are_read() {
        let contains = |network: &str, address: &str| {
            network
                .parse::<Network>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(contains("10.1.2.3/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "255.1.2.3"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(contains("::/0", "fdff::1"));
        assert!(contains("10.0.0.1", "10.0.0.1"));
        assert!(!contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("::ffff:10.0.0.1", "10.0.0.1"));
        for wrong in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "fd00::/129",
            "host/8",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_address_in_disguise_is_what_it_is(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let expected = class(address.into());
            let [a, b, c, d] = address.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            prop_assert_eq!(class(address.to_ipv6_mapped().into()), expected);
            let translated = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
            prop_assert_eq!(class(translated.into()), expected);
            let tunnelled = Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1);
            prop_assert_eq!(class(tunnelled.into()), expected);
        }

        #[test]
        fn the_standard_librarys_classes_are_special(bits: u32) {
            let a = Ipv4Addr::from_bits(bits);
            if a.is_private() || a.is_loopback() || a.is_link_local() || a.is_multicast()
                || a.is_broadcast() || a.is_documentation() || a.is_unspecified()
            {
                prop_assert_ne!(class(a.into()), Class::Public);
            }
        }

        #[test]
        fn only_global_unicast_is_public(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if class(address.into()) == Class::Public {
                prop_assert!(
                    GLOBAL_UNICAST.contains(address.into()) || carried(address).is_some()
                );
            }
        }
    }
}
