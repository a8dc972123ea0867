//! What holds for any JSON: nothing panics, defaults settle at once, good objects have their type.
#![allow(clippy::unwrap_used)]

use hive_manifests::{Function, Resource, apply_defaults, document, validate, validate_stored};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// JSON made of the names that the kinds use, so that it gets past the first check.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "spec",
            "status",
            "name",
            "labels",
            "annotations",
            "artifact",
            "path",
            "sha256",
            "oci",
            "replicas",
            "everyNode",
            "nodeSelector",
            "tolerations",
            "resources",
            "memory",
            "cpu",
            "timeout",
            "queueTimeout",
            "limits",
            "cpuTime",
            "responseSize",
            "env",
            "value",
            "valueFrom",
            "secretKeyRef",
            "http",
            "host",
            "allowedHosts",
            "egress",
            "maxConnections",
            "idleTimeout",
            "taints",
            "key",
            "effect",
            "data",
            "stringData",
            "binaryData",
            "finalizers",
            "conditions",
            "operator",
            "protocol",
            "proxyProtocol",
            "port",
            "targets",
            "node",
            "function",
            "healthCheck",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        "[a-z0-9:/.*%é -]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "v1",
            "hive.dev/v1",
            "Function",
            "30s",
            "128Mi",
            "",
            "*",
            "/",
            "HTTP",
            "TCP",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An object of the right kind whose parts are any JSON.
fn any_object() -> impl Strategy<Value = (Resource, Value)> {
    (
        prop::sample::select(Resource::ALL.to_vec()),
        any_json(),
        any_json(),
        any_json(),
        any_json(),
    )
        .prop_map(|(resource, metadata, spec, env, data)| {
            let mut value = json!({
                "apiVersion": resource.api_version(),
                "kind": resource.kind(),
                "metadata": metadata,
                "spec": spec,
                "data": data.clone(),
                "stringData": data,
            });
            if let Some(spec) = value["spec"].as_object_mut() {
                spec.insert("env".into(), env);
            }
            (resource, value)
        })
}

/// Functions that are mostly good.
fn likely_function() -> impl Strategy<Value = Value> {
    (
        prop::option::of(0u32..1100),
        any::<bool>(),
        prop::option::of(prop::sample::select(vec!["1Mi", "64Mi", "1Gi", "1", "x"])),
        prop::option::of(prop::sample::select(vec!["1s", "30s", "5ms", "1h", "x"])),
        prop::option::of("/[a-z]{0,3}"),
        prop::collection::vec("[A-Z]{1,2}", 0..3),
        prop::option::of(1u32..10_001),
    )
        .prop_map(
            |(replicas, every_node, memory, timeout, path, env, concurrency)| {
                json!({
                    "apiVersion": "hive.dev/v1",
                    "kind": "Function",
                    "metadata": {"name": "a"},
                    "spec": {
                        "artifact": {"sha256": "AB".repeat(32)},
                        "replicas": replicas,
                        "everyNode": every_node,
                        "resources": {"memory": memory},
                        "timeout": timeout,
                        "queueTimeout": timeout,
                        "limits": {"cpuTime": timeout, "responseSize": memory},
                        "egress": {"maxConnections": replicas, "idleTimeout": timeout},
                        "http": {"path": path},
                        "env": env.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
                        "concurrency": concurrency,
                    },
                })
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn validation_never_panics((resource, value) in any_object(), other in any_json()) {
        validate(resource, &value);
        validate_stored(resource, &other);
    }

    #[test]
    fn defaults_settle_at_once((resource, mut value) in any_object()) {
        apply_defaults(resource, &mut value);
        let once = value.clone();
        apply_defaults(resource, &mut value);
        prop_assert_eq!(once, value);
    }

    #[test]
    fn a_good_function_has_its_type_and_stays_good(mut value in likely_function()) {
        let good = validate_stored(Resource::Function, &value).is_empty();
        apply_defaults(Resource::Function, &mut value);
        prop_assert_eq!(validate_stored(Resource::Function, &value).is_empty(), good);
        if good {
            let function: Function = serde_json::from_value(value.clone()).unwrap();
            let back = serde_json::to_value(&function).unwrap();
            prop_assert_eq!(validate_stored(Resource::Function, &back), []);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-c:\\-{}\\[\\]&*#'\" \n\t|>!%]{0,80}") {
        let _ = document::parse(&text, "f");
    }

    #[test]
    fn json_reads_back_as_it_was(value in any_json()) {
        let documents = document::parse(&value.to_string(), "f");
        if value.is_object() {
            let documents = documents.unwrap();
            prop_assert_eq!(&documents[0].value, &value);
        }
    }
}
