//! `hive-bench agents [COUNT]`: three controllers with the default times, and simulated agents in this
//! process, ten thousand unless said otherwise. What they cost, how soon they run what is applied, what
//! they say while nothing happens, and what the death of a controller sets off.

pub mod fleet;
pub mod follow;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::control_plane::System;
use super::control_plane::connection::{Connection, Version};
use super::control_plane::hive::Hive;
use super::load::percentile;
use super::process;
use super::swarm::fresh_component;
use fleet::Fleet;
use follow::Follow;

const COUNT: usize = 10_000;

/// Copies of a function that runs on some of the nodes.
const COPIES: usize = 100;
const REPEATS: usize = 5;

/// For what was set off to end, before quiet is measured.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);

/// For all of a step; far more than it should take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Of UDP and IPv4, on each datagram.
const HEADER_BYTES: u64 = 28;

pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let count = match arguments {
        [] => COUNT,
        [count] => count.parse().context("the number of agents")?,
        _ => bail!("usage: hive-bench agents [COUNT]"),
    };
    let mut hive = Hive::start().await?;
    // What is watched must outlive the controller that is killed.
    let watched = (hive.leader().await? + 1) % 3;
    let nodes = Follow::open(&hive, watched, "/apis/hive.dev/v1/nodes", |node| {
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
    .await?;
    let path = "/apis/hive.dev/v1/namespaces/default/assignments";
    let assignments = Follow::open(&hive, watched, path, |assignment| {
        assignment["status"]["phase"] == "Ready"
    })
    .await?;
    let mut bench = Bench {
        hive,
        nodes,
        assignments,
        count,
        watched,
        fleet: Fleet::default(),
    };
    bench.join().await?;
    bench.idle("idle, no functions").await?;
    bench.everywhere().await?;
    bench.some().await?;
    bench.idle("idle, a function on every node").await?;
    bench.death().await
}

struct Bench {
    hive: Hive,
    nodes: Follow,
    assignments: Follow,
    count: usize,
    watched: usize,
    fleet: Fleet,
}

/// What the controllers had used when a step began.
struct Costs {
    started: Instant,
    revision: u64,
    cpu: Vec<Duration>,
    own_cpu: Duration,
}

impl Bench {
    async fn join(&mut self) -> anyhow::Result<()> {
        let before = process::memory(std::process::id())?.1;
        let costs = self.costs().await?;
        let token = self.hive.swarm.token(&["--uses", "0"]).await;
        let links: Vec<_> = self.hive.swarm.controllers.iter().map(|c| c.link).collect();
        self.fleet = Fleet::join(self.count, &token, &links).await?;
        let joined = costs.started.elapsed();
        self.nodes.good("", self.count, PATIENCE).await?;
        let ready = self.nodes.latest("").context("nodes")? - costs.started;
        println!(
            "{} agents: all joined after {:.1} s, all Ready after {:.1} s",
            self.count,
            joined.as_secs_f64(),
            ready.as_secs_f64()
        );
        self.fleet.all_held(None, PATIENCE).await?;
        self.tell("  joining", &costs).await?;
        let own = process::memory(std::process::id())?
            .1
            .saturating_sub(before);
        println!(
            "  an agent takes {:.1} KB here; the controllers' RSS: {} MiB",
            own as f64 * 1.024 / self.count as f64,
            self.memory()?
        );
        Ok(())
    }

    async fn idle(&mut self, name: &str) -> anyhow::Result<()> {
        tokio::time::sleep(SETTLE).await;
        let costs = self.costs().await?;
        let before = self.fleet.traffic();
        tokio::time::sleep(IDLE).await;
        let carried = self.fleet.traffic() - before;
        let each = |bytes: u64| {
            let bits = bytes as f64 * 8.0;
            bits / costs.started.elapsed().as_secs_f64() / self.count as f64
        };
        println!(
            "{name}, over {} s: {:.0} bit/s an agent at the sockets, {:.0} with the headers of UDP and IP ({:.2} datagrams/s)",
            IDLE.as_secs(),
            each(carried.bytes),
            each(carried.bytes + carried.datagrams * HEADER_BYTES),
            each(carried.datagrams) / 8.0,
        );
        self.tell(" ", &costs).await?;
        println!("  the controllers' RSS: {} MiB", self.memory()?);
        Ok(())
    }

    async fn everywhere(&mut self) -> anyhow::Result<()> {
        let costs = self.costs().await?;
        let took = self
            .deploy("everywhere", json!({ "everyNode": true }), self.count)
            .await?;
        println!("apply with everyNode to running: {}", distribution(&took));
        self.tell("  it", &costs).await?;
        println!("  the controllers' RSS: {} MiB", self.memory()?);
        Ok(())
    }

    async fn some(&mut self) -> anyhow::Result<()> {
        let copies = COPIES.min(self.count);
        let mut all = Vec::new();
        for number in 0..REPEATS {
            let name = format!("some-{number}");
            let spec = json!({ "replicas": copies });
            all.extend(self.deploy(&name, spec, copies).await?);
        }
        all.sort_unstable();
        println!(
            "apply with {copies} replicas to running, {REPEATS} times: {}",
            distribution(&all)
        );
        Ok(())
    }

    /// How long after the apply was begun each copy was Ready, as a watch tells it; sorted.
    async fn deploy(
        &self,
        name: &str,
        spec: Value,
        copies: usize,
    ) -> anyhow::Result<Vec<Duration>> {
        let directory = self.hive.swarm.path();
        let component = directory.join(format!("{name}.wasm"));
        std::fs::write(&component, fresh_component(name)?)?;
        let mut function = json!({
            "apiVersion": "hive.dev/v1",
            "kind": "Function",
            "metadata": { "name": name },
            "spec": {
                "artifact": { "path": component },
                "resources": { "memory": "16Mi", "cpu": "10m" },
            },
        });
        for (field, value) in spec.as_object().context("a spec is an object")? {
            function["spec"][field] = value.clone();
        }
        let manifest = directory.join(format!("{name}.yaml"));
        std::fs::write(&manifest, function.to_string())?;
        let started = Instant::now();
        let manifest = manifest.display().to_string();
        self.hive.swarm.ctl(&["apply", "-f", &manifest]).await.ok();
        let prefix = format!("{name}.");
        self.assignments.good(&prefix, copies, PATIENCE).await?;
        Ok(self.assignments.since(&prefix, started))
    }

    async fn death(&mut self) -> anyhow::Result<()> {
        let leader = self.hive.leader().await?;
        let victim = match leader == self.watched {
            true => (leader + 1) % 3,
            false => leader,
        };
        let role = if victim == leader {
            "leader"
        } else {
            "follower"
        };
        let before = self.revision().await?;
        let dead = self.hive.swarm.controllers[victim].link;
        let held = self.fleet.held_with(dead);
        let started = Instant::now();
        self.hive.swarm.controllers[victim].member.kill9().await;
        self.fleet.all_held(Some(dead), PATIENCE).await?;
        println!(
            "the {role} killed, with which {held} sessions were held: all are held elsewhere after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        tokio::time::sleep(SETTLE).await;
        let unready = self.nodes.bad();
        println!(
            "  {} commits meanwhile; {unready} nodes are not Ready",
            self.revision().await? - before
        );
        self.hive.swarm.controllers[victim].member.start();
        let costs = self.costs().await?;
        self.hive.swarm.controller_ready(victim).await;
        println!(
            "it is back, and ready after {:.1} s; what it costs until all agents are linked to it:",
            costs.started.elapsed().as_secs_f64()
        );
        let quiet = self.fleet.linked(3 * self.count, PATIENCE).await?;
        println!(
            "  all links are there after {:.1} s",
            (quiet - costs.started).as_secs_f64()
        );
        self.tell(" ", &costs).await
    }

    async fn costs(&self) -> anyhow::Result<Costs> {
        Ok(Costs {
            started: Instant::now(),
            revision: self.revision().await?,
            cpu: self.cpu()?,
            own_cpu: process::cpu(std::process::id())?,
        })
    }

    /// Prints what a step took since then.
    async fn tell(&self, what: &str, since: &Costs) -> anyhow::Result<()> {
        let seconds = since.started.elapsed().as_secs_f64();
        let commits = self.revision().await? - since.revision;
        let used: Vec<String> = self
            .cpu()?
            .iter()
            .zip(&since.cpu)
            // One that was started anew begins from nothing.
            .map(|(now, before)| now.checked_sub(*before).unwrap_or(*now))
            .map(|used| format!("{:.2}", used.as_secs_f64()))
            .collect();
        let own = process::cpu(std::process::id())? - since.own_cpu;
        println!(
            "{what} in {seconds:.1} s: {commits} commits; CPU seconds of the controllers {}, of all agents {:.2}",
            used.join(" "),
            own.as_secs_f64()
        );
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<Vec<Duration>> {
        self.hive
            .processes()
            .into_iter()
            .map(process::cpu)
            .collect()
    }

    fn memory(&self) -> anyhow::Result<String> {
        let mut sizes = Vec::new();
        for pid in self.hive.processes() {
            sizes.push(format!("{:.0}", process::memory(pid)?.0 as f64 / 1024.0));
        }
        Ok(sizes.join(" "))
    }

    /// Of the swarm's state: it counts commits that changed something.
    async fn revision(&self) -> anyhow::Result<u64> {
        let member = &self.hive.members()[self.watched];
        let mut connection = Connection::open(member, Version::Http2).await?;
        let call = self.hive.hive_calls().get("/api/v1/namespaces?limit=1");
        let list: Value = serde_json::from_slice(&connection.call(call).await?)?;
        let revision = list["metadata"]["resourceVersion"].as_str();
        Ok(revision.context("a list has a version")?.parse()?)
    }
}

fn distribution(sorted: &[Duration]) -> String {
    let at = |percent| percentile(sorted, percent).as_secs_f64();
    format!(
        "p50 {:.2} s, p99 {:.2} s, last {:.2} s",
        at(50),
        at(99),
        at(100)
    )
}
