//! How one version follows another.

use super::*;

#[test]
fn versions_follow_each_other() {
    are_refused([
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
            "spec.strategy.rollingUpdate.maxSurge: unknown field; known here: maxUnavailable, rollback",
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
    ]);
}
