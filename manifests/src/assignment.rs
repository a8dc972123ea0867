//! The kind `Assignment`: "this function, at this generation, runs on this node".
//!
//! The scheduler writes its spec, the agent of the node executes it and reports its status.
//! People only read it.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::function::{CompiledArtifact, FunctionSpec};

/// Which function runs on which node.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hive.dev",
    version = "v1",
    kind = "Assignment",
    plural = "assignments",
    namespaced,
    status = "AssignmentStatus",
    derive = "PartialEq",
    shortname = "asg",
    doc = "The decision that one copy of a function runs on one node. Written by the scheduler.",
    crates(kube_core = "::kube_core"),
    printcolumn(name = "Function", type_ = "string", json_path = ".spec.functionName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "Why it is not ready"
    ),
    printcolumn(
        name = "Generation",
        type_ = "integer",
        json_path = ".spec.functionGeneration",
        description = "Generation of the function that should run",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentSpec {
    /// The function, in the same namespace.
    pub function_name: String,
    /// Its metadata.uid: a function that was deleted and made again is another one.
    pub function_uid: String,
    /// Its metadata.generation that should run.
    pub function_generation: i64,
    /// The node that runs it.
    pub node_name: String,
    /// Where it served before, and goes on doing so until nodeName answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<PreviousPlace>>,
    /// Which copy this is: "0", "1", ..., or with everyNode the name of the node. Those of a version that
    /// is being tried are "c0", "c1", ...
    pub slot: String,
    /// What runs: the function's spec at that generation. A later generation reaches one
    /// assignment after the other.
    pub function: FunctionSpec,
    /// The name of the ControllerRevision of what runs; not of what was assigned before there were any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// It runs a version that is being tried, beside the copies that are wanted of the function. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// Its component, compiled for the node.
    pub artifact: CompiledArtifact,
}

/// Where a copy was before it moved, and what it runs there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousPlace {
    /// The node that runs it.
    pub node_name: String,
    /// It is let go of then at the latest.
    pub until: Time,
    /// The function's metadata.generation that runs there.
    pub function_generation: i64,
    /// What runs there: the function's spec at that generation.
    pub function: FunctionSpec,
    /// The name of the ControllerRevision of what runs there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Its component, compiled for that node.
    pub artifact: CompiledArtifact,
}

/// How far the node got.
// The variants have no doc comments: they would turn the schema's plain list of values into
// alternatives, which a CRD cannot hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    #[default]
    Pending,
    Fetching,
    Ready,
    Failed,
    Unknown,
}

/// What the node reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentStatus {
    /// The generation of the function that the node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The spec.revision that the node runs; a generation can stand for one version after another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_revision: String,
    /// Since when it has answered with that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Time>,
    /// Pending: the node has not heard of it. Fetching: it gets the component. Ready: it answers
    /// requests. Failed: see reason. Unknown: nothing was heard of the node for a while.
    pub phase: Phase,
    /// Ready: True when the node answers requests for this copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Why it is not ready, in one CamelCase word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
