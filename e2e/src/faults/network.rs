//! A network of namespaces, one for each controller, joined by a bridge in the sandbox's own, where
//! the clients are; and what nftables does to it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::tool::{feed, must};

/// The clients' address.
const HUB: &str = "10.99.0.254/24";

pub fn address(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, u8::try_from(member + 1).expect("a few members"))
}

fn name(member: usize) -> String {
    format!("c{}", member + 1)
}

/// What starts a program in a member's namespace.
pub fn launcher(member: usize) -> Vec<String> {
    vec![
        "nsenter".into(),
        format!("--net=/run/netns/{}", name(member)),
        "--".into(),
    ]
}

/// Packets that a member does not get, or that it does not get rid of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drop {
    /// All from another member.
    From(usize),
    /// This many in a hundred, from the others and from the clients.
    Share(u8),
}

/// Made once in a sandbox, for a bounded number of members.
#[derive(Debug)]
pub struct Network {
    members: usize,
    drops: BTreeMap<usize, Vec<Drop>>,
}

impl Network {
    pub fn new() -> Self {
        must("ip", &["link", "add", "hive0", "type", "bridge"]);
        must("ip", &["addr", "add", HUB, "dev", "hive0"]);
        must("ip", &["link", "set", "hive0", "up"]);
        Self {
            members: 0,
            drops: BTreeMap::new(),
        }
    }

    /// A namespace for one more member.
    pub fn add(&mut self) -> usize {
        let member = self.members;
        self.members += 1;
        let (space, outer) = (name(member), format!("v{}", member + 1));
        let own = format!("{}/24", address(member));
        must("ip", &["netns", "add", &space]);
        must(
            "ip",
            &[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ],
        );
        must("ip", &["link", "set", &outer, "master", "hive0", "up"]);
        must("ip", &["-n", &space, "addr", "add", &own, "dev", "eth0"]);
        must("ip", &["-n", &space, "link", "set", "eth0", "up"]);
        must("ip", &["-n", &space, "link", "set", "lo", "up"]);
        member
    }

    /// Cuts members off from the others, both ways; clients still reach all.
    pub fn part(&mut self, side: &[usize]) {
        for member in 0..self.members {
            for other in 0..self.members {
                if side.contains(&member) != side.contains(&other) {
                    self.drops
                        .entry(member)
                        .or_default()
                        .push(Drop::From(other));
                }
            }
        }
        self.apply();
    }

    pub fn drop(&mut self, at: usize, what: Drop) {
        self.drops.entry(at).or_default().push(what);
        self.apply();
    }

    /// How many packets were dropped since the last change.
    pub fn dropped(&self) -> u64 {
        self.drops
            .keys()
            .map(|member| self.dropped_at(*member))
            .sum()
    }

    fn dropped_at(&self, member: usize) -> u64 {
        let rules = self.nft(member, "list table inet faults\n");
        rules
            .split("packets ")
            .skip(1)
            .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    pub fn heal(&mut self) {
        for member in std::mem::take(&mut self.drops).into_keys() {
            self.nft(member, "delete table inet faults\n");
        }
    }

    fn apply(&self) {
        for (member, drops) in &self.drops {
            let mut rules = String::from(
                "table inet faults\ndelete table inet faults\ntable inet faults {\n chain input {\n  type filter hook input priority 0;\n",
            );
            for drop in drops {
                match drop {
                    Drop::From(other) => {
                        rules += &format!("  ip saddr {} counter drop\n", address(*other));
                    }
                    Drop::Share(percent) => {
                        rules +=
                            &format!("  iif eth0 numgen random mod 100 < {percent} counter drop\n");
                    }
                }
            }
            rules += " }\n}\n";
            self.nft(*member, &rules);
        }
    }

    fn nft(&self, member: usize, script: &str) -> String {
        let space = format!("--net=/run/netns/{}", name(member));
        feed("nsenter", &[&space, "nft", "-f", "-"], script)
            .unwrap_or_else(|error| panic!("{error}\n{script}"))
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}
