//! Which nodes any controller is linked to, as the leader hears it every second.
//!
//! Soft state (heartbeats stay out of Raft): a new leader starts with nothing and grants every
//! node the full grace. Ten thousand names a second would be more than all else that controllers
//! say while nothing happens, so a report says what changed since the one that the leader holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hive_proto::v1::{ControllerFacts, NodeHoldings, PresenceReport};
use imbl::OrdSet;
use imbl::ordset::DiffItem;
use tokio_util::sync::CancellationToken;

use super::Nodes;
use crate::controllers;
use crate::holdings::{self, Holdings};
use crate::peers::Peers;
use crate::store::Replica;
use crate::traffic::{Loads, MAX_LOADS, Told, Traffic};

/// How often each controller tells the leader which nodes it is linked to.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Between two reports while links come and go by the hundred: those of this time go together.
const PACE: Duration = Duration::from_millis(100);

#[derive(Clone, Default)]
pub struct Presence {
    seen: Arc<Mutex<Seen>>,
    /// What each controller said of itself last.
    facts: Arc<Mutex<BTreeMap<u64, ControllerFacts>>>,
    traffic: Traffic,
    holdings: holdings::Heard,
}

#[derive(Default)]
struct Seen {
    /// By controller.
    reports: BTreeMap<u64, Held>,
    /// When nodes were last reported that are no more.
    gone: HashMap<String, Instant>,
}

/// What a controller's reports come to.
struct Held {
    sequence: u64,
    nodes: OrdSet<String>,
    at: Instant,
}

impl Seen {
    fn take(&mut self, controller: u64, report: PresenceReport, now: Instant) -> u64 {
        let held = self.reports.remove(&controller);
        let (nodes, gone) = match held {
            Some(mut held) if report.since > 0 => {
                if held.sequence != report.since {
                    // The next one is whole; until then what was heard stays as old as it is.
                    held.sequence = 0;
                    self.reports.insert(controller, held);
                    return 0;
                }
                held.nodes.extend(report.nodes);
                for node in &report.gone {
                    held.nodes.remove(node);
                }
                (held.nodes, report.gone)
            }
            None if report.since > 0 => return 0,
            before => {
                let nodes: OrdSet<String> = report.nodes.into_iter().collect();
                let before = before.map(|held| held.nodes).unwrap_or_default();
                let gone = before.relative_complement(nodes.clone());
                (nodes, gone.into_iter().collect())
            }
        };
        for node in gone {
            self.gone.insert(node, now);
        }
        let held = Held {
            sequence: report.sequence,
            nodes,
            at: now,
        };
        self.reports.insert(controller, held);
        report.sequence
    }

    fn last(&self) -> HashMap<String, Instant> {
        let mut last = self.gone.clone();
        for held in self.reports.values() {
            for node in &held.nodes {
                match last.get_mut(node) {
                    Some(at) => *at = held.at.max(*at),
                    None => {
                        last.insert(node.clone(), held.at);
                    }
                }
            }
        }
        last
    }
}

impl Presence {
    /// Takes a report of a controller. Says which one of it is held now; 0 asks for a whole one.
    pub fn heard(&self, controller: u64, mut report: PresenceReport) -> u64 {
        let now = Instant::now();
        let (loads, anew) = (std::mem::take(&mut report.loads), report.since == 0);
        let holdings = std::mem::take(&mut report.holdings);
        tracing::trace!(
            controller,
            nodes = report.nodes.len(),
            holdings = holdings.len(),
            "presence"
        );
        let held = self.seen().take(controller, report, now);
        // What does not build upon what is held is followed by one that tells all anew.
        if held != 0 {
            self.traffic.heard(controller, loads, anew, now);
            self.holdings.heard(controller, holdings, anew);
        }
        held
    }

    /// What all ingresses are asked for.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What all nodes have on their disks.
    pub fn holdings(&self) -> &holdings::Heard {
        &self.holdings
    }

