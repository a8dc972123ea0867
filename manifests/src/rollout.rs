//! How the versions of a function follow each other: the fields of its spec that say so, and which of the
//! others make a version.
//!
//! A version is a *template*: what of the spec reaches the nodes. Where copies run, how many, and how they go over
//! to another version is no part of it: a change of that alone replaces nothing that runs.

mod canary;
mod probe;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::function::FunctionSpec;

pub use canary::{
    Canary, CanaryMatch, CanaryStatus, CanaryStep, HeaderMatch, MAX_HEADER_MATCHES,
    MAX_HEADER_VALUE, MAX_STEPS, Pause,
};
pub use probe::{MAX_PROBE_FAILURES, MAX_PROBE_SECONDS, ProbeRequest, ReadinessProbe};

/// Each older version is an object of some kilobytes in every controller's memory.
pub const MAX_HISTORY: u32 = 50;
/// As in Kubernetes.
const DEFAULT_HISTORY: u32 = 10;
/// A component of 18 MB is compiled and fetched over a slow link in less; as in Kubernetes.
const DEFAULT_DEADLINE: u32 = 600;
/// A day: who waits longer has forgotten it.
pub const MAX_WAIT_SECONDS: u32 = 24 * 60 * 60;
/// As a Deployment's: small functions go one by one, large ones in four steps or so.
const DEFAULT_PERCENT: u64 = 25;
/// What a healthy function stays far below.
const DEFAULT_ERROR_PERCENT: u64 = 5;
/// With fewer, one failure more or less would decide.
const DEFAULT_MIN_REQUESTS: u32 = 50;
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// The leader remembers no more of what was asked.
pub const MAX_WINDOW: Duration = Duration::from_secs(300);
/// Fields of a spec that are no part of its template, as they are written.
pub const OUTSIDE_TEMPLATE: [&str; 14] = [
    "imagePullSecrets",
    "replicas",
    "everyNode",
    "nodeSelector",
    "tolerations",
    "autoscaling",
    "affinity",
    "topologySpreadConstraints",
    "strategy",
    "paused",
    "minReadySeconds",
    "progressDeadlineSeconds",
    "revisionHistoryLimit",
    "schedules",
];

/// How copies go over to a new version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// RollingUpdate: the new version is loaded beside the old one, and takes over when it is ready. Canary:
    /// before that it answers a part of the requests, on copies of its own. Default RollingUpdate.
    #[serde(rename = "type")]
    pub kind: StrategyType,
    /// How fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
    /// How a new version is tried, with type Canary. Needed there, and not together with everyNode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

// Without doc comments, as they would turn the schema's plain list of values into alternatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    #[default]
    RollingUpdate,
    Canary,
}

/// How fast copies go over to a new version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// How many copies change at once: a number from 1, or a share such as "25%", rounded down, of which one at
    /// least. Default "25%". A copy serves with its old version until the new one is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// When a version that has come is given up because of how it answers. With type Canary canary.rollback says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// A version that fails more often than it may, and more than twice as often as the one before, is rolled back: while it
/// is tried that is what the other copies answer in the same time, later what was answered in the time before it came.
/// Answers of 500 and above count as failures, and what it was stopped for; not what the swarm refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// The share of requests that may fail, from "0%". Default "5%"; "100%" never rolls back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<String>,
    /// Before it has answered as many nothing is said of it: 1 to 1000000. Default 50. Nor when the one before had not,
    /// once it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<u32>,
    /// In which time, from "1s" to "5m". Default "60s". For as long a version is observed that has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<GoDuration>,
}

/// How often a version may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRate {
    pub percent: u64,
    pub min_requests: u64,
    pub window: Duration,
}

/// How far a version has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The metadata.generation at which this was written.
    pub observed_generation: i64,
    /// Progressing: copies go over to updateRevision, or it is being tried. Paused: they would, but spec.paused
    /// is set. Observing: all that were wanted did, and how they answer is compared with before. Complete: that is over,
    /// or there was nothing to compare with. RolledBack: it failed, and all run currentRevision.
    pub phase: RolloutPhase,
    /// When the version began to reach copies.
    pub start_time: Time,
    /// Since when it is in this phase.
    pub phase_time: Time,
    /// What was answered before the version came, to compare with until it is Complete. Unset where that was too little
    /// to say anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Answered>,
    /// How far it is tried, while copies of its own do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
}

