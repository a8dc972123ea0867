//! What several tests of this crate begin with.

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::peers::{Peers, Route};
use crate::state::{Command, Key, Member, State, level};
use crate::store::seal::keys::Keys;
use crate::store::{Replica, ReplicaOptions, Timing};

/// A swarm of one controller, which leads it.
pub struct Alone {
    pub replica: Replica,
    pub peers: Peers,
    /// With the files of the replica; they go with it.
    pub dir: TempDir,
}

impl Alone {
    /// All controllers have agreed on what this program knows.
    pub async fn start(member: Member) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = Box::new(|_, _: &Member| Route::following(watch::channel(None).1));
        let peers = Peers::connecting(nowhere, 1);
        let options = ReplicaOptions {
            keys: Keys::default(),
            dir: dir.path().join("raft"),
            id: 1,
            timing: Some(Timing {
                heartbeat_ms: 50,
                election_min_ms: 200,
                election_max_ms: 400,
            }),
        };
        let replica = Replica::start(options, peers.clone()).await.unwrap();
        replica.bootstrap(member).await.unwrap();
        let raised = Command::RaiseLevel { to: level::OWN };
        replica.propose(raised).await.unwrap();
        Self {
            replica,
            peers,
            dir,
        }
    }
}

/// Writes an object, whether it is there already or not.
pub fn put(state: &mut State, key: Key, body: &Value) {
    let body = body.into();
    let command = match state.get(&key) {
        None => Command::Create { key, body },
        Some(_) => Command::Replace {
            key,
            body,
            expect: None,
        },
    };
    state.apply(command).unwrap();
}
