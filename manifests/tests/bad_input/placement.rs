//! How many copies run, and where.

use super::*;

#[test]
fn copies_and_their_places() {
    are_refused([
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
            "spec.autoscaling.target.cpu: unknown field; known here: concurrency, queueTime",
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
    ]);
}
