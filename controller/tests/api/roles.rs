//! Who may do what: tokens, roles, reviews.

use std::time::{Duration, SystemTime};

use hive_controller::access::tokens::Role;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SECRETS, Server};

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let server = Server::start().await;
    let expired = server
        .token(
            Role::Admin,
            Some(SystemTime::now() - Duration::from_secs(1)),
        )
        .await;
    let unknown = hive_identity::ApiToken::generate().to_string();
    for (token, message) in [
        (None, "a bearer token or a client certificate is needed"),
        (Some("nonsense"), "not a bearer token of this swarm"),
        (Some(unknown.as_str()), "the token is not known here"),
        (Some(expired.as_str()), "the token has expired"),
    ] {
        for path in [CONFIG_MAPS, "/apis", "/no/such/path"] {
            let call = server.request("GET", path);
            let call = match token {
                None => call.anonymous(),
                Some(token) => call.bearing(token),
            };
            let answer = call.send().await;
            answer.fails(401, "Unauthorized", message);
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"hive\"");
        }
    }
}

#[tokio::test]
async fn probes_need_no_token() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        let answer = server.request("GET", path).anonymous().send().await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_revoked_token_opens_nothing_at_once() {
    let server = Server::start().await;
    let token = server.token(Role::View, None).await;
    let get = || server.request("GET", CONFIG_MAPS).bearing(&token).send();
    get().await.ok();
    let id = token
        .strip_prefix("hivetok.")
        .unwrap()
        .split('-')
        .next()
        .unwrap();
    server
        .delete(&format!(
            "/api/v1/namespaces/hive-system/secrets/token-{id}"
        ))
        .await
        .ok();
    get()
        .await
        .fails(401, "Unauthorized", "the token is not known here");
}

#[tokio::test]
async fn roles_are_refused_in_kubernetes_words() {
    let server = Server::start().await;
    let view = server.token(Role::View, None).await;
    let edit = server.token(Role::Edit, None).await;
    let as_role = async |token: &str, method: &str, path: &str, body: Value| {
        server
            .request(method, path)
            .bearing(token)
            .json(&body)
            .send()
            .await
    };
    let named = |name: &str| json!({ "metadata": { "name": name } });
    as_role(&view, "POST", CONFIG_MAPS, named("c")).await.fails(
        403,
        "Forbidden",
        "cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\"",
    );
    as_role(&view, "GET", SECRETS, Value::Null)
        .await
        .fails(403, "Forbidden", "cannot list");
    as_role(&edit, "GET", "/api/v1/secrets", Value::Null)
        .await
        .fails(403, "Forbidden", "at the cluster scope");
    as_role(&edit, "POST", "/api/v1/namespaces", named("n"))
        .await
        .fails(403, "Forbidden", "cannot create resource \"namespaces\"");
    as_role(
        &edit,
        "POST",
        "/api/v1/namespaces/hive-system/configmaps",
        named("c"),
    )
    .await
    .fails(403, "Forbidden", "in the namespace \"hive-system\"");
    as_role(&edit, "POST", CONFIG_MAPS, named("c")).await.ok();
    as_role(&edit, "POST", SECRETS, named("s")).await.ok();
    as_role(&edit, "GET", SECRETS, Value::Null).await.ok();
    as_role(&view, "GET", CONFIG_MAPS, Value::Null).await.ok();
}

#[tokio::test]
async fn users_can_ask_who_they_are_and_what_they_may() {
    let server = Server::start().await;
    let edit = server.token(Role::Edit, None).await;
    let ask = async |path: &str, body: Value| {
        server
            .request("POST", path)
            .bearing(&edit)
            .json(&body)
            .send()
            .await
            .ok()
    };
    let me = ask(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json!({}),
    )
    .await;
    assert_eq!(me["status"]["userInfo"]["groups"][0], "hive:edit");

    for (attributes, allowed) in [
        (
            json!({ "verb": "create", "group": "hive.dev", "resource": "functions", "namespace": "default" }),
            true,
        ),
        (
            json!({ "verb": "create", "group": "hive.dev", "resource": "functions", "namespace": "hive-system" }),
            false,
        ),
        (json!({ "verb": "list", "resource": "secrets" }), false),
        (
            json!({ "verb": "*", "resource": "*", "namespace": "default" }),
            false,
        ),
    ] {
        let review = ask(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({ "spec": { "resourceAttributes": attributes } }),
        )
        .await;
        assert_eq!(review["status"]["allowed"], allowed, "{review}");
    }
}
