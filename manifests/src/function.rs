//! The kind `Function`: a WebAssembly component, where it runs and how it is reached.
//!
//! These types are what a person writes (`spec`) and what the controller answers (`status`); their
//! comments are the documentation that `hivectl explain` and editors show.
//! Rules that a type cannot express are in `validate/function.rs`, defaults in `defaults.rs`.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

mod artifact;
mod limits;
mod variables;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::autoscaling::{Autoscaling, AutoscalingStatus};
use crate::duration::GoDuration;
use crate::http::Http;
use crate::instances::Instances;
use crate::placement::{Affinity, TopologySpreadConstraint};
use crate::rollout::{MAX_HISTORY, MAX_WAIT_SECONDS, ReadinessProbe, RolloutStatus, Strategy};
use crate::schedule::{Schedule, ScheduleStatus};

pub use artifact::{
    Artifact, CompiledArtifact, DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE, MAX_COMPILED_BYTES,
    MAX_COMPONENT_BYTES, PulledArtifact,
};
pub use limits::{
    Egress, FunctionLimits, KeyValue, MAX_CONNECTIONS, MAX_HANDLES, MAX_KEY_VALUE, MAX_SCRATCH,
    MAX_STORES, MIN_HANDLES, MIN_KEY_VALUE, MIN_SCRATCH, Resources, Scratch,
};
pub use variables::{ConfigValue, EnvVar, EnvVarSource, KeyRef};

/// More copies than nodes in the largest swarm that is tested would be a typing mistake.
pub const MAX_REPLICAS: u32 = 1000;
/// The pooling allocator of a large node holds a few thousand instances; more only queues.
pub const MAX_CONCURRENCY: u32 = 10_000;
/// A shorter limit would fire on the scheduling noise of a busy single-core board.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// Longer work belongs in a topic: a request this old has lost its caller.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What a function should be: which component, how many copies, where, and under which limits.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hive.dev",
    version = "v1",
    kind = "Function",
    plural = "functions",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    shortname = "fn",
    category = "all",
    doc = "A WebAssembly component that answers HTTP requests on the nodes of the swarm.",
    crates(kube_core = "::kube_core"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.ready",
        description = "Copies that answer requests, of the copies wanted"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Ready, or in one word why not"
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".status.url",
        description = "Where the function is reached"
    ),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".spec.resources.memory",
        description = "The most that one copy may use",
        priority = 1
    ),
    printcolumn(
        name = "Artifact",
        type_ = "string",
        json_path = ".spec.artifact.sha256",
        description = "Digest of the component",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// The component to run. Name exactly one of its fields.
    pub artifact: Artifact,
    /// Secrets of the same namespace, of type kubernetes.io/dockerconfigjson, that say who one is to
    /// the registry of artifact.oci. The first that knows it is used. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// How many copies run, each on a node of its own where possible: 0 to 1000. Default 1; with autoscaling
    /// none: a number holds the function there. Not together with everyNode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_REPLICAS))]
    pub replicas: Option<u32>,
    /// One copy on every node that nodeSelector and tolerations allow, also on nodes that join
    /// later. Default false. Not together with replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_node: bool,
    /// Labels that a node must have to run this function. Default: any node will do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that this function puts up with: it may run on nodes that carry them. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// How many copies run by what the function is asked for, instead of a fixed number. Default: as many as
    /// replicas says. Not together with everyNode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Near and away from which nodes and functions copies are placed. Default: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How evenly copies are placed over zones, racks or whatever labels of nodes say. Default: as evenly over
    /// nodes as there is room. Not together with everyNode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// How copies go over to a new version: that is whatever changes of this spec, but for where and how many
    /// copies run, and how versions follow each other. Default: a quarter of them at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// No copy goes over to another version, and new copies run the newest one that had begun to roll out. Where
    /// and how many copies run is heeded all the same. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How long, in seconds, a copy must answer with a new version before the next one follows. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = MAX_WAIT_SECONDS))]
    pub min_ready_seconds: u32,
    /// How long, in seconds, a new version may reach no further copy before all go back to the version before;
    /// the condition Progressing is False then. More than minReadySeconds. Default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_WAIT_SECONDS))]
    pub progress_deadline_seconds: Option<u32>,
    /// How many older versions are kept to go back to: 0 to 50. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_HISTORY))]
    pub revision_history_limit: Option<u32>,
    /// When all copies were last asked to start anew: `hivectl rollout restart` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Time>,
    /// What a new copy must answer before it takes over from the one before, or answers anybody. It is asked when
    /// the copy is loaded, and not again: instances come and go with requests. Default: it is ready when it is
    /// loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<ReadinessProbe>,
    /// What one copy may use; nodes without room for it are passed over.
    #[serde(default)]
    pub resources: Resources,
    /// The longest that one request may take, from "10ms" to "15m". Default "30s". A request that
    /// takes longer is stopped and answered with 504.
    #[serde(default = "default_timeout")]
    pub timeout: GoDuration,
    /// How many requests one copy works on at once: 1 to 10000. Default 100. More wait for their
    /// turn.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = MAX_CONCURRENCY))]
    pub concurrency: u32,
    /// How long a request may wait for its turn before it is answered with 503, from "0s" to "15m".
    /// Default "10s". The wait counts towards timeout; "0s" refuses at once.
    #[serde(default = "default_queue_timeout")]
    pub queue_timeout: GoDuration,
    /// What one request may use besides memory and time.
    #[serde(default)]
    pub limits: FunctionLimits,
    /// How many requests one instance answers. Default: as the component's version of WASI has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Instances>,
    /// Environment variables of the function. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// How the function is reached from outside.
    #[serde(default)]
    pub http: Http,
    /// Where the function may send requests: "host", "*.suffix", "10.0.0.0/8", "[fd00::/8]", or "*"
    /// for any host. With ":port" or ":*" behind; without, the port of http or https. An address
    /// that is not public (private networks, the node itself, link-local) is reached only where an
    /// entry is that address, a network that holds it, or "localhost". Default none: it cannot reach
    /// the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_hosts: Vec<String>,
    /// Settings that the function reads by wasi:config or as variables of Spin, apart from its
    /// environment. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub config: Vec<ConfigValue>,
    /// What outgoing requests may take.
    #[serde(default)]
    pub egress: Egress,
    /// Buckets of keys and values that the function keeps on its node, by wasi:keyvalue. They stay when
    /// it is changed or started anew, and do not move with it. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_value: Option<KeyValue>,
    /// A directory of its own, /tmp, for each instance: empty when the instance starts, gone when it ends.
    /// Default none: there are no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// Times at which the function is called, once in the whole swarm. Default none. Unless its call
    /// has ended the next is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub schedules: Vec<Schedule>,
}

