//! Whether nodes are Ready: from what the controllers hear, only changes are written.

use std::time::{Duration, Instant, SystemTime};

use hive_manifests::Resource;

use crate::gateway::Presence;
use crate::objects;
use crate::reconcile::events::{self, Notice};
use crate::state::State;
use crate::store::Replica;

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub name: String,
    /// Its Ready condition, if it has one yet.
    pub ready: Option<String>,
    /// How long ago any controller reported a link to it.
    pub seen: Option<Duration>,
    /// How long ago it joined.
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    Ready { node: String },
    Lost { node: String },
}

/// Which conditions change. A leader that has led for less than the grace has not had the time
/// to hear of every node: it declares none lost. Neither is one that joined within the grace: its first
/// link is still on its way.
pub fn plan(nodes: &[Observed], leading_for: Duration, grace: Duration) -> Vec<Transition> {
    nodes
        .iter()
        .filter_map(|node| {
            let ready = node.ready.as_deref() == Some("True");
            let unknown = node.ready.as_deref() == Some("Unknown");
            let heard = node.seen.is_some_and(|ago| ago < grace);
            match (heard, ready) {
                (true, false) => Some(Transition::Ready {
                    node: node.name.clone(),
                }),
                (false, _) if !unknown && leading_for >= grace && node.age >= grace => {
                    Some(Transition::Lost {
                        node: node.name.clone(),
                    })
                }
                _ => None,
            }
        })
        .collect()
}

/// How long a node has been part of the swarm; for ever where that cannot be read.
fn age(node: &serde_json::Value) -> Duration {
    let joined = node["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map(SystemTime::from);
    match joined {
        // A clock that is behind that of who admitted the node: it has only just joined.
        Some(joined) => joined.elapsed().unwrap_or_default(),
        None => Duration::MAX,
    }
}

/// One look.
pub async fn pass(
    replica: &Replica,
    state: &State,
    presence: &Presence,
    since: Instant,
    grace: Duration,
) {
    let last_seen = presence.last_seen();
    let nodes: Vec<Observed> = state
        .list(Resource::Node, None)
        .map(|object| Observed {
            name: object.key().name.clone(),
            ready: objects::condition(object.body(), "Ready").map(str::to_owned),
            seen: last_seen.get(&object.key().name).map(Instant::elapsed),
            age: age(object.body()),
        })
        .collect();
    for transition in plan(&nodes, since.elapsed(), grace) {
        perform(replica, transition, grace).await;
    }
}

async fn perform(replica: &Replica, transition: Transition, grace: Duration) {
    let (node, status, reason, message) = match &transition {
        Transition::Ready { node } => (
            node,
            "True",
            "AgentLinked",
            "the agent is linked to a controller".to_owned(),
        ),
        Transition::Lost { node } => (
            node,
            "Unknown",
            "AgentLost",
            format!(
                "no controller has heard of the agent for {} s",
                grace.as_secs()
            ),
        ),
    };
    let key = objects::node_key(node);
    let written = objects::edit(replica, &key, |body| {
        objects::set_condition(
            &mut body["status"],
            "Ready",
            status,
            reason,
            &message,
            SystemTime::now(),
        )
    })
    .await;
    match written {
        Ok(_) => {
            tracing::info!(node, status, "node changed");
            let notice = Notice {
                warning: status != "True",
                reason: if status == "True" {
                    "NodeReady"
                } else {
                    "NodeLost"
                }
                .to_owned(),
                message,
                source: "node-health".to_owned(),
                count: 1,
            };
            events::record(replica, &key, notice).await;
        }
        Err(error) => tracing::warn!(node, %error, "cannot write the node's condition"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    fn observed(ready: Option<&str>, seen: Option<u64>) -> Observed {
        Observed {
            name: "pi".into(),
            ready: ready.map(str::to_owned),
            seen: seen.map(Duration::from_secs),
            age: Duration::MAX,
        }
    }

    #[test]
    fn a_node_that_joined_just_now_is_not_lost() {
        let node = |age| Observed {
            age: Duration::from_secs(age),
            ..observed(None, None)
        };
        let leading = Duration::from_secs(100);
        assert_eq!(plan(&[node(39)], leading, GRACE), vec![]);
        let lost = Transition::Lost { node: "pi".into() };
        assert_eq!(plan(&[node(40)], leading, GRACE), vec![lost]);
    }

    #[test]
    fn only_changes_are_planned() {
        let ready = || vec![Transition::Ready { node: "pi".into() }];
        let lost = || vec![Transition::Lost { node: "pi".into() }];
        let cases = [
            (None, Some(0), 0, ready()),
            (Some("True"), Some(1), 100, vec![]),
            (Some("True"), Some(39), 100, vec![]),
            (Some("True"), Some(40), 100, lost()),
            (Some("True"), None, 39, vec![]),
            (Some("True"), None, 40, lost()),
            (Some("Unknown"), None, 100, vec![]),
            (Some("Unknown"), Some(1), 0, ready()),
            (None, None, 0, vec![]),
            (None, None, 40, lost()),
        ];
        for (condition, seen, leading, expected) in cases {
            let node = observed(condition, seen);
            assert_eq!(
                plan(
                    std::slice::from_ref(&node),
                    Duration::from_secs(leading),
                    GRACE
                ),
                expected,
                "{node:?}, leading for {leading} s"
            );
        }
    }
}
