//! What a controller tells the one that leads of a tunnel's port. That a port answers says nothing of who does: another
//! program may have it, or a router lead elsewhere.

use std::time::Duration;

use hive_manifests::Resource;
use hive_manifests::tunnel::Protocol;
use hive_proto::tunnel::{REFUSED, UNREACHABLE};
use hive_proto::v1::{TunnelDoorReply, TunnelDoorRequest, TunnelRefusal};

use super::Tunnels;
use super::health::TargetHealth;
use crate::state::Key;

/// What the systems of targets say: that is so, whichever controller's datagram found it out.
pub const REFUSALS: [&str; 2] = [REFUSED, UNREACHABLE];

impl Tunnels {
    /// How the port of a tunnel is here.
    pub fn door(&self, asked: &TunnelDoorRequest) -> TunnelDoorReply {
        let key = Key::new(Resource::Tunnel, &*asked.namespace, &*asked.name);
        let live = self.get(&key);
        let Some(live) = live.filter(|live| live.tunnel().uid == asked.uid) else {
            return TunnelDoorReply::default();
        };
        let open = self.listeners.of(&key);
        // With no place left nobody is taken in: that nobody was seen says nothing of who came.
        let came = match self.places.are_taken() {
            true => Some(Duration::ZERO),
            false => live.since_client(),
        };
        let came_ms = came.map(|since| since.as_millis().try_into().unwrap_or(u64::MAX));
        let refusals = match live.tunnel().spec.protocol {
            Protocol::Udp => self.health.snapshot(&key),
            Protocol::Http | Protocol::Tcp | Protocol::Tls => Vec::new(),
        };
        TunnelDoorReply {
            open: open == Some(Ok(())),
            problem: open.and_then(Result::err).unwrap_or_default(),
            came_ms,
            refusals: refusals.into_iter().filter_map(refusal).collect(),
        }
    }
}

fn refusal(known: TargetHealth) -> Option<TunnelRefusal> {
    REFUSALS.contains(&&*known.reason).then(|| TunnelRefusal {
        address: known.target.address(),
        node: known.target.node,
        reason: known.reason,
    })
}
