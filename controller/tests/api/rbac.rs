//! Roles and bindings through the API: what they allow, and what nobody may give away.

use hive_controller::access::tokens::Role;
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{Answer, CONFIG_MAPS, SECRETS, Server};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Asks as somebody else, as an administrator may.
async fn call(server: &Server, user: &str, method: &str, path: &str, body: Value) -> Answer {
    server
        .request(method, path)
        .header("impersonate-user", user)
        .json(&body)
        .send()
        .await
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({ "verbs": verbs, "apiGroups": [group], "resources": resources })
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({ "metadata": { "name": name }, "rules": rules })
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [{ "kind": "User", "name": user }],
    })
}

impl Server {
    /// Makes roles and bindings, as an administrator.
    async fn grant(&self, namespace: Option<&str>, objects: &[(&str, Value)]) {
        let namespace = namespace.map_or(String::new(), |name| format!("/namespaces/{name}"));
        for (plural, object) in objects {
            let path = format!("{RBAC}{namespace}/{plural}");
            self.post(&path, object.clone()).await.ok();
        }
    }
}

#[tokio::test]
async fn a_role_allows_in_its_namespace_from_its_binding_to_its_end() {
    let server = Server::start().await;
    let list = || call(&server, "jane", "GET", CONFIG_MAPS, Value::Null);
    list().await.fails(
        403,
        "Forbidden",
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the \
         namespace \"default\"",
    );
    server
        .grant(
            Some("default"),
            &[
                ("roles", role("r", &[rule(&["list"], "", &["configmaps"])])),
                ("rolebindings", binding("b", "Role", "r", "jane")),
            ],
        )
        .await;
    list().await.ok();
    let elsewhere = "/api/v1/namespaces/hive-system/configmaps";
    for path in [elsewhere, "/api/v1/configmaps", SECRETS] {
        call(&server, "jane", "GET", path, Value::Null).await.fails(
            403,
            "Forbidden",
            "cannot list",
        );
    }
    server
        .delete(&format!("{RBAC}/namespaces/default/rolebindings/b"))
        .await
        .ok();
    list().await.fails(403, "Forbidden", "cannot list");
}

#[tokio::test]
async fn a_cluster_role_is_bound_in_a_namespace_or_everywhere() {
    let server = Server::start().await;
    server
        .grant(
            Some("default"),
            &[("rolebindings", binding("b", "ClusterRole", "edit", "jane"))],
        )
        .await;
    server
        .grant(
            None,
            &[(
                "clusterrolebindings",
                binding("b", "ClusterRole", "edit", "joe"),
            )],
        )
        .await;
    let create = async |user: &str, namespace: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let body = json!({ "metadata": { "generateName": "c-" } });
        call(&server, user, "POST", &path, body).await
    };
    let other = json!({ "metadata": { "name": "other" } });
    server.post("/api/v1/namespaces", other).await.ok();
    create("jane", "default").await.ok();
    create("jane", "other").await.fails(403, "Forbidden", "");
    create("joe", "default").await.ok();
    create("joe", "other").await.ok();
    // Not a thing of ClusterRoleBindings: here Kubernetes would let joe become an administrator.
    create("joe", "hive-system")
        .await
        .fails(403, "Forbidden", "bind a role in hive-system itself");
    let list = async |user, path| call(&server, user, "GET", path, Value::Null).await;
    list("joe", "/api/v1/namespaces/hive-system/configmaps")
        .await
        .ok();
    for path in [
        "/api/v1/namespaces/hive-system/secrets",
        "/api/v1/secrets",
        "/api/v1/namespaces/hive-system/secrets?watch=1",
    ] {
        list("joe", path).await.fails(403, "Forbidden", "");
    }
    // Who deploys in one namespace brings artifacts, which lie in none.
    let artifact = format!("/apis/hive.dev/v1/artifacts/{}", "0".repeat(64));
    let head = call(&server, "jane", "HEAD", &artifact, Value::Null).await;
    assert_eq!(head.status, 404);
    list("nobody", &artifact).await.fails(403, "Forbidden", "");
}

