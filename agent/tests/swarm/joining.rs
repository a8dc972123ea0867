//! Who gets in, and how it stays in.

use std::time::Duration;

use hive_agent::Agent;
use hive_identity::{Credentials, JoinToken, Peer};

use crate::controller::{Controller, Swarm};
use crate::support::{config, eventually, restarted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_a_machine_in_once_and_it_comes_back_without() {
    let swarm = Swarm::new();
    let controller = Controller::start(&swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    let hello = eventually("a session", || controller.state().hellos.last().cloned()).await;
    let info = hello.info.unwrap();
    assert_eq!(hello.generation, 0);
    assert_eq!(info.labels["disk"], "ssd");
    assert_eq!(info.target, hive_functions::host_target());
    assert!(info.memory_bytes > 0 && info.cpu_millis >= 1000);
    eventually("usage", || controller.state().usages.last().cloned()).await;
    agent.stop().await;
    // One, or more of them where a link was lost meanwhile.
    let before = controller.state().hellos.len();

    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    eventually("another session", || {
        (controller.state().hellos.len() > before).then_some(())
    })
    .await;
    agent.stop().await;
    let secrets = controller.state().enrolments.clone();
    assert_eq!(secrets, [swarm.token().secret.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_and_said_so() {
    let swarm = Swarm::new();
    let controller = Controller::start(&swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = config(dir.path(), &swarm, &[&controller]);
    wrong.token = Some(JoinToken::generate(swarm.token().ca));
    let error = Agent::start(wrong).await.err().unwrap();
    assert!(format!("{error:#}").contains("no such token"), "{error:#}");
    assert!(Credentials::load(dir.path()).is_err_and(|error| error.is_missing()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_another_swarm_is_refused_before_the_secret_is_shown() {
    let (swarm, other) = (Swarm::new(), Swarm::new());
    let controller = Controller::start(&other).await;
    let dir = tempfile::tempdir().unwrap();
    let error = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .err()
        .unwrap();
    let text = format!("{error:#}");
    assert!(text.contains("another swarm"), "{text}");
    assert!(text.contains(&swarm.token().ca.to_string()), "{text}");
    assert!(controller.state().enrolments.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_it_says_where_to_get_one() {
    let swarm = Swarm::new();
    let dir = tempfile::tempdir().unwrap();
    let error = Agent::start(restarted(dir.path(), &swarm))
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("hivectl token create"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_while_running() {
    let swarm = Swarm::new();
    // Backdated by five minutes, so two thirds of its life are over at once.
    swarm.set_lifetime(Duration::from_secs(60));
    let controller = Controller::start(&swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    let first = Credentials::load(dir.path()).unwrap().not_after();
    swarm.set_lifetime(Duration::from_secs(24 * 3600));
    let second = eventually("a new certificate", || {
        let held = Credentials::load(dir.path()).ok()?.not_after();
        (held > first + Duration::from_secs(3600)).then_some(held)
    })
    .await;
    assert!(controller.state().renewals >= 1);

    // What links are made with from now on. It is on the disk before it is used, and its directory is synced in
    // between: the next link may still be made with the one before.
    eventually("a link under the new certificate", || {
        let state = controller.state();
        let link = state.links.iter().rev().find(|link| link.end().is_none())?;
        let is_new = link.peer()?.not_after == second;
        if !is_new {
            link.close("to see the next one's certificate");
        }
        is_new.then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_ran_out_comes_back_by_its_key() {
    let swarm = Swarm::new();
    swarm.set_lifetime(Duration::from_secs(1));
    let controller = Controller::start(&swarm).await;
    let dir = tempfile::tempdir().unwrap();
    let first = config(dir.path(), &swarm, &[&controller]);
    Agent::start(first).await.unwrap().stop().await;
    controller.state().hellos.clear();
    // Where starting takes longer than that certificate lives, it has come back by its key already.
    let secrets = std::mem::take(&mut controller.state().enrolments);
    assert_eq!(secrets[0], swarm.token().secret.to_string());
    assert!(secrets[1..].iter().all(String::is_empty), "{secrets:?}");
    let expired = Credentials::load(dir.path()).unwrap();
    eventually("the certificate's end", || {
        (expired.not_after() < std::time::SystemTime::now()).then_some(())
    })
    .await;
    swarm.set_lifetime(Duration::from_secs(3600));

    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    let held = eventually("a session under a new certificate", || {
        let held = Credentials::load(dir.path()).ok()?;
        let state = controller.state();
        let mut peers = state.links.iter().filter_map(|link| link.peer());
        let is_new = |peer: &Peer| peer.not_after > expired.not_after();
        (peers.any(is_new) && !state.hellos.is_empty()).then_some(held)
    })
    .await;
    agent.stop().await;
    assert_eq!(held.key().fingerprint(), expired.key().fingerprint());
    assert_eq!(controller.state().enrolments, [String::new()]);
}
