//! Server-side apply, and who owns what after other writes.

use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::artifacts::upload;
use crate::functions::COMPONENT;
use crate::harness::{Answer, CONFIG_MAPS, FUNCTIONS, SECRETS, Server};

const APPLY: &str = "application/apply-patch+yaml";

async fn apply(server: &Server, path: &str, manager: &str, body: Value) -> Answer {
    let separator = if path.contains('?') { '&' } else { '?' };
    server
        .request("PATCH", &format!("{path}{separator}fieldManager={manager}"))
        .header("content-type", APPLY)
        .body(body.to_string())
        .send()
        .await
}

fn config_map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": data })
}

/// `manager operation subresource` and fields of every entry.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            assert_eq!(entry["fieldsType"], "FieldsV1");
            assert_eq!(entry["apiVersion"], object["apiVersion"]);
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            assert_eq!(text("time").len(), 20);
            let who = [text("manager"), text("operation"), text("subresource")].join(" ");
            (who.trim_end().to_owned(), entry["fieldsV1"].clone())
        })
        .collect()
}

#[tokio::test]
async fn a_declaration_creates_changes_and_takes_away() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let created = apply(
        &server,
        &path,
        "ann",
        config_map(json!({ "a": "1", "b": "2" })),
    )
    .await;
    assert_eq!(created.status, 201);
    let created = created.json();
    assert_eq!(
        managers(&created),
        [(
            "ann Apply".to_owned(),
            json!({ "f:data": { "f:a": {}, "f:b": {} } })
        )]
    );

    // The same again is no change at all.
    let again = apply(
        &server,
        &path,
        "ann",
        config_map(json!({ "a": "1", "b": "2" })),
    )
    .await;
    assert_eq!((again.status, again.json()), (200, created.clone()));

    // YAML is read too; what is no longer declared goes.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  labels: {app: x}\ndata:\n  b: \"3\"\n";
    let changed = server
        .request("PATCH", &format!("{path}?fieldManager=ann&force=false"))
        .header("content-type", APPLY)
        .body(yaml)
        .send()
        .await
        .ok();
    assert_eq!(changed["data"], json!({ "b": "3" }));
    assert_eq!(changed["metadata"]["labels"], json!({ "app": "x" }));
    assert_eq!(changed["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(server.get(&path).await.ok(), changed);
}

#[tokio::test]
async fn a_conflict_names_manager_and_field_and_can_be_forced() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    apply(
        &server,
        &path,
        "ann",
        config_map(json!({ "a": "1", "b": "1" })),
    )
    .await
    .ok();
    server
        .merge(
            &format!("{path}?fieldManager=edit"),
            json!({ "data": { "b": "2" } }),
        )
        .await
        .ok();

    let status = apply(&server, &path, "bob", config_map(json!({ "a": "2" })))
        .await
        .fails(
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"ann\": .data.a",
        );
    assert_eq!(
        status["details"]["causes"],
        json!([{
            "reason": "FieldManagerConflict",
            "field": ".data.a",
            "message": "conflict with \"ann\"",
        }])
    );
    apply(
        &server,
        &path,
        "ann",
        config_map(json!({ "a": "1", "b": "1" })),
    )
    .await
    .fails(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.b",
    );
    let forced = format!("{path}?force=true");
    let forced = apply(&server, &forced, "bob", config_map(json!({ "a": "2" })))
        .await
        .ok();
    assert_eq!(
        managers(&forced),
        [
            ("bob Apply".to_owned(), json!({ "f:data": { "f:a": {} } })),
            ("edit Update".to_owned(), json!({ "f:data": { "f:b": {} } })),
        ]
    );
    // A value that both want is shared.
    apply(&server, &path, "cid", config_map(json!({ "a": "2" })))
        .await
        .ok();
}

#[tokio::test]
async fn every_write_says_who_owns_what_it_changed() {
    let server = Server::start().await;
    let created = server
        .request("POST", CONFIG_MAPS)
        .header("user-agent", "kubectl/v1.32.0 (linux/amd64)")
        .json(&config_map(json!({ "a": "1" })))
        .send()
        .await
        .ok();
    let of_creator = (
        "kubectl Update".to_owned(),
        json!({ "f:data": { ".": {}, "f:a": {} } }),
    );
    assert_eq!(managers(&created)[0], of_creator);

    // A client that knows nothing of managedFields drops none.
    let path = format!("{CONFIG_MAPS}/c");
    let put = format!("{path}?fieldManager=put");
    let updated = server
        .put(&put, config_map(json!({ "a": "1", "b": "2" })))
        .await
        .ok();
    let of_put = ("put Update".to_owned(), json!({ "f:data": { "f:b": {} } }));
    assert_eq!(managers(&updated), [of_creator, of_put.clone()]);
    // What changes nothing moves no time.
    assert_eq!(
        server
            .put(&put, config_map(json!({ "a": "1", "b": "2" })))
            .await
            .ok(),
        updated
    );
    let removed = server
        .merge(&path, json!({ "data": { "a": null } }))
        .await
        .ok();
    assert_eq!(managers(&removed)[1], of_put);
    assert_eq!(managers(&removed)[0].1, json!({ "f:data": {} }));

    // One empty entry clears them; anything that is none is refused.
    let reset = |managed: Value| json!({ "metadata": { "managedFields": managed } });
    server
        .merge(&path, reset(json!([{ "manager": "x" }])))
        .await
        .fails(
            422,
            "Invalid",
            "managedFields[0].operation: must be `Apply` or `Update`",
        );
    let cleared = server.merge(&path, reset(json!([{}]))).await.ok();
    assert_eq!(managers(&cleared), []);
    assert_eq!(cleared["data"], json!({ "b": "2" }));
}

