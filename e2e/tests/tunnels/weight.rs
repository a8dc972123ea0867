//! What the members of a swarm hold on to: open files and memory.

use std::collections::BTreeMap;

use hive_e2e::Swarm;
use hive_e2e::member::Member;
use hive_e2e::wait::{PATIENCE, holds, until};

/// By member.
pub type Weights = BTreeMap<String, u64>;

fn of_all(swarm: &Swarm, weigh: impl Fn(&Member) -> u64) -> Weights {
    let controllers = swarm.controllers.iter().map(|it| &it.member);
    let members = controllers.chain(swarm.agents.iter().map(|it| &it.member));
    members
        .map(|member| (member.name.clone(), weigh(member)))
        .collect()
}

/// Files and sockets that each has open.
pub fn open_files(swarm: &Swarm) -> Weights {
    of_all(swarm, |member| {
        let files = std::fs::read_dir(format!("/proc/{}/fd", member.pid()));
        files.unwrap().count() as u64
    })
}

/// Resident memory of each, in KiB.
pub fn memory(swarm: &Swarm) -> Weights {
    of_all(swarm, |member| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", member.pid())).unwrap();
        let resident = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        let kibibytes = resident.unwrap().split_whitespace().next();
        kibibytes.unwrap().parse().unwrap()
    })
}

/// Waits until no member has more open than before.
pub async fn no_more_files(swarm: &Swarm, before: &Weights) {
    until("no member has more files open", PATIENCE, async || {
        let now = open_files(swarm);
        holds(
            is_within(&now, before, 0),
            format!("{now:?}, before {before:?}"),
        )
    })
    .await;
}

/// Waits until no member has taken more than so many KiB since before.
pub async fn not_heavier(swarm: &Swarm, before: &Weights, by: u64) {
    until("no member has become heavier", PATIENCE, async || {
        let now = memory(swarm);
        holds(
            is_within(&now, before, by),
            format!("{now:?} KiB, before {before:?}"),
        )
    })
    .await;
}

fn is_within(now: &Weights, before: &Weights, more: u64) -> bool {
    now.iter()
        .all(|(name, now)| *now <= before[name].saturating_add(more))
}
