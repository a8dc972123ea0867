//! What people get wrong, and exactly what they are told.
#![allow(clippy::unwrap_used)]

use hive_manifests::{
    MAX_OBJECT_BYTES, Reason, Resource, apply_defaults, resource_of, validate, validate_stored,
};
use serde_json::{Value, json};

fn messages(resource: Resource, value: &Value) -> Vec<String> {
    validate(resource, value)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A good function whose spec has `changes` merged into it; null takes a field away.
fn function(changes: Value) -> Value {
    let mut value = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Function",
        "metadata": {"name": "hello"},
        "spec": {"artifact": {"path": "hello.wasm"}},
    });
    let spec = value["spec"].as_object_mut().unwrap();
    for (name, change) in changes.as_object().unwrap() {
        spec.insert(name.clone(), change.clone());
    }
    value
}

#[test]
fn functions_that_are_good() {
    let digest = "ab".repeat(32);
    for spec in [
        json!({}),
        json!({"artifact": {"sha256": digest}}),
        json!({"artifact": {"sha256": format!("sha256:{digest}")}}),
        json!({"replicas": 0}),
        json!({"everyNode": true}),
        json!({"everyNode": false, "replicas": 2}),
        json!({"replicas": null, "env": null, "http": null}),
        json!({"nodeSelector": {"hive.dev/arch": "aarch64", "empty": ""}}),
        json!({"tolerations": [{"operator": "Exists"}]}),
        json!({"tolerations": [{"key": "a/b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 5}]}),
        json!({"resources": {"memory": "64Mi", "cpu": 1}}),
        json!({"resources": {"cpu": 0.5}}),
        json!({"timeout": "1m30s", "concurrency": 10000}),
        json!({"timeout": "1s", "queueTimeout": "0s"}),
        json!({"limits": {"cpuTime": "100ms", "responseSize": "1Gi", "handles": 64}}),
        json!({"env": [{"name": "A"}, {"name": "B", "value": ""},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]}),
        json!({"config": [{"name": "greeting"}, {"name": "db.url-1_a", "value": "x"},
            {"name": "token", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        json!({"keyValue": {}}),
        json!({"scratch": {}}),
        json!({"scratch": {"sizeLimit": "64Ki"}}),
        json!({"keyValue": {"stores": ["default", "sessions.v1"], "sizeLimit": "1Gi"}}),
        json!({"http": {"host": "api.example.com", "path": "/v1/"}}),
        json!({"http": {"host": "a.example", "routes": [{"path": "/v1", "methods": ["GET", "HEAD"]},
            {"host": "b.example", "pathType": "Exact"}]}}),
        json!({"schedules": [{"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin",
            "startingDeadlineSeconds": 0, "path": "/nightly?full=1", "suspend": true},
            {"name": "often", "schedule": "@hourly"}]}),
        json!({"readinessProbe": {"httpGet": {}}}),
        json!({"readinessProbe": {"httpGet": {"path": "/healthz?full=1"}, "timeoutSeconds": 2, "periodSeconds": 1,
            "failureThreshold": 1}}),
        json!({"affinity": {}}),
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}, {"key": "cores", "operator": "Gt", "values": ["4"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["pi"]}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}}}),
        json!({"affinity": {"functionAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "functionAffinityTerm": {"labelSelector": {}, "topologyKey": "zone"}}]}}}),
        json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "a"}}}]}),
        json!({"allowedHosts": ["*", "a.example", "a.example:443", "*.example.com", "10.0.0.1:80"]}),
        json!({"egress": {}}),
        json!({"egress": {"maxConnections": 1, "connectTimeout": "10ms", "firstByteTimeout": "1m", "idleTimeout": "15m"}}),
        json!({"allowedHosts": ["*:443", "a.example:*", "*.a.example:80", "localhost:81", "[::1]",
            "[::1]:80", "10.0.0.0/8", "10.0.0.0/8:*", "0.0.0.0/0", "[fd00::/8]:443", "[::/0]"]}),
    ] {
        let value = function(spec);
        assert_eq!(messages(Resource::Function, &value), [""; 0], "{value}");
    }
}

#[test]
fn functions_that_are_not() {
    let env = |variable: Value| json!({"env": [{"name": "A"}, variable]});
    for (spec, expected) in [
        (
            json!({"readinessProbe": {}}),
            "spec.readinessProbe.httpGet: required, but missing",
        ),
        (
            json!({"readinessProbe": {"httpGet": {"path": "healthz"}}}),
            "spec.readinessProbe.httpGet.path: \"healthz\" is not a path such as \"/healthz\"",
        ),
        (
            json!({"readinessProbe": {"httpGet": {}, "periodSeconds": 0}}),
            "spec.readinessProbe.periodSeconds: 0 is less than 1",
        ),
        (
            json!({"affinity": {"podAntiAffinity": {}}}),
            "spec.affinity.podAntiAffinity: unknown field; did you mean \"functionAntiAffinity\"?",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: required: with no term it selects no node",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: \"Is\" is none of In, NotIn, Exists, DoesNotExist, Gt, Lt; did you mean \"In\"?",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["many"]}]}]}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Gt takes one whole number in quotes",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]}}}),
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: 101 is not between 1 and 100",
        ),
        (
            json!({"affinity": {"functionAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "topologyKey": "zone"}]}}}),
            "spec.affinity.functionAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values: required with In",
        ),
        (
            json!({"affinity": {"functionAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}}}),
            "spec.affinity.functionAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: required, but missing",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints[0].maxSkew: 0 is less than 1",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Never"}]}),
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: \"Never\" is none of DoNotSchedule, ScheduleAnyway",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}, {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints[1]: \"zone\" is there twice with DoNotSchedule",
        ),
        (
            json!({"everyNode": true, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints: not together with everyNode, which runs one copy on every node",
        ),
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
        (json!({"image": "x"}), "spec.image: unknown field"),
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
        (
            json!({"replicas": "3"}),
            "spec.replicas: expected a whole number, found text",
        ),
        (
            json!({"replicas": 1.5}),
            "spec.replicas: expected a whole number, found a fraction",
        ),
        (json!({"replicas": -1}), "spec.replicas: -1 is less than 0"),
        (
            json!({"replicas": 1001}),
            "spec.replicas: 1001 is more than 1000",
        ),
        (
            json!({"replicas": u64::MAX}),
            "spec.replicas: 18446744073709551615 is more than 1000",
        ),
        (
            json!({"replicas": 2, "everyNode": true}),
            "spec.replicas: not together with everyNode, which runs one copy on every node",
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
        (
            json!({"everyNode": true, "autoscaling": {}}),
            "spec.autoscaling: not together with everyNode, which runs one copy on every node",
        ),
        (
            json!({"autoscaling": {"minReplicas": 11}}),
            "spec.autoscaling.maxReplicas: must not be less than minReplicas, which is 11",
        ),
        (
            json!({"autoscaling": {"maxReplicas": 0}}),
            "spec.autoscaling.maxReplicas: 0 is less than 1",
        ),
        (
            json!({"autoscaling": {"window": "1s"}}),
            "spec.autoscaling.window: \"1s\" is not between 6s and 5m",
        ),
        (
            json!({"autoscaling": {"scaleToZeroDelay": "soon"}}),
            "spec.autoscaling.scaleToZeroDelay: \"soon\": a duration is numbers with units, such as 30s, 1m30s or 250ms",
        ),
        (
            json!({"autoscaling": {"target": {"queueTime": "50"}}}),
            "spec.autoscaling.target.queueTime: \"50\": a duration needs a unit after each number: ms, s, m or h, such as 30s",
        ),
        (
            json!({"autoscaling": {"target": {"queueTime": "10us"}}}),
            "spec.autoscaling.target.queueTime: \"10us\" is less than 1ms",
        ),
        (
            json!({"autoscaling": {"target": {"queueTime": "10s"}}}),
            "spec.autoscaling.target.queueTime: must be less than queueTimeout, which is 10s: nobody waits longer",
        ),
        (
            json!({"queueTimeout": "40ms", "autoscaling": {"target": {"queueTime": "50ms"}}}),
            "spec.autoscaling.target.queueTime: must be less than queueTimeout, which is 40ms: nobody waits longer",
        ),
        (
            json!({"autoscaling": {"target": {"cpu": 1}}}),
            "spec.autoscaling.target.cpu: unknown field",
        ),
        (
            json!({"strategy": {"type": "Recreate"}}),
            "spec.strategy.type: \"Recreate\" is none of RollingUpdate, Canary",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "0%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: \"0%\" is not how many copies may change at once: a number from 1, or a share such as \"25%\"",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: 0 is not how many copies may change at once: a number from 1, or a share such as \"25%\"",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}}),
            "spec.strategy.rollingUpdate.maxSurge: unknown field",
        ),
        (
            json!({"strategy": {"type": "Canary"}}),
            "spec.strategy.canary: required, but missing",
        ),
        (
            json!({"strategy": {"canary": {"steps": [{"setWeight": 1}]}}}),
            "spec.strategy.canary: needs strategy.type: Canary",
        ),
        (
            json!({"everyNode": true, "strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 1}]}}}),
            "spec.strategy.canary: not together with everyNode: use rollingUpdate.maxUnavailable",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {}}}),
            "spec.strategy.canary.steps: 0 steps: 1 to 20 are needed",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"pause": {}}]}}}),
            "spec.strategy.canary.steps[0]: the first step is a setWeight",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}, {}]}}}),
            "spec.strategy.canary.steps[1]: exactly one of setWeight and pause",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}, {"setWeight": 5}]}}}),
            "spec.strategy.canary.steps[1].setWeight: must be more than the weight before",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 100}]}}}),
            "spec.strategy.canary.steps[0].setWeight: 100 is more than 99",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}, {"pause": {"duration": "25h"}}]}}}),
            "spec.strategy.canary.steps[1].pause.duration: from \"1s\" to \"24h\"; without it the pause ends by `hivectl rollout promote`",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}], "match": {"headers": [{"name": "X-Canary", "value": "1"}]}}}}),
            "spec.strategy.canary.match.headers[0].name: \"X-Canary\" is no header's name in lower case",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}], "match": {"headers": [{"name": "host", "value": "1"}]}}}}),
            "spec.strategy.canary.match.headers[0].name: \"host\" says something else",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}], "match": {"headers": [{"name": "x-canary", "value": ""}]}}}}),
            "spec.strategy.canary.match.headers[0].value: 1 to 256 printable characters of ASCII",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}], "rollback": {"errorRate": "5"}}}}),
            "spec.strategy.canary.rollback.errorRate: \"5\" is no share from \"0%\" to \"100%\"",
        ),
        (
            json!({"strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 5}], "rollback": {"window": "6m"}}}}),
            "spec.strategy.canary.rollback.window: from \"1s\" to \"5m\"",
        ),
        (
            json!({"minReadySeconds": 30, "progressDeadlineSeconds": 30}),
            "spec.progressDeadlineSeconds: must be greater than minReadySeconds",
        ),
        (
            json!({"revisionHistoryLimit": 51}),
            "spec.revisionHistoryLimit: 51 is more than 50",
        ),
        (
            json!({"restartedAt": "yesterday"}),
            "spec.restartedAt: \"yesterday\" is not a time such as 2026-01-31T12:00:00Z",
        ),
        (
            json!({"scratch": {"sizeLimit": "2Gi"}}),
            "spec.scratch.sizeLimit: \"2Gi\" is not between 64Ki and 1Gi",
        ),
        (
            json!({"keyValue": {"stores": []}}),
            "spec.keyValue.stores: 0 names, not 1 to 16",
        ),
        (
            json!({"keyValue": {"stores": ["a", "b c"]}}),
            "spec.keyValue.stores[1]: \"b c\" is not a name: use letters, digits, '-', '_' and '.'",
        ),
        (
            json!({"keyValue": {"sizeLimit": "2Gi"}}),
            "spec.keyValue.sizeLimit: \"2Gi\" is not between 4Ki and 1Gi",
        ),
        (
            json!({"nodeSelector": {"a b": "c"}}),
            "spec.nodeSelector: \"a b\" is not the key of a label: use letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        ),
        (
            json!({"nodeSelector": {"a": true}}),
            "spec.nodeSelector.a: expected text, found true or false; put it in quotes",
        ),
        (
            json!({"tolerations": [{"key": "a", "effect": "NoShedule"}]}),
            "spec.tolerations[0].effect: \"NoShedule\" is none of NoSchedule, PreferNoSchedule, NoExecute; did you mean \"NoSchedule\"?",
        ),
        (
            json!({"tolerations": [{"value": "x"}]}),
            "spec.tolerations[0].key: required, unless operator is Exists",
        ),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}),
            "spec.tolerations[0].value: not together with operator Exists, which takes any value",
        ),
        (
            json!({"resources": {"memory": "128MB"}}),
            "spec.resources.memory: \"128MB\": unknown unit; use one of Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024), k, M, G, T, P, E (powers of 1000), or m (a thousandth); did you mean \"128Mi\"?",
        ),
        (
            json!({"resources": {"memory": "128m"}}),
            "spec.resources.memory: \"128m\" is less than 1Mi; did you mean \"128Mi\"?",
        ),
        (
            json!({"resources": {"memory": 128}}),
            "spec.resources.memory: \"128\" is less than 1Mi",
        ),
        (
            json!({"resources": {"memory": "5Gi"}}),
            "spec.resources.memory: \"5Gi\" is more than 4Gi, all that a component can address",
        ),
        (
            json!({"resources": {"memory": true}}),
            "spec.resources.memory: expected text or a number, found true or false",
        ),
        (
            json!({"resources": {"cpu": "-1"}}),
            "spec.resources.cpu: \"-1\": an amount cannot be negative",
        ),
        (
            json!({"resources": {"cpu": 0}}),
            "spec.resources.cpu: a function needs some CPU, such as 100m",
        ),
        (
            json!({"timeout": 30}),
            "spec.timeout: expected text, found a number; put it in quotes",
        ),
        (
            json!({"timeout": "30"}),
            "spec.timeout: \"30\": a duration needs a unit after each number: ms, s, m or h, such as 30s",
        ),
        (
            json!({"schedules": [{"name": "nightly", "schedule": "0 3 * *"}]}),
            "spec.schedules[0].schedule: \"0 3 * *\": it has 4 fields of five: minute, hour, day of month, month, day of week",
        ),
        (
            json!({"schedules": [{"name": "a", "schedule": "0 3 * * *", "timeZone": "Berlin"}]}),
            "spec.schedules[0].timeZone: \"Berlin\" is not a time zone; they are named as in \"UTC\" or \"Europe/Berlin\" (IANA's database)",
        ),
        (
            json!({"schedules": [{"name": "a", "schedule": "@daily"}, {"name": "a", "schedule": "@daily"}]}),
            "spec.schedules[1].name: \"a\" is there twice",
        ),
        (
            json!({"schedules": [{"name": "a", "schedule": "@daily", "path": "nightly"}]}),
            "spec.schedules[0].path: \"nightly\" is not the path of a request, such as \"/nightly?full=1\"",
        ),
        (
            json!({"timeout": "1h"}),
            "spec.timeout: \"1h\" is not between 10ms and 15m",
        ),
        (
            json!({"limits": {"cpuTime": "1ms"}}),
            "spec.limits.cpuTime: \"1ms\" is not between 10ms and 15m",
        ),
        (
            json!({"limits": {"responseSize": 100}}),
            "spec.limits.responseSize: \"100\" is not between 1Ki and 1Ti",
        ),
        (
            json!({"limits": {"handles": 10}}),
            "spec.limits.handles: 10 is less than 64",
        ),
        (
            json!({"queueTimeout": "1h"}),
            "spec.queueTimeout: \"1h\" is not between 0s and 15m",
        ),
        (
            json!({"concurrency": 0}),
            "spec.concurrency: 0 is less than 1",
        ),
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
            json!({"http": {"host": "https://Example.com/x"}}),
            "spec.http.host: \"https://Example.com/x\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"example.com\"?",
        ),
        (
            json!({"http": {"path": "v1"}}),
            "spec.http.path: \"v1\" does not begin with '/'; did you mean \"/v1\"?",
        ),
        (
            json!({"http": {"path": "/a/../b"}}),
            "spec.http.path: \"/a/../b\" is not the path of a URL: no spaces, '?', '#', or '..' parts",
        ),
        (
            json!({"http": {"path": "/.hive/callback"}}),
            "spec.http.path: \"/.hive/callback\" has the part \".hive\", below which tunnels let people sign in; choose another path",
        ),
        (
            json!({"http": {"routes": [{"path": "/.hivemind"}, {"path": "/a/.hive"}]}}),
            "spec.http.routes[1].path: \"/a/.hive\" has the part \".hive\", below which tunnels let people sign in; choose another path",
        ),
        (
            json!({"http": {"path": "/a", "routes": [{}]}}),
            "spec.http.path: is not there beside routes: say it as one of them",
        ),
        (
            json!({"http": {"routes": [{"methods": ["get"]}]}}),
            "spec.http.routes[0].methods[0]: \"get\" is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE; did you mean \"GET\"?",
        ),
        (
            json!({"http": {"routes": [{"path": "/"}, {"path": "v1"}]}}),
            "spec.http.routes[1].path: \"v1\" does not begin with '/'; did you mean \"/v1\"?",
        ),
        (
            json!({"allowedHosts": ["a.example:0"]}),
            "spec.allowedHosts[0]: \"a.example:0\": a port is a number from 1 to 65535, or \"*\" for every port",
        ),
        (
            json!({"egress": {"idleTimeout": "1h"}}),
            "spec.egress.idleTimeout: \"1h\" is not between 10ms and 15m",
        ),
        (
            json!({"egress": {"maxConnections": 0}}),
            "spec.egress.maxConnections: 0 is less than 1",
        ),
        (
            json!({"allowedHosts": ["a.example:+80"]}),
            "spec.allowedHosts[0]: \"a.example:+80\": a port is a number from 1 to 65535, or \"*\" for every port",
        ),
        (
            json!({"allowedHosts": ["10.1.2.3/8:80"]}),
            "spec.allowedHosts[0]: \"10.1.2.3/8:80\": the network begins at 10.0.0.0; did you mean \"10.0.0.0/8:80\"?",
        ),
        (
            json!({"allowedHosts": ["10.0.0.0/33"]}),
            "spec.allowedHosts[0]: \"10.0.0.0/33\": a network is written like \"10.0.0.0/8\" or \"[fd00::/8]\"",
        ),
        (
            json!({"allowedHosts": ["[10.0.0.1]"]}),
            "spec.allowedHosts[0]: \"[10.0.0.1]\": a network is written like \"10.0.0.0/8\" or \"[fd00::/8]\"",
        ),
        (
            json!({"allowedHosts": ["fd00::1"]}),
            "spec.allowedHosts[0]: \"fd00::1\": an IPv6 address has brackets around it; did you mean \"[fd00::1]\"?",
        ),
        (
            json!({"allowedHosts": ["a", "a"]}),
            "spec.allowedHosts[1]: \"a\" is listed twice",
        ),
        (
            json!({"allowedHosts": ["http://a.example"]}),
            "spec.allowedHosts[0]: \"http://a.example\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"a.example\"?",
        ),
    ] {
        let value = function(spec);
        assert_eq!(messages(Resource::Function, &value), [expected], "{value}");
    }
}

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

