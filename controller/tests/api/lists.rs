//! Lists: selection, pages, and the revision they are of.

use hive_controller::state::{Command, Key};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server, all};

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
    // A change between pages: watching from the revision of the list will tell of it.
    server.delete(&format!("{CONFIG_MAPS}/d")).await.ok();
    let next = |page: &Value| {
        let token = page["metadata"]["continue"].as_str().unwrap();
        format!("{CONFIG_MAPS}?limit=2&continue={token}")
    };
    let second = server.get(&next(&first)).await.ok();
    assert_eq!(names(&second), ["c", "e"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert!(second["metadata"].get("continue").is_none());
    server
        .get(&format!("{CONFIG_MAPS}?continue=nonsense"))
        .await
        .fails(400, "BadRequest", "continue key is not valid");
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

/// Commits more changes than any history keeps.
pub async fn forget_history(server: &Server) {
    let key = Key::new(Resource::ConfigMap, "hive-system", "noise");
    let body =
        |n: usize| json!({ "metadata": { "name": "noise", "labels": { "n": n.to_string() } } });
    server
        .propose(Command::Create {
            key: key.clone(),
            body: body(0),
        })
        .await;
    all((1..9000).map(|n| {
        server.propose(Command::Replace {
            key: key.clone(),
            body: body(n),
            expect: None,
        })
    }))
    .await;
}