#[tokio::test]
async fn a_role_may_name_objects() {
    let server = Server::start().await;
    let named = json!({
        "verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"],
    });
    server
        .grant(
            Some("default"),
            &[
                ("roles", role("r", &[named])),
                ("rolebindings", binding("b", "Role", "r", "jane")),
            ],
        )
        .await;
    for name in ["mine", "other"] {
        server.config_map(name, json!({})).await;
    }
    let get = async |rest: &str| {
        let path = format!("{CONFIG_MAPS}{rest}");
        call(&server, "jane", "GET", &path, Value::Null)
            .await
            .status
    };
    assert_eq!(get("/mine").await, 200);
    assert_eq!(get("/other").await, 403);
    assert_eq!(get("").await, 403);
    assert_eq!(get("?fieldSelector=metadata.name%3Dmine").await, 200);
    assert_eq!(get("?fieldSelector=metadata.name%3Dother").await, 403);
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    let server = Server::start().await;
    let roles = ["roles", "rolebindings"];
    server
        .grant(
            Some("default"),
            &[
                (
                    "roles",
                    role(
                        "giver",
                        &[
                            rule(&["*"], "rbac.authorization.k8s.io", &roles),
                            rule(&["get", "list"], "", &["configmaps"]),
                        ],
                    ),
                ),
                ("rolebindings", binding("giver", "Role", "giver", "jane")),
                // What a wildcard of verbs would give by accident is said by name in Kubernetes too.
                (
                    "roles",
                    role(
                        "careful",
                        &[rule(
                            &["create", "update", "patch", "get"],
                            "rbac.authorization.k8s.io",
                            &roles,
                        )],
                    ),
                ),
                ("rolebindings", binding("careful", "Role", "careful", "joe")),
                (
                    "rolebindings",
                    binding("view", "ClusterRole", "view", "joe"),
                ),
            ],
        )
        .await;
    let make = async |user: &str, plural: &str, object: Value| {
        let path = format!("{RBAC}/namespaces/default/{plural}");
        call(&server, user, "POST", &path, object).await
    };
    // `*` holds escalate and bind.
    let secrets = role("secrets", &[rule(&["get"], "", &["secrets"])]);
    make("jane", "roles", secrets.clone()).await.ok();

    let more = role("more", &[rule(&["get"], "", &["secrets", "configmaps"])]);
    let refused = make("joe", "roles", more).await;
    let body = refused.fails(
        403,
        "Forbidden",
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"joe\" (groups=[\"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held",
    );
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("Verbs:[\"get\"]"), "{message}");
    let own = role("own", &[rule(&["get"], "", &["configmaps"])]);
    make("joe", "roles", own.clone()).await.ok();
    let widened = role("own", &[rule(&["get", "delete"], "", &["configmaps"])]);
    let path = format!("{RBAC}/namespaces/default/roles/own");
    call(&server, "joe", "PUT", &path, widened)
        .await
        .fails(403, "Forbidden", "not currently held");
    // What does not touch the rules needs nothing.
    let labelled = json!({ "metadata": { "labels": { "a": "b" } } });
    server
        .request("PATCH", &path)
        .header("impersonate-user", "joe")
        .header("content-type", "application/merge-patch+json")
        .body(labelled.to_string())
        .send()
        .await
        .ok();

    for (name, code) in [("secrets", 403), ("own", 201), ("missing", 404)] {
        let answer = make("joe", "rolebindings", binding(name, "Role", name, "joe")).await;
        assert_eq!(answer.status, code, "{name}");
    }
    let all = binding("all", "ClusterRole", "cluster-admin", "joe");
    make("joe", "rolebindings", all)
        .await
        .fails(403, "Forbidden", "not currently held");
    let moved = json!({ "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "giver",
    } });
    server
        .merge(
            &format!("{RBAC}/namespaces/default/rolebindings/own"),
            moved,
        )
        .await
        .fails(422, "Invalid", "cannot change roleRef");
}

/// A token's Secret says which role it opens: to write one is to take any.
#[tokio::test]
async fn only_administrators_make_tokens() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/hive-system/secrets";
    server
        .grant(
            Some("hive-system"),
            &[("rolebindings", binding("b", "ClusterRole", "edit", "jane"))],
        )
        .await;
    let plain = json!({ "metadata": { "name": "mine" } });
    call(&server, "jane", "POST", path, plain).await.ok();
    let token = json!({
        "metadata": { "name": "token-abcdefgh" },
        "type": "hive.dev/token",
        "stringData": { "hash": "0".repeat(64), "kind": "api", "role": "admin" },
    });
    call(&server, "jane", "POST", path, token.clone())
        .await
        .fails(403, "Forbidden", "must have cluster-admin privileges");
    server.post(path, token.clone()).await.ok();
    let change = json!({ "stringData": { "expiry": "2100-01-01T00:00:00Z" } });
    server
        .request("PATCH", &format!("{path}/token-abcdefgh"))
        .header("impersonate-user", "jane")
        .header("content-type", "application/merge-patch+json")
        .body(change.to_string())
        .send()
        .await
        .fails(403, "Forbidden", "must have cluster-admin privileges");
}

