//! Asks the controllers how the port of a tunnel is there. A connection that opens says nothing of who opened it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hive_proto::v1::{TunnelDoorReply, TunnelDoorRequest, TunnelRefusal};

use super::ask::Way;
use super::plan::Subject;
use crate::gateway::bounds::cut;
use crate::peers::Peers;
use crate::state::Key;
use crate::tunnels::Tunnels;

/// For another controller to answer from what it has in memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a controller's sentence.
const MAX_PROBLEM: usize = 512;

/// Of a controller that has yet to hear of the tunnel, which takes a moment.
const NOT_YET: &str = "it does not know the tunnel yet";

/// How the port of a tunnel is at one controller.
#[derive(Clone, Debug, PartialEq)]
pub struct Door {
    /// Or why it is not open.
    pub open: Result<(), String>,
    /// A client came there since the try began.
    pub came: bool,
    /// Of UDP: what targets' systems say.
    pub refusals: Vec<TunnelRefusal>,
}

impl Door {
    /// One that is not open.
    pub fn shut(why: impl Into<String>) -> Self {
        Self {
            open: Err(why.into()),
            came: false,
            refusals: Vec::new(),
        }
    }

    /// `took` is how long ago the try began.
    fn heard(reply: TunnelDoorReply, took: Duration) -> Self {
        let mut problem = reply.problem;
        cut(&mut problem, MAX_PROBLEM);
        Self {
            open: match (reply.open, problem.is_empty()) {
                (true, _) => Ok(()),
                (false, true) => Err(NOT_YET.to_owned()),
                (false, false) => Err(problem),
            },
            came: reply
                .came_ms
                .is_some_and(|since| Duration::from_millis(since) <= took),
            refusals: reply.refusals,
        }
    }
}

/// The ports of tunnels, here and at the other controllers.
#[derive(Clone)]
pub struct Doors {
    /// This controller's id.
    own: u64,
    tunnels: Tunnels,
    peers: Peers,
}

impl Doors {
    pub fn new(own: u64, tunnels: Tunnels, peers: Peers) -> Self {
        Self {
            own,
            tunnels,
            peers,
        }
    }

    /// Of a tunnel that was tried from `began` on, by controller. Those that do not answer are left out, as are those of
    /// releases that do not know the question; of what is reached by name nobody is asked.
    pub(super) async fn of(
        &self,
        key: &Key,
        subject: &Subject,
        began: Instant,
    ) -> BTreeMap<u64, Door> {
        if !matches!(subject.ask.way, Way::Tcp | Way::Udp { .. }) {
            return BTreeMap::new();
        }
        let question = TunnelDoorRequest {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: subject.uid.clone(),
        };
        let asks = subject.ask.controllers.iter().map(|controller| {
            let (id, question) = (controller.id, question.clone());
            async move {
                let reply = self.ask(id, question).await?;
                Some((id, Door::heard(reply, began.elapsed())))
            }
        });
        join_all(asks).await.into_iter().flatten().collect()
    }

    async fn ask(&self, id: u64, question: TunnelDoorRequest) -> Option<TunnelDoorReply> {
        if id == self.own {
            return Some(self.tunnels.door(&question));
        }
        let mut client = self.peers.requests(id).ok()?;
        let asked = tokio::time::timeout(PATIENCE, client.tunnel_door(question)).await;
        Some(asked.ok()?.ok()?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_before_the_try_came_not_for_it() {
        let took = Duration::from_millis(1500);
        for (came_ms, expected) in [
            (None, false),
            (Some(0), true),
            (Some(1500), true),
            (Some(1501), false),
        ] {
            let reply = TunnelDoorReply {
                open: true,
                came_ms,
                ..TunnelDoorReply::default()
            };
            assert_eq!(Door::heard(reply, took).came, expected, "{came_ms:?}");
        }
    }

    #[test]
    fn a_door_that_is_not_open_says_why_in_measure() {
        let heard = |problem: &str| {
            let reply = TunnelDoorReply {
                problem: problem.to_owned(),
                ..TunnelDoorReply::default()
            };
            Door::heard(reply, Duration::ZERO).open.err()
        };
        assert_eq!(heard("it is taken").as_deref(), Some("it is taken"));
        assert_eq!(heard("").as_deref(), Some(NOT_YET));
        let long = heard(&"x".repeat(100_000)).map(|why| why.len());
        assert_eq!(long, Some(MAX_PROBLEM));
    }
}
