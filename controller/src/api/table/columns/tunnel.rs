//! Columns of tunnels.

use hive_manifests::tunnel::TunnelTarget;
use serde::Deserialize;
use serde_json::json;

use super::{AGE, Column, NAME, column, condition, text, wide};

pub(super) const TUNNEL: &[Column] = &[
    NAME,
    column("Protocol", "HTTP, TCP, TLS or UDP", |body, _| {
        text(&body["spec"]["protocol"])
    }),
    column("Address", "Where it is reached", |body, _| {
        text(&body["status"]["addresses"][0])
    }),
    column(
        "Ready",
        "True when it was reached from outside",
        |body, _| json!(condition(body, "Ready").unwrap_or("Unknown")),
    ),
    AGE,
    wide("Reason", "In one word why it is ready or not", |body, _| {
        let conditions = body["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
        match ready {
            Some(ready) => text(&ready["reason"]),
            None => json!("Pending"),
        }
    }),
    wide(
        "Service",
        "What answers: nodes and where they reach it, or a function",
        |body, _| {
            let spec = &body["spec"];
            if let Some(function) = spec["function"].as_str() {
                return json!(format!("function/{function}"));
            }
            let targets = spec["targets"].as_array().into_iter().flatten();
            let targets: Vec<String> = targets
                .filter_map(|target| TunnelTarget::deserialize(target).ok())
                .map(|target| format!("{}/{}", target.node, target.address()))
                .collect();
            json!(targets.join(","))
        },
    ),
];
