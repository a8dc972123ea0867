//! What breaks on the way costs what went through it, and no more; and it is said.

use std::time::Instant;

use hive_e2e::load::{Load, Outcome, summary};
use hive_e2e::swarm::node_ready;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::declared::{declare, proven, target, target_is};
use crate::http_tunnels::{answers, both_answer};
use crate::service::{Habit, Service};
use crate::site::Site;
use crate::tcp::{addresses, is_ended, reaches, says};

const HOST: &str = "photos.localhost";

/// Requests a second at each ingress: room for them is left on two cores, in debug.
const RATE: u32 = 30;

/// Answers wanted of an ingress on either side of a fault: some three seconds of load.
const ENOUGH: usize = 90;

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_outlive_what_breaks() {
    let mut swarm = Swarm::builder().agents(2).apart().start().await;
    let (one, two) = (swarm.take_port(), swarm.take_port());
    let mut sites = [Site::start("one", one).await, Site::start("two", two).await];
    let echo = Service::start(swarm.take_port(), Habit::Echo).await;
    let targets = [target("node-1", one), target("node-2", two)];
    let spec = json!({ "http": { "host": HOST }, "targets": targets });
    declare(&swarm, "photos", spec).await;
    let ports = [swarm.take_port(), swarm.take_port()];
    for (port, node) in ports.into_iter().zip(["node-1", "node-2"]) {
        let spec = tcp(port, node, echo.port());
        declare(&swarm, &format!("by-{node}"), spec).await;
    }
    for name in ["photos", "by-node-1", "by-node-2"] {
        proven(&swarm, name).await;
    }
    let mut steps = Steps::new();
    steps
        .run(
            "a service that dies costs no request while another answers",
            service_dies(&mut swarm, &mut sites[1]),
        )
        .await;
    steps
        .run(
            "an agent that dies costs no later request while another's service answers",
            agent_dies(&mut swarm),
        )
        .await;
    steps
        .run(
            "a controller that dies costs what goes through it",
            controller_dies(&mut swarm, ports[0]),
        )
        .await;
    steps
        .run(
            "a link that breaks costs the connections in it",
            link_breaks(&mut swarm, ports),
        )
        .await;
    steps.finish();
}

fn tcp(port: u16, node: &str, service: u16) -> Value {
    json!({ "protocol": "TCP", "port": port, "targets": [target(node, service)] })
}

pub fn ingresses(swarm: &Swarm) -> Vec<String> {
    let controllers = swarm.controllers.iter();
    controllers.map(|it| it.ingress_address()).collect()
}

/// Waits until each of them has answered well often enough since then.
pub async fn answered(load: &Load, ingresses: &[String], since: Instant) {
    until("every ingress has answered enough", PATIENCE, async || {
        let outcomes = load.so_far();
        let few = ingresses.iter().find(|ingress| {
            let good = |o: &&Outcome| o.ingress == **ingress && o.began >= since && o.is_good();
            outcomes.iter().filter(good).count() < ENOUGH
        });
        holds(few.is_none(), format!("{few:?} has not"))
    })
    .await;
}

/// All of these requests were answered well.
pub fn none_failed(outcomes: &[Outcome]) {
    println!("  {}", summary(outcomes));
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_good())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn service_dies(swarm: &mut Swarm, two: &mut Site) {
    let ingresses = ingresses(swarm);
    for ingress in &ingresses {
        both_answer(ingress, HOST, ["one", "two"]).await;
    }
    let load = Load::start(&ingresses, HOST, RATE);
    answered(&load, &ingresses, Instant::now()).await;
    two.go_away().await;
    answered(&load, &ingresses, Instant::now()).await;
    target_is(swarm, "photos", "node-2", false).await;
    two.come_back().await;
    target_is(swarm, "photos", "node-2", true).await;
    for ingress in &ingresses {
        both_answer(ingress, HOST, ["one", "two"]).await;
    }
    none_failed(&load.stop().await);
}

async fn agent_dies(swarm: &mut Swarm) {
    let ingresses = ingresses(swarm);
    swarm.agent("node-2").member.kill9().await;
    // Until its links are given up, a request may wait for it.
    target_is(swarm, "photos", "node-2", false).await;
    let load = Load::start(&ingresses, HOST, RATE);
    answered(&load, &ingresses, Instant::now()).await;
    none_failed(&load.stop().await);
    let client = swarm.client().await;
    let agent = swarm.agent("node-2");
    agent.member.start();
    node_ready(&client, agent).await;
    for ingress in &ingresses {
        both_answer(ingress, HOST, ["one", "two"]).await;
    }
}

async fn controller_dies(swarm: &mut Swarm, port: u16) {
    // The leader has more to lose.
    let dead = swarm.leader().await;
    let living = [(dead + 1) % 3, (dead + 2) % 3];
    let (addresses, ingresses) = (addresses(swarm, port), ingresses(swarm));
    let mut lost = reaches(&addresses[dead]).await;
    let mut kept = reaches(&addresses[living[0]]).await;
    let others = living.map(|index| ingresses[index].clone());
    let load = Load::start(&others, HOST, RATE);
    answered(&load, &others, Instant::now()).await;
    swarm.controllers[dead].member.kill9().await;
    is_ended(&mut lost).await;
    says(&mut kept, "it went another way").await.unwrap();
    for index in living {
        reaches(&addresses[index]).await;
    }
    answered(&load, &others, Instant::now()).await;
    swarm.controllers[dead].member.start();
    swarm.controller_ready(dead).await;
    reaches(&addresses[dead]).await;
    answers(&ingresses[dead], HOST, "one").await;
    says(&mut kept, "all the time").await.unwrap();
    none_failed(&load.stop().await);
}

/// An agent that is stopped answers nothing, as one whose network is gone: controllers give its links up.
async fn link_breaks(swarm: &mut Swarm, [first, second]: [u16; 2]) {
    let [first, second] = [addresses(swarm, first), addresses(swarm, second)];
    let (mut broken, mut kept) = (reaches(&first[0]).await, reaches(&second[0]).await);
    swarm.agent("node-1").member.signal(Signal::STOP);
    is_ended(&mut broken).await;
    says(&mut kept, "it went by the other node").await.unwrap();
    for address in &second {
        reaches(address).await;
    }
    swarm.agent("node-1").member.signal(Signal::CONT);
    for address in &first {
        reaches(address).await;
    }
    says(&mut kept, "all the time").await.unwrap();
}
