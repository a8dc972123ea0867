//! The kind `Function`: a WebAssembly component, where it runs and how it is reached.
//!
//! These types are what a person writes (`spec`) and what the controller answers (`status`); their
//! comments are the documentation that `hivectl explain` and editors show.
//! Rules that a type cannot express are in `validate/function.rs`, defaults in `defaults.rs`.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are no duplicates"
)]

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
use crate::quantity::{Bytes, MilliCpu};
use crate::rollout::{MAX_HISTORY, MAX_WAIT_SECONDS, ReadinessProbe, RolloutStatus, Strategy};
use crate::schedule::{Schedule, ScheduleStatus};

/// Large enough for a Python or JavaScript component (18 MB) with much beside it; small enough that one
/// upload can't fill an SD card. Bytes.
pub const MAX_COMPONENT_BYTES: u64 = 128 << 20;
/// Of a component's compiled form, which has three to four times its size. Agents take as much. Bytes.
pub const MAX_COMPILED_BYTES: u64 = 512 << 20;
/// More copies than nodes in the largest swarm that is tested would be a typing mistake.
pub const MAX_REPLICAS: u32 = 1000;
/// The pooling allocator of a large node holds a few thousand instances; more only queues.
pub const MAX_CONCURRENCY: u32 = 10_000;
/// As many as an agent has for all functions together, but for a few of others.
pub const MAX_CONNECTIONS: u32 = 1000;
/// A shorter limit would fire on the scheduling noise of a busy single-core board.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// Longer work belongs in a topic: a request this old has lost its caller.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// More names for what one function keeps would be keys.
pub const MAX_STORES: usize = 16;
/// What a counter and a few settings take.
pub const MIN_KEY_VALUE: Bytes = Bytes(4 * 1024);
/// The cards and phones that nodes are made of have a few gigabytes to give, for all functions.
pub const MAX_KEY_VALUE: Bytes = Bytes(1024 * Bytes::MIB);
/// A file or two.
pub const MIN_SCRATCH: Bytes = Bytes(64 * 1024);
/// As of what is kept: instances at once share a tenth of what the node's disk has free.
pub const MAX_SCRATCH: Bytes = MAX_KEY_VALUE;
/// Answering with some headers and one outgoing request takes a dozen.
pub const MIN_HANDLES: u32 = 64;
/// Each can cost the node 64 KiB.
pub const MAX_HANDLES: u32 = 10_000;

/// Where a Secret of type [`DOCKER_CONFIG_TYPE`] holds a Docker config.
pub const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";
pub const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";

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

/// Where the bytes of a component come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// A file, relative to the manifest. hivectl uploads it and sends the sha256 in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of a component that was uploaded before: 64 hexadecimal digits, with or without
    /// "sha256:" before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// An image in a registry, such as "oci://ghcr.io/acme/hello:1.2". The controllers pull its
    /// component once; it stays the same when the tag moves, until another image is named here.
    /// Together with sha256 it only says where that component is from, and names a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<String>,
    /// When the image was last asked to be looked up again, should its tag have moved:
    /// `hivectl rollout restart --pull` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_at: Option<Time>,
}

/// What one copy of a function may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Memory, such as "64Mi". Default "128Mi". Reserved on the node, and the most that one
    /// instance may use: one that asks for more is stopped.
    pub memory: Bytes,
    /// CPU, such as "250m" for a quarter of a core. Default "100m". Reserved on the node.
    pub cpu: MilliCpu,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            memory: Bytes(128 * Bytes::MIB),
            cpu: MilliCpu(100),
        }
    }
}

/// What one request may use besides memory and time. What goes over a limit is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionLimits {
    /// The CPU time of one request, from "10ms" to "15m". Default "10s". What waits uses none; a
    /// request that uses more is stopped and answered with 504.
    pub cpu_time: GoDuration,
    /// The longest body of a response, such as "64Mi": "1Ki" to "1Ti". Default "64Mi". Bodies stream,
    /// so this takes no memory; one that is longer is broken off.
    pub response_size: Bytes,
    /// Handles that a request holds at once, to headers, bodies, streams and what it waits for: 64 to
    /// 10000. Default 1000.
    #[schemars(range(min = MIN_HANDLES, max = MAX_HANDLES))]
    pub handles: u32,
}

impl Default for FunctionLimits {
    fn default() -> Self {
        Self {
            cpu_time: GoDuration(Duration::from_secs(10)),
            response_size: Bytes(64 * Bytes::MIB),
            handles: 1000,
        }
    }
}

