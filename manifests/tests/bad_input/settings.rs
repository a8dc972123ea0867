//! What a function is told: its environment and its settings.

use super::*;

#[test]
fn settings_and_variables() {
    let env = |variable: Value| json!({"env": [{"name": "A"}, variable]});
    are_refused([
        (
            json!({"env": {"A": "1"}}),
            "spec.env: expected a list, found an object",
        ),
        (
            env(json!({"value": "1"})),
            "spec.env[1].name: required, but missing",
        ),
        (
            env(json!({"name": "A"})),
            "spec.env[1].name: \"A\" is set twice",
        ),
        (
            env(json!({"name": "B", "value": 1})),
            "spec.env[1].value: expected text, found a number; put it in quotes",
        ),
        (
            env(json!({"name": "1B"})),
            "spec.env[1].name: \"1B\" is not a name: use letters, digits, '_', '-' and '.', not beginning with a digit",
        ),
        (
            env(json!({"name": "HIVE_NODE"})),
            "spec.env[1].name: \"HIVE_NODE\": names that begin with HIVE_ are Hive's own",
        ),
        (
            env(
                json!({"name": "B", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            ),
            "spec.env[1]: value and valueFrom exclude each other; keep one",
        ),
        (
            env(json!({"name": "B", "valueFrom": {}})),
            "spec.env[1].valueFrom: name a source: secretKeyRef or configMapKeyRef",
        ),
        (
            env(json!({"name": "B", "valueFrom": {"secretRef": {}}})),
            "spec.env[1].valueFrom.secretRef: unknown field; did you mean \"secretKeyRef\"?",
        ),
        (
            env(json!({"name": "B", "valueFrom": {"secretKeyRef": {"name": "s"}}})),
            "spec.env[1].valueFrom.secretKeyRef.key: required, but missing",
        ),
        (
            json!({"config": [{"name": "a b"}]}),
            "spec.config[0].name: \"a b\" is not a name: use letters, digits, '-', '_' and '.'",
        ),
        (
            json!({"config": [{"name": "a"}, {"name": "a"}]}),
            "spec.config[1].name: \"a\" is set twice",
        ),
        (
            json!({"config": [{"name": "a", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            "spec.config[0]: value and valueFrom exclude each other; keep one",
        ),
    ]);
}
