//! Who belongs to the simulated cluster: its beginning, who joins, and that all agree in the end.

use std::time::Duration;

use hive_manifests::Resource;
use serde_json::json;

use super::super::invariants::Breach;
use super::super::world;
use super::{Cluster, member};
use crate::state::{Command, Key, Outcome};
use crate::store::ProposeError;

impl Cluster {
    /// The first machine, alone, and others that join it.
    pub async fn found(&self, size: u64) {
        self.start(1).await;
        self.on(1, |replica| async move {
            replica
                .bootstrap(member(1))
                .await
                .expect("a swarm of one begins");
        })
        .await;
        for id in 2..=size {
            assert!(
                self.join().await,
                "machine {id} joins while nothing is wrong"
            );
        }
    }

    /// Admits a new machine and makes it vote. False if that failed, or may have.
    pub async fn join(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let id = self
            .inner()
            .machines
            .keys()
            .max()
            .expect("there is a first")
            + 1;
        let admitted = self
            .on(leader, move |replica| async move {
                replica
                    .propose(Command::AdmitController { member: member(id) })
                    .await
            })
            .await;
        // Ids are given by the state: one that was lost is not used.
        let Some(Ok(Outcome::Controller(id))) = admitted else {
            return false;
        };
        if !self.start(id).await {
            return false;
        }
        for _ in 0..3 {
            let Some(leader) = self.leader() else {
                world::Sleep::of(Duration::from_secs(1)).await;
                continue;
            };
            let added = self
                .on(leader, move |replica| async move {
                    replica.add_member(id, &member(id)).await
                })
                .await;
            if let Some(Ok(())) = added {
                return true;
            }
        }
        false
    }

    /// Undoes every fault; then the cluster must write again, and its voters agree.
    pub async fn recover(&self, within: Duration) {
        let deadline = world::true_time() + within;
        loop {
            self.fabric.heal();
            for id in self.ids() {
                let disk = self.disk(id);
                disk.fill(false);
                disk.fail_syncs(false);
                if self.is_down(id) {
                    self.start(id).await;
                }
            }
            if self.agrees().await {
                return;
            }
            if world::true_time() > deadline {
                let health = |id: &u64| self.replica(*id).map(|replica| replica.health());
                let ids = self.ids();
                let all: Vec<_> = ids.iter().map(|id| (id, health(id))).collect();
                std::panic::resume_unwind(Box::new(Breach {
                    invariant: "liveness",
                    what: format!("nothing is wrong, but they do not agree: {all:?}"),
                }));
            }
            world::Sleep::of(Duration::from_millis(500)).await;
        }
    }

    /// One write, seen by every voter.
    pub async fn agrees(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let written = self.on(leader, |replica| async move {
            let key = Key::new(Resource::ConfigMap, "default", "agreed");
            let create = Command::Create {
                key,
                body: json!({ "metadata": { "name": "agreed" } }).into(),
            };
            match replica.propose(create).await {
                Ok(_) | Err(ProposeError::Rejected(_)) => Some(replica.health()),
                Err(_) => None,
            }
        });
        let Some(Some(health)) = written.await else {
            return false;
        };
        world::Sleep::of(Duration::from_secs(2)).await;
        let voter = |id: &u64| {
            self.replica(*id)
                .is_some_and(|r| r.health().applied >= health.applied)
        };
        health.voters.iter().all(voter)
    }
}
