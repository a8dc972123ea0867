//! Performs the plan: one command a step, each by compare-and-swap.

use std::time::SystemTime;

use futures::StreamExt;

use super::{Graph, Step, plan};
use crate::reconcile::{Outlook, events};
use crate::state::{Key, Rejection, State};
use crate::store::{ProposeError, Replica};

/// Commands proposed at once: enough for the log to batch its syncs.
const CONCURRENT_STEPS: usize = 16;

/// The leader's garbage collection; a new leader starts from the whole state.
#[derive(Default)]
pub struct Collection {
    graph: Graph,
}

impl Collection {
    /// One look. What another writer overtook stays to be looked at again.
    pub async fn pass(&mut self, replica: &Replica, state: &State) -> Outlook {
        self.graph.follow(state);
        let mut unfinished: Vec<Key> = Vec::new();
        let mut steps = Vec::new();
        for (key, wanted) in plan(&self.graph, state) {
            self.graph.settle(&key);
            steps.extend(wanted.into_iter().map(|step| (key.clone(), step)));
        }
        let mut results = futures::stream::iter(steps)
            .map(async |(cause, step)| {
                let result = perform(replica, state, &step).await;
                (cause, step, result)
            })
            .buffer_unordered(CONCURRENT_STEPS);
        while let Some((cause, step, result)) = results.next().await {
            match result {
                Ok(()) => tracing::debug!(object = %step.key(), ?step, "collected"),
                Err(ProposeError::Rejected(Rejection::NotFound)) => {}
                Err(ProposeError::Rejected(Rejection::Conflict { .. })) => unfinished.push(cause),
                Err(error) => {
                    tracing::warn!(object = %step.key(), %error, "cannot collect garbage");
                    unfinished.push(cause);
                }
            }
        }
        drop(results);
        self.graph.look_again(unfinished);
        Outlook::settled_if(self.graph.is_settled())
    }
}

async fn perform(replica: &Replica, state: &State, step: &Step) -> Result<(), ProposeError> {
    if let Step::Warn { key, message } = step {
        let notice = events::Notice {
            warning: true,
            reason: "OwnerRefInvalidNamespace".into(),
            message: message.clone(),
            source: "garbage-collector-controller".into(),
            count: 1,
        };
        events::record(replica, key, notice).await;
    }
    match step.command(state, SystemTime::now()) {
        None => Ok(()),
        Some(command) => replica.propose(command).await.map(|_| ()),
    }
}