    /// Takes down what a controller says of itself.
    pub fn introduced(&self, controller: u64, facts: ControllerFacts) {
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .insert(controller, facts);
    }

    /// What the controllers said of themselves, by id. One of the first release says nothing, and
    /// is here with the facts that this leaves.
    pub fn facts(&self) -> BTreeMap<u64, ControllerFacts> {
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .clone()
    }

    /// When each node was last seen by any controller.
    pub fn last_seen(&self) -> HashMap<String, Instant> {
        self.seen().last()
    }

    /// Forgets nodes that are part of the swarm no more. Those with a link are not forgotten before
    /// it is closed, which happens at once.
    pub fn forget_others(&self, enrolled: impl Fn(&str) -> bool) {
        self.seen().gone.retain(|node, _| enrolled(node));
    }

    /// Forgets everything: what was heard in an earlier term as leader says nothing now.
    pub fn clear(&self) {
        *self.seen() = Seen::default();
        self.traffic.clear();
        self.holdings.clear();
        self.facts
            .lock()
            .expect("no holder of the lock panics")
            .clear();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of the lock panics")
    }
}

/// What the leader is known to hold of what was reported to it.
#[derive(Default)]
struct Reported {
    leader: u64,
    sequence: u64,
    nodes: OrdSet<String>,
    holdings: Holdings<String>,
}

impl Reported {
    /// What to say to a leader next, of the nodes that are linked now.
    fn next(&self, leader: u64, sequence: u64, nodes: &OrdSet<String>) -> PresenceReport {
        if self.leader != leader || self.sequence == 0 {
            return PresenceReport {
                nodes: nodes.iter().cloned().collect(),
                sequence,
                ..Default::default()
            };
        }
        let mut report = PresenceReport {
            sequence,
            since: self.sequence,
            ..Default::default()
        };
        for item in self.nodes.diff(nodes) {
            match item {
                DiffItem::Add(node) => report.nodes.push(node.clone()),
                DiffItem::Remove(node) => report.gone.push(node.clone()),
            }
        }
        report
    }

    /// What to say of what nodes hold, in a report that builds `anew` or upon this one; and what is said then.
    fn next_holdings(
        &self,
        anew: bool,
        now: &Holdings<String>,
    ) -> (Vec<NodeHoldings>, Holdings<String>) {
        match anew {
            true => Holdings::default().until(now),
            false => self.holdings.until(now),
        }
    }
}

