//! What nodes and functions use at the moment, as their agents last said.
//!
//! Soft state gathered from all controllers on each request; nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use axum::response::Response;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use hive_proto::USAGE_INTERVAL;
use hive_proto::v1::{FunctionUsage, NodeUsage};
use http::StatusCode;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::respond;
use super::{Api, Call};
use crate::objects::timestamp;
use crate::state::{Key, Placed, State};

/// What is older is forgotten long before; another controller may say anything.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn nodes(
    context: &Api,
    name: Option<String>,
    call: &Call,
) -> Result<Response, ApiError> {
    let labels = call.query.labels()?;
    let usages = context.nodes.usage().await;
    let state = context.replica.state();
    let node = |usage: &NodeUsage| {
        state
            .get(&Key::new(Resource::Node, "", &usage.node))
            .cloned()
    };
    let Some(name) = name else {
        let items: Vec<Value> = usages
            .iter()
            .filter(|usage| node(usage).is_some_and(|node| labels.matches(&node)))
            .map(|usage| node_metrics(usage, &state))
            .collect();
        return respond::json(
            StatusCode::OK,
            &json!({
                "kind": "NodeMetricsList",
                "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {},
                "items": items,
            }),
        );
    };
    let usage = usages
        .iter()
        .find(|usage| usage.node == name)
        .ok_or_else(|| {
            ApiError::Absent(format!(
                "nodemetrics.metrics.k8s.io {name:?} not found: no controller has heard from this node"
            ))
        })?;
    respond::json(StatusCode::OK, &node_metrics(usage, &state))
}

fn node_metrics(node: &NodeUsage, state: &State) -> Value {
    let usage = node.usage.clone().unwrap_or_default();
    let age = Duration::from_millis(node.age_ms).min(OLDEST);
    let heard = SystemTime::now() - age;
    let labels = state
        .get(&Key::new(Resource::Node, "", &node.node))
        .map(|object| object.body()["metadata"]["labels"].clone())
        .unwrap_or_default();
    let mut metrics = json!({
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {
            "name": node.node,
            "creationTimestamp": timestamp(SystemTime::now()),
            "labels": labels,
        },
        "timestamp": timestamp(heard),
        "window": GoDuration(USAGE_INTERVAL),
        "usage": {
            "cpu": format!("{}m", usage.cpu_millis),
            "memory": format!("{}Ki", usage.memory_used_bytes / 1024),
        },
    });
    // What Kubernetes has no place for: clients that don't know it pass over it.
    metrics["hive.dev/usage"] = json!({
        "memoryAvailable": format!("{}Ki", usage.memory_available_bytes / 1024),
        "storageFree": format!("{}Ki", usage.storage_free_bytes / 1024),
        "agentMemory": format!("{}Ki", usage.agent_memory_bytes / 1024),
        "networkReceivedBytes": usage.network_received_bytes,
        "networkSentBytes": usage.network_sent_bytes,
        "temperatureCelsius": usage.temperature_celsius,
        "batteryPercent": usage.battery_percent,
        "batteryCharging": usage.battery_charging,
    });
    metrics
}

pub(super) async fn functions(
    context: &Api,
    namespace: Option<String>,
    name: Option<String>,
    call: &Call,
) -> Result<Response, ApiError> {
    let labels = call.query.labels()?;
    let usages = context.nodes.usage().await;
    let used = sum_by_function(&usages);
    let state = context.state_at_least(call.query.resource_version).await?;
    let selected = state
        .list(Resource::Function, namespace.as_deref())
        .filter(|function| labels.matches(function));
    let nodes = nodes_by_function(&state, namespace.as_deref());
    let metrics = |key: &Key| {
        let name = (key.namespace.as_str(), key.name.as_str());
        let nodes = nodes.get(&(name.0.to_owned(), name.1.to_owned()));
        function_metrics(key, nodes.map_or(0, BTreeSet::len), used.get(&name))
    };
    match name {
        None => {
            let items: Vec<Value> = selected.map(|function| metrics(function.key())).collect();
            respond::json(
                StatusCode::OK,
                &json!({
                    "kind": "FunctionMetricsList",
                    "apiVersion": "metrics.hive.dev/v1",
                    "metadata": {},
                    "items": items,
                }),
            )
        }
        Some(name) => {
            let key = Key::new(
                Resource::Function,
                namespace.as_deref().unwrap_or_default(),
                name,
            );
            if state.get(&key).is_none() {
                return Err(ApiError::not_found(&key));
            }
            respond::json(StatusCode::OK, &metrics(&key))
        }
    }
}

