//! How artifacts come, when links don't hold.

use hive_agent::Agent;
use hive_proto::artifact;
use hive_proto::v1::{ArtifactChunk, Phase};

use crate::controller::{Controller, Swarm};
use crate::support::{HELLO, assignment, config, eventually, get, put, restarted, running};

/// Less than the artifact has, and not a whole number of chunks.
const CUT_AFTER: usize = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    put(&controller, &HELLO);
    controller.state().cut_after = Some(CUT_AFTER);
    controller.desire(1, &[assignment(&swarm, "hello", 1, &HELLO)]);
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    let failed = controller
        .reported("hello.0", "failed", |status| {
            status.phase() == Phase::Failed
        })
        .await;
    assert_eq!(failed.reason, "FetchFailed");
    assert!(failed.message.contains("cut off"), "{}", failed.message);
    // A restart in between changes nothing.
    agent.stop().await;
    controller.state().cut_after = None;

    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    controller.ready("hello.0").await;
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    let offsets = controller.state().fetches.clone();
    // How often it was tried, and at which byte it was stopped, goes by the machine.
    assert_eq!(offsets[0], 0);
    let rest = &offsets[1..];
    let kept = |offset: &u64| *offset >= CUT_AFTER as u64;
    assert!(!rest.is_empty() && rest.iter().all(kept), "{offsets:?}");
    assert!(rest.is_sorted(), "none came twice: {offsets:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_controller_breaks_off_another_goes_on() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (bad, good) = (
        Controller::start(&swarm).await,
        Controller::start(&swarm).await,
    );
    for controller in [&bad, &good] {
        put(controller, &HELLO);
        controller.desire(1, &[assignment(&swarm, "hello", 1, &HELLO)]);
    }
    bad.state().cut_after = Some(CUT_AFTER);
    good.state().is_old = true;
    let agent = Agent::start(config(dir.path(), &swarm, &[&bad, &good]))
        .await
        .unwrap();
    eventually("the artifact is whole", || {
        let name = hex::encode(&HELLO.sha256);
        dir.path()
            .join("artifacts")
            .join(name)
            .exists()
            .then_some(())
    })
    .await;
    let fetched: u64 = good.state().fetches.iter().sum();
    assert_eq!(
        fetched,
        bad.state().fetches.len() as u64 * CUT_AFTER as u64,
        "the good one was asked for what the bad one had not sent"
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_lie_about_their_size_are_refused() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    put(&controller, &HELLO);
    controller.state().lies = Some(|data| ArtifactChunk {
        plain_size: u32::MAX,
        ..artifact::compressed(data)
    });
    let refused = async |why: &str| {
        let failed = controller
            .reported("hello.0", why, |status| status.message.contains(why))
            .await;
        assert_eq!(failed.reason, "FetchFailed");
    };
    controller.desire(1, &[assignment(&swarm, "hello", 1, &HELLO)]);
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    refused("more than").await;
    controller.state().lies = Some(|data| ArtifactChunk {
        plain_size: 1000,
        ..artifact::compressed(data)
    });
    refused("no zstd frame of 1000 bytes").await;
    let fetches = controller.state().fetches.clone();
    assert!(
        fetches.iter().all(|offset| *offset == 0),
        "nothing of it is kept"
    );

    // Mended, it comes by itself.
    controller.state().lies = None;
    controller.ready("hello.0").await;
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 200);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_bytes_are_never_run() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    let mut false_bytes = HELLO.bytes.to_vec();
    false_bytes[1000] ^= 1;
    controller
        .state()
        .artifacts
        .insert(HELLO.sha256.clone(), false_bytes.into());
    controller.desire(1, &[assignment(&swarm, "hello", 1, &HELLO)]);
    let agent = Agent::start(config(dir.path(), &swarm, &[&controller]))
        .await
        .unwrap();
    let failed = controller
        .reported("hello.0", "failed", |status| {
            status.phase() == Phase::Failed
        })
        .await;
    assert_eq!(failed.reason, "ArtifactDamaged");
    assert_eq!(get(&agent, "hello.test", "/").await.status(), 503);

    // Mended, it comes by itself.
    put(&controller, &HELLO);
    controller.ready("hello.0").await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_disk_is_told() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let (controller, agent) = running(&swarm, dir.path(), &HELLO).await;
    agent.stop().await;
    controller.state().holdings.clear();

    let agent = Agent::start(restarted(dir.path(), &swarm)).await.unwrap();
    let told = eventually("it is told", || controller.state().holdings.pop()).await;
    let first = HELLO.sha256[..8].try_into().unwrap();
    assert_eq!(told, [u64::from_be_bytes(first)]);
    agent.stop().await;
}
