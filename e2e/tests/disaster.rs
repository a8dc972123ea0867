//! Controllers are replaced, leave, and are lost for good; the swarm goes on from a survivor, or
//! from a backup, and its nodes serve all the while.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use hive_e2e::load::{Load, summary};
use hive_e2e::ports::LOOPBACK;
use hive_e2e::swarm::{Controller, NODES, answers, function_path, host, node_ready, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Swarm, guests};
use serde_json::{Value, json};

/// Requests a second at each agent: enough to notice a gap of a tenth of a second.
const RATE: u32 = 20;

/// The controllers as `hivectl` lists them, by id.
async fn controllers(swarm: &Swarm) -> BTreeMap<String, Value> {
    let listed = swarm.ctl(&["controller", "list", "-o", "json"]).await;
    let list: Value = serde_json::from_str(listed.ok()).unwrap();
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            let id = item["metadata"]["name"].as_str().unwrap();
            (id.to_owned(), item["status"].clone())
        })
        .collect()
}

async fn all_vote(swarm: &Swarm, ids: &[&str]) {
    until(&format!("controllers {ids:?} vote"), PATIENCE, async || {
        let found = controllers(swarm).await;
        let voters = found
            .iter()
            .filter(|(_, status)| status["voter"] == true && status["state"] == "Ready");
        let voters: Vec<&str> = voters.map(|(id, _)| id.as_str()).collect();
        holds(
            voters == ids && found.len() == ids.len(),
            format!("{found:?}"),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_not_listed_as_the_leader() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    all_vote(&swarm, &["1", "2", "3"]).await;
    let leader = swarm.leader().await;
    swarm.controllers[leader].member.kill9().await;
    let dead = (leader + 1).to_string();
    until("another one leads", PATIENCE, async || {
        let found = controllers(&swarm).await;
        assert_eq!(found[&dead]["leader"], false, "{found:?}");
        assert_eq!(found[&dead]["state"], "Unreachable", "{found:?}");
        let leads = |status: &&Value| status["leader"] == true;
        let term = found.values().find(leads).map(|one| &one["term"]);
        holds(
            term.is_some_and(|term| term.as_u64() > Some(1)),
            format!("{found:?}"),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_leave_and_are_removed_but_never_the_majority() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    all_vote(&swarm, &["1", "2", "3"]).await;
    let table = swarm.ctl(&["controller", "list", "-o", "wide"]).await;
    assert!(table.ok().contains("leader"), "{}", table.stdout);
    assert!(table.stdout.contains("Ready"), "{}", table.stdout);

    // The leader leaves: it hands over, is removed, stops, and does not come back.
    let leader = swarm.leader().await;
    let name = swarm.controllers[leader].member.name.clone();
    let left = swarm.controller_command(&name, &["leave"], "").await;
    assert!(left.ok().contains("has left the swarm"), "{}", left.stdout);
    let ended = swarm.controllers[leader].member.ended(PATIENCE).await;
    assert!(ended.success(), "{ended}");
    let again = swarm.controller_command(&name, &["run"], "").await;
    again.fails(&["has left its swarm", "hive controller join"]);
    swarm.controllers.remove(leader);
    let gone = (leader + 1).to_string();
    let left: Vec<String> = (1..=3)
        .map(|id: u32| id.to_string())
        .filter(|id| *id != gone)
        .collect();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    all_vote(&swarm, &left).await;

    // Another takes its place, with an id of its own.
    swarm.add_controller("controller-4").await;
    all_vote(&swarm, &[left[0], left[1], "4"]).await;

    // One dies: the living may not go, the dead may.
    let mut dead = swarm.controllers.remove(2);
    dead.member.kill9().await;
    until("its silence is noticed", PATIENCE, async || {
        let found = controllers(&swarm).await;
        let silent = found["4"]["silentSeconds"].as_f64();
        holds(
            silent.is_none_or(|silent| silent > 3.0),
            format!("{found:?}"),
        )
    })
    .await;
    let refused = swarm.ctl(&["controller", "remove", left[1]]).await;
    refused.fails(&["start controller 4 again first"]);
    swarm.ctl(&["controller", "remove", "4"]).await.ok();
    all_vote(&swarm, &left).await;
    swarm.ctl(&["controller", "remove", left[1]]).await.ok();
    let ended = swarm.controllers[1].member.ended(PATIENCE).await;
    assert!(ended.success(), "{ended}");
    swarm.controllers.remove(1);
    let name = swarm.controllers[0].member.name.clone();
    let last = swarm.controller_command(&name, &["leave"], "").await;
    last.fails(&["is the last one"]);
    swarm.ctl(&["get", "namespaces"]).await.ok();
}

/// What a node keeps of artifacts: a download would show.
fn artifacts_of(dir: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let files = std::fs::read_dir(dir.join("artifacts")).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            (file.path(), file.metadata().unwrap().modified().unwrap())
        })
        .collect()
}

async fn node_uids(swarm: &mut Swarm) -> BTreeMap<String, Value> {
    let client = swarm.client().await;
    let nodes = object(&client, NODES).await.unwrap();
    let items = nodes["items"].as_array().unwrap();
    items
        .iter()
        .map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap().to_owned();
            (name, json!([node["metadata"]["uid"], node["spec"]["key"]]))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_comes_back_from_a_backup_while_its_nodes_serve() {
    let mut swarm = Swarm::builder().agents(2).start().await;
    let spec = json!({ "replicas": 2, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let nodes = node_uids(&mut swarm).await;
    let passphrase = swarm.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let passphrase = passphrase.display().to_string();
    let file = swarm.path().join("swarm.backup").display().to_string();

    let open = swarm.ctl(&["backup", &file]).await;
    open.fails(&["--passphrase-file", "--plaintext"]);
    let sealed = [
        "backup",
        &file,
        "--artifacts",
        "--passphrase-file",
        &passphrase,
    ];
    let made = swarm.ctl(&sealed).await;
    assert!(
        made.ok().contains("sealed with a passphrase"),
        "{}",
        made.stdout
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let verify = ["backup", "verify", &file, "--passphrase-file", &passphrase];
    assert!(swarm.ctl(&verify).await.ok().contains("is whole"));
    swarm.ctl(&sealed).await.fails(&["never overwrites"]);

    // Acknowledged after the backup: lost with the controllers, as it must be.
    swarm.ctl(&["label", "fn/hello", "after=backup"]).await.ok();

    let held: Vec<_> = swarm
        .agents
        .iter()
        .map(|agent| artifacts_of(&agent.member.dir))
        .collect();
    let serving: Vec<String> = swarm.agents.iter().map(|agent| agent.address()).collect();
    for controller in &mut swarm.controllers {
        controller.member.kill9().await;
    }
    let lost: Vec<Controller> = swarm.controllers.drain(..).collect();
    // Both serve with nobody above them.
    let load = Load::start(&serving, &host("hello"), RATE);

    // A new machine at the address of one that was lost.
    let (link, api, ingress) = (lost[0].link, lost[0].api, lost[0].ingress);
    let ports = [link, api, ingress].map(|port| port.to_string());
    let restore = [
        "restore",
        "--from",
        &file,
        "--passphrase-file",
        &passphrase,
        "--link-port",
        &ports[0],
        "--api-port",
        &ports[1],
        "--ingress-port",
        &ports[2],
    ];
    let made = swarm.controller_command("restored", &restore, "").await;
    assert!(made.ok().contains("in epoch 1"), "{}", made.stdout);
    let member = swarm.controller_in("restored");
    swarm
        .start_controller(Controller {
            member,
            host: LOOPBACK.to_owned(),
            ingress,
            api,
            link,
        })
        .await;
    for name in ["restored-2", "restored-3"] {
        swarm.add_controller(name).await;
    }
    all_vote(&swarm, &["4", "5", "6"]).await;
    let client = swarm.client().await;
    for agent in &mut swarm.agents {
        node_ready(&client, agent).await;
    }
    swarm.function_ready("hello").await;
    let function = object(&client, &function_path("hello")).await.unwrap();
    assert!(
        function["metadata"]["labels"]["after"].is_null(),
        "{function}"
    );
    for address in &serving {
        answers(address, "hello").await;
    }
    assert_eq!(node_uids(&mut swarm).await, nodes, "nobody enrolled anew");
    for (agent, before) in swarm.agents.iter().zip(&held) {
        assert_eq!(
            &artifacts_of(&agent.member.dir),
            before,
            "nothing was downloaded again"
        );
    }
    let outcomes = load.stop().await;
    println!("served by the node meanwhile: {}", summary(&outcomes));
    assert!(
        outcomes.iter().all(|outcome| outcome.is_good()),
        "{}",
        summary(&outcomes)
    );
    // The swarm takes changes again, and the nodes heed them.
    swarm.ctl(&["scale", "fn/hello", "--replicas=1"]).await.ok();
    swarm.function_ready("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_controller_of_three_goes_on_alone() {
    let mut swarm = Swarm::builder().agents(1).start().await;
    let spec = json!({ "replicas": 1, "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    let mut lost: Vec<Controller> = swarm.controllers.drain(1..).collect();
    for controller in &mut lost {
        controller.member.kill9().await;
    }
    let survivor = swarm.controllers[0].member.name.clone();
    let running = swarm.controller_command(&survivor, &["recover"], "").await;
    running.fails(&["in use by another process"]);
    swarm.controllers[0].member.kill9().await;

    let mistaken = swarm
        .controller_command(&survivor, &["recover"], "yes\n")
        .await;
    mistaken.fails(&["nothing was changed"]);
    assert!(
        mistaken.stdout.contains("What may be lost"),
        "{}",
        mistaken.stdout
    );
    // Looking does not change what is shown.
    let again = swarm
        .controller_command(&survivor, &["recover"], "no\n")
        .await;
    let last_wrote = |text: &str| text.split("(now").next().map(str::to_owned);
    assert_eq!(last_wrote(&mistaken.stdout), last_wrote(&again.stdout));
    let began = Instant::now();
    let done = swarm
        .controller_command(&survivor, &["recover"], "e2e\n")
        .await;
    assert!(done.ok().contains("in epoch 1"), "{}", done.stdout);
    let said_before = swarm.agents[0].member.log().len();
    swarm.controllers[0].member.start();
    swarm.controller_ready(0).await;
    println!(
        "recovered and ready after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let again = swarm
        .controller_command(&survivor, &["recover", "--yes"], "")
        .await;
    again.fails(&["in use by another process"]);

    let client = swarm.client().await;
    node_ready(&client, &mut swarm.agents[0]).await;
    swarm.function_ready("hello").await;
    all_vote(&swarm, &["4"]).await;
    // A node heeds the latest epoch that it heard of: until then it would go on with whoever is there.
    let begins = format!(
        "session begins endpoint=\"{}\"",
        swarm.controllers[0].link_address()
    );
    until("the node heard of the epoch", PATIENCE, async || {
        let log = swarm.agents[0].member.log();
        let since = &log[said_before..];
        holds(since.contains(&begins), since)
    })
    .await;

    // The lost ones come back and elect each other; nobody else heeds them.
    for controller in &mut lost {
        controller.member.start();
    }
    until("they have a leader of their own", PATIENCE, async || {
        let logs: String = lost
            .iter()
            .map(|one| one.member.log_of_this_run())
            .collect();
        holds(logs.contains("leading"), "not yet")
    })
    .await;
    swarm.add_controller("controller-5").await;
    all_vote(&swarm, &["4", "5"]).await;
    swarm.ctl(&["scale", "fn/hello", "--replicas=0"]).await.ok();
    let address = swarm.agents[0].address();
    until(
        "the node heeds the swarm that goes on",
        PATIENCE,
        async || {
            let answer = hive_e2e::web::get(&address, &host("hello"), "/").await;
            holds(
                !answer.as_ref().is_ok_and(|answer| answer.status == 200),
                format!("{answer:?}"),
            )
        },
    )
    .await;
}

/// A stop is no fault: what it costs is a hand-over, not an election.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over() {
    let mut swarm = Swarm::builder().agents(0).default_timing().start().await;
    all_vote(&swarm, &["1", "2", "3"]).await;
    let leader = swarm.leader().await;
    swarm.controllers[leader].member.stop().await;
    let log = swarm.controllers[leader].member.log_of_this_run();
    assert!(log.contains("handed leadership over"), "{log}");
    let survivor = (leader + 1) % 3;
    let client = swarm.client_of(survivor).await;
    let began = Instant::now();
    until(
        "a follower answers from the newest state",
        PATIENCE,
        async || object(&client, NODES).await,
    )
    .await;
    println!(
        "answered {:.0} ms after the stop",
        began.elapsed().as_millis()
    );
}
