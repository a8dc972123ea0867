//! What a function may use, and when it is called.

use super::*;

#[test]
fn what_a_function_may_use() {
    are_refused([
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
            json!({"timeout": "1h"}),
            "spec.timeout: \"1h\" is not between 10ms and 15m",
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
    ]);
}
