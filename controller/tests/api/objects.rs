//! Create, read, update: what is stored, and what is refused.

use serde_json::json;

use hive_manifests::Resource;

use crate::harness::{CONFIG_MAPS, SECRETS, Server};

#[tokio::test]
async fn an_object_is_created_read_and_updated() {
    let server = Server::start().await;
    let created = server
        .post(
            CONFIG_MAPS,
            json!({ "metadata": { "name": "c" }, "data": { "a": "1" } }),
        )
        .await;
    assert_eq!(created.status, 201);
    let created = created.json();
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);

    let path = format!("{CONFIG_MAPS}/c");
    assert_eq!(server.get(&path).await.ok(), created);

    let mut wanted = created.clone();
    wanted["data"]["a"] = json!("2");
    let updated = server.put(&path, wanted.clone()).await.ok();
    assert_eq!(updated["data"]["a"], "2");
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);

    // The same resourceVersion again is an old one now.
    server
        .put(&path, wanted.clone())
        .await
        .fails(409, "Conflict", "the object has been modified");
    // Without one, whatever is there is replaced.
    wanted["metadata"]["resourceVersion"] = json!("");
    server.put(&path, wanted).await.ok();
}

#[tokio::test]
async fn an_update_that_changes_nothing_takes_no_revision() {
    let server = Server::start().await;
    let created = server.config_map("c", json!({})).await;
    let again = server
        .put(&format!("{CONFIG_MAPS}/c"), created.clone())
        .await
        .ok();
    assert_eq!(again, created);
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let server = Server::start().await;
    server.config_map("taken", json!({})).await;
    let table = [
        (
            "POST",
            CONFIG_MAPS,
            json!({ "metadata": { "name": "taken" } }).to_string(),
            (409, "AlreadyExists", "configmaps \"taken\" already exists"),
        ),
        (
            "POST",
            CONFIG_MAPS,
            "{".to_owned(),
            (400, "BadRequest", "the body is not JSON"),
        ),
        (
            "POST",
            CONFIG_MAPS,
            json!({ "metadata": { "name": "c", "namespace": "other" } }).to_string(),
            (
                400,
                "BadRequest",
                "the namespace in the body (\"other\") is not that of the URL",
            ),
        ),
        (
            "POST",
            CONFIG_MAPS,
            json!({ "kind": "Secret" }).to_string(),
            (400, "BadRequest", "the kind in the body (\"Secret\")"),
        ),
        (
            "POST",
            CONFIG_MAPS,
            json!({ "metadata": {} }).to_string(),
            (422, "Invalid", "name or generateName is required"),
        ),
        (
            "POST",
            CONFIG_MAPS,
            json!({ "metadata": { "name": "Not A Name" } }).to_string(),
            (422, "Invalid", "metadata.name"),
        ),
        (
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            json!({ "metadata": { "name": "c" } }).to_string(),
            (404, "NotFound", "namespaces \"nowhere\" not found"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/missing",
            "{}".to_owned(),
            (404, "NotFound", "configmaps \"missing\" not found"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/taken",
            json!({ "metadata": { "name": "other" } }).to_string(),
            (400, "BadRequest", "the name in the body (\"other\")"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/taken",
            json!({ "metadata": { "uid": "another" } }).to_string(),
            (409, "Conflict", "Precondition failed: UID"),
        ),
        (
            "GET",
            "/api/v1/namespaces/default/endpoints",
            String::new(),
            (404, "NotFound", "could not find the requested resource"),
        ),
        (
            "POST",
            "/api/v1/configmaps",
            "{}".to_owned(),
            (405, "MethodNotAllowed", "does not allow this method"),
        ),
        (
            "PUT",
            CONFIG_MAPS,
            "{}".to_owned(),
            (405, "MethodNotAllowed", "does not allow this method"),
        ),
    ];
    for (method, path, body, (status, reason, message)) in table {
        let answer = server
            .request(method, path)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        answer.fails(status, reason, message);
    }
}

#[tokio::test]
async fn bodies_are_read_by_their_type() {
    let server = Server::start().await;
    server
        .request("POST", CONFIG_MAPS)
        .header("content-type", "application/yaml")
        .body("k8s")
        .send()
        .await
        .fails(415, "UnsupportedMediaType", "application/json");
    let protobuf = async |path: &str, body: &'static [u8]| {
        server
            .request("POST", path)
            .header("content-type", "application/vnd.kubernetes.protobuf")
            .body(body)
            .send()
            .await
    };
    // A ConfigMap named "c", as Go clients send it.
    let config_map = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01c";
    let created = protobuf(CONFIG_MAPS, config_map).await.ok();
    assert_eq!(created["metadata"]["name"], "c");
    protobuf(CONFIG_MAPS, b"{}").await.fails(
        400,
        "BadRequest",
        "does not begin as Kubernetes' protobuf",
    );
    server
        .request("GET", CONFIG_MAPS)
        .header("accept", "text/html")
        .send()
        .await
        .fails(406, "NotAcceptable", "application/json");
}

/// Kubernetes' three ways with fields that nobody knows, and with those that are there twice.
#[tokio::test]
async fn careless_fields_are_errors_warnings_or_nothing() {
    const BODY: &str = r#"{"metadata":{"name":"NAME"},"dta":{"a":"1"},"data":{"b":"1","b":"2"}}"#;
    const TOLD: [&str; 2] = ["unknown field \"dta\"", "duplicate field \"data.b\""];
    const UPDATE: &str = "application/json";
    const MERGE: &str = "application/merge-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    const APPLY: &str = "application/apply-patch+yaml";
    let server = Server::start().await;
    server.config_map("there", json!({})).await;
    let there = format!("{CONFIG_MAPS}/there");
    let ways = [
        ("POST", CONFIG_MAPS, UPDATE),
        ("PUT", &there, UPDATE),
        ("PATCH", &there, MERGE),
        ("PATCH", &there, STRATEGIC),
        ("PATCH", &there, APPLY),
    ];
    for (number, (method, path, content_type)) in ways.into_iter().enumerate() {
        let name = match method {
            "POST" => format!("new-{number}"),
            _ => "there".to_owned(),
        };
        let send = |validation: &str| {
            server
                .request(
                    method,
                    &format!("{path}?fieldManager=a&force=FORCE{validation}").replace(
                        "&force=FORCE",
                        if content_type == APPLY {
                            "&force=true"
                        } else {
                            ""
                        },
                    ),
                )
                .header("content-type", content_type)
                .body(BODY.replace("NAME", &name))
                .send()
        };
        let failed = send("&fieldValidation=Strict").await;
        let failed = match content_type {
            MERGE | STRATEGIC => failed.fails(422, "Invalid", "dta: unknown field"),
            _ => failed.fails(
                400,
                "BadRequest",
                &format!(
                    "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {}",
                    TOLD.join(", ")
                ),
            ),
        };
        let causes = &failed["details"]["causes"];
        for (index, (field, reason)) in [
            ("dta", "FieldValueUnknown"),
            ("data.b", "FieldValueDuplicate"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(causes[index]["field"], field, "{method} {content_type}");
            assert_eq!(causes[index]["reason"], reason, "{method} {content_type}");
        }

        // What Kubernetes does for clients that don't say.
        for validation in ["&fieldValidation=Warn&dryRun=All", "&dryRun=All"] {
            let warned = send(validation).await;
            let warnings: Vec<String> = warned
                .headers
                .get_all("warning")
                .iter()
                .map(|value| value.to_str().unwrap().replace("\\\"", "\""))
                .collect();
            assert_eq!(warnings, TOLD.map(|told| format!("299 - \"{told}\"")));
            let warned = warned.ok();
            assert!(warned.get("dta").is_none(), "{warned}");
            assert_eq!(warned["data"]["b"], "2");
        }

        let ignored = send("&fieldValidation=Ignore").await;
        assert!(!ignored.headers.contains_key("warning"));
        assert_eq!(ignored.ok()["data"], json!({ "b": "2" }));
    }
}

#[tokio::test]
async fn generated_names_are_fresh() {
    let server = Server::start().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let created = server
            .post(CONFIG_MAPS, json!({ "metadata": { "generateName": "c-" } }))
            .await
            .ok();
        let name = created["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(name.len(), 7, "{name}");
        assert!(names.insert(name));
    }
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let server = Server::start().await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let body = json!({ "metadata": { "name": "c" }, "data": { "a": "1" } });
    assert_eq!(server.post(&dry, body.clone()).await.ok()["data"]["a"], "1");
    assert_eq!(server.stored(Resource::ConfigMap, "default", "c"), None);

    server.config_map("c", json!({})).await;
    let before = server.stored(Resource::ConfigMap, "default", "c");
    let path = format!("{CONFIG_MAPS}/c?dryRun=All");
    assert_eq!(server.put(&path, body.clone()).await.ok()["data"]["a"], "1");
    assert_eq!(
        server.merge(&path, body.clone()).await.ok()["data"]["a"],
        "1"
    );
    server.delete(&path).await.ok();
    server
        .post(&dry, body)
        .await
        .fails(409, "AlreadyExists", "");
    assert_eq!(server.stored(Resource::ConfigMap, "default", "c"), before);
}

#[tokio::test]
async fn text_in_a_secret_is_stored_as_data() {
    let server = Server::start().await;
    let created = server
        .post(
            SECRETS,
            json!({
                "metadata": { "name": "s" },
                "data": { "a": "eA==" },
                "stringData": { "b": "y" },
            }),
        )
        .await
        .ok();
    assert_eq!(created["data"], json!({ "a": "eA==", "b": "eQ==" }));
    assert_eq!(created["type"], "Opaque");
    assert!(created.get("stringData").is_none());
    let changed = server
        .merge(
            &format!("{SECRETS}/s"),
            json!({ "stringData": { "a": "z" } }),
        )
        .await
        .ok();
    assert_eq!(changed["data"], json!({ "a": "eg==", "b": "eQ==" }));
    server
        .merge(&format!("{SECRETS}/s"), json!({ "type": "other" }))
        .await
        .fails(422, "Invalid", "type: field is immutable");

    let path = format!("{SECRETS}/s");
    server.merge(&path, json!({ "immutable": true })).await.ok();
    for change in [
        json!({ "data": { "a": "eQ==" } }),
        json!({ "stringData": { "a": "q" } }),
    ] {
        server.merge(&path, change).await.fails(
            422,
            "Invalid",
            "field is immutable when `immutable` is set",
        );
    }
}

#[tokio::test]
async fn a_token_that_nobody_could_use_is_refused() {
    let server = Server::start().await;
    server
        .post(
            "/api/v1/namespaces/hive-system/secrets",
            json!({ "metadata": { "name": "token-a" }, "type": "hive.dev/token", "data": {} }),
        )
        .await
        .fails(422, "Invalid", "hivectl token create");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    let nodes = "/apis/hive.dev/v1/nodes";
    let key = "ab".repeat(32);
    let created = server
        .post(
            nodes,
            json!({
                "metadata": { "name": "pi" },
                "spec": { "key": key },
                "status": { "localAddress": "ignored:1" },
            }),
        )
        .await
        .ok();
    assert!(created.get("status").is_none(), "{created}");
    assert_eq!(created["metadata"]["generation"], 1);

    let path = format!("{nodes}/pi/status");
    let status = json!({
        "spec": { "key": key, "unschedulable": true },
        "status": { "localAddress": "10.0.0.7:8070" },
    });
    let answer = server.put(&path, status).await.ok();
    assert_eq!(answer["status"]["localAddress"], "10.0.0.7:8070");
    assert_eq!(answer["metadata"]["generation"], 1);
    assert_ne!(answer["spec"]["unschedulable"], true);

    let cordoned = server
        .merge(
            &format!("{nodes}/pi"),
            json!({ "spec": { "unschedulable": true }, "status": null }),
        )
        .await
        .ok();
    assert_eq!(cordoned["metadata"]["generation"], 2);
    assert_eq!(cordoned["status"]["localAddress"], "10.0.0.7:8070");
    assert_eq!(server.get(&path).await.ok(), cordoned);
}

#[tokio::test]
async fn a_read_waits_for_the_revision_it_names() {
    let server = Server::start().await;
    let created = server.config_map("c", json!({})).await;
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}/c?resourceVersion");
    server.get(&format!("{path}={revision}")).await.ok();
    server.get(&format!("{path}=0")).await.ok();
    server.get(&format!("{path}=999999")).await.fails(
        504,
        "Timeout",
        "Too large resource version: 999999",
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_and_while_it_is_read() {
    let server = Server::start().await;
    let large = "x".repeat((3 << 20) + 1);
    let announced = server
        .request("POST", CONFIG_MAPS)
        .header("content-length", &large.len().to_string())
        .body("{")
        .send()
        .await;
    announced.fails(
        413,
        "RequestEntityTooLarge",
        "the limit for one request is 3145728 bytes",
    );
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(large)]);
    server
        .request("POST", CONFIG_MAPS)
        .body(axum::body::Body::from_stream(chunks))
        .send()
        .await
        .fails(413, "RequestEntityTooLarge", "is longer");
    // Fits the request, but not an object.
    let data = "x".repeat(1 << 20);
    server
        .post(
            CONFIG_MAPS,
            json!({ "metadata": { "name": "c" }, "data": { "a": data } }),
        )
        .await
        .fails(422, "Invalid", "at most 1048576 are stored");
    let label = "x".repeat(9000);
    server
        .get(&format!("{CONFIG_MAPS}?labelSelector={label}"))
        .await
        .fails(413, "RequestEntityTooLarge", "the URL has");
}

/// The key says which machine it is.
#[tokio::test]
async fn a_node_keeps_its_key() {
    let server = Server::start().await;
    let nodes = "/apis/hive.dev/v1/nodes";
    let node = json!({ "metadata": { "name": "n" }, "spec": { "key": "ab".repeat(32) } });
    server.post(nodes, node).await.ok();
    let path = format!("{nodes}/n");
    server
        .merge(&path, json!({ "spec": { "key": "cd".repeat(32) } }))
        .await
        .fails(422, "Invalid", "spec.key: field is immutable");
    let cordoned = server
        .merge(&path, json!({ "spec": { "unschedulable": true } }))
        .await
        .ok();
    assert_eq!(cordoned["metadata"]["generation"], 2);
}
