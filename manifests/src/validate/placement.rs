//! Rules about affinity and spread that a schema cannot express; Kubernetes' own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::metadata::check_labels;
use super::structure::one_of;
use super::{Reason, names};
use crate::FieldPath;
use crate::placement::{MAX_EXPRESSIONS, MAX_TERMS, MAX_VALUES, MAX_WEIGHT};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const OF_LABELS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
const OF_NODES: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(affinity) = spec.get("affinity") {
        let path = path.field("affinity");
        check_node_affinity(
            &affinity["nodeAffinity"],
            &path.field("nodeAffinity"),
            findings,
        );
        for name in ["functionAffinity", "functionAntiAffinity"] {
            check_function_affinity(&affinity[name], &path.field(name), findings);
        }
    }
    let constraints = list(spec.get("topologySpreadConstraints"));
    let path = path.field("topologySpreadConstraints");
    if !constraints.is_empty() && spec.get("everyNode") == Some(&Value::Bool(true)) {
        findings.forbidden(
            &path,
            "not together with everyNode, which runs one copy on every node",
        );
    }
    check_count(constraints, MAX_TERMS, &path, findings);
    let mut seen = BTreeSet::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        check_topology_key(constraint, &path, findings);
        check_selector(
            &constraint["labelSelector"],
            &path.field("labelSelector"),
            findings,
        );
        let text = |name: &str| constraint[name].as_str();
        if let (Some(key), Some(when)) = (text("topologyKey"), text("whenUnsatisfiable"))
            && !seen.insert((key, when))
        {
            findings.duplicate(&path, format!("{} is there twice with {when}", quoted(key)));
        }
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn check_count(items: &[Value], most: usize, path: &FieldPath, findings: &mut Findings) {
    if items.len() > most {
        findings.invalid(path, format!("{} are more than {most}", items.len()));
    }
}

fn check_node_affinity(affinity: &Value, path: &FieldPath, findings: &mut Findings) {
    let required = &affinity[REQUIRED];
    if required.is_object() {
        let path = path.field(REQUIRED).field("nodeSelectorTerms");
        let terms = list(required.get("nodeSelectorTerms"));
        if terms.is_empty() {
            findings.push(
                &path,
                Reason::Required,
                "required: with no term it selects no node",
            );
        }
        check_count(terms, MAX_TERMS, &path, findings);
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &path.index(index), findings);
        }
    }
    let path = path.field(PREFERRED);
    let preferred = list(affinity.get(PREFERRED));
    check_count(preferred, MAX_TERMS, &path, findings);
    for (index, one) in preferred.iter().enumerate() {
        let path = path.index(index);
        // The schema of Kubernetes' type has no bounds.
        if let Some(weight) = one["weight"].as_i64()
            && !(1..=MAX_WEIGHT.into()).contains(&weight)
        {
            let message = format!("{weight} is not between 1 and {MAX_WEIGHT}");
            findings.invalid(&path.field("weight"), message);
        }
        check_node_term(&one["preference"], &path.field("preference"), findings);
    }
}

fn check_node_term(term: &Value, path: &FieldPath, findings: &mut Findings) {
    check_expressions(term, &OF_NODES, path, findings);
    let fields = list(term.get("matchFields"));
    let path = path.field("matchFields");
    check_count(fields, MAX_EXPRESSIONS, &path, findings);
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index);
        if let Some(key) = field["key"].as_str() {
            one_of(key, &["metadata.name"], &path.field("key"), findings);
        }
        if let Some(operator) = field["operator"].as_str() {
            one_of(
                operator,
                &["In", "NotIn"],
                &path.field("operator"),
                findings,
            );
        }
        check_count(
            list(field.get("values")),
            MAX_VALUES,
            &path.field("values"),
            findings,
        );
    }
}

fn check_function_affinity(affinity: &Value, path: &FieldPath, findings: &mut Findings) {
    for (name, nested) in [(REQUIRED, None), (PREFERRED, Some("functionAffinityTerm"))] {
        let terms = list(affinity.get(name));
        let path = path.field(name);
        check_count(terms, MAX_TERMS, &path, findings);
        for (index, term) in terms.iter().enumerate() {
            let path = path.index(index);
            let (term, path) = match nested {
                None => (term, path),
                Some(field) => (&term[field], path.field(field)),
            };
            check_topology_key(term, &path, findings);
            check_selector(
                &term["labelSelector"],
                &path.field("labelSelector"),
                findings,
            );
        }
    }
}

fn check_topology_key(of: &Value, path: &FieldPath, findings: &mut Findings) {
    if let Some(key) = of["topologyKey"].as_str()
        && let Err(why) = names::qualified(key)
    {
        let message = format!("{} is not the key of a label: {why}", quoted(key));
        findings.invalid(&path.field("topologyKey"), message);
    }
}

fn check_selector(selector: &Value, path: &FieldPath, findings: &mut Findings) {
    if let Some(labels) = selector["matchLabels"].as_object() {
        check_labels(labels, &path.field("matchLabels"), findings);
    }
    check_expressions(selector, &OF_LABELS, path, findings);
}

fn check_expressions(of: &Value, operators: &[&str], path: &FieldPath, findings: &mut Findings) {
    let expressions = list(of.get("matchExpressions"));
    let path = path.field("matchExpressions");
    check_count(expressions, MAX_EXPRESSIONS, &path, findings);
    for (index, expression) in expressions.iter().enumerate() {
        let path = path.index(index);
        if let Some(key) = expression["key"].as_str()
            && let Err(why) = names::qualified(key)
        {
            let message = format!("{} is not the key of a label: {why}", quoted(key));
            findings.invalid(&path.field("key"), message);
        }
        let Some(operator) = expression["operator"].as_str() else {
            continue;
        };
        one_of(operator, operators, &path.field("operator"), findings);
        let values = list(expression.get("values"));
        let path = path.field("values");
        check_count(values, MAX_VALUES, &path, findings);
        let is_number = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| text.parse::<i64>().is_ok())
        };
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                findings.push(&path, Reason::Required, format!("required with {operator}"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                findings.forbidden(&path, format!("not together with {operator}"));
            }
            "Gt" | "Lt" if values.len() != 1 || !values.iter().all(is_number) => {
                findings.invalid(
                    &path,
                    format!("{operator} takes one whole number in quotes"),
                );
            }
            _ => {}
        }
    }
}
