//! What is known of the controllers now: by the leader, or, where none is found, by who answers.
//!
//! The leader that is known here is asked first; when it is silent, or leads no more, all others are.
//! Nothing of before is told as if it were so still: who led in the last term may be dead.

use std::collections::BTreeMap;
use std::time::Duration;

use hive_proto::v1::{ControllerStatus, DescribeControllersReply, DescribeControllersRequest};
use tokio::time::timeout;
use tonic::Code;

use super::{Controllers, own_facts};
use crate::gateway::endpoint;

/// For a controller to say what it sees; it asks nobody.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The controllers at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Described {
    /// As the leader sees them, which leads in this term; 0 where its program is too old to tell.
    ByLeader {
        controllers: Vec<ControllerStatus>,
        term: u64,
    },
    /// No leader is known. Roles are of the last configuration; how far anyone is, nobody knows.
    Leaderless {
        controllers: Vec<(ControllerStatus, Standing)>,
    },
}

/// What a controller did when it was asked whether it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Answers,
    Silent,
}

enum Answer {
    Leads(DescribeControllersReply),
    LeadsNot,
    None,
}

impl Controllers {
    /// All controllers as the leader sees them; where none is found, who answers.
    pub async fn describe(&self) -> Described {
        if let Some(seen) = self.seen_by_leader() {
            return by_leader(seen);
        }
        let own = self.replica.id();
        let known = self.replica.leadership().borrow().leader;
        let mut answers = BTreeMap::from([(own, Standing::Answers)]);
        // Mostly it is so still, and one question is enough.
        if let Some(leader) = known.filter(|id| *id != own) {
            match self.ask(leader).await {
                Answer::Leads(seen) => return by_leader(seen),
                Answer::LeadsNot => answers.insert(leader, Standing::Answers),
                Answer::None => answers.insert(leader, Standing::Silent),
            };
        }
        let state = self.replica.state();
        let others = state.controllers().map(|(id, _)| id);
        let others = others.filter(|id| !answers.contains_key(id));
        let asked = others.map(|id| async move { (id, self.ask(id).await) });
        let mut leaders = Vec::new();
        for (id, answer) in futures::future::join_all(asked).await {
            let standing = match answer {
                Answer::Leads(seen) => {
                    leaders.push(seen);
                    Standing::Answers
                }
                Answer::LeadsNot => Standing::Answers,
                Answer::None => Standing::Silent,
            };
            answers.insert(id, standing);
        }
        // Of two, one has not heard yet that it leads no more.
        match leaders.into_iter().max_by_key(|seen| seen.term) {
            Some(seen) => by_leader(seen),
            None => self.leaderless(&answers),
        }
    }

    async fn ask(&self, id: u64) -> Answer {
        let Ok(mut client) = self.peers.requests(id) else {
            return Answer::None;
        };
        let asked = client.describe_controllers(DescribeControllersRequest {});
        match timeout(DESCRIBE_TIMEOUT, asked).await {
            Ok(Ok(seen)) => Answer::Leads(seen.into_inner()),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Answer::LeadsNot,
            Ok(Err(_)) | Err(_) => Answer::None,
        }
    }

    /// What this controller sees, if it leads.
    pub fn seen_by_leader(&self) -> Option<DescribeControllersReply> {
        let leadership = *self.replica.leadership().borrow();
        if !leadership.is_leader {
            return None;
        }
        let progress = self.replica.progress();
        let last = self.replica.health().last_log;
        let mut controllers = self.configured();
        for status in &mut controllers {
            let id = status.endpoint.as_ref().map_or(0, |one| one.raft_id);
            let seen = progress.get(&id);
            status.leader = id == self.replica.id();
            status.matched = seen.map_or(0, |seen| seen.matched);
            status.lag = last.saturating_sub(status.matched);
            status.silent_ms = seen
                .and_then(|seen| seen.silent)
                .map(|silent| silent.as_millis() as u64);
        }
        Some(DescribeControllersReply {
            controllers,
            term: leadership.term,
        })
    }

    fn leaderless(&self, answers: &BTreeMap<u64, Standing>) -> Described {
        let standing = |status: ControllerStatus| {
            let id = status.endpoint.as_ref().map_or(0, |one| one.raft_id);
            let standing = answers.get(&id).copied().unwrap_or(Standing::Silent);
            (status, standing)
        };
        let controllers = self.configured().into_iter().map(standing).collect();
        Described::Leaderless { controllers }
    }

    /// The controllers that are admitted, and which of them vote.
    fn configured(&self) -> Vec<ControllerStatus> {
        let state = self.replica.state();
        let members = self.replica.members();
        let facts = self.presence.facts();
        let status = |(id, member)| ControllerStatus {
            endpoint: Some(endpoint(id, member)),
            voter: members.get(&id).is_some_and(|(_, votes)| *votes),
            member: members.contains_key(&id),
            facts: if id == self.replica.id() {
                Some(own_facts(&self.replica))
            } else {
                facts.get(&id).cloned()
            },
            ..ControllerStatus::default()
        };
        state.controllers().map(status).collect()
    }
}

fn by_leader(seen: DescribeControllersReply) -> Described {
    let DescribeControllersReply { controllers, term } = seen;
    Described::ByLeader { controllers, term }
}
