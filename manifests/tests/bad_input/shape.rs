//! What a function is: fields that nobody knows, and its component.

use super::*;

#[test]
fn fields_that_nobody_knows() {
    are_refused([
        (
            json!({"replica": 3}),
            "spec.replica: unknown field; did you mean \"replicas\"?",
        ),
        (
            json!({"every_node": true}),
            "spec.every_node: unknown field; did you mean \"everyNode\"?",
        ),
        (
            json!({"memory": "1Mi"}),
            "spec.memory: unknown field; did you mean \"resources.memory\"?",
        ),
        (
            json!({"image": "x"}),
            "spec.image: unknown field; known here: affinity, allowedHosts, artifact, autoscaling, concurrency, config, egress, env, everyNode, http, imagePullSecrets, instances, keyValue, limits, minReadySeconds, nodeSelector, paused, progressDeadlineSeconds, queueTimeout, readinessProbe, replicas, resources, restartedAt, revisionHistoryLimit, schedules, scratch, strategy, timeout, tolerations, topologySpreadConstraints",
        ),
        // Nearest is a field that is set already.
        (json!({"artifacts": {}}), "spec.artifacts: unknown field"),
    ]);
}

#[test]
fn a_function_names_its_component() {
    are_refused([
        (
            json!({"artifact": null}),
            "spec.artifact: required, but missing",
        ),
        (
            json!({"artifact": "a.wasm"}),
            "spec.artifact: expected an object, found text",
        ),
        (
            json!({"artifact": {}}),
            "spec.artifact: name the component: path for a file beside the manifest, oci for an image in a registry, or sha256 of one that was uploaded",
        ),
        (
            json!({"artifact": {"path": "a", "sha256": "ab".repeat(32)}}),
            "spec.artifact: path and sha256 exclude each other; keep one",
        ),
        (
            json!({"artifact": {"sha256": "abc"}}),
            "spec.artifact.sha256: \"abc\" is not a SHA-256: 64 hexadecimal digits, with or without \"sha256:\" before them",
        ),
        (
            json!({"artifact": {"oci": "ghcr.io/x", "path": "a"}}),
            "spec.artifact: path and oci exclude each other; keep one",
        ),
        (
            json!({"artifact": {"oci": "ghcr.io/x:1", "sha256": "ab".repeat(32)}}),
            "spec.artifact.oci: beside sha256 it says where the component is from, by digest; name a digest (@sha256:...) or leave sha256 out",
        ),
        (
            json!({"artifact": {"oci": "https://ghcr.io/x"}}),
            "spec.artifact.oci: \"https://ghcr.io/x\" is not an image: https:// is not oci://; did you mean \"ghcr.io/x\"?",
        ),
        (
            json!({"artifact": {"oci": "ghcr.io/X"}}),
            "spec.artifact.oci: \"ghcr.io/X\" is not an image: \"X\" is not a repository: parts of lower-case letters and digits, with single '.', '_' or '-' between them, separated by '/'",
        ),
        (
            json!({"artifact": {"oci": "ghcr.io/x"}, "imagePullSecrets": [{"name": "a b"}]}),
            "spec.imagePullSecrets[0].name: \"a b\" is not a name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit",
        ),
    ]);
}
