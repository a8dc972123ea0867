//! Which targets of a tunnel answer, and what is to be done where one does not. Pure.

use hive_manifests::tunnel::{TargetStatus, TunnelSpec, TunnelTarget};
use hive_proto::tunnel as reasons;
use hive_proto::v1::TunnelRefusal;

use super::Why;
use crate::objects::node_key;
use crate::state::State;
use crate::tunnels::door::REFUSALS;
use crate::tunnels::health::TargetHealth;

/// Of a target that was not asked yet.
const UNKNOWN: &str = "Unknown";

/// What a target's failure makes of the whole tunnel: these tell more than that the target is down.
const OWN_WORDS: [&str; 6] = [
    NODE_NOT_FOUND,
    NODE_NOT_LINKED,
    "NodeSilent",
    "LinkFailed",
    "AgentTooOld",
    reasons::NOT_ALLOWED,
];

const NODE_NOT_FOUND: &str = "NodeNotFound";
const NODE_NOT_LINKED: &str = "NodeNotLinked";

/// What is declared and known of a node that connects to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    Absent,
    /// Nothing is heard of it, since then where that is known.
    Lost(Option<String>),
    Ready {
        cordoned: bool,
    },
}

impl NodeState {
    pub fn of(state: &State, node: &str) -> Self {
        let Some(node) = state.get(&node_key(node)) else {
            return Self::Absent;
        };
        // Of thousands few are a tunnel's: they need not be kept parsed.
        let node = node.to_value();
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Ready");
        match ready {
            Some(ready) if ready["status"] == "True" => Self::Ready {
                cordoned: node["spec"]["unschedulable"] == true,
            },
            ready => {
                let since = ready.and_then(|it| it["lastTransitionTime"].as_str());
                Self::Lost(since.map(str::to_owned))
            }
        }
    }
}

/// In the order of the spec.
pub fn statuses(
    spec: &TunnelSpec,
    health: &[TargetHealth],
    node: impl Fn(&str) -> NodeState,
) -> Vec<TargetStatus> {
    let targets = spec.targets.iter().enumerate();
    let statuses = targets.map(|(index, target)| {
        let known = health.iter().find(|known| known.target == *target);
        status(index, target, known, &node(&target.node))
    });
    statuses.collect()
}

fn status(
    index: usize,
    target: &TunnelTarget,
    known: Option<&TargetHealth>,
    node: &NodeState,
) -> TargetStatus {
    let healthy = known.and_then(|known| known.healthy);
    let why = match (node, known, healthy) {
        (NodeState::Absent, ..) => Some(Why::new(
            NODE_NOT_FOUND,
            format!(
                "node {} is not part of the swarm: let it join, or name another in spec.targets[{index}].node",
                target.node
            ),
        )),
        (_, Some(known), Some(false)) => Some(failure(index, target, known, node)),
        (NodeState::Lost(_), _, None) => Some(not_linked(target, node)),
        (_, _, None) => Some(Why::new(UNKNOWN, "it was not asked yet")),
        (..) => None,
    };
    // Who moved the work away should know what stays.
    let stays = || match node {
        NodeState::Ready { cordoned: true } => {
            format!(
                "node {} is cordoned, which keeps no tunnel off",
                target.node
            )
        }
        _ => String::new(),
    };
    let healthy = why.is_none();
    let Why { reason, message } = why.unwrap_or_else(|| Why::new("", stays()));
    TargetStatus {
        node: target.node.clone(),
        address: target.address(),
        healthy,
        reason,
        message,
    }
}

fn failure(index: usize, target: &TunnelTarget, known: &TargetHealth, node: &NodeState) -> Why {
    let (name, address) = (&target.node, target.address());
    let message = match &*known.reason {
        NODE_NOT_LINKED => return not_linked(target, node),
        reasons::REFUSED => nothing_listens(index, name, &address),
        reasons::NOT_ALLOWED => format!(
            "the agent of node {name} may not connect to {address}: whoever runs it allows that with --tunnel-targets"
        ),
        _ if known.message.contains(name.as_str()) => known.message.clone(),
        _ => format!("{address} on node {name}: {}", known.message),
    };
    let cordoned = *node == NodeState::Ready { cordoned: true };
    let maybe = match cordoned {
        true => format!(" (node {name} is cordoned: somebody may be at work on it)"),
        false => String::new(),
    };
    Why::new(known.reason.clone(), message + &maybe)
}

