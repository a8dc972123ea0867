//! What functions used is counted once: whoever leads, restarts, or is cut off for a while.
#![allow(clippy::unwrap_used)]

use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_what_clients_counted() {
    let mut swarm = Swarm::builder()
        .agents(2)
        .agent_flag("--meter-interval", "1s")
        // Nothing moves while a member is away.
        .default_timing()
        .run_flag("--node-grace", "60s")
        .run_flag("--link-keep-alive", "1s")
        .run_flag("--link-idle-timeout", "6s")
        .start()
        .await;
    let spec = json!({ "replicas": 2 });
    let manifest = swarm.manifest("probe", &guests::probe(), spec);
    let manifest = manifest.display().to_string();
    swarm.ctl(&["apply", "--wait", "-f", &manifest]).await.ok();
    let mut asked = 0;
    let mut steps = Steps::new();

    steps
        .run(
            "what is asked at nodes and at an ingress is counted",
            async {
                for _ in 0..10 {
                    ask(&swarm.controllers[0].ingress_address(), &mut asked).await;
                }
                ask_agents(&swarm, &mut asked).await;
                counted(&swarm, asked).await;
            },
        )
        .await;
    steps
        .run("the leader is killed", async {
            ask_agents(&swarm, &mut asked).await;
            let leader = swarm.leader().await;
            swarm.controllers[leader].member.kill9().await;
            ask_agents(&swarm, &mut asked).await;
            counted(&swarm, asked).await;
            swarm.controllers[leader].member.start();
            swarm.wait_ready().await;
        })
        .await;
    steps
        .run("the nodes are cut off from all controllers", async {
            for controller in &mut swarm.controllers {
                controller.member.kill9().await;
            }
            for _ in 0..3 {
                ask_agents(&swarm, &mut asked).await;
            }
            for controller in &mut swarm.controllers {
                controller.member.start();
            }
            swarm.wait_ready().await;
            counted(&swarm, asked).await;
        })
        .await;
    steps
        .run("an agent is stopped and started", async {
            ask_agents(&swarm, &mut asked).await;
            swarm.agents[0].member.stop().await;
            swarm.agents[0].member.start();
            ask_agents(&swarm, &mut asked).await;
            counted(&swarm, asked).await;
        })
        .await;
    steps
        .run("an agent is killed: what it wrote down is counted", async {
            let before = asked;
            ask_agents(&swarm, &mut asked).await;
            swarm.agents[0].member.kill9().await;
            swarm.agents[0].member.start();
            let most_lost = (asked - before) / 2;
            ask_agents(&swarm, &mut asked).await;
            let found = until("the rest is counted", PATIENCE, async || {
                let found = requests(&swarm, "functions", "probe").await?;
                assert!(found <= asked, "{found} were counted of {asked}");
                match found + most_lost >= asked {
                    true => Ok(found),
                    false => Err(format!("{found} of {asked}")),
                }
            })
            .await;
            assert!(found > before);
        })
        .await;
    steps
        .run(
            "a function that is deleted is its namespace's still",
            async {
                swarm.ctl(&["delete", "function", "probe"]).await.ok();
                until("its total is gone", PATIENCE, async || {
                    let usage = swarm.ctl(&["usage", "functions"]).await;
                    holds(usage.ok().is_empty(), &usage)
                })
                .await;
                let found = requests(&swarm, "namespaces", "default").await.unwrap();
                assert!(
                    found <= asked && found > 0,
                    "{found} were counted of {asked}"
                );
            },
        )
        .await;
    steps.finish();
}

/// One request that is answered. What is refused on the way reaches no function, and counts nowhere.
async fn ask(address: &str, asked: &mut u64) {
    until("an answer", PATIENCE, async || {
        let answer = web::get(address, &host("probe"), "/").await;
        answer.map_err(|error| error.to_string())?.ok()
    })
    .await;
    *asked += 1;
}

async fn ask_agents(swarm: &Swarm, asked: &mut u64) {
    for agent in &swarm.agents {
        for _ in 0..10 {
            ask(&agent.address(), asked).await;
        }
    }
}

async fn counted(swarm: &Swarm, asked: u64) {
    until("all is counted", PATIENCE, async || {
        let found = requests(swarm, "functions", "probe").await?;
        let in_all = requests(swarm, "namespaces", "default").await?;
        assert!(
            found <= asked && in_all <= asked,
            "{found}, {in_all} were counted of {asked}"
        );
        holds(
            found == asked && in_all == asked,
            format!("{found}, {in_all} of {asked}"),
        )
    })
    .await;
}

async fn requests(swarm: &Swarm, resource: &str, name: &str) -> Result<u64, String> {
    let usage = swarm.ctl(&["usage", resource, name, "-o", "json"]).await;
    let usage: Value = serde_json::from_str(&usage.stdout).map_err(|_| usage.to_string())?;
    Ok(usage["requests"].as_u64().unwrap_or_default())
}
