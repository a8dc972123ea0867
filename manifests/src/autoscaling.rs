//! How many copies a function has by what it is asked for: the field `spec.autoscaling`, and what the swarm
//! says of it in the status. The spec stays what people wrote: the number that was found is in the status.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::function::{FunctionSpec, MAX_CONCURRENCY, MAX_REPLICAS};

/// What ingresses count is heard once a second: less would be an average of nearly nothing.
pub const MIN_WINDOW: Duration = Duration::from_secs(6);
/// The leader remembers no more.
pub const MAX_WINDOW: Duration = Duration::from_secs(300);
/// What is less is not waiting but the machine's own pace.
pub const MIN_QUEUE_TIME: Duration = Duration::from_millis(1);
/// Of the requests that a copy works on at once: the rest is for those that come while another copy starts.
const DEFAULT_PERCENT: u32 = 70;

/// How many copies run, by what the function is asked for. Whoever sets spec.replicas holds it at that number
/// until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Autoscaling {
    /// The fewest copies: 0 to 1000. Default 1. With 0 the last copy ends when nobody asks any more, and the
    /// next request waits until one is back.
    #[schemars(range(min = 0, max = MAX_REPLICAS))]
    pub min_replicas: u32,
    /// The most copies: 1 to 1000, not fewer than minReplicas. Default 10. This is what a ResourceQuota counts.
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub max_replicas: u32,
    /// What one copy should have to do.
    #[serde(skip_serializing_if = "ScalingTarget::is_default")]
    pub target: ScalingTarget,
    /// How far back it counts what the function is asked for, from "6s" to "5m". Default "60s". There are as many
    /// copies as its busiest moment asked for: a tenth of it, three seconds at least.
    pub window: GoDuration,
    /// How long nobody must have asked before the last copy ends, with minReplicas 0: from "6s" to "5m".
    /// Default "60s"; at least as long as the window.
    pub scale_to_zero_delay: GoDuration,
}

/// What one copy should have to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingTarget {
    /// Requests under way at one copy, those that wait for their turn there counted: 1 to 10000. Default 70 %
    /// of spec.concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_CONCURRENCY))]
    pub concurrency: Option<u32>,
    /// How long a request should wait for its turn at a copy, such as "50ms": from "1ms" to less than queueTimeout.
    /// While requests wait longer on average, over a tenth of the window and three seconds at least, more copies
    /// come, half as many again at a time. Without it waiting brings none but by the requests under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_time: Option<GoDuration>,
}

impl ScalingTarget {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 10,
            target: ScalingTarget::default(),
            window: GoDuration(Duration::from_secs(60)),
            scale_to_zero_delay: GoDuration(Duration::from_secs(60)),
        }
    }
}

impl Autoscaling {
    /// The nearest number of copies that it allows.
    pub fn clamp(&self, replicas: u32) -> u32 {
        // In this order: what is stored by another version may have them crossed.
        replicas.max(self.min_replicas).min(self.max_replicas)
    }

    /// How long nobody must have asked before the last copy ends.
    pub fn idle_time(&self) -> Duration {
        self.scale_to_zero_delay.0.max(self.window.0)
    }
}

impl FunctionSpec {
    /// How many copies there should be, where not one on every node: as many as somebody said, or else as were
    /// `found` to be needed last.
    pub fn wanted_replicas(&self, found: Option<u32>) -> u32 {
        match (self.replicas, &self.autoscaling) {
            (Some(held), _) => held,
            (None, Some(rule)) => rule.clamp(found.unwrap_or(1)),
            (None, None) => 1,
        }
    }

    /// Requests under way that one copy should have.
    pub fn target_concurrency(&self) -> u32 {
        let said = self
            .autoscaling
            .as_ref()
            .and_then(|it| it.target.concurrency);
        said.unwrap_or(self.concurrency.saturating_mul(DEFAULT_PERCENT) / 100)
            .max(1)
    }
}

/// What was found to be needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Copies that are wanted by what the function is asked for.
    pub replicas: u32,
    /// When that number changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn spec(fields: Value) -> FunctionSpec {
        let mut spec = json!({ "artifact": { "sha256": "ab".repeat(32) } });
        let (Value::Object(spec_fields), Value::Object(fields)) = (&mut spec, fields) else {
            panic!("a spec has fields");
        };
        spec_fields.extend(fields);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_number_that_was_said_holds_and_else_what_was_found_within_bounds() {
        let range = json!({ "minReplicas": 2, "maxReplicas": 5 });
        let zero = json!({ "minReplicas": 0 });
        let cases = [
            (json!({}), None, 1),
            (json!({}), Some(7), 1),
            (json!({ "replicas": 3 }), Some(7), 3),
            (json!({ "autoscaling": range }), None, 2),
            (json!({ "autoscaling": range }), Some(4), 4),
            (json!({ "autoscaling": range }), Some(9), 5),
            (json!({ "autoscaling": zero }), None, 1),
            (json!({ "autoscaling": zero }), Some(0), 0),
            (json!({ "autoscaling": zero, "replicas": 8 }), Some(0), 8),
            (json!({ "autoscaling": range, "replicas": 0 }), Some(3), 0),
        ];
        for (fields, found, expected) in cases {
            let wanted = spec(fields.clone()).wanted_replicas(found);
            assert_eq!(wanted, expected, "{fields} {found:?}");
        }
    }

    #[test]
    fn a_copy_should_have_less_to_do_than_it_can() {
        let cases = [
            (json!({ "concurrency": 100 }), 70),
            (json!({ "concurrency": 1 }), 1),
            (
                json!({ "autoscaling": { "target": { "concurrency": 3 } } }),
                3,
            ),
        ];
        for (fields, expected) in cases {
            assert_eq!(
                spec(fields.clone()).target_concurrency(),
                expected,
                "{fields}"
            );
        }
    }
}
