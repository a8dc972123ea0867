//! What the host offers functions besides WASI, from a manifest to what a caller sees.
#![allow(clippy::unwrap_used)]

use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use hive_proto::batch::{self, BatchError, BatchOutcome, Record};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_uses_what_its_manifest_gives_it() {
    let mut swarm = Swarm::builder().agents(1).start().await;
    let mut steps = Steps::new();

    secret(&swarm, "one").await;
    let spec = json!({
        "keyValue": {},
        "env": [{ "name": "ONLY_ENVIRONMENT", "value": "1" }],
        "config": [
            { "name": "greeting", "value": "hello" },
            { "name": "token", "valueFrom": { "secretKeyRef": { "name": "api", "key": "token" } } },
        ],
    });
    swarm.deploy("services", &guests::services(), spec).await;

    steps
        .run("settings are read, and the environment is none", async {
            for path in ["/configs", "/configs/draft"] {
                let all = swarm.invoke("services", path).await;
                assert_eq!(all.text(), "greeting=hello\ntoken=one\n");
            }
            let variable = swarm.invoke("services", "/variable?name=token").await;
            assert_eq!(variable.text(), "one\n");
        })
        .await;
    steps
        .run("a changed secret arrives", async {
            secret(&swarm, "two").await;
            until("the new value is read", PATIENCE, async || {
                let token = swarm.invoke("services", "/config?name=token").await;
                assert_eq!(token.status, 200, "{}", token.text());
                holds(token.text() == "two\n", token.text())
            })
            .await;
        })
        .await;
    steps
        .run("what it says with a level is in its log", async {
            let said = swarm
                .invoke("services", "/log/bare?context=db&message=connected")
                .await;
            assert_eq!(said.text(), "said\n");
            until("the log has the line", PATIENCE, async || {
                let logs = swarm.ctl(&["logs", "function/services"]).await;
                let found = logs.ok().lines().any(|line| line == "info db: connected");
                holds(found, &logs.stdout)
            })
            .await;
        })
        .await;
    steps
        .run("what it keeps survives the agent's end", async {
            for (path, expected) in [
                ("/kv/draft/increment?key=visits", "1\n"),
                ("/kv/draft2/increment?key=visits", "2\n"),
                (
                    "/kv/draft2/get?key=a&bucket=other",
                    "refused Error::NoSuchStore\n",
                ),
            ] {
                assert_eq!(swarm.invoke("services", path).await.text(), expected);
            }
            swarm.agents[0].member.kill9().await;
            swarm.agents[0].member.start();
            until("the count goes on", PATIENCE, async || {
                let visits = swarm.invoke("services", "/kv/draft/get?key=visits").await;
                holds(visits.text() == "2\n", visits.text())
            })
            .await;
        })
        .await;
    steps
        .run("another function begins with nothing", async {
            let spec = json!({ "keyValue": {} });
            swarm.deploy("others", &guests::services(), spec).await;
            let visits = swarm.invoke("others", "/kv/draft/get?key=visits").await;
            assert_eq!(visits.text(), "nothing\n");
        })
        .await;
    steps
        .run("its quota holds", async {
            let spec = json!({ "keyValue": { "sizeLimit": "1Mi" } });
            swarm.deploy("small", &guests::services(), spec).await;
            let large = swarm
                .invoke("small", "/kv/draft/set?key=a&bytes=600000")
                .await;
            assert_eq!(large.text(), "done\n");
            let more = swarm
                .invoke("small", "/kv/draft/set?key=b&bytes=600000")
                .await;
            assert!(
                more.text().contains("spec.keyValue.sizeLimit"),
                "{}",
                more.text()
            );
        })
        .await;
    steps
        .run(
            "a batch goes through any controller to the function",
            async {
                swarm.deploy("taker", &guests::probe(), json!({})).await;
                let few = ["a", "b", "c"].map(|id| record(id, 0));
                let ids = 0..batch::MAX_RECORDS;
                // Their ids are as long as may be, and come back.
                let most: Vec<_> = ids.map(|n| record(&format!("{n:0256}"), 500)).collect();
                let taken = |again: usize| BatchOutcome::Taken {
                    again: (0..again).collect(),
                };
                let failed = |why: &str| BatchOutcome::Failed(why.to_owned());
                let everything = format!("/batch?fail={}", most.len());
                for (records, path, expected) in [
                    (&few[..], "/batch", taken(0)),
                    (&few[..], "/batch?fail=2", taken(2)),
                    (&most[..], "/batch", taken(0)),
                    (&most[..], &*everything, taken(most.len())),
                    (
                        &few[..],
                        "/status?code=500",
                        failed("answered 500 Internal Server Error"),
                    ),
                    (&few[..], "/trap", failed("answered 502 Bad Gateway")),
                    // It took them, and the answer is its own to make.
                    (&few[..], "/", taken(0)),
                ] {
                    let body = batch::encode(records).unwrap();
                    for controller in &swarm.controllers {
                        let address = controller.ingress_address();
                        let answer = web::post(&address, &host("taker"), path, body.clone()).await;
                        let answer = answer.unwrap();
                        let status = answer.status.try_into().unwrap();
                        let outcome = batch::outcome(records, status, false, &answer.body);
                        assert_eq!(outcome, expected, "{path}");
                    }
                }
                let mut large = most;
                large[0].data = vec![b'x'; batch::MAX_BYTES / 4].into();
                let refused = batch::encode(&large).unwrap_err();
                assert!(matches!(refused, BatchError::Bytes(_)), "{refused}");
            },
        )
        .await;
    steps
        .run(
            "the machine itself and its cloud's metadata are out of reach",
            async {
                let spec = json!({ "allowedHosts": ["*:*"] });
                swarm.deploy("curious", &guests::probe(), spec).await;
                let own = swarm.agents[0].address();
                let by_name = format!("localhost:{}", swarm.agents[0].listen);
                let ingress = swarm.controllers[0].ingress_address();
                let metadata = "169.254.169.254".to_owned();
                for address in [own, by_name, ingress, metadata] {
                    let path = format!("/egress?url=http://{address}/latest/meta-data/");
                    let answer = swarm.invoke("curious", &path).await;
                    assert_eq!(
                        answer.text(),
                        "error ErrorCode::DestinationIpProhibited\n",
                        "{address}"
                    );
                }
            },
        )
        .await;
    steps
        .run("an instance has a directory, and none outlives it", async {
            let spec = json!({ "scratch": { "sizeLimit": "1Mi" } });
            swarm.deploy("files", &guests::probe(), spec).await;
            let path = "/steps?do=%2Fwrite%3Fpath%3D%2Ftmp%2Fa&do=%2Fdir%3Fpath%3D%2Ftmp";
            for _ in 0..3 {
                let listed = swarm.invoke("files", path).await;
                assert_eq!(listed.text(), "wrote 4 bytes\nlisted [\"a\"]\n");
            }
            let large = swarm.invoke("files", "/at?how=write&path=a&kib=1024").await;
            assert!(
                large.text().contains("insufficient-space"),
                "{}",
                large.text()
            );

            // An instance that stays has its files when the agent is killed.
            let spec = json!({
                "scratch": { "sizeLimit": "1Mi" },
                "instances": { "reuse": "Serial", "idleTimeout": "5m" },
            });
            swarm.deploy("kept", &guests::probe(), spec).await;
            let wrote = swarm.invoke("kept", "/at?how=write&path=left&kib=4").await;
            assert_eq!(wrote.text(), "wrote 4096 bytes\n");
            let agent = swarm.agents[0].member.name.clone();
            let scratch = swarm.path().join(agent).join("scratch");
            let mut directories = std::fs::read_dir(&scratch).unwrap();
            let left = directories
                .find_map(|entry| Some(entry.ok()?.path().join("left")).filter(|it| it.exists()))
                .expect("the instance has its file");

            swarm.agents[0].member.kill9().await;
            assert!(left.exists(), "nobody was there to remove it");
            swarm.agents[0].member.start();
            until("what was left is gone", PATIENCE, async || {
                let answer = swarm.invoke("files", path).await;
                holds(answer.status == 200 && !left.exists(), answer.text())
            })
            .await;
        })
        .await;
    steps.finish();
}

/// With so many bytes.
fn record(id: &str, bytes: usize) -> Record {
    Record {
        id: id.to_owned(),
        source: "/tests".to_owned(),
        kind: "test".to_owned(),
        time: None,
        content_type: None,
        data: vec![b'x'; bytes].into(),
    }
}

async fn secret(swarm: &Swarm, token: &str) {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "api" },
        "stringData": { "token": token },
    });
    let file = swarm.path().join("secret.yaml");
    std::fs::write(&file, object.to_string()).unwrap();
    let file = file.display().to_string();
    swarm.ctl(&["apply", "-f", &file]).await.ok();
}
