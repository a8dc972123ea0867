//! Writes of many callers that go through Raft together: each hears of its own.

use futures::future::join_all;
use hive_controller::objects::{self, Writer};
use hive_controller::state::{Command, Key, Rejection};
use hive_controller::store::ProposeError;
use hive_controller::together::Together;
use hive_manifests::Resource;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::Server;

/// More than go into one entry.
const CALLERS: usize = 500;

fn create(name: &str) -> Command {
    let key = Key::new(Resource::ConfigMap, "default", name);
    let body = objects::fresh(
        &key,
        json!({}),
        json!({ "data": { "text": "t".repeat(900) } }),
    );
    let body = body.into();
    Command::Create { key, body }
}

/// Returns how many log entries it took.
async fn write_all(server: &Server) -> u64 {
    let stop = CancellationToken::new();
    let (together, written) = Together::new(server.replica.clone(), stop.clone());
    let written = tokio::spawn(written);
    let before = server.replica.health().applied;
    let names = (0..CALLERS).map(|number| format!("c{}", number % (CALLERS / 2)));
    let outcomes = join_all(names.map(async |name| together.write(create(&name)).await)).await;
    let entries = server.replica.health().applied - before;
    // Of each name one comes to be, and the other is told that it is there.
    let exists = Err(ProposeError::Rejected(Rejection::AlreadyExists));
    let count = |wanted| outcomes.iter().filter(|one| **one == wanted).count();
    assert_eq!((count(Ok(())), count(exists)), (CALLERS / 2, CALLERS / 2));
    let maps = server.replica.state();
    let maps = maps.list(Resource::ConfigMap, Some("default")).count();
    assert_eq!(maps, CALLERS / 2);
    stop.cancel();
    written.await.unwrap();
    assert!(together.write(create("late")).await.is_err());
    entries
}

#[tokio::test]
async fn writes_of_many_share_entries_and_keep_their_outcomes() {
    let entries = write_all(&Server::agreed().await).await;
    assert!(entries < CALLERS as u64 / 4, "{entries} entries");
}

#[tokio::test]
async fn among_controllers_that_know_no_batches_each_write_goes_alone() {
    let entries = write_all(&Server::start().await).await;
    assert!(entries >= CALLERS as u64, "{entries} entries");
}
