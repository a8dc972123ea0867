//! Where the copies of a function run: what it asks of nodes beside their labels, and of how its copies lie.
//!
//! Names and meanings are Kubernetes', where pods are functions. All of it is heeded when a copy is placed; a copy
//! that runs stays when labels change.

use k8s_openapi::api::core::v1::{NodeAffinity, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each is asked of each node; Kubernetes has no bound but the size of an object.
pub const MAX_TERMS: usize = 20;
/// In one term.
pub const MAX_EXPRESSIONS: usize = 20;
/// Of one expression: names of nodes in the largest swarm that somebody writes down by hand.
pub const MAX_VALUES: usize = 64;
/// As in Kubernetes.
pub const MAX_WEIGHT: i32 = 100;

/// The label of a function's name, which it has in selectors without being given it.
pub const FUNCTION_LABEL: &str = "hive.dev/function";

/// The taint of a node that is drained: copies that don't tolerate it go elsewhere, and the last one that serves
/// stays until another node takes it.
pub const DRAIN_TAINT: &str = "node.hive.dev/drain";
/// Its value where not even that one is waited for.
pub const DRAIN_FORCED: &str = "force";

/// What `hivectl drain` gives a node.
pub fn drain_taint(forced: bool) -> Taint {
    Taint {
        key: DRAIN_TAINT.to_owned(),
        effect: "NoExecute".to_owned(),
        value: forced.then(|| DRAIN_FORCED.to_owned()),
        ..Taint::default()
    }
}

/// Kubernetes' rule: an empty key with Exists matches all, an empty effect any effect.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists
                || toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default())
    })
}

/// What a function asks of the nodes of its copies, and of what runs there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// Which nodes by their labels, or by name. Every node has kubernetes.io/hostname, kubernetes.io/arch and
    /// kubernetes.io/os.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// Near copies of which functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_affinity: Option<FunctionAffinity>,
    /// Away from copies of which functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_anti_affinity: Option<FunctionAffinity>,
}

/// Copies of other functions that a copy is placed by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionAffinity {
    /// All of these must hold where a copy is placed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub required_during_scheduling_ignored_during_execution: Vec<FunctionAffinityTerm>,
    /// The more of these hold, by weight, the better.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<WeightedFunctionAffinityTerm>,
}

impl FunctionAffinity {
    /// What must hold, without a weight, and what is preferred, with one.
    pub fn terms(&self) -> impl Iterator<Item = (&FunctionAffinityTerm, Option<i32>)> {
        let required = &self.required_during_scheduling_ignored_during_execution;
        let preferred = &self.preferred_during_scheduling_ignored_during_execution;
        let required = required.iter().map(|term| (term, None));
        required.chain(
            preferred
                .iter()
                .map(|one| (&one.function_affinity_term, Some(one.weight))),
        )
    }
}

/// Functions of the same namespace, and how near is near.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionAffinityTerm {
    /// Which functions, by their labels. Every function has hive.dev/function, its name. Left out it selects
    /// none, and {} all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Nodes that have the same value of this label are one place, such as "kubernetes.io/hostname" or a zone.
    pub topology_key: String,
}

/// A wish, and how much it weighs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightedFunctionAffinityTerm {
    /// From 1 to 100.
    #[schemars(range(min = 1, max = MAX_WEIGHT))]
    pub weight: i32,
    /// What is wished for.
    pub function_affinity_term: FunctionAffinityTerm,
}

/// How evenly copies lie over the values of a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpreadConstraint {
    /// How many copies more one place may have than another that could take one: from 1.
    #[schemars(range(min = 1, max = crate::function::MAX_REPLICAS))]
    pub max_skew: u32,
    /// Nodes that have the same value of this label are one place. Nodes without it are in none.
    pub topology_key: String,
    /// DoNotSchedule: a copy that would make it more is not placed. ScheduleAnyway: it goes where it does least.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Whose copies are counted, of the same namespace. Default: this function's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
}

// Without doc comments, as they would turn the schema's plain list of values into alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}