#[tokio::test]
async fn what_is_no_apply_is_refused() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let send = |query: &'static str, kind: &'static str, body: Value| {
        let path = format!("{path}{query}");
        let server = &server;
        async move {
            let call = server.request("PATCH", &path).header("content-type", kind);
            call.body(body.to_string()).send().await
        }
    };
    let body = config_map(json!({}));
    let with = |field: &str, value: Value| {
        let mut body = body.clone();
        body["metadata"][field] = value;
        body
    };
    send("", APPLY, body.clone()).await.fails(
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value",
    );
    send("?fieldManager=a", APPLY, with("managedFields", json!([{}])))
        .await
        .fails(400, "BadRequest", "metadata.managedFields must be nil");
    send("?fieldManager=a", APPLY, with("generateName", json!("c-")))
        .await
        .fails(400, "BadRequest", "metadata.generateName");
    send("?fieldManager=a", APPLY, with("uid", json!("u")))
        .await
        .fails(409, "Conflict", "uid mismatch");
    send("?fieldManager=a", APPLY, with("name", json!("d")))
        .await
        .fails(400, "BadRequest", "the name in the body");
    send(
        "?fieldManager=a",
        APPLY,
        with("finalizers", json!(["a/b", "a/b"])),
    )
    .await
    .fails(
        422,
        "Invalid",
        ".metadata.finalizers[=\"a/b\"]: listed twice",
    );
    send(
        "?fieldManager=a&fieldValidation=Strict",
        APPLY,
        json!({ "data": { "a": "1" }, "dat": 1 }),
    )
    .await
    .fails(400, "BadRequest", "unknown field \"dat\"");
    send("?force=true", "application/merge-patch+json", json!({}))
        .await
        .fails(
            422,
            "Invalid",
            "force: Forbidden: may not be specified for non-apply patch",
        );
    server.get(&path).await.fails(404, "NotFound", "not found");

    let dry = send("?fieldManager=a&dryRun=All", APPLY, body.clone()).await;
    assert_eq!(dry.status, 201);
    server.get(&path).await.fails(404, "NotFound", "not found");
    send(
        "?fieldManager=a&fieldValidation=Warn",
        APPLY,
        json!({ "dat": 1 }),
    )
    .await
    .ok();
}

#[tokio::test]
async fn a_function_keeps_its_defaults_and_its_scale_has_an_owner() {
    let server = Server::start().await;
    let digest = upload(&server, COMPONENT).await;
    let path = format!("{FUNCTIONS}/f");
    let declared = |replicas: Value| {
        json!({
            "apiVersion": "hive.dev/v1", "kind": "Function", "metadata": { "name": "f" },
            "spec": {
                "artifact": { "sha256": format!("sha256:{}", digest.hex()) },
                "replicas": replicas,
                "env": [{ "name": "A", "value": "1" }],
            },
        })
    };
    let created = apply(&server, &path, "ann", declared(json!(2))).await.ok();
    assert_eq!(created["spec"]["timeout"], "30s");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(
        apply(&server, &path, "ann", declared(json!(2))).await.ok(),
        created
    );

    let env = json!({ "spec": { "env": [{ "name": "B", "value": "2" }] } });
    let both = apply(&server, &path, "bob", env).await.ok();
    assert_eq!(
        both["spec"]["env"],
        json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }])
    );
    assert_eq!(both["metadata"]["generation"], 2);

    let scale = format!("{path}/scale");
    let by = format!("{scale}?fieldManager=hpa");
    server
        .merge(&by, json!({ "spec": { "replicas": 5 } }))
        .await
        .ok();
    let scaled = server.get(&path).await.ok();
    let of_scale = (
        "hpa Update scale".to_owned(),
        json!({ "f:spec": { "f:replicas": {} } }),
    );
    assert!(managers(&scaled).contains(&of_scale), "{scaled}");
    apply(&server, &path, "ann", declared(json!(2)))
        .await
        .fails(
            409,
            "Conflict",
            "conflict with \"hpa\" with subresource \"scale\" using hive.dev/v1: .spec.replicas",
        );
    // Who does not care leaves it to the scaler.
    let kept = apply(&server, &path, "ann", declared(json!(null)))
        .await
        .ok();
    assert_eq!(kept["spec"]["replicas"], 5);
    let wanted = json!({ "spec": { "replicas": 7 } });
    apply(&server, &scale, "cid", wanted.clone())
        .await
        .fails(409, "Conflict", ".spec.replicas");
    apply(&server, &format!("{scale}?force=true"), "cid", wanted)
        .await
        .ok();
    assert_eq!(server.get(&path).await.ok()["spec"]["replicas"], 7);

    // The swarm writes the status; nobody's declaration meets a conflict there.
    let status = format!("{path}/status");
    let body = json!({ "status": { "replicas": 1 }, "spec": { "replicas": 99 } });
    let updated = apply(&server, &status, "op", body).await.ok();
    assert_eq!(updated["spec"]["replicas"], 7);
    assert_eq!(updated["status"]["replicas"], 1);
    let of_status = (
        "op Apply status".to_owned(),
        json!({ "f:status": { "f:replicas": {} } }),
    );
    assert!(managers(&updated).contains(&of_status), "{updated}");
    apply(
        &server,
        &format!("{FUNCTIONS}/none/status"),
        "op",
        json!({}),
    )
    .await
    .fails(404, "NotFound", "not found");
}

