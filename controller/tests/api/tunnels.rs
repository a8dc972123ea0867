//! Tunnels as objects: written out, checked, and none before all controllers know them.

use hive_controller::access::tokens::Role;
use hive_controller::state::{Command, level};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{Answer, Server};

const TUNNELS: &str = "/apis/hive.dev/v1/namespaces/default/tunnels";

fn tunnel() -> Value {
    json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": { "name": "photos" },
        "spec": { "targets": [{ "node": "pi", "port": 3000 }] },
    })
}

async fn declare(server: &Server) -> Answer {
    server
        .request("PATCH", &format!("{TUNNELS}/photos?fieldManager=ann"))
        .header("content-type", "application/apply-patch+yaml")
        .body(tunnel().to_string())
        .send()
        .await
}

#[tokio::test]
async fn there_are_none_before_all_controllers_know_them() {
    let server = Server::start().await;
    let to = level::TUNNELS - 1;
    server.propose(Command::RaiseLevel { to }).await;
    let message = "tunnels are stored once all controllers run a version that knows of them";
    let posted = server.post(TUNNELS, tunnel()).await;
    posted.fails(503, "ServiceUnavailable", message);
    let declared = declare(&server).await;
    declared.fails(503, "ServiceUnavailable", message);
    assert!(
        server
            .stored(Resource::Tunnel, "default", "photos")
            .is_none()
    );
    let to = level::TUNNELS;
    server.propose(Command::RaiseLevel { to }).await;
    assert_eq!(declare(&server).await.status, 201);
}

#[tokio::test]
async fn the_domain_of_the_swarm_is_for_who_may_set_it() {
    let server = Server::agreed().await;
    let edit = server.token(Role::Edit, None).await;
    let at = |name: &str, host: &str| {
        let mut tunnel = tunnel();
        tunnel["metadata"]["name"] = json!(name);
        tunnel["spec"]["http"] = json!({ "host": host });
        tunnel
    };
    let call = |method: &str, path: &str, body: &Value| {
        let call = server.request(method, path).bearing(&edit);
        call.json(body).send()
    };
    let why = "spec.http: Forbidden: host localhost is the swarm's own domain: choose another host";
    let made = call("POST", TUNNELS, &at("photos", "photos.localhost")).await;
    let mut made = made.ok();
    let refused = call("POST", TUNNELS, &at("site", "localhost")).await;
    refused.fails(422, "Invalid", why);
    made["spec"]["http"]["host"] = json!("localhost");
    let photos = format!("{TUNNELS}/photos");
    let refused = call("PUT", &photos, &made).await;
    refused.fails(422, "Invalid", why);
    server.post(TUNNELS, at("site", "localhost")).await.ok();
}

#[tokio::test]
async fn a_tunnel_is_stored_as_it_will_be_carried() {
    let server = Server::agreed().await;
    let made = server.post(TUNNELS, tunnel()).await.ok();
    let spec = &made["spec"];
    assert_eq!(
        (&spec["protocol"], &spec["http"]["path"]),
        (&json!("HTTP"), &json!("/"))
    );
    assert_eq!(spec["targets"][0]["host"], "127.0.0.1");
    assert_eq!(made["metadata"]["generation"], 1);
    // What the leader says of it is no change of what people want.
    let status = json!({ "status": { "addresses": ["http://photos.default.localhost"] } });
    let path = format!("{TUNNELS}/photos");
    let told = server.merge(&format!("{path}/status"), status).await.ok();
    assert_eq!(told["metadata"]["generation"], 1);
    assert_eq!(
        told["status"]["addresses"][0],
        "http://photos.default.localhost"
    );
    server
        .merge(&path, json!({ "spec": { "port": 22 } }))
        .await
        .fails(422, "Invalid", "spec.port");
    let tcp = json!({ "spec": { "protocol": "TCP", "port": 2222 } });
    let changed = server.merge(&path, tcp).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"], told["status"]);
}

#[tokio::test]
async fn editors_make_tunnels_and_viewers_look_at_them() {
    let server = Server::agreed().await;
    let (view, edit) = (
        server.token(Role::View, None).await,
        server.token(Role::Edit, None).await,
    );
    let make = |token: &str| {
        server
            .request("POST", TUNNELS)
            .bearing(token)
            .json(&tunnel())
            .send()
    };
    make(&view)
        .await
        .fails(403, "Forbidden", "cannot create resource");
    make(&edit).await.ok();
    let list = server
        .request("GET", TUNNELS)
        .bearing(&view)
        .send()
        .await
        .ok();
    assert_eq!(list["items"][0]["metadata"]["name"], "photos");
}
