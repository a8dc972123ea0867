//! Which targets of tunnels answer, as far as this controller knows: learned from connections and from checks.
//!
//! Soft state: nothing of it is written anywhere, and each controller has its own. A target of which nothing is
//! known yet is as good as one that answers; where none answers, they are tried all the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use tokio::sync::Notify;

use super::table::Tunnel;
use crate::state::Key;

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Health {
    targets: Arc<Mutex<BTreeMap<Key, Targets>>>,
    changes: Arc<AtomicU64>,
    wakes: Arc<Notify>,
}

#[derive(Default)]
struct Targets {
    known: BTreeMap<TunnelTarget, Known>,
    /// Whose turn it is among equals.
    turn: usize,
}

#[derive(Default)]
struct Known {
    /// `None` while nothing is known.
    answers: Option<Result<(), Failure>>,
    latency: Option<Duration>,
    /// Held by each connection.
    connections: Arc<()>,
}

struct Failure {
    reason: String,
    message: String,
    by: Evidence,
}

/// What shows that a target answers, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It took a connection; of UDP, its node sends there.
    Connection,
    /// It answered the request that asks how it is; of UDP, any datagram. What that found wrong, no connection
    /// disproves.
    Request,
}

/// What is known of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetHealth {
    pub target: TunnelTarget,
    /// `None` while nothing is known.
    pub healthy: Option<bool>,
    /// Why not: in one CamelCase word, and for people.
    pub reason: String,
    pub message: String,
    /// From asking for a connection until it was there, the last time.
    pub latency: Option<Duration>,
    /// Connections, or requests, under way.
    pub connections: usize,
}

/// A connection to a target counts while this is held.
pub struct UnderWay {
    _counted: Arc<()>,
}

impl Health {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Targets>> {
        self.targets.lock().expect("no holder of the lock panics")
    }

    /// How often it was found that a target answers that had not, that it does not any more, or why it does not.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Wakes the one who looks after such a change.
    pub fn wakes(&self) -> Arc<Notify> {
        self.wakes.clone()
    }

    /// To be called with the targets free again.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.wakes.notify_one();
    }

    /// What is known of the targets of a tunnel, in their order.
    pub fn snapshot(&self, tunnel: &Key) -> Vec<TargetHealth> {
        let all = self.all();
        let known = all.get(tunnel).into_iter().flat_map(|it| &it.known);
        let told = known.map(|(target, known)| {
            let failure = match &known.answers {
                Some(Err(failure)) => Some(failure),
                _ => None,
            };
            TargetHealth {
                target: target.clone(),
                healthy: known.answers.as_ref().map(Result::is_ok),
                reason: failure.map(|it| it.reason.clone()).unwrap_or_default(),
                message: failure.map(|it| it.message.clone()).unwrap_or_default(),
                latency: known.latency,
                connections: known.connections(),
            }
        });
        told.collect()
    }

    /// The targets of a tunnel in the order in which they are to be tried.
    pub fn choose(&self, tunnel: &Key) -> Vec<TunnelTarget> {
        let mut all = self.all();
        let Some(targets) = all.get_mut(tunnel) else {
            return Vec::new();
        };
        targets.turn = targets.turn.wrapping_add(1);
        let candidates: Vec<_> = targets.known.values().map(Known::candidate).collect();
        let names: Vec<_> = targets.known.keys().collect();
        let order = order(&candidates, targets.turn).into_iter();
        order.map(|index| names[index].clone()).collect()
    }

    /// Counts a connection to a target, until what is returned is dropped.
    pub fn begin(&self, tunnel: &Key, target: &TunnelTarget) -> UnderWay {
        let connections = self.with(tunnel, target, |known| known.connections.clone());
        UnderWay {
            _counted: connections.unwrap_or_default(),
        }
    }

    /// A target answered, after that long.
    pub fn answered(&self, tunnel: &Key, target: &TunnelTarget, by: Evidence, latency: Duration) {
        let is_news = self.with(tunnel, target, |known| {
            known.latency = Some(latency);
            let is_news = match &known.answers {
                Some(Err(failure)) => failure.by <= by,
                Some(Ok(())) => false,
                None => true,
            };
            if is_news {
                known.answers = Some(Ok(()));
            }
            is_news
        });
        if is_news == Some(true) {
            self.changed();
        }
    }

    /// A target did not answer.
    pub fn failed(
        &self,
        tunnel: &Key,
        target: &TunnelTarget,
        by: Evidence,
        reason: &str,
        message: String,
    ) {
        let is_news = self.with(tunnel, target, |known| {
            let before = known.answers.as_ref().and_then(|it| it.as_ref().err());
            let by = before.map_or(by, |failure| failure.by.max(by));
            let is_news = before.is_none_or(|it| it.reason != reason || it.message != message);
            known.answers = Some(Err(Failure {
                reason: reason.to_owned(),
                message,
                by,
            }));
            is_news
        });
        if is_news == Some(true) {
            self.changed();
        }
    }

    /// Nothing is kept of a target that its tunnel has no more.
    fn with<T>(
        &self,
        tunnel: &Key,
        target: &TunnelTarget,
        look: impl FnOnce(&mut Known) -> T,
    ) -> Option<T> {
        let mut all = self.all();
        all.get_mut(tunnel)?.known.get_mut(target).map(look)
    }

    /// A tunnel is new, or another than before. How a target is asked may have changed, so what was found wrong
    /// is found anew.
    pub(super) fn take(&self, tunnel: &Tunnel) {
        let mut all = self.all();
        let targets = all.entry(tunnel.key.clone()).or_default();
        let mut before = std::mem::take(&mut targets.known);
        for target in &tunnel.spec.targets {
            let mut known = before.remove(target).unwrap_or_default();
            known.answers = known.answers.filter(Result::is_ok);
            targets.known.insert(target.clone(), known);
        }
    }

    pub(super) fn forget(&self, tunnel: &Key) {
        self.all().remove(tunnel);
    }
}

