//! Clients that read, write and compare-and-swap a few keys, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hive_history::{Action, Operation, Outcome as Seen, Value};
use hive_manifests::Resource;
use serde_json::json;

use super::cluster::Cluster;
use super::planted::Planted;
use super::world;
use crate::state::{Body, Command, Key, Outcome, Rejection, State};
use crate::store::{ProposeError, Replica};

/// Few, so that clients get in each other's way.
const KEYS: u64 = 3;

/// Between two operations of one client, at most.
const PAUSE_MS: u64 = 250;

#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Vec<Operation>>>);

/// How operations ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    pub known: u64,
    pub unknown: u64,
}

impl History {
    fn push(&self, operation: Operation) {
        self.0.lock().expect("no panics inside").push(operation);
    }

    /// # Errors
    /// The operations that contradict each other.
    pub fn check(&self) -> Result<Ends, String> {
        let operations = self.0.lock().expect("no panics inside");
        hive_history::check(&operations).map_err(|fault| fault.to_string())?;
        let unknown = operations.iter().filter(|o| o.outcome == Seen::Unknown);
        let unknown = unknown.count() as u64;
        let known = operations.len() as u64 - unknown;
        Ok(Ends { known, unknown })
    }
}

fn key(number: u64) -> Key {
    Key::new(Resource::ConfigMap, "default", format!("k{number}"))
}

fn body(number: u64, value: Value) -> Body {
    // Large enough that segments fill.
    let padding = "x".repeat((value % 400) as usize);
    json!({ "metadata": { "name": format!("k{number}") }, "data": { "value": value, "padding": padding } }).into()
}

/// The value, and the revision it has.
fn stored(state: &State, number: u64) -> Option<(Value, u64)> {
    let object = state.get(&key(number))?;
    Some((object.body()["data"]["value"].as_u64()?, object.revision()))
}

/// Works until told to stop.
pub async fn work(
    cluster: Cluster,
    client: u64,
    planted: Option<Planted>,
    history: History,
    stop: Arc<Mutex<bool>>,
) {
    let mut last_read = BTreeMap::new();
    let mut count = 0;
    while !*stop.lock().expect("no panics inside") {
        world::Sleep::of(Duration::from_millis(world::below(PAUSE_MS))).await;
        let ids = cluster.ids();
        let machine = ids[world::below(ids.len() as u64) as usize];
        let number = world::below(KEYS);
        count += 1;
        let value = client * 1_000_000 + count;
        let (action, expect) = match (world::below(100), last_read.get(&number)) {
            (0..35, _) => (Action::Read, None),
            (35..45, _) => (Action::Create(value), None),
            (45..65, _) => (Action::Update(value), None),
            (65..95, Some((expected, revision))) => {
                let expected = *expected;
                (Action::Swap { expected, value }, Some(*revision))
            }
            (65..95, None) => (Action::Read, None),
            _ => (Action::Delete, None),
        };
        let began = nanos(world::true_time());
        let asked = cluster.clone();
        let done = cluster
            .on(machine, move |replica| async move {
                let command = command(number, action, expect);
                perform(&asked, &replica, planted, number, command).await
            })
            .await;
        // It went down: nobody says what it did.
        let (outcome, seen) = done.unwrap_or((Seen::Unknown, None));
        match seen {
            Some(seen) => drop(last_read.insert(number, seen)),
            None => drop(last_read.remove(&number)),
        }
        let ended = nanos(world::true_time());
        history.push(Operation {
            client: client as u32,
            key: format!("k{number}"),
            began,
            ended,
            action,
            outcome,
        });
        world::record(&ended.to_le_bytes());
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// What is proposed for it; nothing to read.
fn command(number: u64, action: Action, expect: Option<u64>) -> Option<Command> {
    let key = key(number);
    Some(match action {
        Action::Read => return None,
        Action::Create(value) => Command::Create {
            key,
            body: body(number, value),
        },
        Action::Update(value) | Action::Swap { value, .. } => Command::Replace {
            key,
            body: body(number, value),
            expect,
        },
        Action::Delete => Command::Delete {
            key,
            expect: None,
            uid: None,
        },
    })
}

/// How it ended, and what was read, with its revision.
async fn perform(
    cluster: &Cluster,
    replica: &Replica,
    planted: Option<Planted>,
    number: u64,
    command: Option<Command>,
) -> (Seen, Option<(Value, u64)>) {
    let Some(command) = command else {
        let asks = planted != Some(Planted::StaleRead);
        if asks && replica.read_barrier().await.is_err() {
            return (Seen::Failed, None);
        }
        let stored = stored(&replica.state(), number);
        return (Seen::Found(stored.map(|(value, _)| value)), stored);
    };
    let outcome = match replica.propose(command).await {
        Ok(outcome) => {
            let (Outcome::Created(object) | Outcome::Replaced(object) | Outcome::Deleted(object)) =
                outcome
            else {
                unreachable!("every value is new, so this is not {outcome:?}")
            };
            cluster.acknowledge(object.revision());
            Seen::Done
        }
        Err(ProposeError::Rejected(Rejection::NotFound)) => Seen::Found(None),
        // What is there instead is not said.
        Err(ProposeError::Rejected(_)) => Seen::Failed,
        Err(ProposeError::NoLeader | ProposeError::TooLarge(_)) => Seen::Failed,
        // A stopping or failed replica may have taken it before.
        Err(ProposeError::TimedOut | ProposeError::Stopped | ProposeError::Storage(_)) => {
            Seen::Unknown
        }
    };
    (outcome, None)
}
