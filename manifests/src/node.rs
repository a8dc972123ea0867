//! The kind `Node`: a machine with an agent.
//!
//! The gateway creates a Node when an agent enrols and keeps its status; people cordon, taint and
//! label it. Usage of the moment is never stored here: it would commit with every heartbeat.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, MilliCpu};

/// Who a node is, and what may be placed on it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hive.dev",
    version = "v1",
    kind = "Node",
    plural = "nodes",
    status = "NodeStatus",
    derive = "PartialEq",
    shortname = "no",
    doc = "A machine with an agent, which runs functions.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "True, False, or Unknown when nothing was heard of the node for a while"
    ),
    printcolumn(
        name = "Unschedulable",
        type_ = "boolean",
        json_path = ".spec.unschedulable",
        description = "Cordoned: nothing new is placed here"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.nodeInfo.agentVersion",
        description = "Version of the agent"
    ),
    printcolumn(
        name = "OS",
        type_ = "string",
        json_path = ".status.nodeInfo.os",
        priority = 1
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.nodeInfo.target",
        description = "What components are compiled for",
        priority = 1
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.localAddress",
        description = "Where the node serves its functions to its own network",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Fingerprint of the device's key: who may speak as this node. Set when it enrols; it cannot
    /// be changed.
    pub key: String,
    /// Place nothing new here; what runs stays. `hivectl cordon` sets it. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
    /// Keeps away, or drives away, functions that do not tolerate them. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<Taint>,
}

/// What the controllers know of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Ready: True, False, or Unknown when the node was not heard of for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Amounts>,
    /// What functions may reserve of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Amounts>,
    /// What the machine is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_info: Option<NodeInfo>,
    /// host:port at which the node serves its functions to its own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    /// The agent's session that counts: an older one that finds another here ends itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// Amounts of what a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Amounts {
    /// Memory, such as "512Mi".
    pub memory: Bytes,
    /// CPU: "4" is four cores, "500m" half of one.
    pub cpu: MilliCpu,
    /// Storage for artifacts, such as "4Gi".
    pub storage: Bytes,
}

/// What a machine is and runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// Version of the agent.
    pub agent_version: String,
    /// Operating system, such as "linux" or "android".
    pub os: String,
    /// Processor, such as "aarch64".
    pub arch: String,
    /// Version of the kernel.
    pub kernel: String,
    /// What components must be compiled for: "x86_64-unknown-linux-gnu", "pulley64", ...
    pub target: String,
    /// The Wasmtime inside the agent.
    pub wasmtime_version: String,
}
