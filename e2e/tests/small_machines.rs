//! Agents on machines that have little.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use hive_e2e::swarm::host;
use hive_e2e::web::{self, Answer};
use hive_e2e::{Swarm, guests};
use serde_json::json;
use tokio::task::JoinSet;

/// As shells count memory.
const GIB_IN_KIB: u64 = 1 << 20;

/// At once.
const REQUESTS: usize = 20;

/// Phones have 39 bits of addresses, and a service may be given less.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_few_addresses_serves() {
    let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
    let token = swarm.token(&["--uses", "3"]).await;
    for gibibytes in [256, 40, 8] {
        let name = format!("with-{gibibytes}");
        let mut agent = swarm.new_agent(&name, &token);
        let limit = gibibytes * GIB_IN_KIB;
        let limited = format!("ulimit -v {limit} && exec \"$@\"");
        let launcher = ["sh", "-c", &limited, "sh"].map(str::to_owned);
        agent.member.launched_by(launcher.into());
        agent.member.start();
        swarm.agents.push(agent);
    }
    swarm.wait_ready().await;
    let spec = json!({ "everyNode": true });
    swarm.deploy("hello", &guests::hello(), spec.clone()).await;
    swarm.deploy("shared", &guests::rust_p3(), spec).await;
    for (index, allocation) in ["Pooled", "OnDemand", "OnDemand"].into_iter().enumerate() {
        let agent = &swarm.agents[index];
        let log = agent.member.log();
        let ready = log
            .lines()
            .find(|line| line.contains("WebAssembly is ready"));
        assert!(
            ready.unwrap().contains(allocation),
            "{}: {ready:?}",
            agent.member.name
        );
        for function in ["hello", "shared"] {
            for answer in flood(&agent.address(), function, "/").await {
                assert_eq!(
                    answer.status,
                    200,
                    "{}: {}",
                    agent.member.name,
                    answer.text()
                );
            }
        }
    }
}

/// The answers to many requests at once.
async fn flood(address: &str, function: &str, path: &'static str) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let (address, host) = (address.to_owned(), host(function));
        requests.spawn(async move { web::get(&address, &host, path).await.unwrap() });
    }
    requests.join_all().await
}
