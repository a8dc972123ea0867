//! What nodes and functions use at the moment, as their agents last said.
//!
//! Soft state gathered from all controllers on each request; nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use axum::response::Response;
use hive_functions::latency::quantile;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use hive_proto::USAGE_INTERVAL;
use hive_proto::v1::NodeUsage;
use http::StatusCode;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::respond;
use super::{Api, Call};
use crate::gateway::{SwarmUse, WINDOW};
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
        "memoryPressure": usage.memory_pressure,
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
    let (of, one) = (namespace.as_deref(), name.as_deref());
    let used = context.nodes.function_use(of, one).await;
    let state = context.state_at_least(call.query.resource_version).await?;
    let selected = state
        .list(Resource::Function, namespace.as_deref())
        .filter(|function| labels.matches(function));
    let nodes = nodes_by_function(&state, namespace.as_deref());
    let metrics = |key: &Key| {
        let name = (key.namespace.clone(), key.name.clone());
        let nodes = nodes.get(&name).map_or(0, BTreeSet::len);
        let nothing = SwarmUse::default();
        function_metrics(key, nodes, used.get(&name).unwrap_or(&nothing))
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

/// Counters run since the agents started; rates, quantiles and `cpu` are of the last minute; `inFlight` and
/// `memory` are of the moment.
fn function_metrics(key: &Key, nodes: usize, used: &SwarmUse) -> Value {
    let told = &used.told;
    let within = |q| quantile(&used.durations, q).map(in_text);
    let errors: BTreeMap<&str, u64> = told.errors().collect();
    let mut metrics = json!({
        "kind": "FunctionMetrics",
        "apiVersion": "metrics.hive.dev/v1",
        "metadata": { "name": key.name, "namespace": key.namespace },
        "timestamp": timestamp(SystemTime::now()),
        "window": GoDuration(WINDOW),
        "nodes": nodes,
        "requests": told.requests,
        "errors": told.failed(),
        "errorsByReason": errors,
        "coldStarts": told.cold_starts,
        "receivedBytes": told.bytes_in,
        "sentBytes": told.bytes_out,
        "cpuSeconds": told.cpu_micros as f64 / 1e6,
        "requestsPerSecond": rounded(used.requests_per_second),
        "errorsPerSecond": rounded(used.errors_per_second),
        "cpu": format!("{}m", used.cpu_millis.round() as u64),
        "inFlight": used.now.in_flight,
        "memory": format!("{}Ki", used.now.memory_bytes / 1024),
        "memoryHighWater": format!("{}Ki", used.now.high_water_bytes / 1024),
    });
    // Of no requests there are none.
    for (name, quantile) in [("p50", within(0.5)), ("p99", within(0.99))] {
        if let Some(quantile) = quantile {
            metrics[name] = json!(quantile);
        }
    }
    metrics
}

/// Microseconds, no finer than they are known.
fn in_text(micros: f64) -> GoDuration {
    let micros = micros.round() as u64;
    let step = match micros {
        0..10_000 => 10,
        10_000..1_000_000 => 1_000,
        _ => 10_000,
    };
    GoDuration(Duration::from_micros(micros / step * step))
}

fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hive_proto::v1::{self, FunctionUsage, Usage};

    #[test]
    fn a_function_of_several_controllers_is_one_sum_with_one_rate() {
        let part = |requests: u64, bucket: usize| {
            let mut durations = vec![0; 19];
            durations[bucket] = requests;
            v1::FunctionUse {
                told: Some(FunctionUsage {
                    requests: 10 * requests,
                    in_flight: 1,
                    high_water_bytes: requests << 20,
                    ..FunctionUsage::default()
                }),
                recent: Some(FunctionUsage {
                    requests,
                    cpu_micros: 600_000,
                    durations,
                    layout: 1,
                    ..FunctionUsage::default()
                }),
                recent_ms: 60_000,
            }
        };
        let mut used = SwarmUse::default();
        used.add(&part(60, 2));
        used.add(&part(30, 9));
        let key = Key::new(Resource::Function, "a", "f");
        let metrics = function_metrics(&key, 2, &used);
        for (name, expected) in [
            ("nodes", json!(2)),
            ("requests", json!(900)),
            ("inFlight", json!(2)),
            ("requestsPerSecond", json!(1.5)),
            ("cpu", json!("20m")),
            ("memoryHighWater", json!("61440Ki")),
            ("p50", json!("870us")),
            ("p99", json!("245ms")),
        ] {
            assert_eq!(metrics[name], expected, "{name}: {metrics}");
        }
        let idle = function_metrics(&key, 1, &SwarmUse::default());
        assert_eq!((&idle["p50"], &idle["requests"]), (&Value::Null, &json!(0)));
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
            let key = Key::new(Resource::Function, "a", "f");
            let mut used = SwarmUse::default();
            let usages = reply.nodes.into_iter().filter_map(|node| node.usage);
            for function in usages.flat_map(|usage| usage.functions) {
                used.add(&v1::FunctionUse {
                    told: Some(function.clone()),
                    recent_ms: function.requests,
                    recent: Some(function),
                });
                function_metrics(&key, 1, &used).to_string();
            }
            Ok::<_, String>(())
        })
        .seeds([reply.encode_to_vec()])
        .at_most(4 * 1024)
        .hold();
    }
}