/// An environment variable: its value, or where to take it from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Letters, digits, '_', '-' and '.', not starting with a digit. Names that start with HIVE_
    /// are Hive's own.
    pub name: String,
    /// The value itself. Default "". Not together with valueFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Take the value from a Secret or ConfigMap of the same namespace. Not together with value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// What a function may keep on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyValue {
    /// Names of the buckets that it may open: 1 to 16, of letters, digits, '-', '_' and '.'. Default
    /// "default".
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub stores: Vec<String>,
    /// The most that all of its buckets take on one node, from "4Ki" to "1Gi". Default "16Mi". An entry
    /// counts its key, its value and 64 bytes.
    pub size_limit: Bytes,
}

impl Default for KeyValue {
    fn default() -> Self {
        Self {
            stores: vec!["default".to_owned()],
            size_limit: Bytes(16 * Bytes::MIB),
        }
    }
}

/// What an instance may keep in its directory while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scratch {
    /// The most that one instance keeps there, from "64Ki" to "1Gi". Default "64Mi". A file or directory
    /// counts 4 KiB besides its content; there may be 1000 of them, and 32 open at once.
    pub size_limit: Bytes,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            size_limit: Bytes(64 * Bytes::MIB),
        }
    }
}

/// A setting: its value, or where to take it from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigValue {
    /// Letters, digits, '-', '_' and '.'.
    pub name: String,
    /// The value itself. Default "". Not together with valueFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Take the value from a Secret or ConfigMap of the same namespace. Not together with value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of a variable comes from. Name exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    /// One key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// One key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// One key of a Secret or ConfigMap in the function's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap.
    pub name: String,
    /// Key in its data.
    pub key: String,
    /// Start without the variable when the object or the key is missing. Default false: the
    /// function waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What a function's outgoing requests may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Egress {
    /// Connections at once, idle ones counted: 1 to 1000. Default 64. A request beyond them waits for
    /// one, as long as connectTimeout says.
    #[schemars(range(min = 1, max = MAX_CONNECTIONS))]
    pub max_connections: u32,
    /// How long a request may take until its connection is there, from "10ms" to "15m": the wait for
    /// a free one, DNS, TCP and TLS together. Default "5s".
    pub connect_timeout: GoDuration,
    /// How long it may take from there until the answer begins, from "10ms" to "15m". Default: as
    /// long as the function's own timeout lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout: Option<GoDuration>,
    /// The longest pause within the body of an answer, from "10ms" to "15m". Default: as long as the
    /// function's own timeout lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<GoDuration>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            max_connections: 64,
            connect_timeout: GoDuration(Duration::from_secs(5)),
            first_byte_timeout: None,
            idle_timeout: None,
        }
    }
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

/// The component of an image that was pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PulledArtifact {
    /// The spec.artifact.oci that it was pulled for.
    pub requested: String,
    /// The spec.artifact.pullAt that it was pulled for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_at: Option<Time>,
    /// The image by its digest.
    pub reference: String,
    /// SHA-256 of the component, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// When it was pulled.
    pub pulled_at: String,
}

impl Function {
    /// The component to run, named by its digest: as the spec has it, or as its image was found to be.
    /// `None` while that is not known.
    pub fn component(&self) -> Option<Artifact> {
        let named = &self.spec.artifact;
        if named.sha256.is_some() {
            return Some(named.clone());
        }
        let pulled = self.status.as_ref()?.artifact.as_ref()?;
        // Compared, not ordered: clocks differ. A manifest that does not say it asks for nothing.
        let is_asked = named.pull_at.is_some() && named.pull_at != pulled.pull_at;
        let is_it = named.oci.as_ref() == Some(&pulled.requested) && !is_asked;
        is_it.then(|| Artifact {
            sha256: Some(pulled.sha256.clone()),
            oci: Some(pulled.reference.clone()),
            ..Artifact::default()
        })
    }
}

/// A component compiled for one kind of node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompiledArtifact {
    /// What it was compiled for, such as "aarch64-unknown-linux-gnu".
    pub target: String,
    /// SHA-256 of the component it was compiled from, 64 hexadecimal digits.
    pub source_sha256: String,
    /// SHA-256 of the compiled bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// The Wasmtime it was compiled with; an agent runs its own version only.
    pub wasmtime_version: String,
    /// The signed description, base64.
    pub description: String,
    /// The signature of the cluster's CA over the description, base64.
    pub signature: String,
}
