//! Clients that read, write and compare-and-swap a few keys, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hive_manifests::Resource;
use serde_json::json;

use super::cluster::Cluster;
use super::linearizable::{self, Action, Operation, Value};
use super::planted::Planted;
use super::world;
use crate::state::{Body, Command, Key, Outcome, Rejection, State};
use crate::store::{ProposeError, Replica};

/// Few, so that clients get in each other's way.
const KEYS: u64 = 3;

/// Between two operations of one client, at most.
const PAUSE_MS: u64 = 250;

#[derive(Clone, Default)]
pub struct History(Arc<Mutex<BTreeMap<u64, Vec<Operation>>>>);

/// How operations ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    pub known: u64,
    pub unknown: u64,
}

impl History {
    fn push(&self, key: u64, operation: Operation) {
        let mut keys = self.0.lock().expect("no panics inside");
        keys.entry(key).or_default().push(operation);
    }

    /// # Errors
    /// The key whose history no register would show.
    pub fn check(&self) -> Result<Ends, String> {
        let keys = self.0.lock().expect("no panics inside");
        let mut ends = Ends::default();
        for (key, operations) in keys.iter() {
            linearizable::check(operations).map_err(|error| format!("key {key}: {error}"))?;
            let known = operations.iter().filter(|o| o.returned.is_some()).count() as u64;
            ends.known += known;
            ends.unknown += operations.len() as u64 - known;
        }
        Ok(ends)
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

/// What a client is about to do.
#[derive(Clone, Copy)]
enum Wish {
    Read,
    Create(Value),
    Replace(Value),
    Swap(Value, u64, Value),
    Delete,
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
        let wish = match (world::below(100), last_read.get(&number)) {
            (0..35, _) => Wish::Read,
            (35..45, _) => Wish::Create(value),
            (45..65, _) => Wish::Replace(value),
            (65..95, Some((known, revision))) => Wish::Swap(*known, *revision, value),
            (65..95, None) => Wish::Read,
            _ => Wish::Delete,
        };
        let called = world::true_time();
        let asked = cluster.clone();
        let done = cluster
            .on(machine, move |replica| async move {
                perform(&asked, &replica, planted, number, wish).await
            })
            .await;
        let returned = Some(world::true_time());
        let operation = |action, returned, revision| Operation {
            action,
            called,
            returned,
            revision,
        };
        match done.unwrap_or(Done::Unknown) {
            Done::Read(seen) => {
                match seen {
                    Some(seen) => drop(last_read.insert(number, seen)),
                    None => drop(last_read.remove(&number)),
                }
                let action = Action::Read(seen.map(|(value, _)| value));
                history.push(number, operation(action, returned, seen.map(|(_, r)| r)));
            }
            Done::Known(action, revision) => {
                last_read.remove(&number);
                history.push(number, operation(action, returned, revision));
            }
            Done::Nothing => {}
            Done::Unknown => {
                let action = match wish {
                    // Whatever it would have said.
                    Wish::Read => continue,
                    Wish::Create(value) => Action::Create(value),
                    Wish::Replace(value) => Action::Replace(value),
                    Wish::Swap(known, _, value) => Action::Swap(known, value),
                    Wish::Delete => Action::Delete,
                };
                history.push(number, operation(action, None, None));
            }
        }
        world::record(&world::true_time().as_nanos().to_le_bytes());
    }
}

enum Done {
    Read(Option<(Value, u64)>),
    /// With the revision of what it wrote.
    Known(Action, Option<u64>),
    /// Certainly not performed.
    Nothing,
    Unknown,
}

async fn perform(
    cluster: &Cluster,
    replica: &Replica,
    planted: Option<Planted>,
    number: u64,
    wish: Wish,
) -> Done {
    let key = key(number);
    let command = match wish {
        Wish::Read => {
            let asks = planted != Some(Planted::StaleRead);
            if asks && replica.read_barrier().await.is_err() {
                return Done::Nothing;
            }
            return Done::Read(stored(&replica.state(), number));
        }
        Wish::Create(value) => Command::Create {
            key,
            body: body(number, value),
        },
        Wish::Replace(value) => Command::Replace {
            key,
            body: body(number, value),
            expect: None,
        },
        Wish::Swap(_, revision, value) => Command::Replace {
            key,
            body: body(number, value),
            expect: Some(revision),
        },
        Wish::Delete => Command::Delete {
            key,
            expect: None,
            uid: None,
        },
    };
    match replica.propose(command).await {
        Ok(outcome) => {
            let revision = match &outcome {
                Outcome::Created(object) | Outcome::Replaced(object) | Outcome::Deleted(object) => {
                    object.revision()
                }
                other => unreachable!("every value is new, so this is not {other:?}"),
            };
            cluster.acknowledge(revision);
            let action = match wish {
                Wish::Read => unreachable!("a read proposes nothing"),
                Wish::Create(value) => Action::Create(value),
                Wish::Replace(value) => Action::Replace(value),
                Wish::Swap(known, _, value) => Action::Swap(known, value),
                Wish::Delete => Action::Delete,
            };
            Done::Known(action, Some(revision))
        }
        Err(ProposeError::Rejected(rejection)) => {
            let action = match (rejection, wish) {
                (Rejection::AlreadyExists, _) => Action::Present,
                (Rejection::NotFound, _) => Action::Absent,
                (Rejection::Conflict { .. }, Wish::Swap(known, ..)) => Action::Other(known),
                (Rejection::Conflict { .. }, _) => unreachable!("only a swap expects a revision"),
                (Rejection::QuotaExceeded { .. }, _) => unreachable!("there are no quotas here"),
            };
            Done::Known(action, None)
        }
        Err(ProposeError::NoLeader | ProposeError::TooLarge(_)) => Done::Nothing,
        // A stopping or failed replica may have taken it before.
        Err(ProposeError::TimedOut | ProposeError::Stopped | ProposeError::Storage(_)) => {
            Done::Unknown
        }
    }
}