pub(crate) fn default_timeout() -> GoDuration {
    GoDuration(Duration::from_secs(30))
}

pub(crate) fn default_concurrency() -> u32 {
    100
}

pub(crate) fn default_queue_timeout() -> GoDuration {
    GoDuration(Duration::from_secs(10))
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What became of a function, as the controller last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// The metadata.generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Copies wanted now: spec.replicas, what autoscaling found, or with everyNode one for each node that fits.
    pub replicas: u32,
    /// Copies that answer requests.
    pub ready_replicas: u32,
    /// Ready and wanted copies as text: "2/3".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// Copies that answer with the newest version.
    pub updated_replicas: u32,
    /// Ready: all wanted copies run the newest version and answer. Available: at least one copy
    /// answers. Compiled: the component is ready for every kind of node it runs on. Progressing: a new version
    /// reaches the copies, or did. Pulled: the image that artifact.oci names is here. ScalingActive: autoscaling
    /// says how many copies there are. ScalingLimited: it would say another number than its bounds allow.
    /// RoutesAccepted: none of its routes is one that an older function has; there only where one was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The version that all copies ran last: the name of a ControllerRevision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_revision: String,
    /// The version that is to reach all copies.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub update_revision: String,
    /// How far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// What autoscaling found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// What spec.artifact.oci was found to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<PulledArtifact>,
    /// The component, compiled for each kind of node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<CompiledArtifact>,
    /// Where the function is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What became of the schedules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub schedules: Vec<ScheduleStatus>,
    /// Label selector of the function's assignments, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}
