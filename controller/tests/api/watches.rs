//! Watches, as transcripts of what a client sees.

use hive_controller::access::tokens::Role;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server};
use crate::lists::forget_history;

async fn revision(server: &Server) -> String {
    server.get(CONFIG_MAPS).await.ok()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn changes_arrive_in_order() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}"))
        .await;
    server.config_map("a", json!({})).await;
    server
        .merge(&format!("{CONFIG_MAPS}/a"), json!({ "data": { "k": "v" } }))
        .await
        .ok();
    // Of another kind: not seen here.
    server
        .post("/api/v1/namespaces", json!({ "metadata": { "name": "n" } }))
        .await
        .ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let mut seen: Vec<u64> = Vec::new();
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        let event = watch.event().await.unwrap();
        assert_eq!(event["type"], expected);
        assert_eq!(event["object"]["kind"], "ConfigMap");
        let revision = event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap();
        seen.push(revision.parse().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[tokio::test]
async fn a_watch_from_a_past_revision_replays() {
    let server = Server::start().await;
    let from = revision(&server).await;
    server.config_map("a", json!({})).await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}"))
        .await;
    assert_eq!(watch.next().await, "ADDED a");
    assert_eq!(watch.next().await, "DELETED a");
}

#[tokio::test]
async fn without_a_revision_what_there_is_comes_first() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    for suffix in ["", "&resourceVersion=0"] {
        let mut watch = server
            .watch(&format!("{CONFIG_MAPS}?watch=1{suffix}"))
            .await;
        assert_eq!(watch.next().await, "ADDED a");
        assert_eq!(watch.next().await, "ADDED b");
        server
            .merge(
                &format!("{CONFIG_MAPS}/b"),
                json!({ "data": { "k": suffix } }),
            )
            .await
            .ok();
        assert_eq!(watch.next().await, "MODIFIED b");
    }
}

#[tokio::test]
async fn an_initial_list_can_be_streamed_and_marked() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let options =
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&{options}"))
        .await;
    assert_eq!(watch.next().await, "ADDED a");
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    server
        .get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true"))
        .await
        .fails(400, "BadRequest", "resourceVersionMatch=NotOlderThan");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={from}&labelSelector=app%3Dx"
        ))
        .await;
    server.config_map("a", json!({ "app": "y" })).await;
    let label = async |value: &str| {
        let patch = json!({ "metadata": { "labels": { "app": value } } });
        server.merge(&format!("{CONFIG_MAPS}/a"), patch).await.ok()
    };
    label("x").await;
    assert_eq!(watch.next().await, "ADDED a");
    let left = label("z").await;
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x");
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"],
        left["metadata"]["resourceVersion"]
    );
    label("x").await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(watch.next().await, "ADDED a");
    assert_eq!(watch.next().await, "DELETED a");
}

#[tokio::test]
async fn one_object_can_be_watched_by_name() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}/b?watch=1")).await;
    assert_eq!(watch.next().await, "ADDED b");
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!(watch.next().await, "DELETED b");
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=1");
    assert_eq!(server.watch(&path).await.next().await, "end");
    let mut watch = server
        .watch(&format!("{path}&allowWatchBookmarks=true"))
        .await;
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    let at: u64 = bookmark["object"]["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(at >= from.parse().unwrap());
    assert_eq!(watch.next().await, "end");
}

#[tokio::test]
async fn a_last_bookmark_claims_no_more_than_was_sent() {
    let server = Server::start().await;
    let from = revision(&server).await;
    server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}");
    let ending = |seconds: u32| format!("{path}&allowWatchBookmarks=true&timeoutSeconds={seconds}");
    let mut watch = server.watch(&ending(4)).await;
    assert_eq!(watch.next().await, "ADDED a");
    // From here on its client reads nothing until its time is over.
    let mut other = server.watch(&path).await;
    assert_eq!(other.next().await, "ADDED a");
    let made = server.config_map("b", json!({})).await;
    assert_eq!(other.next().await, "ADDED b");
    // Begun later, for longer: when this ends, so does the other.
    let mut clock = server.watch(&ending(5)).await;
    while clock.event().await.is_some() {}
    let revision = |object: &Value| -> u64 {
        let text = object["metadata"]["resourceVersion"].as_str();
        text.unwrap().parse().unwrap()
    };
    let mut known = 0;
    while let Some(event) = watch.event().await {
        assert_eq!(event["type"], "BOOKMARK", "its time is over");
        known = revision(&event["object"]);
    }
    assert!(known < revision(&made), "{known}: it was not told of b");
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={known}");
    assert_eq!(server.watch(&path).await.next().await, "ADDED b");
}

#[tokio::test]
async fn a_stopping_controller_ends_watches() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.stop.cancel();
    assert_eq!(watch.next().await, "end");
}

#[tokio::test]
async fn a_revision_out_of_reach_is_gone() {
    let server = Server::start().await;
    let from = revision(&server).await;
    forget_history(&server).await;
    for revision in [from.as_str(), "99999999"] {
        let mut watch = server
            .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}"))
            .await;
        let event: Value = watch.event().await.unwrap();
        assert_eq!(event["type"], "ERROR");
        assert_eq!(event["object"]["kind"], "Status");
        assert_eq!(event["object"]["code"], 410);
        assert_eq!(event["object"]["reason"], "Expired");
        assert_eq!(watch.next().await, "end");
    }
}

#[tokio::test]
async fn a_revoked_token_ends_its_watches() {
    let server = Server::start().await;
    let token = server.token(Role::View, None).await;
    let mut watch = server
        .request("GET", &format!("{CONFIG_MAPS}?watch=1"))
        .bearing(&token)
        .watch()
        .await;
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
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 401);
    assert_eq!(watch.next().await, "end");
}

#[tokio::test]
async fn many_watchers_of_the_same_see_the_same() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut watchers = Vec::new();
    for options in [
        "",
        "",
        "&labelSelector=app%3Dx",
        "&fieldSelector=metadata.name%3Da",
    ] {
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}{options}");
        watchers.push(server.watch(&path).await);
    }
    let everywhere = format!("/api/v1/configmaps?watch=1&resourceVersion={from}");
    let table = server
        .request("GET", &everywhere)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .watch()
        .await;
    watchers.push(table);
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        server.config_map(name, json!({ "app": app })).await;
    }
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    for (index, watcher) in watchers.iter_mut().enumerate() {
        let expected: &[&str] = match index {
            0 | 1 => &["ADDED a", "ADDED b", "ADDED c", "DELETED a"],
            2 => &["ADDED a", "ADDED b", "DELETED a"],
            3 => &["ADDED a", "DELETED a"],
            _ => &["ADDED -", "ADDED -", "ADDED -", "DELETED -"],
        };
        let mut seen = Vec::new();
        for _ in expected {
            seen.push(watcher.next().await);
        }
        assert_eq!(seen, expected, "watcher {index}");
    }
}

#[tokio::test]
async fn a_quiet_watch_outlives_what_is_forgotten() {
    let server = Server::start().await;
    let from = revision(&server).await;
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}"))
        .await;
    // Reads nothing of it, as nothing of it concerns the client, and yet does not fall behind.
    let quiet = tokio::spawn(async move { watch.next().await });
    forget_history(&server).await;
    server.config_map("a", json!({})).await;
    assert_eq!(quiet.await.unwrap(), "ADDED a");
}
