//! Lists: selection, pages, and the revision they are of.

use hive_controller::state::{Command, Key};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server};

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn selectors_choose() {
    let server = Server::start().await;
    server
        .post(
            "/api/v1/namespaces",
            json!({ "metadata": { "name": "other" } }),
        )
        .await
        .ok();
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.config_map(name, json!({ "app": app })).await;
    }
    server
        .post(
            "/api/v1/namespaces/other/configmaps",
            json!({ "metadata": { "name": "o" } }),
        )
        .await
        .ok();
    for (path, expected) in [
        (CONFIG_MAPS.to_owned(), vec!["a", "b", "c"]),
        ("/api/v1/configmaps".to_owned(), vec!["a", "b", "c", "o"]),
        (
            format!("{CONFIG_MAPS}?labelSelector=app%3Dx"),
            vec!["a", "c"],
        ),
        (
            format!("{CONFIG_MAPS}?labelSelector=app+notin+(x)"),
            vec!["b"],
        ),
        (
            format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Db"),
            vec!["b"],
        ),
        (
            "/api/v1/configmaps?fieldSelector=metadata.namespace!%3Ddefault".to_owned(),
            vec!["o"],
        ),
    ] {
        let list = server.get(&path).await.ok();
        assert_eq!(names(&list), expected, "{path}");
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["apiVersion"], "v1");
    }
    server
        .get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db"))
        .await
        .fails(400, "BadRequest", "field label not supported: data.a");
    server
        .get(&format!("{CONFIG_MAPS}?labelSelector=a+like+b"))
        .await
        .fails(400, "BadRequest", "labelSelector");
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let server = Server::start().await;
    let list = server.get("/apis/hive.dev/v1/functions").await.ok();
    assert_eq!(list["kind"], "FunctionList");
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn pages_follow_each_other_and_name_one_revision() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.config_map(name, json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // Changes between pages: watching from the revision of the list will tell of them.
    server.delete(&format!("{CONFIG_MAPS}/d")).await.ok();
    server.config_map("d2", json!({})).await;
    server
        .merge(&format!("{CONFIG_MAPS}/e"), json!({ "data": { "k": "v" } }))
        .await
        .ok();
    let next = |page: &Value| {
        let token = page["metadata"]["continue"].as_str().unwrap();
        format!("{CONFIG_MAPS}?limit=2&continue={token}")
    };
    let second = server.get(&next(&first)).await.ok();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 1);
    let third = server.get(&next(&second)).await.ok();
    assert_eq!(names(&third), ["e"]);
    assert_eq!(third["items"][0].get("data"), None, "as it was then");
    for page in [&second, &third] {
        assert_eq!(
            page["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
    }
    assert!(third["metadata"].get("continue").is_none());
    server
        .get(&format!("{CONFIG_MAPS}?continue=nonsense"))
        .await
        .fails(400, "BadRequest", "continue key is not valid");
}

#[tokio::test]
async fn a_list_can_be_of_any_revision_that_is_remembered() {
    let server = Server::start().await;
    let mut revisions = Vec::new();
    for name in ["a", "b"] {
        let made = server.config_map(name, json!({})).await;
        revisions.push(made["metadata"]["resourceVersion"].clone());
    }
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let anew = server.config_map("a", json!({ "app": "anew" })).await;
    revisions.push(anew["metadata"]["resourceVersion"].clone());
    let exact = async |revision: &Value, more: &str| {
        let revision = revision.as_str().unwrap();
        let path =
            format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact{more}");
        server.get(&path).await
    };
    for (revision, expected) in revisions
        .iter()
        .zip([vec!["a"], vec!["a", "b"], vec!["a", "b"]])
    {
        let list = exact(revision, "").await.ok();
        assert_eq!(names(&list), expected);
        assert_eq!(list["metadata"]["resourceVersion"], *revision);
    }
    assert_eq!(names(&exact(&revisions[1], "&limit=1").await.ok()), ["a"]);
    assert_eq!(
        names(&exact(&revisions[1], "&labelSelector=app").await.ok()),
        [] as [&str; 0]
    );
    exact(&json!("999999"), "")
        .await
        .fails(504, "Timeout", "Too large resource version: 999999");
    forget_history(&server).await;
    exact(&revisions[0], "").await.fails(
        410,
        "Expired",
        "resourceVersion for the provided list is too old",
    );
    server
        .get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact"))
        .await
        .fails(
            400,
            "BadRequest",
            "forbidden unless resourceVersion is provided",
        );
}

#[tokio::test]
async fn a_page_whose_revision_is_forgotten_offers_to_go_on_regardless() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    forget_history(&server).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = server
        .get(&format!("{CONFIG_MAPS}?limit=1&continue={token}"))
        .await
        .fails(410, "Expired", "too old to display a consistent list");
    let restart = expired["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{CONFIG_MAPS}?limit=1&continue={restart}"))
        .await
        .ok();
    assert_eq!(names(&rest), ["b"]);
}

/// Commits larger changes than any history keeps: one after the other, since a busy machine may not get all of them
/// done in the time that each has.
pub async fn forget_history(server: &Server) {
    let large = "x".repeat(1_000_000);
    for n in 0..75 {
        let key = Key::new(Resource::ConfigMap, "hive-system", "noise");
        let data = json!({ "n": n.to_string(), "large": large });
        let body = json!({ "metadata": { "name": "noise" }, "data": data }).into();
        let command = match n {
            0 => Command::Create { key, body },
            _ => Command::Replace {
                key,
                body,
                expect: None,
            },
        };
        server.propose(command).await;
    }
}

/// As Kubernetes has it: what follows is counted only where every object of the range is in the list.
#[tokio::test]
async fn what_remains_is_counted_where_nothing_is_selected() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        server.config_map(name, json!({ "app": "x" })).await;
    }
    for (query, found, is_more, remaining) in [
        ("limit=3", 3, true, json!(1)),
        ("limit=4", 4, false, Value::Null),
        ("limit=0", 4, false, Value::Null),
        ("limit=1&labelSelector=app%3Dx", 1, true, Value::Null),
        ("limit=1&labelSelector=app%3Dy", 0, false, Value::Null),
        (
            "limit=1&fieldSelector=metadata.name%3Db",
            1,
            false,
            Value::Null,
        ),
        (
            "limit=2&fieldSelector=metadata.name!%3Db",
            2,
            true,
            Value::Null,
        ),
    ] {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        assert_eq!(names(&list).len(), found, "{query}");
        assert_eq!(list["metadata"]["continue"].is_string(), is_more, "{query}");
        assert_eq!(list["metadata"]["remainingItemCount"], remaining, "{query}");
    }
}

/// The options of a list are those of a deletion of many.
#[tokio::test]
async fn a_page_can_be_deleted() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        server.config_map(name, json!({})).await;
    }
    let deleted = server.delete(&format!("{CONFIG_MAPS}?limit=3")).await.ok();
    assert_eq!(names(&deleted), ["a", "b", "c"]);
    assert_eq!(deleted["metadata"]["remainingItemCount"], 1);
    server
        .delete(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact"))
        .await
        .fails(
            400,
            "BadRequest",
            "resourceVersionMatch is forbidden unless",
        );
    let left = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(names(&left), ["d"]);
}