fn nothing_listens(index: usize, node: &str, address: &str) -> String {
    format!(
        "nothing listens at {address} as node {node} sees it: start the service there, or correct spec.targets[{index}]"
    )
}

/// What clients of other controllers found out of targets that are well as far as this one knows.
pub fn refuse(targets: &mut [TargetStatus], refusals: &[&TunnelRefusal]) {
    for (index, target) in targets.iter_mut().enumerate() {
        let TargetStatus { node, address, .. } = &*target;
        let mut said = refusals.iter();
        let said = said.find(|it| it.node == *node && it.address == *address);
        let said = said.and_then(|it| REFUSALS.into_iter().find(|known| *known == it.reason));
        let Some(reason) = said.filter(|_| target.healthy) else {
            continue;
        };
        target.message = match reason {
            reasons::REFUSED => nothing_listens(index, node, address),
            _ => format!("node {node} finds no way to {address}: look at its network"),
        };
        target.reason = reason.to_owned();
        target.healthy = false;
    }
}

fn not_linked(target: &TunnelTarget, node: &NodeState) -> Why {
    let name = &target.node;
    let message = match node {
        NodeState::Lost(since) => {
            let since = since
                .as_ref()
                .map_or_else(String::new, |at| format!(" since {at}"));
            format!(
                "nothing was heard of node {name}{since}: see that it is on, runs its agent and has a network"
            )
        }
        _ => format!(
            "node {name} has no link to the controller that leads: it is just starting, or its way there is cut"
        ),
    };
    Why::new(NODE_NOT_LINKED, message)
}

/// Why it is in vain to try: none of the nodes is part of the swarm.
pub fn nobody_there(targets: &[TargetStatus]) -> Option<Why> {
    let is_absent = |target: &TargetStatus| target.reason == NODE_NOT_FOUND;
    all_down(targets).filter(|_| targets.iter().all(is_absent))
}

