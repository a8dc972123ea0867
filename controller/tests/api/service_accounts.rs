//! Tokens of service accounts: made on request, judged at each use, ended at once.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SECRETS, Server};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

impl Server {
    /// A service account that reads its namespace.
    async fn account(&self, name: &str) {
        let account = json!({ "metadata": { "name": name } });
        self.post(ACCOUNTS, account).await.ok();
        let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "kind": "ServiceAccount", "name": name }],
        });
        self.post(bindings, binding).await.ok();
    }

    async fn account_token(&self, name: &str, spec: Value) -> Value {
        let request = json!({ "spec": spec });
        self.post(&format!("{ACCOUNTS}/{name}/token"), request)
            .await
            .ok()
    }

    async fn bearing(&self, method: &str, path: &str, token: &str) -> crate::harness::Answer {
        self.request(method, path)
            .bearing(token)
            .json(&json!({}))
            .send()
            .await
    }
}

fn token_of(answer: &Value) -> String {
    answer["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_speaks_for_its_account() {
    let server = Server::start().await;
    server.account("robot").await;
    let answer = server.account_token("robot", json!({})).await;
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert_eq!(
        answer["spec"]["audiences"],
        json!(["https://test.hive.internal"])
    );
    let token = token_of(&answer);
    server.bearing("GET", CONFIG_MAPS, &token).await.ok();
    server.bearing("GET", SECRETS, &token).await.fails(
        403,
        "Forbidden",
        "secrets is forbidden: User \"system:serviceaccount:default:robot\" cannot list",
    );
    let me = server.bearing("POST", WHO, &token).await.ok();
    let info = &me["status"]["userInfo"];
    assert_eq!(
        info["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert!(info["uid"].is_string());
}

#[tokio::test]
async fn a_token_ends_at_once_with_its_account() {
    let server = Server::start().await;
    server.account("robot").await;
    let token = token_of(&server.account_token("robot", json!({})).await);
    let mut watch = server
        .request("GET", &format!("{CONFIG_MAPS}?watch=1"))
        .bearing(&token)
        .watch()
        .await;
    server.config_map("c", json!({})).await;
    assert_eq!(watch.next().await, "ADDED c");

    server.delete(&format!("{ACCOUNTS}/robot")).await.ok();
    server.bearing("GET", CONFIG_MAPS, &token).await.fails(
        401,
        "Unauthorized",
        "the token's service account is gone",
    );
    assert_eq!(watch.next().await, "ERROR -");
    assert_eq!(watch.next().await, "end");
    // One of the same name is another.
    let account = json!({ "metadata": { "name": "robot" } });
    server.post(ACCOUNTS, account).await.ok();
    assert_eq!(server.bearing("GET", CONFIG_MAPS, &token).await.status, 401);
}

#[tokio::test]
async fn a_lost_token_is_revoked_and_others_go_on() {
    let server = Server::start().await;
    server.account("robot").await;
    let lost = token_of(&server.account_token("robot", json!({})).await);
    let kept = token_of(&server.account_token("robot", json!({})).await);
    let me = server.bearing("POST", WHO, &lost).await.ok();
    let id = me["status"]["userInfo"]["extra"]["authentication.kubernetes.io/credential-id"][0]
        .as_str()
        .unwrap()
        .strip_prefix("JTI=")
        .unwrap()
        .to_owned();
    let annotate = async |name: &str, value: &str| {
        let patch = json!({ "metadata": { "annotations": { name: value } } });
        server.merge(&format!("{ACCOUNTS}/robot"), patch).await.ok();
    };
    annotate("hive.dev/revoked-tokens", &id).await;
    server.bearing("GET", CONFIG_MAPS, &lost).await.fails(
        401,
        "Unauthorized",
        "the token was revoked",
    );
    server.bearing("GET", CONFIG_MAPS, &kept).await.ok();
    annotate("hive.dev/tokens-not-before", "2999-01-01T00:00:00Z").await;
    server.bearing("GET", CONFIG_MAPS, &kept).await.fails(
        401,
        "Unauthorized",
        "the token was revoked",
    );
}

#[tokio::test]
async fn a_bound_token_ends_with_what_it_is_bound_to() {
    let server = Server::start().await;
    server.account("robot").await;
    let secret = json!({ "metadata": { "name": "anchor" } });
    server.post(SECRETS, secret).await.ok();
    let bound =
        json!({ "boundObjectRef": { "kind": "Secret", "apiVersion": "v1", "name": "anchor" } });
    let token = token_of(&server.account_token("robot", bound).await);
    server.bearing("GET", CONFIG_MAPS, &token).await.ok();
    server.delete(&format!("{SECRETS}/anchor")).await.ok();
    server.bearing("GET", CONFIG_MAPS, &token).await.fails(
        401,
        "Unauthorized",
        "what the token is bound to is gone",
    );
}

#[tokio::test]
async fn requests_for_tokens_are_checked() {
    let server = Server::start().await;
    server.account("robot").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let ask = async |spec: Value| server.post(&path, json!({ "spec": spec })).await;
    ask(json!({ "expirationSeconds": 599 })).await.fails(
        422,
        "Invalid",
        "may not specify a duration less than 600 seconds",
    );
    let long = ask(json!({ "expirationSeconds": 99_999_999 })).await;
    assert_eq!(long.ok()["spec"]["expirationSeconds"], 2_592_000);
    assert!(
        long.headers["warning"]
            .to_str()
            .unwrap()
            .contains("shortened to 2592000 seconds")
    );
    for bound in [
        json!({ "kind": "Pod", "apiVersion": "v1", "name": "p" }),
        json!({ "kind": "Secret", "apiVersion": "v2", "name": "p" }),
    ] {
        ask(json!({ "boundObjectRef": bound }))
            .await
            .fails(422, "Invalid", "cannot bind token");
    }
    let missing = json!({ "kind": "Secret", "apiVersion": "v1", "name": "none" });
    ask(json!({ "boundObjectRef": missing }))
        .await
        .fails(404, "NotFound", "");
    ask(json!({ "audiences": [""] }))
        .await
        .fails(422, "Invalid", "spec.audiences");
    server
        .post(&format!("{ACCOUNTS}/nobody/token"), json!({}))
        .await
        .fails(404, "NotFound", "");
    assert_eq!(server.get(&path).await.status, 405);
    // Whoever may not make tokens does not get one.
    let own = token_of(&server.account_token("robot", json!({})).await);
    server
        .bearing("POST", &path, &own)
        .await
        .fails(403, "Forbidden", "\"serviceaccounts/token\"");
}

#[tokio::test]
async fn a_token_for_others_is_reviewed_and_opens_nothing_here() {
    let server = Server::start().await;
    server.account("robot").await;
    let token = token_of(
        &server
            .account_token("robot", json!({ "audiences": ["vault"] }))
            .await,
    );
    server.bearing("GET", CONFIG_MAPS, &token).await.fails(
        401,
        "Unauthorized",
        "the token is for another audience",
    );
    let review = async |token: &str, audiences: &[&str]| {
        let spec = json!({ "spec": { "token": token, "audiences": audiences } });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        server.post(path, spec).await.ok()["status"].clone()
    };
    let good = review(&token, &["vault", "other"]).await;
    assert_eq!(good["authenticated"], true);
    assert_eq!(good["audiences"], json!(["vault"]));
    assert_eq!(
        good["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    assert_eq!(review(&token, &[]).await["authenticated"], false);
    assert_eq!(review("nonsense", &[]).await["authenticated"], false);
    let admin = review(server.admin(), &[]).await;
    assert_eq!(admin["user"]["groups"][0], "hive:admin");
    assert_eq!(
        review(server.admin(), &["vault"]).await["authenticated"],
        false
    );
}

#[tokio::test]
async fn others_find_what_they_verify_tokens_with() {
    let server = Server::start().await;
    server.account("robot").await;
    let token = token_of(&server.account_token("robot", json!({})).await);
    let document = server
        .bearing("GET", "/.well-known/openid-configuration", &token)
        .await
        .ok();
    assert_eq!(document["issuer"], "https://test.hive.internal");
    let keys = server.bearing("GET", "/openid/v1/jwks", &token).await;
    assert_eq!(keys.ok()["keys"][0]["crv"], "Ed25519");
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let anonymous = || server.request("GET", "/openid/v1/jwks").anonymous().send();
    assert_eq!(anonymous().await.status, 401);
    // Who wants them public says so, as in Kubernetes.
    let binding = json!({
        "metadata": { "name": "discovery" },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:service-account-issuer-discovery",
        },
        "subjects": [{ "kind": "Group", "name": "system:unauthenticated" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    server.post(bindings, binding).await.ok();
    anonymous().await.ok();
}
