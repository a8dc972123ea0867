//! The controllers as a resource.

use hive_controller::access::tokens::Role;
use hive_controller::controllers;
use hive_controller::gateway::Presence;
use hive_controller::state::{Command, Member, level};

use hive_proto::v1::ControllerFacts;
use serde_json::json;

use crate::harness::Server;

const CONTROLLERS: &str = "/apis/hive.dev/v1/controllers";

#[tokio::test]
async fn controllers_are_listed_with_what_the_leader_sees_of_them() {
    let server = Server::start().await;
    let member = Member {
        link: "10.0.0.2:7443".into(),
        ..Member::default()
    };
    server.propose(Command::AdmitController { member }).await;
    let list = server.get(CONTROLLERS).await.ok();
    assert_eq!(list["kind"], "ControllerList");
    let [first, second] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{list}");
    };
    assert_eq!(first["metadata"]["name"], "1");
    assert_eq!(first["status"]["role"], "leader");
    assert_eq!(first["status"]["state"], "Ready");
    assert_eq!(first["status"]["lag"], 0);
    assert_eq!(first["status"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(second["spec"]["link"], "10.0.0.2:7443");
    // It never came.
    assert_eq!(second["status"]["role"], "admitted");
    assert_eq!(second["status"]["state"], "Unknown");
    let one = server.get(&format!("{CONTROLLERS}/2")).await.ok();
    assert_eq!(one["spec"], second["spec"]);
    server.get(&format!("{CONTROLLERS}/9")).await.fails(
        404,
        "NotFound",
        "controllers.hive.dev \"9\" not found",
    );

    let table = server
        .request("GET", CONTROLLERS)
        .header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
        .send()
        .await
        .ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][1], "leader");
    let resources = server.get("/apis/hive.dev/v1").await.ok();
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    assert!(names.contains(&"controllers"), "{names:?}");
}

#[tokio::test]
async fn controllers_are_watched() {
    let server = Server::start().await;
    let list = server.get(CONTROLLERS).await.ok();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    // The same while nothing that lasts has changed.
    server.config_map("a", json!({})).await;
    let again = server.get(CONTROLLERS).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], revision);

    let mut from_start = server.watch(&format!("{CONTROLLERS}?watch=1")).await;
    assert_eq!(from_start.next().await, "ADDED 1");
    let mut goes_on = server
        .watch(&format!("{CONTROLLERS}?watch=1&resourceVersion={revision}"))
        .await;
    let mut second = server
        .watch(&format!(
            "{CONTROLLERS}?watch=1&fieldSelector=metadata.name%3D2"
        ))
        .await;
    let mut tables = server
        .request("GET", &format!("{CONTROLLERS}?watch=1"))
        .header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
        .watch()
        .await;
    let table = tables.event().await.unwrap();
    assert_eq!(table["object"]["rows"][0]["cells"][0], "1");

    let member = Member::default();
    server.propose(Command::AdmitController { member }).await;
    for watch in [&mut from_start, &mut goes_on, &mut second] {
        assert_eq!(watch.next().await, "ADDED 2");
    }
    server.delete(&format!("{CONTROLLERS}/2")).await.ok();
    let mut gone = None;
    for watch in [&mut from_start, &mut goes_on, &mut second] {
        let event = watch.event().await.unwrap();
        assert_eq!(event["type"], "DELETED");
        gone = Some(event["object"]["metadata"]["resourceVersion"].clone());
    }
    // Where the last event left a client, it goes on; what is of before is gone.
    let gone = gone.unwrap();
    let current = server.get(CONTROLLERS).await.ok();
    assert_eq!(current["metadata"]["resourceVersion"], gone);
    let mut old = server
        .watch(&format!("{CONTROLLERS}?watch=1&resourceVersion=77"))
        .await;
    let event = old.event().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(old.next().await, "end");

    let options =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut streamed = server.watch(&format!("{CONTROLLERS}?{options}")).await;
    assert_eq!(streamed.next().await, "ADDED 1");
    let bookmark = streamed.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let metadata = &bookmark["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], gone);

    // A token that ends takes its watches along.
    let view = server.token(Role::View, None).await;
    let path = format!("{CONTROLLERS}?watch=1");
    let mut revoked = server.request("GET", &path).bearing(&view).watch().await;
    assert_eq!(revoked.next().await, "ADDED 1");
    let secrets = server
        .get("/api/v1/namespaces/hive-system/secrets")
        .await
        .ok();
    let [token] = secrets["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|secret| secret["data"]["role"] == "dmlldw==")
        .collect::<Vec<_>>()[..]
    else {
        panic!("{secrets}");
    };
    let name = token["metadata"]["name"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/hive-system/secrets/{name}");
    server.delete(&path).await.ok();
    let end = revoked.event().await.unwrap();
    assert_eq!(end["object"]["code"], 401, "{end}");
    assert_eq!(revoked.next().await, "end");
}

#[tokio::test]
async fn controllers_are_selected_by_name_and_described() {
    let server = Server::start().await;
    for (query, found) in [
        ("", 1),
        ("?fieldSelector=metadata.name%3D1", 1),
        ("?fieldSelector=metadata.name!%3D1", 0),
        ("?labelSelector=a", 0),
        ("?labelSelector=!a", 1),
        ("?limit=500", 1),
    ] {
        let list = server.get(&format!("{CONTROLLERS}{query}")).await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), found, "{query}");
    }
    server
        .get(&format!("{CONTROLLERS}?fieldSelector=spec.link%3Da"))
        .await
        .fails(400, "BadRequest", "field label not supported: spec.link");
    server
        .get(&format!(
            "{CONTROLLERS}?resourceVersion=77&resourceVersionMatch=Exact"
        ))
        .await
        .fails(410, "Expired", "too old");
    let document = server.get("/openapi/v3/apis/hive.dev/v1").await.ok();
    let schema = &document["components"]["schemas"]["dev.hive.v1.Controller"];
    // What is answered is what is described.
    let one = server.get(&format!("{CONTROLLERS}/1")).await.ok();
    for part in ["spec", "status"] {
        let described = schema["properties"][part]["properties"]
            .as_object()
            .unwrap();
        for field in one[part].as_object().unwrap().keys() {
            assert!(described.contains_key(field), "{part}.{field}");
        }
    }
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/apis/hive.dev/v1/controllers/{name}"));
}

