//! One tunnel while it lives: what all its connections here share, under whichever version of its spec they began.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hive_proto::tunnel as reasons;
use hive_tunnels::{Bandwidth, Counts, RelayLimits};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::Guard;
use super::access::denied::{self, Denied};
use super::table::Tunnel;

/// Reasons under which failures are counted; what agents may add to them is counted as the last.
const REASONS: [&str; 27] = [
    reasons::REFUSED,
    reasons::UNREACHABLE,
    reasons::TIMEOUT,
    reasons::NOT_ALLOWED,
    reasons::RESOLVE,
    reasons::BUSY,
    reasons::BAD_REQUEST,
    "NodeNotLinked",
    "NodeSilent",
    "AgentTooOld",
    "LinkFailed",
    "BadAnswer",
    TOO_MANY,
    IDLE,
    CLIENT_BROKE,
    TARGET_BROKE,
    TARGET_SILENT,
    denied::CLIENT_NOT_ALLOWED,
    denied::RATE_LIMITED,
    denied::UNAUTHENTICATED,
    denied::USER_NOT_ALLOWED,
    denied::LOGIN_FAILED,
    denied::ISSUER_UNREACHABLE,
    denied::PASSWORDS_BUSY,
    denied::ACCESS_NOT_READY,
    DROPPED,
    OTHER,
];

/// It has as many connections as it may.
pub const TOO_MANY: &str = "TooManyConnections";
/// A connection was silent for too long.
pub const IDLE: &str = "Idle";
/// A client's connection broke, rather than end.
pub const CLIENT_BROKE: &str = "ClientBroke";
/// A target's connection broke.
pub const TARGET_BROKE: &str = "TargetBroke";
/// A target did not begin to answer a request in time.
pub const TARGET_SILENT: &str = "TargetSilent";
/// A datagram found no room on its way.
pub const DROPPED: &str = "DatagramDropped";
const OTHER: &str = "Other";

pub struct Live {
    tunnel: watch::Sender<Arc<Tunnel>>,
    connections: AtomicUsize,
    /// At which rate it was made.
    bandwidth: Mutex<Option<(u64, Arc<Bandwidth>)>>,
    guard: Guard,
    counts: Counts,
    failures: Mutex<BTreeMap<&'static str, u64>>,
    /// When a client came to its port last.
    came: Mutex<Option<Instant>>,
    ended: CancellationToken,
}

/// One of the connections that a tunnel may have; given back when dropped.
pub struct Place(Arc<Live>);

/// The tunnel has as many connections as it may.
#[derive(Debug, thiserror::Error)]
#[error("tunnel {name} has {most} connections, as many as it may")]
pub struct TooMany {
    name: String,
    most: usize,
}