#[tokio::test]
async fn clients_change_between_client_side_and_server_side_apply() {
    let server = Server::start().await;
    for (client, annotation) in [
        (
            "kubectl",
            "kubectl.kubernetes.io/last-applied-configuration",
        ),
        ("hivectl", "hive.dev/last-applied-configuration"),
    ] {
        let name = format!("of-{client}");
        let path = format!("{CONFIG_MAPS}/{name}");
        let mut body = config_map(json!({ "a": "1", "b": "1" }));
        body["metadata"]["name"] = json!(name);
        let mut annotated = body.clone();
        annotated["metadata"]["annotations"] = json!({ annotation: body.to_string() });
        server
            .post(
                &format!("{CONFIG_MAPS}?fieldManager={client}-client-side-apply"),
                annotated,
            )
            .await
            .ok();
        // Another value, and one field fewer: no conflict, and the field goes.
        body["data"] = json!({ "a": "2" });
        let applied = apply(&server, &path, client, body.clone()).await.ok();
        assert_eq!(applied["data"], json!({ "a": "2" }));
        // Going back, the client compares with what was applied last.
        let remembered = applied["metadata"]["annotations"][annotation]
            .as_str()
            .unwrap();
        let remembered: Value = serde_json::from_str(remembered).unwrap();
        assert_eq!(remembered["metadata"]["name"], name.as_str());
        assert_eq!(remembered["data"].get("b"), None);
        // Others are no such clients.
        body["data"]["a"] = json!("3");
        apply(&server, &path, "other", body)
            .await
            .fails(409, "Conflict", ".data.a");
    }
}

#[tokio::test]
async fn plain_text_of_a_secret_is_owned_as_data() {
    let server = Server::start().await;
    let path = format!("{SECRETS}/s");
    let secret = json!({ "stringData": { "a": "x" } });
    let applied = apply(&server, &path, "ann", secret.clone()).await.ok();
    assert_eq!(applied["data"], json!({ "a": "eA==" }));
    assert_eq!(managers(&applied)[0].1, json!({ "f:data": { "f:a": {} } }));
    assert_eq!(apply(&server, &path, "ann", secret).await.ok(), applied);
    let emptied = apply(&server, &path, "ann", json!({})).await.ok();
    assert_eq!(emptied.get("data"), None);
}

#[tokio::test]
async fn whoever_may_only_patch_creates_nothing_by_an_apply() {
    let server = Server::start().await;
    for (kind, rules) in [
        (
            "roles",
            json!({ "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "get"] }] }),
        ),
        (
            "rolebindings",
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "pat" }],
            }),
        ),
    ] {
        let mut body = rules;
        body["metadata"] = json!({ "name": "r" });
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{kind}");
        server.post(&path, body).await.ok();
    }
    server.config_map("there", json!({})).await;
    let as_pat = |name: &str| {
        server
            .request("PATCH", &format!("{CONFIG_MAPS}/{name}?fieldManager=pat"))
            .header("impersonate-user", "pat")
            .header("content-type", APPLY)
            .body(json!({ "data": { "a": "1" } }).to_string())
            .send()
    };
    as_pat("there").await.ok();
    as_pat("new")
        .await
        .fails(403, "Forbidden", "cannot create resource \"configmaps\"");
    assert!(
        server
            .stored(Resource::ConfigMap, "default", "new")
            .is_none()
    );
}