/// Nodes that have a copy of it, by namespace and name of the function.
fn nodes_by_function(
    state: &State,
    namespace: Option<&str>,
) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut nodes: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for assignment in state.list(Resource::Assignment, namespace) {
        if let Some(placed) = Placed::of(assignment) {
            let function = (assignment.key().namespace.clone(), placed.function);
            nodes.entry(function).or_default().insert(placed.node);
        }
    }
    nodes
}

/// A function's use on all nodes together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    requests: u64,
    errors: u64,
    cpu_micros: u64,
    in_flight: u64,
    memory_bytes: u64,
}

fn sum_by_function(nodes: &[NodeUsage]) -> BTreeMap<(&str, &str), Sum> {
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for usage in nodes.iter().filter_map(|node| node.usage.as_ref()) {
        for function in &usage.functions {
            let FunctionUsage {
                namespace,
                function: name,
                requests,
                errors,
                cpu_micros,
                in_flight,
                memory_bytes,
                ..
            } = function;
            let sum = sums.entry((namespace, name)).or_default();
            // Nodes can say anything.
            sum.requests = sum.requests.saturating_add(*requests);
            sum.errors = sum.errors.saturating_add(*errors);
            sum.cpu_micros = sum.cpu_micros.saturating_add(*cpu_micros);
            sum.in_flight += u64::from(*in_flight);
            sum.memory_bytes = sum.memory_bytes.saturating_add(*memory_bytes);
        }
    }
    sums
}

/// Counters run since the agents started; `inFlight` and `memory` are of the moment.
fn function_metrics(key: &Key, nodes: usize, sum: Option<&Sum>) -> Value {
    let nothing = Sum::default();
    let sum = sum.unwrap_or(&nothing);
    json!({
        "kind": "FunctionMetrics",
        "apiVersion": "metrics.hive.dev/v1",
        "metadata": { "name": key.name, "namespace": key.namespace },
        "timestamp": timestamp(SystemTime::now()),
        "nodes": nodes,
        "requests": sum.requests,
        "errors": sum.errors,
        "cpuSeconds": sum.cpu_micros as f64 / 1e6,
        "inFlight": sum.in_flight,
        "memory": format!("{}Ki", sum.memory_bytes / 1024),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hive_proto::v1::Usage;

    #[test]
    fn a_function_on_several_nodes_is_one_sum() {
        let node = |requests| NodeUsage {
            usage: Some(Usage {
                functions: vec![FunctionUsage {
                    namespace: "a".into(),
                    function: "f".into(),
                    requests,
                    in_flight: 1,
                    ..FunctionUsage::default()
                }],
                ..Usage::default()
            }),
            ..NodeUsage::default()
        };
        let nodes = [node(3), node(4), NodeUsage::default()];
        let sums = sum_by_function(&nodes);
        let sum = sums.get(&("a", "f")).unwrap();
        assert_eq!((sum.requests, sum.in_flight), (7, 2));
    }

    #[test]
    fn fuzzed_usage_is_shown_or_refused() {
        use hive_proto::v1::NodeUsageReply;
        use prost::Message;

        let function = FunctionUsage {
            namespace: "a".into(),
            function: "f".into(),
            requests: 7,
            memory_bytes: 1 << 20,
            ..FunctionUsage::default()
        };
        let node = |name: &str| NodeUsage {
            node: name.into(),
            age_ms: 5,
            usage: Some(Usage {
                functions: vec![function.clone(); 2],
                temperature_celsius: Some(20.0),
                ..Usage::default()
            }),
        };
        let reply = NodeUsageReply {
            nodes: vec![node("a"), node("b")],
        };
        let state = State::default();
        hive_fuzz::Target::new("usage", |input: &[u8]| {
            let reply = NodeUsageReply::decode(input).map_err(|error| error.to_string())?;
            for node in &reply.nodes {
                node_metrics(node, &state).to_string();
            }
            for ((namespace, name), sum) in sum_by_function(&reply.nodes) {
                let key = Key::new(Resource::Function, namespace, name);
                function_metrics(&key, 1, Some(&sum)).to_string();
            }
            Ok::<_, String>(())
        })
        .seeds([reply.encode_to_vec()])
        .at_most(4 * 1024)
        .hold();
    }
}
