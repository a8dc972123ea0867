#![allow(clippy::unwrap_used)]

use super::*;

fn cells(resource: Resource, body: Value) -> Vec<String> {
    let now = "2025-01-01T01:00:00Z".parse().unwrap();
    let table = table(
        resource,
        [&body].into_iter(),
        json!({}),
        IncludeObject::None,
        now,
    );
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    columns
        .iter()
        .zip(cells)
        .filter(|(column, _)| column["priority"] == 0)
        .map(|(column, cell)| match cell {
            Value::String(text) => format!("{}={text}", column["name"].as_str().unwrap()),
            other => format!("{}={other}", column["name"].as_str().unwrap()),
        })
        .collect()
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "creationTimestamp": "2025-01-01T00:00:00Z" })
}

#[test]
fn each_kind_shows_what_people_look_for() {
    let table = [
        (
            Resource::Node,
            json!({
                "metadata": metadata("pi"),
                "spec": { "unschedulable": true },
                "status": {
                    "conditions": [{ "type": "Ready", "status": "True" }],
                    "nodeInfo": { "agentVersion": "0.1.0" },
                },
            }),
            "Name=pi Status=Ready,SchedulingDisabled Roles=<none> Age=60m Version=0.1.0",
        ),
        (
            Resource::Function,
            json!({
                "metadata": metadata("hello"),
                "spec": { "replicas": 3 },
                "status": {
                    "readyReplicas": 2,
                    "conditions": [{ "type": "Ready", "status": "False", "reason": "Progressing" }],
                    "url": "http://hello.default.localhost",
                },
            }),
            "Name=hello Ready=2/3 Status=Progressing URL=http://hello.default.localhost Age=60m",
        ),
        (
            Resource::Assignment,
            json!({
                "metadata": metadata("hello-0"),
                "spec": { "functionName": "hello", "nodeName": "pi" },
                "status": { "phase": "Failed", "reason": "DiskFull" },
            }),
            "Name=hello-0 Function=hello Node=pi Status=DiskFull Age=60m",
        ),
        (
            Resource::Tunnel,
            json!({
                "metadata": metadata("photos"),
                "spec": { "protocol": "HTTP", "targets": [{ "node": "pi", "port": 3000 }] },
                "status": {
                    "addresses": ["http://photos.default.localhost", "http://photos.example.org"],
                    "conditions": [{ "type": "Ready", "status": "False", "reason": "TargetDown" }],
                },
            }),
            "Name=photos Protocol=HTTP Address=http://photos.default.localhost Ready=False Age=60m",
        ),
        (
            Resource::Tunnel,
            json!({ "metadata": metadata("new"), "spec": { "protocol": "TCP" } }),
            "Name=new Protocol=TCP Address=<none> Ready=Unknown Age=60m",
        ),
        (
            Resource::ControllerRevision,
            json!({
                "metadata": {
                    "name": "hello-0123456789abcdef", "creationTimestamp": "2025-01-01T00:00:00Z",
                    "ownerReferences": [{
                        "apiVersion": "hive.dev/v1", "kind": "Function", "name": "hello", "controller": true,
                    }],
                },
                "revision": 3,
            }),
            "Name=hello-0123456789abcdef Controller=function.hive.dev/hello Revision=3 Age=60m",
        ),
        (
            Resource::Event,
            json!({
                "metadata": metadata("hello.1"),
                "lastTimestamp": "2025-01-01T00:59:50Z",
                "type": "Warning", "reason": "Timeout", "message": "took over 30s\n",
                "involvedObject": { "kind": "Function", "name": "hello" },
            }),
            "Last Seen=10s Type=Warning Reason=Timeout Object=function/hello Message=took over 30s",
        ),
        (
            Resource::Secret,
            json!({ "metadata": metadata("s"), "type": "Opaque", "data": { "a": "", "b": "" } }),
            "Name=s Type=Opaque Data=2 Age=60m",
        ),
        (
            Resource::Namespace,
            json!({ "metadata": metadata("default"), "status": { "phase": "Active" } }),
            "Name=default Status=Active Age=60m",
        ),
        (
            Resource::ConfigMap,
            json!({ "metadata": { "name": "c" } }),
            "Name=c Data=0 Age=<unknown>",
        ),
    ];
    for (resource, body, expected) in table {
        assert_eq!(cells(resource, body).join(" "), expected);
    }
}