/// What came of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// Those that the function itself answered for, not what the swarm refused.
    pub requests: u64,
    /// Of these, how many failed.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    Progressing,
    Paused,
    Observing,
    Complete,
    RolledBack,
}

impl RolloutPhase {
    /// What becomes of the version is not decided yet.
    pub fn goes_on(self) -> bool {
        match self {
            Self::Progressing | Self::Paused | Self::Observing => true,
            Self::Complete | Self::RolledBack => false,
        }
    }
}

impl FunctionSpec {
    /// What of it reaches the nodes, and nothing else.
    pub fn template(&self) -> Self {
        // Every field is in one of two groups, so that a new one compiles only when it was put into one. What
        // is missing from the second would replace all copies when somebody scales.
        let Self {
            artifact,
            readiness_probe,
            resources,
            timeout,
            concurrency,
            queue_timeout,
            limits,
            instances,
            env,
            config,
            key_value,
            scratch,
            http,
            allowed_hosts,
            egress,
            restarted_at,
            // Also named in OUTSIDE_TEMPLATE and in `with_template`.
            image_pull_secrets: _,
            replicas: _,
            every_node: _,
            node_selector: _,
            tolerations: _,
            autoscaling: _,
            affinity: _,
            topology_spread_constraints: _,
            strategy: _,
            paused: _,
            min_ready_seconds: _,
            progress_deadline_seconds: _,
            revision_history_limit: _,
            schedules: _,
        } = self.clone();
        Self {
            artifact,
            readiness_probe,
            resources,
            timeout,
            concurrency,
            queue_timeout,
            limits,
            instances,
            env,
            config,
            key_value,
            scratch,
            http,
            allowed_hosts,
            egress,
            restarted_at,
            image_pull_secrets: Vec::new(),
            replicas: None,
            every_node: false,
            node_selector: Default::default(),
            tolerations: Vec::new(),
            autoscaling: None,
            affinity: None,
            topology_spread_constraints: Vec::new(),
            strategy: None,
            paused: false,
            min_ready_seconds: 0,
            progress_deadline_seconds: None,
            revision_history_limit: None,
            schedules: Vec::new(),
        }
    }

    /// Another version in the place of this one: where and how often it runs stays.
    pub fn with_template(&self, template: &Self) -> Self {
        let own = self.clone();
        Self {
            image_pull_secrets: own.image_pull_secrets,
            replicas: own.replicas,
            every_node: own.every_node,
            node_selector: own.node_selector,
            tolerations: own.tolerations,
            autoscaling: own.autoscaling,
            affinity: own.affinity,
            topology_spread_constraints: own.topology_spread_constraints,
            strategy: own.strategy,
            paused: own.paused,
            min_ready_seconds: own.min_ready_seconds,
            progress_deadline_seconds: own.progress_deadline_seconds,
            revision_history_limit: own.revision_history_limit,
            schedules: own.schedules,
            ..template.clone()
        }
    }

    /// How many of `copies` may change at once: one at least.
    pub fn max_unavailable(&self, copies: usize) -> usize {
        let said = self
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
        let share = |percent: u64| (copies as u64).saturating_mul(percent) / 100;
        let number = match said {
            None => share(DEFAULT_PERCENT),
            Some(IntOrString::Int(number)) => u64::try_from(*number).unwrap_or(0),
            Some(IntOrString::String(text)) => share(percent(text).unwrap_or(0)),
        };
        usize::try_from(number).unwrap_or(usize::MAX).max(1)
    }

    /// How often a version may fail.
    pub fn error_rate(&self) -> ErrorRate {
        let rule = self.strategy.as_ref().and_then(|it| match it.kind {
            StrategyType::RollingUpdate => it.rolling_update.as_ref()?.rollback.as_ref(),
            StrategyType::Canary => it.canary.as_ref()?.rollback.as_ref(),
        });
        let said = rule.and_then(|rule| percent(rule.error_rate.as_deref()?));
        let min_requests = rule.and_then(|rule| rule.min_requests);
        let window = rule.and_then(|rule| rule.window);
        ErrorRate {
            percent: said.unwrap_or(DEFAULT_ERROR_PERCENT),
            min_requests: min_requests.unwrap_or(DEFAULT_MIN_REQUESTS).into(),
            window: window.map_or(DEFAULT_WINDOW, |window| window.0),
        }
    }

