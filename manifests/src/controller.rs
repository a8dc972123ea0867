//! The kind `Controller`: one of the processes that keep the swarm's state, as its leader sees it.
//!
//! Nothing of it is stored: what Raft and the controllers say of themselves is put into this shape
//! when somebody asks. It is no [`Resource`](crate::Resource), which are what people declare.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a controller is reached.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hive.dev",
    version = "v1",
    kind = "Controller",
    plural = "controllers",
    status = "ControllerStatus",
    derive = "PartialEq",
    shortname = "ctrl",
    doc = "A controller of the swarm, by its id, as the leader sees it. It is not declared: a machine joins, and deleting it ends its membership.",
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerSpec {
    /// Where agents and controllers reach it: host and port.
    pub link: String,
    /// Where people reach its API: host and port.
    pub api: String,
    /// Where functions are reached through it: host and port.
    pub ingress: String,
    /// Where tunnels are reached by TLS through it: host and port. Empty where it takes none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ingress_tls: String,
}

/// How a controller is, by the leader. Lags and times are of the moment at which it was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerStatus {
    /// leader, voter, learner while it catches up for the first time, or admitted before it came.
    pub role: String,
    /// Ready, CatchingUp, Unreachable, Unknown where it never was there, or Leaderless where it answers but
    /// knows of nobody who leads.
    pub state: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it counts where a majority is needed.
    pub voter: bool,
    /// The term in which it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Index of its last log entry, as far as the leader knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<u64>,
    /// Log entries that it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Seconds since it answered the leader last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_seconds: Option<f64>,
    /// When it answered the leader last: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<String>,
    /// The version that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The level of commands that it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// What one small synced write takes on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_sync_microseconds: Option<u64>,
}
