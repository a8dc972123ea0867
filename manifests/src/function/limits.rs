//! What a function may use and keep.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::quantity::{Bytes, MilliCpu};

/// As many as an agent has for all functions together, but for a few of others.
pub const MAX_CONNECTIONS: u32 = 1000;
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
