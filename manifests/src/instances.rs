//! How many requests one instance of a function answers: the field `instances` of its spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

/// More would never end by their number.
pub const MAX_REQUESTS: u32 = 1_000_000;
/// Each has its stack on the node: more fit no small one.
pub const MAX_CONCURRENT: u32 = 1000;

/// How many requests one instance answers. Requests of one instance see each other's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Instances {
    /// Fresh: each request has an instance of its own, and none sees what another left. Serial: an instance
    /// answers one request after another. Concurrent: also several at once, where the component is one of
    /// WASI 0.3. Default: Concurrent for components of WASI 0.3, Fresh for those of 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// After how many requests an instance goes: 1 to 1000000. Default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REQUESTS))]
    pub max_requests: Option<u32>,
    /// How many an instance answers at once, with Concurrent: 1 to 1000. Default 16. Another one comes only
    /// while the instance waits; while it computes, others get another instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_CONCURRENT))]
    pub max_concurrent: Option<u32>,
    /// How long an instance stays with nothing to do, from "0s" to "15m". Default "1s". It goes earlier when
    /// others need what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<GoDuration>,
}

// Without doc comments, as they would turn the schema's plain list of values into alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reuse {
    Fresh,
    Serial,
    Concurrent,
}
