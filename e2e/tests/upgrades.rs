//! A swarm goes from one version to the next, member by member, while it serves: two versions agree
//! in either direction, whoever leads; and what functions used meanwhile is counted once.
//!
//! `HIVE_PREVIOUS` names the `hive` of the version before; without it there is nothing to upgrade from.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use hive_e2e::load::{Load, summary};
use hive_e2e::program::previous;
use hive_e2e::swarm::{CONFIG_MAPS, host, node_ready, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests, hive, web};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// Requests a second at each agent.
const RATE: u32 = 20;

/// The function that is asked by those only who count it.
const METERED: &str = "metered";

/// Hand-overs until a member of the wanted version leads: with two candidates each time, one of
/// fifty million runs needs more.
const TURNS: usize = 25;

async fn create(client: &Client, name: &str) -> Result<Value, String> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name },
        "data": { "of": name },
    });
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    client
        .request(request)
        .await
        .map_err(|error| error.to_string())
}

/// What the swarm is asked to do after each step; `step` makes the names of its objects.
struct Checks {
    previous: PathBuf,
    step: usize,
    /// Requests that were answered by the function that is metered.
    asked: u64,
}

impl Checks {
    /// Every controller takes a write and all read it; both versions of hivectl change a function, and
    /// show that all that was asked is counted.
    async fn hold(&mut self, swarm: &mut Swarm, what: &str) {
        self.step += 1;
        println!("{}: {what}", self.step);
        swarm.wait_ready().await;
        for writer in 0..swarm.controllers.len() {
            let name = format!("step-{}-{writer}", self.step);
            let client = swarm.client_of(writer).await;
            // Leadership may be under way after a restart.
            until(
                &format!("{what}: {name} is made"),
                PATIENCE,
                async || match create(&client, &name).await {
                    Err(error) if error.contains("AlreadyExists") => Ok(()),
                    other => other.map(drop),
                },
            )
            .await;
            for reader in 0..swarm.controllers.len() {
                let client = swarm.client_of(reader).await;
                let path = format!("{CONFIG_MAPS}/{name}");
                let read = object(&client, &path).await;
                assert_eq!(read.unwrap()["data"]["of"], name, "{what}");
            }
        }
        for program in [self.previous.clone(), hive()] {
            let mut ctl = swarm.ctl.clone();
            ctl.program = program;
            let label = format!("step=s{}", self.step);
            ctl.run(&["label", "fn/hello", "--overwrite", &label])
                .await
                .ok();
            let scale = format!("--replicas={}", 1 + self.step % 2);
            ctl.run(&["scale", "fn/hello", &scale]).await.ok();
            swarm.function_ready("hello").await;
            ctl.run(&["get", "fn,nodes", "-o", "wide"]).await.ok();
            ctl.run(&["describe", "fn/hello"]).await.ok();
        }
        self.ask(swarm).await;
        self.all_is_counted(swarm, what).await;
    }

    /// Once at every ingress and every node.
    async fn ask(&mut self, swarm: &Swarm) {
        let ingresses = swarm.controllers.iter().map(|it| it.ingress_address());
        for address in ingresses.chain(swarm.agents.iter().map(|it| it.address())) {
            // What is refused on the way reaches no function.
            until("it is answered", PATIENCE, async || {
                let answer = web::get(&address, &host(METERED), "/").await;
                answer.map_err(|error| error.to_string())?.ok()
            })
            .await;
            self.asked += 1;
        }
    }

    async fn all_is_counted(&self, swarm: &Swarm, what: &str) {
        for program in [self.previous.clone(), hive()] {
            let mut ctl = swarm.ctl.clone();
            ctl.program = program;
            until(&format!("{what}: all is counted"), PATIENCE, async || {
                let usage = ["usage", "functions", METERED, "-o", "json"];
                let usage = ctl.run(&usage).await;
                let told: Value =
                    serde_json::from_str(&usage.stdout).map_err(|_| usage.to_string())?;
                let counted = told["requests"].as_u64().unwrap_or_default();
                assert!(counted <= self.asked, "{counted} of {}", self.asked);
                holds(
                    counted == self.asked,
                    format!("{counted} of {}", self.asked),
                )
            })
            .await;
        }
    }
}

async fn restart(swarm: &mut Swarm, controller: usize, program: &Path) {
    let member = &mut swarm.controllers[controller].member;
    member.stop().await;
    member.runs(program);
    member.start();
    swarm.controller_ready(controller).await;
}