/// What was counted since the tunnel, or this controller, began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub connections: usize,
    /// From clients to targets.
    pub in_bytes: u64,
    pub out_bytes: u64,
    /// By reason.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Live {
    pub(super) fn new(tunnel: Arc<Tunnel>) -> Self {
        Self {
            tunnel: watch::Sender::new(tunnel),
            connections: AtomicUsize::new(0),
            bandwidth: Mutex::default(),
            guard: Guard::default(),
            counts: Counts::default(),
            failures: Mutex::default(),
            came: Mutex::default(),
            ended: CancellationToken::new(),
        }
    }

    /// As it is declared now.
    pub fn tunnel(&self) -> Arc<Tunnel> {
        self.tunnel.borrow().clone()
    }

    /// Wakes when it is declared otherwise.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Tunnel>> {
        self.tunnel.subscribe()
    }

    /// True if that is another than before.
    pub(super) fn change(&self, tunnel: &Arc<Tunnel>) -> bool {
        self.tunnel.send_if_modified(|known| {
            let changed = **known != **tunnel;
            if changed {
                *known = tunnel.clone();
            }
            changed
        })
    }

    /// Whether a client may come, by its address alone: before anything is opened for it, with every protocol.
    pub fn admit(&self, client: IpAddr) -> Result<(), Denied> {
        let tunnel = self.tunnel();
        let admitted = match &*tunnel.access {
            Ok(rules) => self.guard.admit(rules, client, Instant::now()),
            Err(_) => Err(Denied::NotReady),
        };
        if let Err(denied) = &admitted {
            self.count_failure(denied.reason());
        }
        admitted
    }

    /// What is remembered of its clients.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// A client came to its port, whether it may come in or not.
    pub(super) fn note_client(&self) {
        *self.came.lock().expect("no holder of the lock panics") = Some(Instant::now());
    }

    /// For how long no client came to its port; `None` if none ever did.
    pub(super) fn since_client(&self) -> Option<Duration> {
        let came = *self.came.lock().expect("no holder of the lock panics");
        came.map(|at| at.elapsed())
    }

    /// Takes the place of one connection.
    pub fn begin(self: &Arc<Self>) -> Result<Place, TooMany> {
        let tunnel = self.tunnel();
        let most = tunnel.spec.max_connections as usize;
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.connections.fetch_update(set, fetch, one_more) {
            Ok(_) => Ok(Place(self.clone())),
            Err(_) => {
                self.count_failure(TOO_MANY);
                Err(TooMany {
                    name: format!("{}/{}", tunnel.key.namespace, tunnel.key.name),
                    most,
                })
            }
        }
    }

    /// For a connection that begins now.
    pub fn limits(&self) -> RelayLimits {
        let tunnel = self.tunnel();
        let spec = &tunnel.spec;
        let mut known = self.bandwidth.lock().expect("no holder of the lock panics");
        let bandwidth = spec.bandwidth.map(|rate| match &*known {
            Some((same, bandwidth)) if *same == rate.0 => bandwidth.clone(),
            _ => known
                .insert((rate.0, Arc::new(Bandwidth::new(rate.0))))
                .1
                .clone(),
        });
        RelayLimits {
            idle: spec.idle_limit(),
            bandwidth,
        }
    }

    /// Where bytes are counted: in from clients, out from targets.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn count_failure(&self, reason: &str) {
        let known = REASONS.into_iter().find(|known| *known == reason);
        *self.failures().entry(known.unwrap_or(OTHER)).or_default() += 1;
    }

    pub fn metered(&self) -> Carried {
        Carried {
            connections: self.connections.load(Ordering::Relaxed),
            in_bytes: self.counts.in_bytes.load(Ordering::Relaxed),
            out_bytes: self.counts.out_bytes.load(Ordering::Relaxed),
            failures: self.failures().clone(),
        }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failures.lock().expect("no holder of the lock panics")
    }

    /// Cancelled when the tunnel is no more, or this controller stops and has waited for those under way: what
    /// it carries is then cut.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use hive_manifests::quantity::Bytes;

    use super::*;
    use crate::state::Key;

    fn tunnel(change: impl FnOnce(&mut Tunnel)) -> Arc<Tunnel> {
        let key = Key::new(Resource::Tunnel, "default", "ssh");
        let mut tunnel = Tunnel::with_targets(key, Vec::new());
        change(&mut tunnel);
        Arc::new(tunnel)
    }

    #[test]
    fn connections_share_the_bandwidth_of_their_tunnel() {
        let rate = |rate| tunnel(|it| it.spec.bandwidth = Some(Bytes(rate)));
        let live = Live::new(rate(1000));
        let bandwidth = || live.limits().bandwidth.unwrap();
        let first = bandwidth();
        assert!(Arc::ptr_eq(&first, &bandwidth()));
        // Something else changes.
        let other = tunnel(|it| {
            it.spec.bandwidth = Some(Bytes(1000));
            it.spec.max_connections = 1;
        });
        assert!(live.change(&other));
        assert!(Arc::ptr_eq(&first, &bandwidth()));
        assert!(live.change(&rate(2000)));
        assert!(!Arc::ptr_eq(&first, &bandwidth()));
        assert!(live.change(&tunnel(|_| {})));
        assert!(live.limits().bandwidth.is_none());
    }

    #[test]
    fn failures_are_counted_under_known_reasons() {
        let live = Live::new(tunnel(|_| {}));
        for reason in ["Refused", "Refused", "OfALaterAgent", "x\"}"] {
            live.count_failure(reason);
        }
        let counted = live.metered().failures;
        assert_eq!(counted, [("Other", 2), ("Refused", 2)].into());
    }

    #[test]
    fn a_lowered_limit_ends_nothing_and_lets_nothing_in() {
        let most = |most| tunnel(|it| it.spec.max_connections = most);
        let live = Arc::new(Live::new(most(2)));
        let [first, second] = [live.begin().unwrap(), live.begin().unwrap()];
        live.change(&most(1));
        assert_eq!(live.metered().connections, 2);
        drop(first);
        let refused = live.begin().err().unwrap();
        assert!(refused.to_string().contains("default/ssh"), "{refused}");
        drop(second);
        assert!(live.begin().is_ok());
    }
}
