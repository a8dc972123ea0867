//! Versions that are tried before all copies run them, and versions that are rolled back, while they are asked.
#![allow(clippy::unwrap_used)]

use hive_e2e::load::{Load, Shape, summary};
use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests, web};
use serde_json::{Value, json};

/// Requests a second: a swap takes some of them in its middle.
const RATE: u32 = 50;

async fn apply(swarm: &Swarm, spec: Value) {
    let path = swarm.manifest("hello", &guests::hello(), spec);
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();
}

fn ordinary(greeting: &str) -> Value {
    let rollback = json!({ "errorRate": "100%" });
    json!({
        "replicas": 2,
        "env": [{ "name": "GREETING", "value": greeting }],
        "strategy": { "rollingUpdate": { "rollback": rollback } },
    })
}

/// What the function's status says, once it is that.
async fn told(swarm: &Swarm, path: &str, expected: &str) {
    told_of(swarm, "hello", path, expected).await;
}

async fn told_of(swarm: &Swarm, function: &str, path: &str, expected: &str) {
    let path = format!("jsonpath={{.status.{path}}}");
    until(expected, PATIENCE, async || {
        let told = swarm.ctl(&["get", "fn", function, "-o", &path]).await;
        holds(told.ok() == expected, told)
    })
    .await;
}

/// How one request with these headers is answered.
async fn greeted(address: &str, headers: &[(&str, &str)]) -> String {
    let answer = web::get_with(address, &host("hello"), "/", headers)
        .await
        .unwrap();
    let text = answer.text();
    let greeting = text.split(|c: char| !c.is_ascii_alphabetic()).next();
    greeting.unwrap().to_owned()
}

async fn all_say(swarm: &Swarm, greeting: &str) {
    let follow = ["rollout", "status", "fn/hello", "--timeout=180s"];
    swarm.ctl(&follow).await.ok();
    let address = swarm.controllers[0].ingress_address();
    for _ in 0..4 {
        assert_eq!(greeted(&address, &[]).await, greeting);
    }
}

