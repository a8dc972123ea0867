//! Which nodes a function may run on by their labels and names, and which it prefers. Pure.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::view::{FunctionView, NodeView};

/// Whether a copy may be placed on a node; one that is there stays.
pub fn admits(function: &FunctionView, node: &NodeView) -> bool {
    let affinity = function.spec.affinity.as_ref();
    let required = affinity.and_then(|affinity| {
        let nodes = affinity.node_affinity.as_ref()?;
        nodes
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    required.is_none_or(|selector| {
        let mut terms = selector.node_selector_terms.iter();
        terms.any(|term| selects(term, node))
    })
}

/// What of the function's preferences the node meets, by weight.
pub fn preference(function: &FunctionView, node: &NodeView) -> i64 {
    let affinity = function.spec.affinity.as_ref();
    let preferred = affinity.and_then(|affinity| {
        let nodes = affinity.node_affinity.as_ref()?;
        nodes
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let met = preferred.into_iter().flatten();
    met.filter(|term| selects(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// All of a term must hold; one that asks nothing selects nothing.
fn selects(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_label = |asked: &NodeSelectorRequirement| holds(asked, node.label(&asked.key));
    let by_field = |asked: &NodeSelectorRequirement| {
        let is_name = asked.key == "metadata.name";
        holds(asked, is_name.then_some(&node.name))
    };
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(by_label)
        && fields.iter().all(by_field)
}

fn holds(asked: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = asked.values.as_deref().unwrap_or_default();
    let is_listed = || values.iter().any(|value| found == Some(value));
    let compared = || {
        let found: i64 = found?.parse().ok()?;
        let value: i64 = values.first()?.parse().ok()?;
        Some(found.cmp(&value))
    };
    match &*asked.operator {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requirements_are_as_in_kubernetes() {
        let cases: [(&str, &[&str], Option<&str>, bool); 15] = [
            ("In", &["a", "b"], Some("b"), true),
            ("In", &["a"], Some("b"), false),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], Some("a"), false),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("DoesNotExist", &[], Some("a"), false),
            ("Gt", &["4"], Some("5"), true),
            ("Gt", &["4"], Some("4"), false),
            ("Lt", &["4"], Some("-3"), true),
            ("Lt", &["4"], Some("many"), false),
            ("Near", &["4"], Some("4"), false),
        ];
        for (operator, values, found, expected) in cases {
            let asked = NodeSelectorRequirement {
                key: "k".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            };
            assert_eq!(
                holds(&asked, found),
                expected,
                "{operator} {values:?} {found:?}"
            );
        }
    }
}