#[tokio::test]
async fn the_last_controller_stays_and_only_administrators_remove_any() {
    let server = Server::start().await;
    let path = format!("{CONTROLLERS}/1");
    for path in [path.clone(), format!("{path}?force=true")] {
        server
            .delete(&path)
            .await
            .fails(403, "Forbidden", "controller 1 is the last one");
    }
    let edit = server.token(Role::Edit, None).await;
    server
        .request("DELETE", &path)
        .bearing(&edit)
        .send()
        .await
        .fails(403, "Forbidden", "cannot delete resource \"controllers\"");
    let member = Member::default();
    server.propose(Command::AdmitController { member }).await;
    server.delete(&format!("{CONTROLLERS}/2")).await.ok();
    let left = server.get(CONTROLLERS).await.ok();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    server
        .delete(&format!("{CONTROLLERS}/2"))
        .await
        .fails(404, "NotFound", "not found");
}

#[tokio::test]
async fn a_backup_is_whole_and_for_administrators_only() {
    let server = Server::start().await;
    server.config_map("kept", serde_json::json!({})).await;
    for role in [Role::Edit, Role::View] {
        let token = server.token(role, None).await;
        server
            .request("POST", "/apis/hive.dev/v1/backups")
            .bearing(&token)
            .send()
            .await
            .fails(403, "Forbidden", "cannot create resource \"backups\"");
    }
    let answer = server
        .request("POST", "/apis/hive.dev/v1/backups?artifacts=true")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let content =
        hive_controller::backup::read(&answer.body[..], None, |_, _| panic!("no artifacts"))
            .unwrap();
    let state = server.replica.state();
    assert_eq!(content.header.revision, state.revision());
    assert_eq!(content.header.objects, state.object_count() as u64);
    let image = |state: &hive_controller::state::State| state.image();
    assert!(image(&content.state) == image(&state));
    assert!(content.identity.ca_key.contains("PRIVATE KEY"));
}

/// A rolling update: the swarm speaks as its oldest member does, until that is replaced.
#[tokio::test]
async fn newer_commands_wait_for_the_oldest_member() {
    let server = Server::start().await;
    let replica = &server.replica;
    let member = Member::default();
    server.propose(Command::AdmitController { member }).await;
    let presence = Presence::default();
    let raised = async |presence: &Presence| {
        controllers::raise_level(replica, &replica.state(), presence).await;
        replica.state().level()
    };
    assert_eq!(raised(&presence).await, level::FIRST, "it was not heard of");
    // What a report of the first release says: nothing.
    presence.introduced(2, ControllerFacts::default());
    assert_eq!(raised(&presence).await, level::FIRST);
    let updated = ControllerFacts {
        level: level::OWN,
        ..ControllerFacts::default()
    };
    presence.introduced(2, updated);
    assert_eq!(raised(&presence).await, level::OWN);
    // Never lowered again.
    presence.introduced(2, ControllerFacts::default());
    assert_eq!(raised(&presence).await, level::OWN);

    // From here on the same device is the same controller, however often it asks.
    let admit = |key: &str| Command::AdmitDevice {
        key: key.into(),
        member: Member::default(),
    };
    let first = replica.propose(admit("a")).await.unwrap();
    assert_eq!(replica.propose(admit("a")).await.unwrap(), first);
    assert_ne!(replica.propose(admit("b")).await.unwrap(), first);
}
