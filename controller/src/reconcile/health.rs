//! Whether nodes are Ready: from what the controllers hear, only changes are written.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use hive_manifests::Resource;

use crate::gateway::Presence;
use crate::node_record::NodeRecord;
use crate::objects;
use crate::reconcile::events::{self, Notice};
use crate::state::State;
use crate::together;
use crate::together::Together;

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
    /// `first` of one that has just joined.
    Ready {
        node: String,
        first: bool,
    },
    Lost {
        node: String,
    },
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
                    first: node.ready.is_none(),
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

/// Changes written at once: they fill some batches.
const WRITES_AT_ONCE: usize = 2 * together::MOST;

/// What was read of each node at a revision, so that a look every second reads only what changed.
#[derive(Default)]
pub struct Roll(HashMap<String, Entry>);

struct Entry {
    revision: u64,
    ready: Option<String>,
    joined: Option<SystemTime>,
}

impl Roll {
    fn observe(&mut self, state: &State, last_seen: &HashMap<String, Instant>) -> Vec<Observed> {
        let mut count = 0;
        let mut nodes = Vec::new();
        for object in state.list(Resource::Node, None) {
            let name = &object.key().name;
            if self
                .0
                .get(name)
                .is_none_or(|e| e.revision != object.revision())
            {
                let record = NodeRecord::of(object);
                let joined = record.created().parse::<jiff::Timestamp>().ok();
                let entry = Entry {
                    revision: object.revision(),
                    ready: record.ready().map(str::to_owned),
                    joined: joined.map(SystemTime::from),
                };
                self.0.insert(name.clone(), entry);
            }
            let entry = &self.0[name];
            nodes.push(Observed {
                name: name.clone(),
                ready: entry.ready.clone(),
                seen: last_seen.get(name).map(Instant::elapsed),
                age: age(entry.joined),
            });
            count += 1;
        }
        if self.0.len() > count {
            self.0
                .retain(|name, _| state.get(&objects::node_key(name)).is_some());
        }
        nodes
    }
}

/// How long a node has been part of the swarm; for ever where that cannot be read.
fn age(joined: Option<SystemTime>) -> Duration {
    match joined {
        // A clock that is behind that of who admitted the node: it has only just joined.
        Some(joined) => joined.elapsed().unwrap_or_default(),
        None => Duration::MAX,
    }
}

/// One look.
pub async fn pass(
    together: &Together,
    state: &State,
    roll: &mut Roll,
    presence: &Presence,
    since: Instant,
    grace: Duration,
) {
    let nodes = roll.observe(state, &presence.last_seen());
    futures::stream::iter(plan(&nodes, since.elapsed(), grace))
        .for_each_concurrent(WRITES_AT_ONCE, |transition| {
            perform(together, transition, grace)
        })
        .await;
}

async fn perform(together: &Together, transition: Transition, grace: Duration) {
    let (node, status, reason, message) = match &transition {
        Transition::Ready { node, .. } => (
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
    let written = objects::edit(together, &key, |body| {
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
        Ok(()) => {
            tracing::info!(node, status, "node changed");
            // That it joined, the node itself says; thousands that join would drive out all other events.
            if matches!(transition, Transition::Ready { first: true, .. }) {
                return;
            }
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
            events::record(together, &key, notice).await;
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
    fn what_is_remembered_follows_the_nodes() {
        use crate::state::Command;
        use serde_json::json;

        let (mut state, mut roll) = (State::default(), Roll::default());
        let key = objects::node_key("pi");
        let body = |ready: &str| {
            let condition = json!({ "type": "Ready", "status": ready });
            let extra = json!({ "status": { "conditions": [condition] } });
            objects::fresh(&key, json!({}), extra).into()
        };
        let create = Command::Create {
            key: key.clone(),
            body: body("True"),
        };
        let replace = Command::Replace {
            key: key.clone(),
            body: body("Unknown"),
            expect: None,
        };
        let delete = Command::Delete {
            key: key.clone(),
            expect: None,
            uid: None,
        };
        let mut after = |command| {
            assert!(state.apply(command).is_ok());
            let nodes = roll.observe(&state, &HashMap::new());
            let ready: Vec<_> = nodes.into_iter().map(|node| node.ready).collect();
            (ready, roll.0.len())
        };
        let one = |ready: &str| (vec![Some(ready.to_owned())], 1);
        assert_eq!(after(create), one("True"));
        assert_eq!(after(replace), one("Unknown"));
        assert_eq!(after(delete), (vec![], 0));
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
        let ready = |first| {
            let node = "pi".to_owned();
            vec![Transition::Ready { node, first }]
        };
        let lost = || vec![Transition::Lost { node: "pi".into() }];
        let cases = [
            (None, Some(0), 0, ready(true)),
            (Some("True"), Some(1), 100, vec![]),
            (Some("True"), Some(39), 100, vec![]),
            (Some("True"), Some(40), 100, lost()),
            (Some("True"), None, 39, vec![]),
            (Some("True"), None, 40, lost()),
            (Some("Unknown"), None, 100, vec![]),
            (Some("Unknown"), Some(1), 0, ready(false)),
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