impl Known {
    fn connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            failed: matches!(self.answers, Some(Err(_))),
            connections: self.connections(),
        }
    }
}

/// A target as it is chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    failed: bool,
    connections: usize,
}

/// Those first that are not known to fail, then those with the fewest connections; among equals each has its turn.
fn order(candidates: &[Candidate], turn: usize) -> Vec<usize> {
    let count = candidates.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| {
        let Candidate {
            failed,
            connections,
        } = candidates[*index];
        (failed, connections, (index + count - turn % count) % count)
    });
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_idlest_that_answers_comes_first() {
        // A capital failed; the number is that of its connections.
        for (candidates, turn, expected) in [
            ("", 0, ""),
            ("a0", 7, "a"),
            ("a2 b1 c0", 0, "cba"),
            ("A0 b5", 0, "bA"),
            ("A1 B0 c9 d8", 0, "dcBA"),
            ("A1 B0", 0, "BA"),
            // Equals take turns.
            ("a0 b0 c0", 0, "abc"),
            ("a0 b0 c0", 1, "bca"),
            ("a0 b0 c0", 2, "cab"),
            ("a0 b0 c0", 3, "abc"),
            ("a1 b0 c1", 2, "bca"),
            ("a0 b0", usize::MAX, "ba"),
        ] {
            let (names, parsed): (Vec<char>, Vec<Candidate>) = candidates
                .split_whitespace()
                .map(|word| {
                    let name = word.chars().next().unwrap();
                    let candidate = Candidate {
                        failed: name.is_uppercase(),
                        connections: word[1..].parse().unwrap(),
                    };
                    (name, candidate)
                })
                .unzip();
            let found = order(&parsed, turn).into_iter();
            let found: String = found.map(|index| names[index]).collect();
            assert_eq!(found, expected, "{candidates}, turn {turn}");
        }
    }

    fn target(port: u16) -> TunnelTarget {
        serde_json::from_value(json!({ "node": "pi", "port": port })).unwrap()
    }

    fn tunnel(ports: &[u16]) -> Tunnel {
        let key = Key::new(Resource::Tunnel, "default", "photos");
        let targets = ports.iter().map(|port| target(*port)).collect();
        Tunnel::with_targets(key, targets)
    }

    #[test]
    fn what_a_request_found_wrong_no_connection_disproves() {
        use Evidence::{Connection, Request};
        // Each step: by what, and whether the target answered.
        type Step = (Evidence, bool);
        let cases: [(&[Step], Option<bool>); 9] = [
            (&[], None),
            (&[(Connection, true)], Some(true)),
            (&[(Connection, false)], Some(false)),
            (&[(Connection, false), (Connection, true)], Some(true)),
            (&[(Connection, false), (Request, true)], Some(true)),
            (&[(Request, true), (Connection, false)], Some(false)),
            (&[(Request, false), (Connection, true)], Some(false)),
            (
                &[(Request, false), (Connection, false), (Connection, true)],
                Some(false),
            ),
            (&[(Request, false), (Request, true)], Some(true)),
        ];
        for (steps, expected) in cases {
            let health = Health::default();
            let tunnel = tunnel(&[80]);
            health.take(&tunnel);
            for (by, answered) in steps {
                let latency = Duration::from_millis(3);
                match answered {
                    true => health.answered(&tunnel.key, &target(80), *by, latency),
                    false => {
                        health.failed(&tunnel.key, &target(80), *by, "Refused", String::new());
                    }
                }
            }
            let [known] = &health.snapshot(&tunnel.key)[..] else {
                panic!("one target");
            };
            assert_eq!(known.healthy, expected, "{steps:?}");
            assert_eq!(known.reason.is_empty(), expected != Some(false));
        }
    }

    #[test]
    fn a_tunnel_that_changes_keeps_what_is_still_true() {
        let health = Health::default();
        let key = tunnel(&[]).key;
        health.take(&tunnel(&[80, 81]));
        let under_way = [80, 80, 81].map(|port| health.begin(&key, &target(port)));
        assert_eq!(health.choose(&key), [target(81), target(80)]);
        let by = Evidence::Connection;
        health.answered(&key, &target(80), by, Duration::from_millis(3));
        health.failed(&key, &target(81), by, "Refused", "nobody listens".into());
        assert_eq!(health.choose(&key), [target(80), target(81)]);

        health.take(&tunnel(&[80, 81, 82]));
        let known = health.snapshot(&key);
        let healthy: Vec<_> = known.iter().map(|it| it.healthy).collect();
        assert_eq!(healthy, [Some(true), None, None]);
        let connections = |it: &TargetHealth| it.connections;
        assert_eq!(known.iter().map(connections).collect::<Vec<_>>(), [2, 1, 0]);
        drop(under_way);
        health.take(&tunnel(&[81]));
        assert_eq!(
            health.snapshot(&key).iter().map(connections).sum::<usize>(),
            0
        );
        // Of what is gone nothing is kept.
        health.failed(&key, &target(80), by, "Refused", String::new());
        assert_eq!(health.snapshot(&key).len(), 1);
        health.forget(&key);
        assert!(health.snapshot(&key).is_empty() && health.choose(&key).is_empty());
    }
}
