//! How a copy shows that it is ready, before it answers anybody.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest that a request may take.
pub const MAX_PROBE_SECONDS: u32 = 15 * 60;
/// More would be told after hours.
pub const MAX_PROBE_FAILURES: u32 = 100;

/// How a copy shows that it is ready: by a request that it answers with 200 to 399.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessProbe {
    /// The request.
    pub http_get: ProbeRequest,
    /// How long, in seconds, the answer may take. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_PROBE_SECONDS))]
    pub timeout_seconds: u32,
    /// How long, in seconds, after an answer that was none it is asked again. Default 10.
    #[serde(default = "default_period")]
    #[schemars(range(min = 1, max = MAX_PROBE_SECONDS))]
    pub period_seconds: u32,
    /// After how many such answers in a row that is told; it goes on being asked. Default 3.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 1, max = MAX_PROBE_FAILURES))]
    pub failure_threshold: u32,
}

/// A GET at the copy, which no other function sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeRequest {
    /// Path, with a query if there is one. Default "/".
    pub path: String,
}

impl Default for ProbeRequest {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
        }
    }
}

fn one() -> u32 {
    1
}

/// As in Kubernetes, and the two below.
fn default_period() -> u32 {
    10
}

fn default_threshold() -> u32 {
    3
}