    /// How long a new copy must answer before the next one follows.
    pub fn min_ready(&self) -> Duration {
        Duration::from_secs(self.min_ready_seconds.into())
    }

    /// How long nothing may come forward before that is told.
    pub fn progress_deadline(&self) -> Duration {
        let seconds = self.progress_deadline_seconds.unwrap_or(DEFAULT_DEADLINE);
        Duration::from_secs(seconds.into())
    }

    /// How many versions are kept beside those that run.
    pub fn history(&self) -> usize {
        self.revision_history_limit.unwrap_or(DEFAULT_HISTORY) as usize
    }
}

/// The number of a share such as "25%".
pub(crate) fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::Resource;
    use crate::schema::{openapi_schema, properties};

    /// With every field set to what is not its default.
    fn full() -> Value {
        json!({
            "artifact": { "sha256": "ab".repeat(32) },
            "imagePullSecrets": [{ "name": "a" }],
            "replicas": 3,
            "everyNode": true,
            "nodeSelector": { "a": "b" },
            "tolerations": [{ "operator": "Exists" }],
            "autoscaling": { "minReplicas": 0 },
            "affinity": { "functionAffinity": {} },
            "topologySpreadConstraints":
                [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }],
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2, "rollback": { "minRequests": 7 } } },
            "paused": true,
            "minReadySeconds": 1,
            "progressDeadlineSeconds": 7,
            "revisionHistoryLimit": 2,
            "restartedAt": "2026-01-01T00:00:00Z",
            "readinessProbe": { "httpGet": { "path": "/healthz" } },
            "resources": { "memory": "1Mi", "cpu": "1m" },
            "timeout": "1s",
            "concurrency": 1,
            "queueTimeout": "1s",
            "limits": { "cpuTime": "1s" },
            "instances": { "reuse": "Serial" },
            "env": [{ "name": "A", "value": "b" }],
            "config": [{ "name": "a", "value": "b" }],
            "keyValue": { "stores": ["a"] },
            "scratch": { "sizeLimit": "1Mi" },
            "http": { "path": "/x" },
            "allowedHosts": ["*"],
            "egress": { "maxConnections": 1 },
            "schedules": [{ "name": "a", "schedule": "@daily" }],
        })
    }

    fn parsed(spec: &Value) -> FunctionSpec {
        serde_json::from_value(spec.clone()).unwrap()
    }

    #[test]
    fn every_field_is_in_the_template_or_named_as_outside_of_it() {
        let function = openapi_schema(Resource::Function);
        let fields = properties(&function["properties"]["spec"]).unwrap().keys();
        let template = json!(parsed(&full()).template());
        for field in fields {
            let is_outside = OUTSIDE_TEMPLATE.contains(&&**field);
            assert!(
                full().get(field).is_some(),
                "{field} is missing in this test"
            );
            assert_eq!(template.get(field).is_none(), is_outside, "{field}");
        }
        let known: BTreeSet<&str> = OUTSIDE_TEMPLATE.into_iter().collect();
        assert_eq!(known.len(), OUTSIDE_TEMPLATE.len());
    }

    #[test]
    fn a_version_is_exchanged_and_nothing_else() {
        let spec = parsed(&full());
        assert_eq!(spec.with_template(&spec.template()), spec);
        let other = parsed(&json!({ "artifact": { "sha256": "cd".repeat(32) } }));
        let back = spec.with_template(&other);
        assert_eq!(back.template(), other.template());
        assert_eq!(back.with_template(&spec), spec);
    }

    #[test]
    fn shares_round_down_and_leave_one_at_least() {
        let cases = [
            (json!(null), 1, 1),
            (json!(null), 7, 1),
            (json!(null), 8, 2),
            (json!("100%"), 5, 5),
            (json!("10%"), 25, 2),
            (json!("10%"), 0, 1),
            (json!(3), 2, 3),
            (json!(3), 1000, 3),
        ];
        for (max_unavailable, copies, expected) in cases {
            let mut spec = full();
            spec["strategy"]["rollingUpdate"]["maxUnavailable"] = max_unavailable.clone();
            let found = parsed(&spec).max_unavailable(copies);
            assert_eq!(found, expected, "{max_unavailable} of {copies}");
        }
        assert_eq!(percent("+5%"), None);
    }
}
