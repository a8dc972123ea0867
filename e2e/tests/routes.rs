//! Functions that answer at several hosts, paths and methods, at the ingress as on their node; and which of
//! them where several would.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hive_e2e::swarm::{condition, function_path, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::{self, Connection};
use hive_e2e::{Steps, Swarm, guests};
use http::Method;
use serde_json::{Value, json};

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

/// What both shops claim besides a route of their own.
const HOST: &str = "pay.example";

fn shop(greeting: &str) -> Value {
    json!({
        "env": [{ "name": "GREETING", "value": greeting }],
        "http": { "routes": [{ "path": "/" }, { "host": HOST, "path": "/pay" }] },
    })
}

/// At every ingress and on the node, what both claim is answered by whoever says `greeting`.
async fn answers_for_both(swarm: &Swarm, greeting: &str) {
    let ingresses = swarm.controllers.iter().map(|it| it.ingress_address());
    let agents = swarm.agents.iter().map(|it| it.address());
    for address in ingresses.chain(agents) {
        until(
            &format!("{greeting} answers at {address}"),
            PATIENCE,
            async || {
                let answer = web::get(&address, HOST, "/pay").await;
                let answer = answer.map_err(|error| error.to_string())?;
                holds(answer.text().starts_with(greeting), answer.text())
            },
        )
        .await;
    }
}

/// Waits until the condition of the routes of a function is this.
async fn routes_are(swarm: &mut Swarm, name: &str, status: &str, reason: &str, message: &str) {
    let client = swarm.client().await;
    until(&format!("{name} says {reason}"), PATIENCE, async || {
        let function = object(&client, &function_path(name)).await?;
        let conditions = function["status"]["conditions"].as_array().cloned();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|it| it["type"] == "RoutesAccepted");
        let found = found.unwrap_or_default();
        let is_so = found["status"] == status && found["reason"] == reason;
        holds(is_so && found["message"] == message, &function["status"])?;
        // It has another route, where it serves.
        holds(condition(&function, "Ready") == "True", &function["status"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_functions_that_claim_one_route_the_oldest_has_it() {
    let mut swarm = Swarm::builder().agents(1).start().await;
    // In the order of their names the other would be first.
    swarm
        .deploy("old-shop", &guests::hello(), shop("Old"))
        .await;
    answers_for_both(&swarm, "Old").await;
    let manifest = swarm.manifest("new-shop", &guests::hello(), shop("New"));
    let manifest = manifest.display().to_string();
    // Of those made within the same second the name decides.
    until("what is made now is younger", PATIENCE, async || {
        let path = "jsonpath={.metadata.creationTimestamp}";
        let made = swarm.ctl(&["get", "fn", "old-shop", "-o", path]).await;
        let now = ["apply", "-f", &manifest, "--dry-run=server", "-o", path];
        let now = swarm.ctl(&now).await;
        holds(now.ok() > made.ok(), now)
    })
    .await;
    swarm
        .deploy("new-shop", &guests::hello(), shop("New"))
        .await;
    let mut steps = Steps::new();

    let why = "pay.example/pay is answered by function default/old-shop, which is older: choose another host or path";
    steps
        .run(
            "the younger one says which route it has not, and why",
            async {
                routes_are(&mut swarm, "new-shop", "False", "RouteConflict", why).await;
                let events = ["events", "--for", "function/new-shop"];
                until("there is an event", PATIENCE, async || {
                    let told = swarm.ctl(&events).await;
                    let mut told_lines = told.ok().lines();
                    let is_it = |line: &str| line.contains("RouteConflict") && line.contains(why);
                    holds(told_lines.any(is_it), told)
                })
                .await;
                let older = swarm.ctl(&["describe", "fn/old-shop"]).await;
                assert!(!older.ok().contains("RoutesAccepted"), "{older}");
            },
        )
        .await;
    steps
        .run("it serves where it is alone", async {
            answers_for_both(&swarm, "Old").await;
            let own = swarm.invoke("new-shop", "/").await;
            assert!(own.text().starts_with("New"), "{}", own.text());
        })
        .await;
    steps
        .run("it has the route when the older one is gone", async {
            swarm.ctl(&["delete", "fn/old-shop"]).await.ok();
            answers_for_both(&swarm, "New").await;
            let own = "all its routes are its own";
            routes_are(&mut swarm, "new-shop", "True", "Accepted", own).await;
        })
        .await;
    steps
        .run("who comes back is the youngest", async {
            swarm
                .deploy("old-shop", &guests::hello(), shop("Old"))
                .await;
            let why = "pay.example/pay is answered by function default/new-shop, which is older: choose another host or path";
            routes_are(&mut swarm, "old-shop", "False", "RouteConflict", why).await;
            answers_for_both(&swarm, "New").await;
        })
        .await;
    steps.finish();
}
