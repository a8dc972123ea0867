//! Metadata, and kinds other than functions and tunnels.

use super::*;

#[test]
fn metadata_and_other_kinds() {
    use Resource::{ConfigMap, Event, Function, Namespace, Node, Secret};
    let core = |kind: &str, rest: Value| {
        let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}});
        for (name, field) in rest.as_object().unwrap() {
            value[name] = field.clone();
        }
        value
    };
    let node = |spec: Value| json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec});
    let metadata = |metadata: Value| {
        let mut value = function(json!({}));
        value["metadata"] = metadata;
        value
    };
    let large = json!({"a": "x".repeat(150_000), "b": "x".repeat(150_000)});
    let cases: Vec<(Resource, Value, &[&str])> = vec![
        (
            Secret,
            core(
                "Secret",
                json!({"data": {"a": "eA=="}, "stringData": {"b": "plain"}}),
            ),
            &[],
        ),
        (
            Secret,
            core("Secret", json!({"data": {"a": "hunter2!"}})),
            &["data.a: not base64; write plain text under stringData, or encode it"],
        ),
        (
            Secret,
            core("Secret", json!({"data": {"a": 12345}})),
            &["data.a: expected text, found a number; put it in quotes"],
        ),
        (
            Secret,
            core("Secret", json!({"stringData": {"a/b": "x"}})),
            &["stringData: \"a/b\" is not a key: use letters, digits, '-', '_' and '.'"],
        ),
        (
            Secret,
            core(
                "Secret",
                json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{\"auths\":{\"a\":{\"auth\":\"x\"}}}"}}),
            ),
            &[
                "stringData[.dockerconfigjson]: the entry for \"a\" holds neither \"auth\" (base64 of name:password) nor \"username\" and \"password\"",
            ],
        ),
        (
            Secret,
            core(
                "Secret",
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "aHVudGVyMg=="}}),
            ),
            &[
                "data[.dockerconfigjson]: it is no Docker config: JSON with \"auths\" in it (line 1, column 1)",
            ],
        ),
        (
            Secret,
            core(
                "Secret",
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {}}),
            ),
            &[
                "data[.dockerconfigjson]: required: a secret of type kubernetes.io/dockerconfigjson holds a Docker config here",
            ],
        ),
        (
            Secret,
            core("Secret", json!({"dta": {}})),
            &["dta: unknown field; did you mean \"data\"?"],
        ),
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}),
            ),
            &["binaryData.a: \"a\" is in data too"],
        ),
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({
                    "metadata": {"name": "swarm", "namespace": "hive-system"},
                    "data": {"trustedProxies": "10.0.0.7, 2001:db8::/64,", "proxyProtocolFrom": "", "domain": "x"},
                }),
            ),
            &[],
        ),
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({
                    "metadata": {"name": "swarm", "namespace": "hive-system"},
                    "data": {"trustedProxies": "10.0.0.7 proxy"},
                }),
            ),
            &[
                "data.trustedProxies: \"10.0.0.7 proxy\" is no network: write one such as \"203.0.113.0/24\" or \"2001:db8::/32\", or a single address",
            ],
        ),
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({
                    "metadata": {"name": "swarm", "namespace": "hive-system"},
                    "data": {"trustedProxis": "10.0.0.7", "color": "blue"},
                }),
            ),
            &[
                "data.color: unknown setting; known here: acme.agreeToTerms, acme.directory, acme.email, \
                 acme.rootCertificates, cloudflare.namespaces, domain, proxyProtocolFrom, trustedProxies",
                "data.trustedProxis: unknown setting; did you mean \"trustedProxies\"?",
            ],
        ),
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({
                    "metadata": {"name": "swarm", "namespace": "hive-system"},
                    "data": {"domain": "Swarm.example"},
                }),
            ),
            &[
                "data.domain: \"Swarm.example\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"swarm.example\"?",
            ],
        ),
        // In a map of somebody else's the word means what they like.
        (
            ConfigMap,
            core(
                "ConfigMap",
                json!({"data": {"trustedProxies": "10.0.0.7 proxy", "color": "blue", "domain": "X"}}),
            ),
            &[],
        ),
        (Namespace, core("Namespace", json!({})), &[]),
        (
            Namespace,
            core(
                "Namespace",
                json!({"metadata": {"name": "x", "namespace": "y"}}),
            ),
            &["metadata.namespace: a Namespace belongs to no namespace"],
        ),
        (
            Event,
            core(
                "Event",
                json!({"involvedObject": {"kind": "Function"}, "count": 3, "firstTimestamp": "2026-01-31T12:00:00Z"}),
            ),
            &[],
        ),
        (
            Event,
            core(
                "Event",
                json!({"involvedObject": {}, "firstTimestamp": "yesterday"}),
            ),
            &["firstTimestamp: \"yesterday\" is not a time such as 2026-01-31T12:00:00Z"],
        ),
        (
            Node,
            node(json!({"key": "k", "taints": [{"key": "a", "effect": "NoSchedule"}]})),
            &[],
        ),
        (Node, node(json!({})), &["spec.key: required, but missing"]),
        (
            Node,
            node(
                json!({"key": "k", "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}),
            ),
            &["spec.taints[1]: \"a\" is there twice with the same effect"],
        ),
        (
            Function,
            metadata(json!({})),
            &["metadata.name: required, but missing"],
        ),
        (Function, metadata(json!({"generateName": "hello-"})), &[]),
        (
            Function,
            metadata(json!({"name": "Hello"})),
            &[
                "metadata.name: \"Hello\" is not a name: use lower-case letters, digits and '-', beginning and ending with a letter or digit",
            ],
        ),
        (
            Function,
            metadata(json!({"name": "a", "namespace": "B"})),
            &[
                "metadata.namespace: \"B\" is not a name: use lower-case letters, digits and '-', beginning and ending with a letter or digit",
            ],
        ),
        (
            Function,
            metadata(json!({"name": "a", "labels": {"app": 1}})),
            &["metadata.labels.app: expected text, found a number; put it in quotes"],
        ),
        (
            Function,
            metadata(json!({"name": "a", "label": {}})),
            &["metadata.label: unknown field; did you mean \"labels\"?"],
        ),
        (
            Function,
            metadata(json!({"name": "a", "creationTimestamp": null})),
            &[],
        ),
        (
            Function,
            metadata(json!({"name": "a", "annotations": large})),
            &["metadata.annotations: annotations take 300002 bytes; at most 262144 are kept"],
        ),
        (
            Function,
            json!({"apiVersion": "v1", "kind": "Function"}),
            &[
                "apiVersion: expected hive.dev/v1, found \"v1\"",
                "metadata: required, but missing",
                "spec: required, but missing",
            ],
        ),
        (
            Function,
            json!([]),
            &["expected an object with apiVersion, kind and metadata, found a list"],
        ),
    ];
    for (resource, value, expected) in cases {
        assert_eq!(messages(resource, &value), expected, "{value}");
    }
}
