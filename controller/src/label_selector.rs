//! Kubernetes' label selectors, as objects hold them. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether something with these labels is selected. An empty selector selects everything.
pub fn selects<'a>(selector: &LabelSelector, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    labels
        .into_iter()
        .all(|(key, value)| label(key) == Some(value.as_str()))
        && expressions.into_iter().all(|requirement| {
            let found = label(&requirement.key);
            let listed = requirement
                .values
                .iter()
                .flatten()
                .any(|value| found == Some(value.as_str()));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
