//! How a version is tried before the copies go over to it: the strategy's steps, and how far they are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Rollback, Strategy, StrategyType};
use crate::duration::GoDuration;
use crate::function::FunctionSpec;

/// More steps than that nobody follows.
pub const MAX_STEPS: usize = 20;
/// Each is looked for in every request.
pub const MAX_HEADER_MATCHES: usize = 8;
/// Of a header's value to be matched. Bytes.
pub const MAX_HEADER_VALUE: usize = 256;

/// How a new version is tried before the copies go over to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Canary {
    /// One after the other, 1 to 20; the first is a setWeight. After the last one all copies go over.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<CanaryStep>,
    /// Requests that always go to the version that is being tried. Whoever knows how can make such a request.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<CanaryMatch>,
    /// When a version that is being tried, or has come, is given up because of how it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// One step: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStep {
    /// How many of a hundred requests go to the new version, 0 to 99 and more than before: it gets as large a
    /// share of spec.replicas in copies of its own, one at least. The step is done when they answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    pub set_weight: Option<u32>,
    /// Wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

/// A pause between two steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pause {
    /// How long, such as "5m": up to "24h". Default: until `hivectl rollout promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<GoDuration>,
}

/// Which requests: those with one of the headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryMatch {
    /// 1 to 8.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,
}

/// A header that has exactly this value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Such as "x-canary", in lower case. Not "host", not "connection", and none of Hive's own.
    pub name: String,
    /// Such as "always".
    pub value: String,
}

/// How far a version is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// Which of the steps is under way, from 0. When it is their number all are done.
    pub step: u32,
    /// How many of a hundred requests go to the version.
    pub weight: u32,
    /// Since when this step is under way.
    pub step_time: Time,
}

impl FunctionSpec {
    /// The steps by which a new version is tried; none where it is not.
    pub fn canary_steps(&self) -> &[CanaryStep] {
        match &self.strategy {
            Some(Strategy {
                kind: StrategyType::Canary,
                canary: Some(canary),
                ..
            }) if !self.every_node => &canary.steps,
            _ => &[],
        }
    }

    /// Headers whose requests always go to a version that is being tried.
    pub fn canary_headers(&self) -> &[HeaderMatch] {
        let canary = self.strategy.as_ref().and_then(|it| it.canary.as_ref());
        let matches = canary.and_then(|canary| canary.matches.as_ref());
        matches.map_or(&[], |matches| &matches.headers)
    }

    /// How many copies try a version beside `replicas` others; when no step is left as many as did.
    pub fn canary_copies(&self, canary: &CanaryStatus, replicas: u32) -> u32 {
        let (steps, step) = (self.canary_steps(), canary.step as usize);
        let weight = match steps.get(..=step) {
            Some(begun) => begun.iter().rev().find_map(|step| step.set_weight),
            None => (!steps.is_empty()).then_some(canary.weight),
        };
        let Some(weight) = weight else {
            return 0;
        };
        // Both are bounded far below what would not fit.
        replicas
            .saturating_mul(weight)
            .div_ceil(100)
            .max(1)
            .min(replicas)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn copies_that_try_a_version_are_its_share_of_them() {
        let steps = json!([
            { "setWeight": 0 }, { "pause": {} }, { "setWeight": 10 }, { "setWeight": 26 },
        ]);
        let canary = |step| CanaryStatus {
            step,
            weight: 5,
            step_time: Time(Default::default()),
        };
        let copies = |replicas: u32| {
            let strategy = json!({ "type": "Canary", "canary": { "steps": steps } });
            let spec = json!({ "artifact": {}, "strategy": strategy });
            let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
            [0, 1, 2, 3, 4, 9].map(|step| spec.canary_copies(&canary(step), replicas))
        };
        assert_eq!(copies(0), [0; 6]);
        assert_eq!(copies(1), [1; 6]);
        assert_eq!(copies(10), [1, 1, 1, 3, 1, 1]);
        assert_eq!(copies(1000), [1, 1, 100, 260, 50, 50]);
        let untried: FunctionSpec = serde_json::from_value(json!({ "artifact": {} })).unwrap();
        for step in [0, 9] {
            assert_eq!(untried.canary_copies(&canary(step), 5), 0);
        }
    }
}