#[tokio::test]
async fn impersonation_is_a_right_like_any_other() {
    let server = Server::start().await;
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let rules = [
        json!({ "verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"] }),
        json!({ "verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["team"] }),
    ];
    server
        .grant(
            None,
            &[
                ("clusterroles", role("actor", &rules)),
                (
                    "clusterrolebindings",
                    json!({
                        "metadata": { "name": "actor" },
                        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "actor" },
                        "subjects": [{ "kind": "Group", "name": "hive:view" }],
                    }),
                ),
            ],
        )
        .await;
    let view = server.token(Role::View, None).await;
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = server.request("POST", who).bearing(&view);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.json(&json!({})).send().await
    };
    let jane = ask(&[
        ("impersonate-user", "jane"),
        ("impersonate-group", "team"),
        ("impersonate-group", "system:masters"),
    ])
    .await;
    jane.fails(
        403,
        "Forbidden",
        "groups \"system:masters\" is forbidden: User \"hive:token-",
    );
    let jane = ask(&[("impersonate-user", "jane"), ("impersonate-group", "team")]).await;
    let info = &jane.ok()["status"]["userInfo"];
    assert_eq!(info["username"], "jane");
    assert_eq!(info["groups"], json!(["team", "system:authenticated"]));
    ask(&[("impersonate-user", "joe")]).await.fails(
        403,
        "Forbidden",
        "cannot impersonate resource \"users\"",
    );
    ask(&[
        ("impersonate-user", "jane"),
        ("impersonate-extra-scopes%2fa", "b"),
    ])
    .await
    .fails(403, "Forbidden", "userextras/scopes/a");
    ask(&[("impersonate-group", "team")])
        .await
        .fails(400, "BadRequest", "add Impersonate-User");
    // A service account is in its groups.
    let account = server
        .request("POST", who)
        .header("impersonate-user", "system:serviceaccount:default:robot")
        .json(&json!({}))
        .send()
        .await;
    assert_eq!(
        account.ok()["status"]["userInfo"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
}

#[tokio::test]
async fn reviews_say_what_requests_would_meet() {
    let server = Server::start().await;
    server
        .grant(
            Some("default"),
            &[("rolebindings", binding("b", "ClusterRole", "view", "jane"))],
        )
        .await;
    let review = async |kind: &str, body: Value| {
        let path = format!("/apis/authorization.k8s.io/v1/{kind}");
        server.post(&path, body).await
    };
    let asked = |verb: &str, resource: &str, namespace: &str| {
        json!({ "spec": { "user": "jane", "resourceAttributes": {
            "verb": verb, "resource": resource, "namespace": namespace,
        } } })
    };
    let answer = review(
        "subjectaccessreviews",
        asked("list", "configmaps", "default"),
    )
    .await
    .ok();
    assert_eq!(answer["kind"], "SubjectAccessReview");
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by RoleBinding \"b/default\" of ClusterRole \"view\" to User \"jane\""
    );
    for (verb, resource, namespace) in [
        ("create", "configmaps", "default"),
        ("list", "secrets", "default"),
        ("list", "configmaps", "other"),
    ] {
        let answer = review("subjectaccessreviews", asked(verb, resource, namespace)).await;
        assert_eq!(answer.ok()["status"]["allowed"], false);
    }
    let local = "namespaces/default/localsubjectaccessreviews";
    let answer = review(local, asked("list", "configmaps", "default")).await;
    assert_eq!(answer.ok()["status"]["allowed"], true);
    review(local, asked("list", "configmaps", "other"))
        .await
        .fails(400, "BadRequest", "must be the namespace of the review");

    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = async |user: &str, namespace: &str| {
        let body = json!({ "spec": { "namespace": namespace } });
        let answer = call(&server, user, "POST", path, body).await.ok();
        answer["status"]["resourceRules"]
            .as_array()
            .unwrap()
            .clone()
    };
    let reads_maps = |rules: &[Value]| {
        rules.iter().any(|rule| {
            let holds = |field: &str, value: &str| {
                let items = rule[field].as_array().unwrap();
                items.contains(&json!(value))
            };
            holds("verbs", "list") && holds("resources", "configmaps")
        })
    };
    assert!(reads_maps(&rules("jane", "default").await));
    assert!(!reads_maps(&rules("jane", "other").await));
    let master = server
        .post(path, json!({ "spec": { "namespace": "default" } }))
        .await
        .ok();
    assert_eq!(master["status"]["resourceRules"][0]["verbs"], json!(["*"]));
}

#[tokio::test]
async fn paths_that_are_no_resources_have_rules_too() {
    let server = Server::start().await;
    let get =
        async |user: &str, path: &str| call(&server, user, "GET", path, Value::Null).await.status;
    for path in ["/apis", "/apis/", "/api/v1", "/openapi/v3"] {
        assert_eq!(get("jane", path).await, 200, "{path}");
        // Somebody who showed nothing is not told which paths there are.
        let answer = server.request("GET", path).anonymous().send().await;
        answer.fails(
            401,
            "Unauthorized",
            "a bearer token or a client certificate is needed",
        );
    }
    assert_eq!(get("jane", "/no/such/path").await, 404);
}

#[tokio::test]
async fn masters_are_masters_whatever_the_roles_say() {
    let server = Server::start().await;
    for name in ["cluster-admin", "hive:admin"] {
        let path = format!("{RBAC}/clusterrolebindings/{name}");
        server.delete(&path).await.ok();
    }
    assert!(
        server
            .stored(Resource::ClusterRoleBinding, "", "hive:admin")
            .is_none()
    );
    server.get("/api/v1/secrets").await.ok();
}