async fn no_request_failed(load: Load) {
    let outcomes = load.stop().await;
    println!("{}", summary(&outcomes));
    let failed: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_tried_by_weight_and_by_header_before_all_copies_run_it() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    let spec = |greeting: &str| {
        let steps = json!([{ "setWeight": 20 }, { "pause": {} }]);
        let headers = json!([{ "name": "x-canary", "value": "always" }]);
        json!({
            "replicas": 2,
            "env": [{ "name": "GREETING", "value": greeting }],
            "strategy": { "type": "Canary", "canary": {
                "steps": steps, "match": { "headers": headers }, "rollback": { "window": "1s" },
            } },
        })
    };
    apply(&swarm, spec("One")).await;
    swarm.function_ready("hello").await;
    told(&swarm, "rollout.phase", "Complete").await;
    let address = swarm.controllers[0].ingress_address();
    let load = Load::start(std::slice::from_ref(&address), &host("hello"), RATE);

    apply(&swarm, spec("Two")).await;
    told(&swarm, "rollout.canary.step", "1").await;
    let asks = [("x-canary", "always")];
    until("the ingress tries the version", PATIENCE, async || {
        let said = greeted(&address, &asks).await;
        holds(said == "Two", said)
    })
    .await;
    let described = swarm.ctl(&["describe", "fn", "hello"]).await;
    let sentence =
        "revision 2 gets 20% of the requests, step 2: a pause until `hivectl rollout promote`";
    assert!(described.ok().contains(sentence), "{described}");
    no_request_failed(load).await;

    // Nobody else asks now.
    let mut tried = 0;
    for _ in 0..100 {
        tried += usize::from(greeted(&address, &[]).await == "Two");
        assert_eq!(greeted(&address, &asks).await, "Two");
    }
    assert_eq!(tried, 20);

    let load = Load::start(std::slice::from_ref(&address), &host("hello"), RATE);
    swarm.ctl(&["rollout", "promote", "fn/hello"]).await.ok();
    all_say(&swarm, "Two").await;
    told(&swarm, "rollout.phase", "Complete").await;
    until("the copy that tried it is gone", PATIENCE, async || {
        let listed = swarm.ctl(&["get", "assignments"]).await;
        holds(!listed.ok().contains("hello.c0"), listed)
    })
    .await;
    no_request_failed(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_never_becomes_ready_is_rolled_back() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    apply(&swarm, ordinary("One")).await;
    swarm.function_ready("hello").await;
    told(&swarm, "rollout.phase", "Complete").await;
    let address = swarm.controllers[0].ingress_address();
    let load = Load::start(std::slice::from_ref(&address), &host("hello"), RATE);

    // No node has as much.
    let mut too_large = ordinary("Two");
    too_large["progressDeadlineSeconds"] = json!(3);
    too_large["resources"] = json!({ "cpu": "900" });
    apply(&swarm, too_large).await;
    told(&swarm, "rollout.phase", "RolledBack").await;
    let status = swarm.ctl(&["rollout", "status", "fn/hello"]).await;
    let why = "revision 2 was rolled back to revision 1: no copy went over to revision 2 for 3 s";
    assert!(status.stdout.contains(why), "{status}");
    assert_ne!(status.code, 0);
    assert_eq!(greeted(&address, &[]).await, "One");

    // A version that refers to what is not there stops nothing, and comes when it is.
    let secret = |name: &str| json!({ "secretKeyRef": { "name": name, "key": "greeting" } });
    let mut later = ordinary("Three");
    later["env"] = json!([{ "name": "GREETING", "valueFrom": secret("later") }]);
    apply(&swarm, later).await;
    until("it is told what is missing", PATIENCE, async || {
        let described = swarm.ctl(&["describe", "fn", "hello"]).await;
        let why = "Not ready (MissingReference): spec.env[0].valueFrom: secret \"later\" does not exist; create it";
        holds(described.ok().contains(why), described)
    })
    .await;
    assert_eq!(greeted(&address, &[]).await, "One");
    let create = ["create", "secret", "generic", "later"];
    let create = [&create[..], &["--from-literal=greeting=Three"]].concat();
    swarm.ctl(&create).await.ok();
    all_say(&swarm, "Three").await;
    told(&swarm, "rollout.phase", "Complete").await;

    // A trial that does not start, for there is no such secret.
    let no_secret = json!({
        "replicas": 2, "progressDeadlineSeconds": 3,
        "env": [{ "name": "GREETING", "valueFrom": secret("none") }],
        "strategy": { "type": "Canary", "canary": { "steps": [{ "setWeight": 50 }] } },
    });
    apply(&swarm, no_secret).await;
    told(
        &swarm,
        "conditions[?(@.type==\"Progressing\")].message",
        "revision 4 was rolled back to revision 3: no copy went over to revision 4 for 3 s: \
         spec.env[0].valueFrom: secret \"none\" does not exist; create it, or mark the reference optional",
    )
    .await;

    // The next one starts from what runs.
    apply(&swarm, ordinary("Five")).await;
    all_say(&swarm, "Five").await;
    no_request_failed(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_while_it_is_tried_is_rolled_back() {
    let mut swarm = Swarm::builder().controllers(3).agents(2).start().await;
    let steps = json!([{ "setWeight": 20 }, { "pause": {} }]);
    let rollback = json!({ "minRequests": 10 });
    let strategy = json!({ "type": "Canary", "canary": { "steps": steps, "rollback": rollback } });
    let spec = json!({ "replicas": 2, "strategy": strategy });
    // It answers everywhere; the next one traps there.
    apply(&swarm, spec.clone()).await;
    swarm.function_ready("hello").await;
    told(&swarm, "rollout.phase", "Complete").await;
    let ingresses: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.ingress_address())
        .collect();
    let traps = Shape {
        path: "/trap",
        ..Shape::get()
    };
    let load = Load::of(traps, &ingresses, &host("hello"), RATE);

    let path = swarm.manifest("hello", &guests::probe(), spec);
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();
    told(&swarm, "rollout.phase", "RolledBack").await;
    let outcomes = load.stop().await;
    println!("{}", summary(&outcomes));
    assert!(outcomes.iter().any(|one| !one.is_good()));
    // Told after it was noted.
    until("there is an event", PATIENCE, async || {
        let events = swarm.ctl(&["events", "--for", "function/hello"]).await;
        let why = "revision 2 was rolled back to revision 1: ";
        let is_told = events.ok().contains(why) && events.ok().contains("requests failed in");
        holds(is_told, events)
    })
    .await;

    // The one before answers all there is, and goes on doing so.
    for address in &ingresses {
        until("nothing is tried any more", PATIENCE, async || {
            let mut failed = 0;
            for _ in 0..20 {
                let answer = web::get(address, &host("hello"), "/trap").await.unwrap();
                failed += usize::from(answer.status != 200);
            }
            holds(failed == 0, format!("{failed} failed"))
        })
        .await;
    }
}

/// Asks for what a version answers, and as often for what only another component refuses.
async fn half_and_half(swarm: &Swarm, function: &str) -> Load {
    let address = swarm.controllers[0].ingress_address();
    let shapes = ["/", "/status?code=500"].map(|path| Shape {
        path,
        ..Shape::get()
    });
    let load = Load::in_turn(shapes.into(), &[address], &host(function), RATE);
    // Much more than a verdict needs, and longer than ingresses take to tell.
    until("it was asked for a while", PATIENCE, async || {
        let answered = load.so_far().len();
        holds(answered >= 200, answered)
    })
    .await;
    load
}

async fn roll_out(swarm: &Swarm, function: &str, guest: &guests::Guest, window: &str) {
    let rollback = json!({ "minRequests": 20, "window": window });
    let spec = json!({
        "replicas": 1,
        "env": [{ "name": "WINDOW", "value": window }],
        "strategy": { "rollingUpdate": { "rollback": rollback } },
    });
    let path = swarm.manifest(function, guest, spec);
    let path = path.to_str().unwrap();
    swarm.ctl(&["apply", "-f", path]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_answers_worse_than_before_is_rolled_back() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    // It answers everything; the next one half of what it is asked for.
    roll_out(&swarm, "hello", &guests::hello(), "30s").await;
    swarm.function_ready("hello").await;
    told(&swarm, "rollout.phase", "Complete").await;
    let load = half_and_half(&swarm, "hello").await;
    roll_out(&swarm, "hello", &guests::probe(), "30s").await;
    told(&swarm, "rollout.phase", "RolledBack").await;
    let status = swarm.ctl(&["rollout", "status", "fn/hello"]).await;
    let why = "revision 2 was rolled back to revision 1: ";
    assert!(status.stdout.contains(why), "{status}");
    assert!(status.stdout.contains(" before"), "{status}");
    let address = swarm.controllers[0].ingress_address();
    until("the version before answers", PATIENCE, async || {
        let answer = web::get(&address, &host("hello"), "/status?code=500").await;
        let status = answer.unwrap().status;
        holds(status == 200, status)
    })
    .await;
    load.stop().await;

    // One that is as bad as the one before stays.
    roll_out(&swarm, "probe", &guests::probe(), "30s").await;
    swarm.function_ready("probe").await;
    let load = half_and_half(&swarm, "probe").await;
    let revision = async |swarm: &Swarm, field: &str| {
        let path = format!("jsonpath={{.status.{field}Revision}}");
        let told = swarm.ctl(&["get", "fn", "probe", "-o", &path]).await;
        told.ok().to_owned()
    };
    let first = revision(&swarm, "current").await;
    roll_out(&swarm, "probe", &guests::probe(), "5s").await;
    until("the version is proven", PATIENCE, async || {
        let current = revision(&swarm, "current").await;
        holds(current != first, current)
    })
    .await;
    told_of(&swarm, "probe", "rollout.phase", "Complete").await;
    let outcomes = load.stop().await;
    println!("{}", summary(&outcomes));
}
