//! Dry runs: answered as if they were done, and nothing is.

use serde_json::{Value, json};

use crate::artifacts::upload;
use crate::functions::COMPONENT;
use crate::harness::{Answer, CONFIG_MAPS, FUNCTIONS, Server};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// One request, and what must be true of its answer.
struct Case {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Value,
    status: u16,
    /// Where something stands in the answer, and what.
    shows: (&'static str, Value),
}

fn case(
    method: &'static str,
    path: &str,
    content_type: &'static str,
    body: Value,
    shows: (&'static str, Value),
) -> Case {
    Case {
        method,
        path: path.to_owned(),
        content_type,
        body,
        status: if method == "POST" { 201 } else { 200 },
        shows,
    }
}

async fn send(server: &Server, case: &Case, options: &str) -> Answer {
    let manager = match case.content_type {
        APPLY => "&fieldManager=dry&force=true",
        _ => "",
    };
    let call = server
        .request(case.method, &format!("{}?x{manager}{options}", case.path))
        .header("content-type", case.content_type);
    match case.body {
        Value::Null => call.send().await,
        _ => call.body(case.body.to_string()).send().await,
    }
}

/// The function `f`; what its spec is.
async fn make_function(server: &Server) -> Value {
    let digest = upload(server, COMPONENT).await;
    let spec = json!({ "artifact": { "sha256": digest.hex() } });
    let function = json!({ "metadata": { "name": "f" }, "spec": spec });
    server.post(FUNCTIONS, function).await.ok();
    spec
}

#[tokio::test]
async fn every_write_can_be_tried() {
    let server = Server::start().await;
    let spec = make_function(&server).await;
    for name in ["there", "other"] {
        let labels = json!({ "of": "test" });
        server.config_map(name, labels).await;
    }
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/a"] } });
    server.post(CONFIG_MAPS, held).await.ok();

    let (map, function) = (format!("{CONFIG_MAPS}/there"), format!("{FUNCTIONS}/f"));
    let (status, scale) = (format!("{function}/status"), format!("{function}/scale"));
    let held = format!("{CONFIG_MAPS}/held");
    let data = || json!({ "data": { "a": "1" } });
    let shows_data = || ("/data/a", json!("1"));
    let reported = || json!({ "status": { "readyReplicas": 7 } });
    let shows_report = || ("/status/readyReplicas", json!(7));
    let three = || json!({ "spec": { "replicas": 3 } });
    let shows_three = || ("/spec/replicas", json!(3));
    let named = |name: &str, mut body: Value| {
        body["metadata"] = json!({ "name": name });
        body
    };
    let cases = [
        case(
            "POST",
            CONFIG_MAPS,
            JSON,
            named("new", data()),
            shows_data(),
        ),
        case(
            "POST",
            CONFIG_MAPS,
            JSON,
            json!({ "metadata": { "generateName": "new-" } }),
            ("/metadata/generateName", json!("new-")),
        ),
        case(
            "POST",
            "/api/v1/namespaces",
            JSON,
            named("new", json!({})),
            ("/status/phase", json!("Active")),
        ),
        case(
            "POST",
            FUNCTIONS,
            JSON,
            named("new", json!({ "spec": spec })),
            // With its defaults.
            ("/spec/timeout", json!("30s")),
        ),
        case("PUT", &map, JSON, data(), shows_data()),
        case("PATCH", &map, MERGE, data(), shows_data()),
        case("PATCH", &map, STRATEGIC, data(), shows_data()),
        case("PATCH", &map, APPLY, data(), shows_data()),
        case(
            "PATCH",
            &map,
            PATCH,
            json!([{ "op": "add", "path": "/data", "value": { "a": "1" } }]),
            shows_data(),
        ),
        Case {
            status: 201,
            ..case(
                "PATCH",
                &format!("{CONFIG_MAPS}/applied"),
                APPLY,
                data(),
                shows_data(),
            )
        },
        case(
            "PATCH",
            &function,
            MERGE,
            three(),
            ("/metadata/generation", json!(2)),
        ),
        case(
            "PUT",
            &status,
            JSON,
            named(
                "f",
                json!({ "spec": spec, "status": { "readyReplicas": 7 } }),
            ),
            shows_report(),
        ),
        case("PATCH", &status, MERGE, reported(), shows_report()),
        case("PATCH", &status, APPLY, reported(), shows_report()),
        case("PUT", &scale, JSON, three(), shows_three()),
        case("PATCH", &scale, MERGE, three(), shows_three()),
        case("PATCH", &scale, APPLY, three(), shows_three()),
        case(
            "DELETE",
            &map,
            JSON,
            Value::Null,
            ("/status", json!("Success")),
        ),
        // It would stay until its finalizer is gone.
        case(
            "DELETE",
            &held,
            JSON,
            Value::Null,
            ("/metadata/finalizers/0", json!("example.com/a")),
        ),
        case(
            "DELETE",
            CONFIG_MAPS,
            JSON,
            Value::Null,
            ("/items/1/metadata/name", json!("other")),
        ),
        // The option in the body of a deletion.
        case(
            "DELETE",
            &map,
            JSON,
            json!({ "dryRun": ["All"] }),
            ("/status", json!("Success")),
        ),
    ];
    let revision = server.replica.state().revision();
    for case in &cases {
        let told = format!("{} {} as {}", case.method, case.path, case.content_type);
        let is_in_body = !case.body["dryRun"].is_null();
        let options = if is_in_body { "" } else { "&dryRun=All" };
        let answer = send(&server, case, options).await;
        assert_eq!(answer.status, case.status, "{told}: {:?}", answer.body);
        let (place, expected) = &case.shows;
        assert_eq!(answer.json().pointer(place), Some(expected), "{told}");
        assert_eq!(server.replica.state().revision(), revision, "{told}");

        let wrong = send(&server, case, "&dryRun=Some").await;
        let refused = "dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\"";
        wrong.fails(422, "Invalid", refused);
    }
    // Each of them can be done in earnest.
    for case in cases.iter().filter(|case| case.body["dryRun"].is_null()) {
        send(&server, case, "").await.ok();
    }
    assert!(server.replica.state().revision() > revision + 10);
}

#[tokio::test]
async fn a_dry_run_is_refused_like_the_real_one() {
    let server = Server::start().await;
    server.config_map("there", json!({})).await;
    let revision = server.replica.state().revision();
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let named = |name: &str| json!({ "metadata": { "name": name } });
    server
        .post(&dry, named("there"))
        .await
        .fails(409, "AlreadyExists", "already exists");
    server
        .post(&dry, named("Not a name"))
        .await
        .fails(422, "Invalid", "metadata.name");
    let path = format!("{CONFIG_MAPS}/there?dryRun=All");
    let mut old = named("there");
    old["metadata"]["resourceVersion"] = json!("1");
    server
        .put(&path, old)
        .await
        .fails(409, "Conflict", "the object has been modified");
    let absent = format!("{CONFIG_MAPS}/absent?dryRun=All");
    server
        .delete(&absent)
        .await
        .fails(404, "NotFound", "absent");
    server
        .merge(&absent, json!({}))
        .await
        .fails(404, "NotFound", "absent");
    let conditions = json!({ "preconditions": { "uid": "other" } });
    server
        .request("DELETE", &path)
        .json(&conditions)
        .send()
        .await
        .fails(409, "Conflict", "Precondition failed: UID");
    assert_eq!(server.replica.state().revision(), revision);
}

/// Who owns what a request writes: who it says, or else the program that sent it.
#[tokio::test]
async fn who_writes_is_named_or_known_by_the_program() {
    let server = Server::start().await;
    make_function(&server).await;
    server.config_map("there", json!({})).await;
    let map = json!({ "metadata": { "name": "new" }, "data": { "a": "1" } });
    let change = json!({ "data": { "a": "1" } });
    let report = json!({ "status": { "replicas": 9 } });
    let scale = json!({ "spec": { "replicas": 9 } });
    let ways = [
        ("POST", CONFIG_MAPS.to_owned(), JSON, map, None),
        (
            "PUT",
            format!("{CONFIG_MAPS}/there"),
            JSON,
            change.clone(),
            None,
        ),
        ("PATCH", format!("{CONFIG_MAPS}/there"), MERGE, change, None),
        (
            "PATCH",
            format!("{FUNCTIONS}/f/status"),
            MERGE,
            report,
            Some("status"),
        ),
        (
            "PATCH",
            format!("{FUNCTIONS}/f/scale"),
            MERGE,
            scale,
            Some("scale"),
        ),
    ];
    let long = "l".repeat(200);
    for (method, path, content_type, body, subresource) in &ways {
        for (agent, asked, manager) in [
            (Some("curl/7.88.1"), "", "curl"),
            (Some("kubectl-edit"), "", "kubectl-edit"),
            (Some("kubectl/v1.20.2 (linux)"), "&fieldManager=ci", "ci"),
            (Some(&*long), "", &long[..128]),
            (None, "", "unknown"),
        ] {
            let options = format!("{path}?dryRun=All{asked}");
            let mut call = server
                .request(method, &options)
                .header("content-type", content_type)
                .body(body.to_string());
            if let Some(agent) = agent {
                call = call.header("user-agent", agent);
            }
            let written = call.send().await.ok();
            // A Scale shows no owners.
            if *subresource == Some("scale") {
                continue;
            }
            let owners = written["metadata"]["managedFields"].as_array().unwrap();
            let own = owners
                .iter()
                .find(|entry| {
                    entry["manager"] == manager && entry["subresource"].as_str() == *subresource
                })
                .unwrap_or_else(|| panic!("{method} {path}: no {manager} in {owners:?}"));
            assert_eq!(own["operation"], "Update");
        }
        for bad in ["a%07b", &"x".repeat(129)] {
            let refused = server
                .request(method, &format!("{path}?fieldManager={bad}"))
                .header("content-type", content_type)
                .body(body.to_string())
                .send()
                .await;
            refused.fails(422, "Invalid", "fieldManager");
        }
    }
}