#[test]
fn an_object_over_the_limit_is_refused_with_its_size() {
    let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    value["data"] = json!({"a": "x".repeat(MAX_OBJECT_BYTES)});
    let found = messages(Resource::ConfigMap, &value);
    assert_eq!(
        found,
        ["the object takes 1048654 bytes as JSON; at most 1048576 are stored"]
    );
}

#[test]
fn an_object_wrong_everywhere_gives_a_short_answer() {
    let env: Vec<Value> = (0..10_000).map(|i| json!({ format!("x{i}"): i })).collect();
    let found = validate(Resource::Function, &function(json!({"env": env})));
    assert_eq!(found.len(), 64);
}

#[test]
fn a_controller_accepts_digests_only() {
    let errors = validate_stored(Resource::Function, &function(json!({})));
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].reason, Reason::Forbidden);
    assert_eq!(errors[0].path.to_string(), "spec.artifact.path");
    let stored = function(json!({"artifact": {"sha256": "0".repeat(64)}}));
    assert_eq!(validate_stored(Resource::Function, &stored), []);
}

#[test]
fn the_kind_of_a_manifest_is_found_or_suggested() {
    let of = |api_version: &str, kind: &str| {
        resource_of(&json!({"apiVersion": api_version, "kind": kind})).map_err(|e| e.to_string())
    };
    assert_eq!(of("hive.dev/v1", "Function"), Ok(Resource::Function));
    assert_eq!(of("v1", "Secret"), Ok(Resource::Secret));
    for (api_version, kind, expected) in [
        (
            "hive.dev/v1",
            "Functoin",
            "kind: unknown kind \"Functoin\"; did you mean \"Function\"?",
        ),
        ("apps/v1", "Deployment", "kind: unknown kind \"Deployment\""),
        (
            "hive.dev/v1beta1",
            "Function",
            "apiVersion: \"hive.dev/v1beta1\" has no kind Function; did you mean \"hive.dev/v1\"?",
        ),
    ] {
        assert_eq!(of(api_version, kind), Err(expected.to_owned()));
    }
    let missing = resource_of(&json!({"apiVersion": "v1"})).unwrap_err();
    assert_eq!(missing.to_string(), "kind: required, but missing");
}

#[test]
fn a_good_function_stays_good_when_completed() {
    let mut value = function(json!({"everyNode": true}));
    apply_defaults(Resource::Function, &mut value);
    assert_eq!(messages(Resource::Function, &value), [""; 0]);
}
