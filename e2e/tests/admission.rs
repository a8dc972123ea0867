//! Who is let in: a wrong token, another swarm's token, a used one, an old one, a name that is
//! taken, and a node that was removed.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hive_e2e::swarm::{Agent, NODES, node_ready, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests, web};
use hive_identity::JoinToken;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_may_come_in_do() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let good: JoinToken = swarm.token(&["--uses", "10"]).await.parse().unwrap();
    let mut steps = Steps::new();

    steps
        .run("a wrong secret", async {
            let wrong = JoinToken::generate(good.ca);
            refused(
                &mut swarm,
                "wrong-secret",
                &wrong.to_string(),
                &["refuses to let this machine in", "token"],
            )
            .await;
        })
        .await;
    steps
        .run("the token of another swarm", async {
            let other = JoinToken::generate([7; 32].into());
            refused(
                &mut swarm,
                "wrong-swarm",
                &other.to_string(),
                &["not a controller of the swarm that the token is for"],
            )
            .await;
        })
        .await;
    steps
        .run("no token", async {
            refused(
                &mut swarm,
                "no-token",
                "",
                &["has not joined a swarm yet", "hivectl token create"],
            )
            .await;
        })
        .await;
    steps
        .run("no token at all, but words", async {
            refused(&mut swarm, "words", "let-me-in", &["join token"]).await;
        })
        .await;
    steps
        .run("a token that was used up", async {
            let token = swarm.token(&["--uses", "1"]).await;
            let mut first = swarm.new_agent("first", &token);
            first.member.start();
            node_ready(&swarm.client().await, &mut first).await;
            refused(
                &mut swarm,
                "second",
                &token,
                &["refuses to let this machine in", "used"],
            )
            .await;
        })
        .await;
    steps
        .run("a token that has expired", async {
            const LIFE: Duration = Duration::from_secs(1);
            let token = swarm.token(&["--ttl", "1s"]).await;
            let made = Instant::now();
            until("the token has expired", PATIENCE, async || {
                holds(made.elapsed() > LIFE, "it has some time left")
            })
            .await;
            refused(
                &mut swarm,
                "late",
                &token,
                &["refuses to let this machine in", "expired"],
            )
            .await;
        })
        .await;
    steps
        .run("a token that was revoked", async {
            let token = swarm.token(&[]).await;
            let secret: JoinToken = token.parse().unwrap();
            let list = swarm.ctl(&["token", "list", "--no-headers"]).await;
            let newest = list.ok().lines().find(|line| {
                secret
                    .secret
                    .to_string()
                    .contains(line.split(' ').next().unwrap())
            });
            let id = newest.unwrap().split(' ').next().unwrap().to_owned();
            swarm.ctl(&["token", "revoke", &id]).await.ok();
            refused(
                &mut swarm,
                "revoked",
                &token,
                &["refuses to let this machine in"],
            )
            .await;
        })
        .await;
    steps
        .run("a token for people", async {
            let token = swarm.token(&["--kind", "api", "--role", "admin"]).await;
            refused(&mut swarm, "person", &token, &["this is an API token"]).await;
        })
        .await;
    steps
        .run("a name that is taken", async {
            let mut imposter = swarm.new_agent_in("imposter", "node-1", &good.to_string());
            end_of(&mut imposter, &["belongs to another device", "--name"]).await;
        })
        .await;
    steps
        .run("a node that was removed", removed(&mut swarm))
        .await;
    steps.finish();
}

/// Starts an agent that must end with an error that says all of this, and must leave no node.
async fn refused(swarm: &mut Swarm, name: &str, token: &str, says: &[&str]) {
    let mut agent = swarm.new_agent(name, token);
    end_of(&mut agent, says).await;
    let nodes = object(&swarm.client().await, NODES).await.unwrap();
    let names: Vec<&str> = nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|node| node["metadata"]["name"].as_str())
        .collect();
    assert!(!names.contains(&name), "{names:?}");
}

async fn end_of(agent: &mut Agent, says: &[&str]) {
    agent.member.start();
    let status = agent.member.ended(PATIENCE).await;
    assert!(!status.success(), "it ended well\n{}", agent.member.tail());
    let log = agent.member.log();
    for part in says {
        assert!(
            log.contains(part),
            "does not say {part:?}:\n{}",
            agent.member.tail()
        );
    }
}

async fn removed(swarm: &mut Swarm) {
    let spec = json!({ "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    swarm.ctl(&["delete", "node", "node-1"]).await.ok();
    let client = swarm.client().await;
    let agent = swarm.agent("node-1");
    until("the agent says that it was removed", PATIENCE, async || {
        holds(
            agent.member.log().contains("this node was removed"),
            agent.member.tail(),
        )
    })
    .await;
    // What it has is enough to try again, and that is refused in words too.
    agent.member.kill9().await;
    agent.member.start();
    until("it says so after a restart too", PATIENCE, async || {
        let log = agent.member.log_of_this_run();
        holds(log.contains("it was removed"), agent.member.tail())
    })
    .await;
    let nodes = object(&client, NODES).await.unwrap();
    let gone = nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .all(|node| node["metadata"]["name"] != "node-1");
    assert!(gone, "the node is back: {nodes:#}");
    let ingress = swarm.controllers[0].ingress_address();
    let answer = web::get(&ingress, &hive_e2e::swarm::host("hello"), "/")
        .await
        .unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
}
