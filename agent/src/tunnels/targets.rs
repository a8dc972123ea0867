//! Where tunnels may lead from this node: its operator's word, which no controller can change.
//!
//! Addresses are judged, never names: what a name stands for may be anything.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use hive_functions::address::Network;

/// The networks that may be reached, and at which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTargets(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    network: Network,
    /// None: all.
    port: Option<u16>,
}

/// What makes no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no targets of tunnels: write networks or addresses with or without a port, as in 10.0.0.0/8, \
     192.168.1.20:3000 or [fd00::/8]:3000, separated by commas, or \"all\", or only \"none\""
)]
pub struct InvalidTargets(String);

/// Everything, but for [`GUARDED`].
const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Link-local networks, and where clouds hand out credentials to whoever asks from the machine itself: AWS, GCP,
/// Azure and most others at 169.254.169.254, some also elsewhere. Wider networks do not open them.
const GUARDED: [&str; 7] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/32",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
];

fn network(text: &str) -> Network {
    text.parse().expect("constants are networks")
}

impl TunnelTargets {
    /// This machine, and the networks that are nobody's on the internet: RFC 1918, unique local addresses, and
    /// the shared space that overlay networks use (RFC 6598).
    pub const DEFAULT: &str =
        "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,100.64.0.0/10";

    /// Tunnels lead nowhere.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether a tunnel may lead there.
    pub fn allow(&self, target: SocketAddr) -> bool {
        static GUARD: LazyLock<[Network; 7]> = LazyLock::new(|| GUARDED.map(network));
        // An IPv4 address in an IPv6 one is dialled as what it is.
        let address = target.ip().to_canonical();
        let guard = GUARD.iter().find(|guard| guard.contains(address));
        self.0.iter().any(|Entry { network, port }| {
            network.contains(address)
                && port.is_none_or(|port| port == target.port())
                && guard.is_none_or(|guard| network.is_within(guard))
        })
    }
}

impl Default for TunnelTargets {
    fn default() -> Self {
        Self::DEFAULT.parse().expect("the default is a rule")
    }
}

impl FromStr for TunnelTargets {
    type Err = InvalidTargets;

    fn from_str(text: &str) -> Result<Self, InvalidTargets> {
        if text.trim() == "none" {
            return Ok(Self::none());
        }
        let mut entries = Vec::new();
        for part in text.split(',').map(str::trim) {
            if part == "all" {
                let port = None;
                let all = ALL.map(network);
                entries.extend(all.map(|network| Entry { network, port }));
            } else {
                entries.push(entry(part).ok_or_else(|| InvalidTargets(part.to_owned()))?);
            }
        }
        Ok(Self(entries))
    }
}

fn entry(text: &str) -> Option<Entry> {
    let (network, port) = match text.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']')? {
            (network, "") => (network, None),
            (network, port) => (network, Some(port.strip_prefix(':')?)),
        },
        // Without brackets, the colons of IPv6 are its own.
        None => match text.split_once(':') {
            Some((network, port)) if !port.contains(':') => (network, Some(port)),
            _ => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(number(port)?),
        None => None,
    };
    Some(Entry {
        network: network.parse().ok()?,
        port,
    })
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn allows(rule: &str, target: &str) -> bool {
        let rule: TunnelTargets = rule.parse().unwrap();
        rule.allow(target.parse().unwrap())
    }

    #[test]
    fn a_rule_opens_what_it_names() {
        for (rule, target, expected) in [
            ("none", "127.0.0.1:80", false),
            ("all", "127.0.0.1:80", true),
            ("all", "1.1.1.1:443", true),
            ("all", "[2606:4700::1]:443", true),
            ("192.168.1.0/24", "192.168.1.20:1", true),
            ("192.168.1.0/24", "192.168.2.20:1", false),
            ("192.168.1.20", "192.168.1.20:1", true),
            ("192.168.1.20", "[::ffff:192.168.1.20]:1", true),
            ("192.168.1.20", "192.168.1.21:1", false),
            ("192.168.1.20:22", "192.168.1.20:22", true),
            ("192.168.1.20:22", "192.168.1.20:23", false),
            ("192.168.0.0/16:22", "192.168.1.20:22", true),
            ("192.168.0.0/16:22", "192.168.1.20:23", false),
            ("fd00::/8", "[fd00::1]:1", true),
            ("[fd00::/8]", "[fd00::1]:1", true),
            ("[fd00::/8]:80", "[fd00::1]:80", true),
            ("[fd00::/8]:80", "[fd00::1]:81", false),
            ("::1", "[::1]:1", true),
            ("10.0.0.1:1, 10.0.0.2:2", "10.0.0.2:2", true),
            ("10.0.0.1:1,10.0.0.2:2", "10.0.0.2:1", false),
        ] {
            assert_eq!(allows(rule, target), expected, "{rule}: {target}");
        }
    }

    #[test]
    fn what_clouds_guard_opens_by_its_own_name_only() {
        for guarded in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[fe80::1]:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "192.0.0.192:80",
        ] {
            for rule in [TunnelTargets::DEFAULT, "all", "0.0.0.0/0,::/0"] {
                assert!(!allows(rule, guarded), "{rule}: {guarded}");
            }
        }
        for (rule, target) in [
            ("169.254.0.0/16", "169.254.169.254:80"),
            ("all,169.254.169.254:80", "169.254.169.254:80"),
            ("fe80::/10", "[fe80::1]:80"),
            ("100.100.100.200", "100.100.100.200:80"),
        ] {
            assert!(allows(rule, target), "{rule}: {target}");
        }
        assert!(!allows("168.0.0.0/8", "168.63.129.16:80"));
    }

    #[test]
    fn homes_are_open_by_default_and_the_internet_is_not() {
        for (target, expected) in [
            ("127.0.0.1:22", true),
            ("[::1]:22", true),
            ("10.1.2.3:80", true),
            ("172.31.0.1:80", true),
            ("192.168.1.20:3000", true),
            ("100.101.102.103:80", true),
            ("[fd12::1]:80", true),
            ("172.32.0.1:80", false),
            ("1.1.1.1:443", false),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("224.0.0.1:80", false),
            ("[2606:4700::1]:443", false),
        ] {
            assert_eq!(
                TunnelTargets::default().allow(target.parse().unwrap()),
                expected,
                "{target}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (rule, part) in [
            ("", ""),
            ("10.0.0.0/8,", ""),
            ("lan", "lan"),
            ("10.0.0.0/8, nas.lan:80", "nas.lan:80"),
            ("none,10.0.0.0/8", "none"),
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("10.0.0.1:+1", "10.0.0.1:+1"),
            ("10.0.0.1:70000", "10.0.0.1:70000"),
            ("10.0.0.1:", "10.0.0.1:"),
            ("fd00::/8:80", "fd00::/8:80"),
            ("[fd00::/8", "[fd00::/8"),
            ("[fd00::/8]80", "[fd00::/8]80"),
        ] {
            let refused = rule.parse::<TunnelTargets>().unwrap_err();
            assert_eq!(refused, InvalidTargets(part.to_owned()), "{rule}");
        }
    }
}
