//! Quotas and limits of a namespace, as whoever exceeds them hears of them.

use hive_controller::state::State;
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::artifacts::upload;
use crate::harness::{CONFIG_MAPS, FUNCTIONS, SECRETS, Server, all};

const COMPONENT: &[u8] = include_bytes!("../../../functions/tests/fixtures/rust-hello-p2.wasm");

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";

async fn quota(server: &Server, hard: Value) {
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
    server.post(QUOTAS, quota).await.ok();
}

#[tokio::test]
async fn of_many_at_once_only_as_many_as_fit_come_into_being() {
    let server = Server::start().await;
    quota(&server, json!({ "configmaps": "5" })).await;
    let answers = all((0..40).map(|n| {
        let body = json!({ "metadata": { "name": format!("c{n}") } });
        server.post(CONFIG_MAPS, body)
    }))
    .await;
    let (made, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (5, 35));
    refused[0].fails(
        403,
        "Forbidden",
        "is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5",
    );
    // Others are not counted, and a dry run hears the same.
    let secret = json!({ "metadata": { "name": "s" } });
    server.post(SECRETS, secret).await.ok();
    let another = json!({ "metadata": { "name": "another" } });
    server
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), another)
        .await
        .fails(403, "Forbidden", "exceeded quota: q");
}

#[tokio::test]
async fn a_quota_says_how_much_of_it_is_used() {
    let server = Server::start().await;
    server.tend();
    quota(
        &server,
        json!({ "configmaps": 5, "requests.memory": "1024Mi" }),
    )
    .await;
    server.config_map("c", json!({})).await;
    let says = |state: &State, used: &str| {
        let mut quotas = state.list(Resource::ResourceQuota, None);
        quotas.next().is_some_and(|quota| {
            quota.body()["status"]
                == json!({
                    "hard": { "configmaps": "5", "requests.memory": "1Gi" },
                    "used": { "configmaps": used, "requests.memory": "0" },
                })
        })
    };
    server.until(|state| says(state, "1")).await;
    server.delete(&format!("{CONFIG_MAPS}/c")).await.ok();
    server.until(|state| says(state, "0")).await;
}

#[tokio::test]
async fn what_cannot_be_limited_is_named() {
    let server = Server::start().await;
    let refused = async |path: &str, spec: Value, message: &str| {
        let body = json!({ "metadata": { "name": "x" }, "spec": spec });
        let answer = server.post(path, body).await;
        answer.fails(422, "Invalid", message);
    };
    refused(
        QUOTAS,
        json!({ "hard": { "pods": "1" } }),
        "\"pods\" cannot be limited; what can be is: requests.memory, requests.cpu, hive.dev/objects, count/serviceaccounts",
    )
    .await;
    refused(
        QUOTAS,
        json!({ "hard": { "memory": "lots" } }),
        "spec.hard.memory: \"lots\" is no amount",
    )
    .await;
    refused(
        QUOTAS,
        json!({ "scopes": ["BestEffort"] }),
        "spec.scopes: scopes are not supported",
    )
    .await;
    refused(
        LIMITS,
        json!({ "limits": [{ "type": "Container" }] }),
        "spec.limits[0].type: \"Container\" cannot be limited; write Function",
    )
    .await;
    let limits = json!({
        "type": "Function",
        "min": { "memory": "2Gi" }, "max": { "memory": "1Gi" },
        "default": { "cpu": "1" }, "defaultRequest": { "cpu": "500m" },
    });
    refused(
        LIMITS,
        json!({ "limits": [limits] }),
        "spec.limits[0].min.memory: min may not be more than max",
    )
    .await;
    let limits = json!({ "type": "Function", "max": { "storage": "1Gi" } });
    refused(
        LIMITS,
        json!({ "limits": [limits] }),
        "\"storage\" cannot be limited; memory and cpu can",
    )
    .await;
}

#[tokio::test]
async fn a_function_gets_what_its_namespace_gives_and_no_more() {
    let server = Server::start().await;
    let limits = json!({
        "type": "Function",
        "default": { "memory": "64Mi" },
        "max": { "memory": "256Mi" },
    });
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": [limits] } });
    server.post(LIMITS, range).await.ok();
    quota(&server, json!({ "requests.memory": "256Mi" })).await;
    let digest = upload(&server, COMPONENT).await;
    let function = json!({
        "metadata": { "name": "hello" },
        "spec": { "artifact": { "sha256": digest.hex() } },
    });
    let created = server.post(FUNCTIONS, function).await.ok();
    assert_eq!(created["spec"]["resources"]["memory"], "64Mi");
    let path = format!("{FUNCTIONS}/hello");
    let greedy = json!({ "spec": { "resources": { "memory": "512Mi" } } });
    server.merge(&path, greedy).await.fails(
        403,
        "Forbidden",
        "functions.hive.dev \"hello\" is forbidden: maximum memory usage per Function is 256Mi, but spec.resources.memory is 512Mi",
    );
    let scale = json!({ "spec": { "replicas": 5 } });
    server
        .merge(&format!("{path}/scale"), scale.clone())
        .await
        .fails(
            403,
            "Forbidden",
            "exceeded quota: q, requested: requests.memory=256Mi, used: requests.memory=64Mi, limited: requests.memory=256Mi",
        );
    server
        .merge(&format!("{path}/scale?dryRun=All"), scale)
        .await
        .fails(403, "Forbidden", "exceeded quota: q");
    let scale = json!({ "spec": { "replicas": 4 } });
    server.merge(&format!("{path}/scale"), scale).await.ok();
}
