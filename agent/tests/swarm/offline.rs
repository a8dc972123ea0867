//! What goes on while no controller is there.

use hive_agent::Agent;
use hyper::StatusCode;

use crate::controller::{Controller, Swarm};
use crate::support::{HELLO, config, eventually, get, restarted, running, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_started_with_every_controller_down_serves_within_a_second() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    controller.stop().await;
    // Cut off, it goes on; and after a restart too.
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    agent.stop().await;

    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    within(async { while get(&agent, "hello.test", "/").await.status() != StatusCode::OK {} })
        .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_artifact_is_fetched_anew() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    agent.stop().await;

    let path = dir
        .path()
        .join("artifacts")
        .join(hex::encode(&HELLO.sha256));
    let mut rotten = std::fs::read(&path).unwrap();
    rotten[2000] ^= 1;
    std::fs::write(&path, rotten).unwrap();
    controller.state().reports.clear();
    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    controller.ready("hello.0").await;
    assert_eq!(controller.state().fetches, [0, 0]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_ledger_comes_again_from_the_controllers() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    agent.stop().await;

    std::fs::write(dir.path().join("ledger.redb"), b"rotten").unwrap();
    controller.state().reports.clear();
    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    controller.ready("hello.0").await;
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    assert_eq!(
        controller.state().fetches,
        [0],
        "the artifact was still there"
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_goes_to_another_controller() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let all = [
        Controller::start(&swarm).await,
        Controller::start(&swarm).await,
    ];
    let agent = Agent::start(config(dir.path(), &swarm, &[&all[0], &all[1]]))
        .await
        .unwrap();
    let holds = |controller: &Controller| !controller.state().hellos.is_empty();
    let first = eventually("a session", || all.iter().position(holds)).await;
    all[first].stop().await;
    let other = &all[1 - first];
    eventually("the session's move", || holds(other).then_some(())).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_are_told_when_the_agent_stops() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    eventually("a session", || controller.state().hellos.last().cloned()).await;
    agent.stop().await;
    eventually("the goodbye", || {
        let state = controller.state();
        let ended = state.links.iter().all(|link| link.end().is_some());
        ended.then_some(())
    })
    .await;
}