/// Reports the nodes linked here to whoever leads, at once when they change, what they hold and what the ingress
/// counted. A report that gets lost is made good by the next, which is whole then, but for its counts.
pub async fn report(
    replica: Replica,
    peers: Peers,
    nodes: Nodes,
    presence: Presence,
    loads: Loads,
    cancel: CancellationToken,
) {
    let mut linked = nodes.links().present();
    let mut leadership = replica.leadership();
    let mut reported = Reported::default();
    let mut told = Told::default();
    let mut sequence = 0;
    loop {
        let mut is_full = false;
        let names = linked.borrow_and_update().clone();
        let leader = leadership.borrow_and_update().leader;
        if let Some(id) = leader {
            sequence += 1;
            let mut next = reported.next(id, sequence, &names);
            (next.loads, told) = loads.since(&told, next.since == 0, Instant::now());
            let holdings;
            (next.holdings, holdings) = reported.next_holdings(next.since == 0, &nodes.holdings());
            is_full = next.loads.len() == MAX_LOADS || next.holdings.len() == holdings::MAX_NODES;
            let held = if id == replica.id() {
                Some(presence.heard(id, next))
            } else {
                next.facts = Some(controllers::own_facts(&replica));
                let send = async {
                    let mut client = peers.requests(id).ok()?;
                    let reply = client.report_presence(next).await.ok()?;
                    Some(reply.into_inner().sequence)
                };
                let sent = tokio::time::timeout(REPORT_INTERVAL, send).await;
                sent.ok().flatten()
            };
            if held.is_none() {
                tracing::debug!(leader = id, "cannot report presence");
            }
            reported = Reported {
                leader: id,
                // A leader of the release before holds no numbers: it is told all each time.
                sequence: held.filter(|held| *held == sequence).unwrap_or_default(),
                nodes: names,
                holdings,
            };
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
        if is_full {
            continue;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(REPORT_INTERVAL - PACE) => {}
            Ok(()) = linked.changed() => {}
            Ok(()) = leadership.changed() => {}
            () = loads.hurried() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[&str]) -> OrdSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    proptest! {
        /// Whichever reports get lost, a leader that heard one holds what was linked then.
        #[test]
        fn the_leader_holds_what_was_linked_at_the_last_report_that_arrived(
            rounds in prop::collection::vec((prop::collection::btree_set("[a-f]", 0..6), any::<bool>(), any::<bool>()), 1..12),
        ) {
            let (mut seen, mut reported) = (Seen::default(), Reported::default());
            let start = Instant::now();
            for (index, (nodes, arrives, answered)) in rounds.into_iter().enumerate() {
                let sequence = index as u64 + 1;
                let nodes: OrdSet<String> = nodes.into_iter().collect();
                let now = start + Duration::from_secs(sequence);
                let report = reported.next(1, sequence, &nodes);
                let held = arrives.then(|| seen.take(7, report, now));
                if held.is_some_and(|held| held == sequence) {
                    let last = seen.last();
                    for node in &nodes {
                        prop_assert_eq!(last.get(node), Some(&now), "{}", node);
                    }
                    let held = &seen.reports[&7].nodes;
                    prop_assert_eq!(held, &nodes);
                }
                let sequence = held.filter(|held| answered && *held == sequence).unwrap_or_default();
                reported = Reported { leader: 1, sequence, nodes, ..Reported::default() };
            }
        }
    }

    #[test]
    fn changes_are_told_to_a_leader_that_holds_the_rest_and_all_to_another() {
        let reported = Reported {
            leader: 1,
            sequence: 4,
            nodes: set(&["a", "b"]),
            ..Reported::default()
        };
        let next = reported.next(1, 5, &set(&["b", "c"]));
        assert_eq!((next.since, next.sequence), (4, 5));
        assert_eq!(
            (next.nodes, next.gone),
            (vec!["c".into()], vec!["a".into()])
        );
        let next = reported.next(2, 5, &set(&["b", "c"]));
        assert_eq!((next.since, next.nodes.len()), (0, 2));
    }

    #[test]
    fn a_node_that_went_was_seen_until_then_and_an_old_report_makes_nobody_young() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let report = |sequence, since, nodes: &[&str], gone: &[&str]| PresenceReport {
            sequence,
            since,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            gone: gone.iter().map(|node| (*node).to_owned()).collect(),
            ..Default::default()
        };
        assert_eq!(seen.take(1, report(1, 0, &["a", "b"], &[]), at(1)), 1);
        assert_eq!(seen.take(1, report(2, 1, &[], &["a"]), at(2)), 2);
        assert_eq!(seen.take(1, report(3, 2, &[], &[]), at(9)), 3);
        let expected = [("a".to_owned(), at(2)), ("b".to_owned(), at(9))];
        assert_eq!(seen.last(), expected.into());
        // One was lost in between: what is held is not built upon, and does not grow younger.
        assert_eq!(seen.take(1, report(5, 4, &["c"], &[]), at(20)), 0);
        assert_eq!(seen.last()["b"], at(9));
        assert_eq!(seen.take(1, report(6, 5, &["d"], &[]), at(21)), 0);
        // Of a controller of the release before, which numbers nothing.
        assert_eq!(seen.take(2, report(0, 0, &["b"], &[]), at(22)), 0);
        assert_eq!(seen.last()["b"], at(22));
    }
}