/// Stops and starts leaders until `wanted` leads.
async fn let_lead(swarm: &mut Swarm, wanted: &[usize], programs: &[PathBuf; 3]) {
    for _ in 0..TURNS {
        let leader = swarm.leader().await;
        if wanted.contains(&leader) {
            return;
        }
        restart(swarm, leader, &programs[leader]).await;
    }
    panic!("none of {wanted:?} ever led");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_upgraded_one_by_one() {
    let Some(old) = previous() else {
        eprintln!(
            "SKIPPED: upgrades: HIVE_PREVIOUS does not name the `hive` of the version before"
        );
        return;
    };
    let new = hive();
    let mut swarm = Swarm::builder()
        .agents(2)
        .program(&old)
        .agent_flag("--meter-interval", "1s")
        .start()
        .await;
    let spec = json!({ "replicas": 2, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let everywhere = json!({ "everyNode": true });
    let manifest = swarm.manifest(METERED, &guests::rust_p2(), everywhere);
    let manifest = manifest.display().to_string();
    // Waiting for it in other ways would ask it.
    swarm.ctl(&["apply", "--wait", "-f", &manifest]).await.ok();
    let mut checks = Checks {
        previous: old.clone(),
        step: 0,
        asked: 0,
    };
    checks.hold(&mut swarm, "all of the version before").await;

    // A node that upgrades itself before the controllers do.
    let client = swarm.client_of(0).await;
    swarm.agents[0].member.stop().await;
    swarm.agents[0].member.runs(&new);
    swarm.agents[0].member.start();
    node_ready(&client, &mut swarm.agents[0]).await;
    checks.hold(&mut swarm, "one node is new").await;

    let mut programs = [old.clone(), old.clone(), old.clone()];
    let first = (swarm.leader().await + 1) % 3;

    programs[first] = new.clone();
    restart(&mut swarm, first, &new).await;
    let others: Vec<usize> = (0..3).filter(|one| *one != first).collect();
    let_lead(&mut swarm, &others, &programs).await;
    checks
        .hold(&mut swarm, "one controller is new and follows")
        .await;
    let_lead(&mut swarm, &[first], &programs).await;
    checks
        .hold(&mut swarm, "one controller is new and leads")
        .await;

    // Second thoughts: before all are new, each may go back.
    programs[first] = old.clone();
    restart(&mut swarm, first, &old).await;
    checks.hold(&mut swarm, "it went back").await;

    // What the nodes serve, they serve all the while.
    let agents: Vec<String> = swarm.agents.iter().map(|agent| agent.address()).collect();
    swarm.ctl(&["scale", "fn/hello", "--replicas=2"]).await.ok();
    swarm.function_ready("hello").await;
    let load = Load::start(&agents, &host(METERED), RATE);
    for index in [first, others[0]] {
        programs[index] = new.clone();
        restart(&mut swarm, index, &new).await;
    }
    let_lead(&mut swarm, &[others[1]], &programs).await;
    let ready = swarm.client_of(first).await;
    until("the old leader is followed", PATIENCE, async || {
        let name = format!("followed-{first}");
        match create(&ready, &name).await {
            Err(error) if error.contains("AlreadyExists") => Ok(()),
            other => other.map(drop),
        }
    })
    .await;
    restart(&mut swarm, others[1], &new).await;
    let outcomes = load.stop().await;
    println!("served by the nodes meanwhile: {}", summary(&outcomes));
    let bad = outcomes.iter().find(|outcome| !outcome.is_good());
    assert!(bad.is_none(), "{}: {bad:?}", summary(&outcomes));
    checks.asked += outcomes.len() as u64;
    checks.hold(&mut swarm, "all controllers are new").await;

    let client = swarm.client_of(0).await;
    swarm.agents[1].member.stop().await;
    swarm.agents[1].member.runs(&new);
    swarm.agents[1].member.start();
    node_ready(&client, &mut swarm.agents[1]).await;
    checks.hold(&mut swarm, "all is new").await;

    // Nothing that was written on the way is gone.
    let kept = object(&client, CONFIG_MAPS).await.unwrap();
    let written = kept["items"].as_array().unwrap().iter();
    let written = written.filter(|map| {
        let name = map["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("step-")
    });
    assert_eq!(written.count(), checks.step * 3);
}
