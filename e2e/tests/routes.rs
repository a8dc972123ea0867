//! A function that answers at several hosts, paths and methods, at the ingress as on its node.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hive_e2e::web::Connection;
use hive_e2e::{Steps, Swarm, guests};
use http::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_answers_at_each_of_its_routes() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let spec = json!({ "http": { "routes": [
        { "methods": ["GET"] },
        { "host": "pay.example", "path": "/pay", "pathType": "Exact" },
        { "host": "pay.example", "methods": ["POST", "PUT"] },
    ] } });
    swarm.deploy("shop", &guests::rust_p2(), spec).await;
    let (ingress, agent) = (
        swarm.controllers[0].ingress_address(),
        swarm.agents[0].address(),
    );
    let mut steps = Steps::new();
    for (place, address) in [("the ingress", ingress), ("the agent", agent)] {
        steps
            .run(place, async {
                let mut connection = Connection::open(&address).await.unwrap();
                for (method, host, path, status, allowed) in [
                    (Method::GET, "shop.default.localhost", "/x", 200, ""),
                    (Method::POST, "shop.default.localhost", "/x", 405, "GET"),
                    (Method::DELETE, "pay.example", "/pay", 200, ""),
                    (Method::POST, "pay.example", "/pay/1", 200, ""),
                    (Method::GET, "pay.example", "/pay/1", 405, "POST, PUT"),
                    (Method::GET, "other.example", "/", 404, ""),
                ] {
                    let what = format!("{method} {host}{path}");
                    let sent = connection.send(method, host, path, Bytes::new()).await;
                    let answer = sent.unwrap();
                    assert_eq!(answer.status, status, "{what}: {}", answer.text());
                    assert_eq!(answer.header("allow"), allowed, "{what}");
                }
            })
            .await;
    }
    steps.finish();
}
