//! What the audit log holds after requests through the API.

use hive_controller::access::tokens::Role;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, SECRETS, Server};

#[tokio::test]
async fn a_write_is_recorded_with_who_what_why_and_the_outcome() {
    let server = Server::start().await;
    let created = server
        .request("POST", CONFIG_MAPS)
        .header("user-agent", "curl/8")
        .json(&json!({ "metadata": { "name": "a" }, "data": { "x": "y" } }))
        .send()
        .await;
    created.ok();
    let events = server
        .recorded(|event| event["objectRef"]["resource"] == "configmaps")
        .await;
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(event["level"], "Request");
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["verb"], "create");
    assert_eq!(event["requestURI"], CONFIG_MAPS);
    assert_eq!(event["userAgent"], "curl/8");
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["requestObject"]["data"], json!({ "x": "y" }));
    assert_eq!(
        event["auditID"],
        created.headers["audit-id"].to_str().unwrap()
    );
    let user = event["user"]["username"].as_str().unwrap();
    assert!(user.starts_with("hive:token-"), "{user}");
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
}

#[tokio::test]
async fn what_is_refused_is_recorded_although_it_only_looks() {
    let server = Server::start().await;
    let viewer = server.token(Role::View, None).await;
    let path = "/api/v1/namespaces/hive-system/secrets";
    let looks = server.request("GET", path).bearing(&viewer).send().await;
    assert_eq!(looks.status, 403);
    let events = server
        .recorded(|event| event["responseStatus"]["code"] == 403)
        .await;
    let decision = &events[0]["annotations"]["authorization.k8s.io/decision"];
    assert_eq!(decision, "forbid");
    assert_eq!(events[0]["verb"], "list");

    let stranger = server
        .request("GET", CONFIG_MAPS)
        .bearing("hivetok.nonsense");
    assert_eq!(stranger.send().await.status, 401);
    let events = server
        .recorded(|event| event["responseStatus"]["code"] == 401)
        .await;
    assert_eq!(events[0]["user"]["username"], "system:anonymous");
}

#[tokio::test]
async fn the_values_of_secrets_are_recorded_at_no_level() {
    let server = Server::start().await;
    let secret = json!({ "metadata": { "name": "s" }, "stringData": { "password": "swordfish" } });
    server.post(SECRETS, secret).await.ok();
    let of_secret = |event: &Value| {
        event["objectRef"]["resource"] == "secrets" && event["objectRef"]["namespace"] == "default"
    };
    let events = server.recorded(of_secret).await;
    assert_eq!(events[0]["level"], "Metadata");
    assert!(!events[0].to_string().contains("swordfish"));
}

#[tokio::test]
async fn who_asks_in_anothers_name_is_recorded_with_both() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/configmaps/none";
    server
        .request("DELETE", path)
        .header("impersonate-user", "jane")
        .header("impersonate-group", "system:masters")
        .send()
        .await
        .fails(404, "NotFound", "none");
    let events = server
        .recorded(|event| event["impersonatedUser"]["username"] == "jane")
        .await;
    let user = events[0]["user"]["username"].as_str().unwrap();
    assert!(user.starts_with("hive:token-"), "{user}");
}