/// Why none of the targets answers, if that is so.
pub fn all_down(targets: &[TargetStatus]) -> Option<Why> {
    let is_down = |target: &TargetStatus| !target.healthy && target.reason != UNKNOWN;
    let first = targets.first()?;
    if !targets.iter().all(is_down) {
        return None;
    }
    let reason = match OWN_WORDS.contains(&&*first.reason) {
        true => &*first.reason,
        false => "TargetDown",
    };
    let message = match targets.len() {
        1 => first.message.clone(),
        count => format!(
            "none of {count} targets answers; the first: {}",
            first.message
        ),
    };
    Some(Why::new(reason, message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const WELL: NodeState = NodeState::Ready { cordoned: false };
    const CORDONED: NodeState = NodeState::Ready { cordoned: true };

    fn spec() -> TunnelSpec {
        let targets = json!([{ "node": "pi", "port": 3000 }]);
        serde_json::from_value(json!({ "targets": targets })).unwrap()
    }

    fn health(healthy: Option<bool>, reason: &str, message: &str) -> TargetHealth {
        TargetHealth {
            target: spec().targets[0].clone(),
            healthy,
            reason: reason.to_owned(),
            message: message.to_owned(),
            latency: None,
            connections: 0,
        }
    }

    #[test]
    fn what_is_wrong_with_a_target_names_its_node_and_what_helps() {
        let lost = || NodeState::Lost(Some("2026-01-01T00:00:00Z".into()));
        let silent = "NodeNotLinked: nothing was heard of node pi since 2026-01-01T00:00:00Z: see that it is on, runs its agent and has a network";
        let failed = |reason: &str, message: &str| health(Some(false), reason, message);
        let cases = [
            (WELL, health(Some(true), "", ""), "well"),
            (WELL, health(None, "", ""), "Unknown: it was not asked yet"),
            (
                WELL,
                failed("Refused", "connection refused"),
                "Refused: nothing listens at 127.0.0.1:3000 as node pi sees it: start the service there, or correct spec.targets[0]",
            ),
            (
                WELL,
                failed("NotAllowed", "no"),
                "NotAllowed: the agent of node pi may not connect to 127.0.0.1:3000: whoever runs it allows that with --tunnel-targets",
            ),
            (
                WELL,
                failed(
                    "AgentTooOld",
                    "the agent of node \"pi\" does not know tunnels: upgrade it",
                ),
                "AgentTooOld: the agent of node \"pi\" does not know tunnels: upgrade it",
            ),
            (
                WELL,
                failed("BadStatus", "GET /healthz is answered with 500"),
                "BadStatus: 127.0.0.1:3000 on node pi: GET /healthz is answered with 500",
            ),
            (
                WELL,
                failed("NodeNotLinked", "x"),
                "NodeNotLinked: node pi has no link to the controller that leads: it is just starting, or its way there is cut",
            ),
            (lost(), failed("NodeNotLinked", "x"), silent),
            (lost(), health(None, "", ""), silent),
            // It was given up a moment ago, and answers.
            (lost(), health(Some(true), "", ""), "well"),
            (
                NodeState::Absent,
                health(Some(true), "", ""),
                "NodeNotFound: node pi is not part of the swarm: let it join, or name another in spec.targets[0].node",
            ),
            (
                CORDONED,
                health(Some(true), "", ""),
                "well: node pi is cordoned, which keeps no tunnel off",
            ),
            (
                CORDONED,
                failed("BadStatus", "GET / is answered with 500"),
                "BadStatus: 127.0.0.1:3000 on node pi: GET / is answered with 500 (node pi is cordoned: somebody may be at work on it)",
            ),
        ];
        for (node, health, expected) in cases {
            let told = statuses(&spec(), &[health], |_| node.clone()).remove(0);
            let said = match (told.healthy, &*told.message) {
                (true, "") => "well".to_owned(),
                (true, message) => format!("well: {message}"),
                (false, message) => format!("{}: {message}", told.reason),
            };
            assert_eq!(said, expected, "{node:?}");
            assert_eq!((&*told.node, &*told.address), ("pi", "127.0.0.1:3000"));
        }
    }

    #[test]
    fn a_tunnel_is_down_when_all_its_targets_are() {
        let target = |reason: &&str| TargetStatus {
            healthy: reason.is_empty(),
            reason: (*reason).to_owned(),
            ..TargetStatus::default()
        };
        let cases: [(&[&str], Option<&str>, bool); 9] = [
            (&[], None, false),
            (&[""], None, false),
            (&["Refused", ""], None, false),
            (&["Refused", "Unknown"], None, false),
            (&["Refused"], Some("TargetDown"), false),
            (&["NodeSilent"], Some("NodeSilent"), false),
            (&["NodeNotLinked", "Refused"], Some("NodeNotLinked"), false),
            (&["NodeNotFound", "Refused"], Some("NodeNotFound"), false),
            (
                &["NodeNotFound", "NodeNotFound"],
                Some("NodeNotFound"),
                true,
            ),
        ];
        for (reasons, down, in_vain) in cases {
            let targets: Vec<_> = reasons.iter().map(target).collect();
            let found = all_down(&targets).map(|why| why.reason);
            assert_eq!(found.as_deref(), down, "{reasons:?}");
            assert_eq!(nobody_there(&targets).is_some(), in_vain, "{reasons:?}");
        }
    }

    #[test]
    fn a_node_is_known_by_its_object() {
        use crate::fixture::{declare, edit};

        let mut state = State::default();
        let of = |state: &State| NodeState::of(state, "pi");
        assert_eq!(of(&state), NodeState::Absent);
        let key = node_key("pi");
        declare(&mut state, key.clone(), json!({ "spec": { "key": "k" } }));
        assert_eq!(of(&state), NodeState::Lost(None));
        let mut set = |ready: &str, unschedulable: bool| {
            let since = "2026-01-01T00:00:00Z";
            let ready = json!([{ "type": "Ready", "status": ready, "lastTransitionTime": since }]);
            edit(&mut state, &key, |body| {
                body["status"]["conditions"] = ready;
                body["spec"]["unschedulable"] = json!(unschedulable);
            });
            of(&state)
        };
        assert_eq!(set("True", false), WELL);
        assert_eq!(set("True", true), CORDONED);
        let since = Some("2026-01-01T00:00:00Z".to_owned());
        assert_eq!(set("Unknown", true), NodeState::Lost(since));
    }
}
