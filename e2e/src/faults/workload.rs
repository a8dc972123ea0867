//! Clients that read, write, swap, make and remove a few objects through all controllers at once,
//! and write down what they saw.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hive_history::{Action, Operation, Outcome};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{CALM, Door, Heard};
use super::cluster::Cluster;
use super::seed::Seed;
use crate::swarm::CONFIG_MAPS;
use crate::wait::{self, until};

/// Shorter than an election, so that clients give up while the outcome is open.
const PATIENCE: Duration = Duration::from_millis(800);

/// Clients at each controller.
const CLIENTS: usize = 2;

/// Few enough that clients meet at each.
const KEYS: u64 = 6;

/// Between two operations of a client: all of them together leave the controllers room to breathe
/// on two cores in a debug build.
const PACE: Duration = Duration::from_millis(25);

/// After a request that could not even be sent.
const PAUSE: Duration = Duration::from_millis(100);

/// What all clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub history: Vec<Operation>,
    /// Answers that no client should get, whatever is broken.
    pub scandals: Vec<String>,
    /// Of each object, the value at each revision, as answers named it.
    revisions: HashMap<(String, u64), u64>,
}

impl Seen {
    /// Object, revision and value, of everything that any client saw.
    pub fn states(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let states = self.revisions.iter();
        states.map(|((key, revision), value)| (key.as_str(), *revision, *value))
    }

    fn revision(&mut self, key: &str, revision: u64, value: u64) {
        let known = self
            .revisions
            .entry((key.to_owned(), revision))
            .or_insert(value);
        if *known != value {
            let scandal =
                format!("{key} at revision {revision} is {known} to one, {value} to another");
            self.scandals.push(scandal);
        }
    }
}

#[derive(Debug)]
pub struct Workload {
    prefix: String,
    clock: Instant,
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// A machine without power answers nobody. Those of a test may be told by ext4, while that is shut down, that a sync
    /// is done which is not, and say so to clients and to each other: what is answered while it is set is unknown.
    pub is_dark: Arc<AtomicBool>,
}

impl Workload {
    /// `prefix` begins the names of its objects, which must not be there yet.
    pub fn start(cluster: &Cluster, prefix: &str, seed: &mut Seed) -> Self {
        let stop = watch::Sender::new(false);
        let seen = Arc::<Mutex<Seen>>::default();
        let is_dark = Arc::<AtomicBool>::default();
        let mut clients = JoinSet::new();
        let clock = Instant::now();
        for client in 0..cluster.nodes.len() * CLIENTS {
            let client = Client {
                number: client as u32,
                door: cluster.door(client % cluster.nodes.len()),
                prefix: prefix.to_owned(),
                known: HashMap::new(),
                writes: 0,
                clock,
                seen: seen.clone(),
                is_dark: is_dark.clone(),
                seed: seed.fork(),
            };
            clients.spawn(client.run(stop.subscribe()));
        }
        Self {
            prefix: prefix.to_owned(),
            clock,
            seen,
            clients,
            stop,
            is_dark,
        }
    }

    pub fn operations(&self) -> usize {
        self.seen.lock().expect("no holder panics").history.len()
    }

    /// When an operation succeeded last, as time since the start.
    pub fn last_success(&self) -> Option<Duration> {
        let seen = self.seen.lock().expect("no holder panics");
        let ok = |o: &&Operation| !matches!(o.outcome, Outcome::Failed | Outcome::Unknown);
        seen.history
            .iter()
            .rev()
            .find(ok)
            .map(|o| Duration::from_nanos(o.ended))
    }

    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Ends the clients; then reads all objects through each controller, which must answer.
    pub async fn finish(mut self, cluster: &Cluster) -> Seen {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        for index in 0..cluster.nodes.len() {
            let mut client = Client {
                number: 1000 + index as u32,
                door: cluster.door(index),
                prefix: self.prefix.clone(),
                known: HashMap::new(),
                writes: 0,
                clock: self.clock,
                seen: self.seen.clone(),
                is_dark: self.is_dark.clone(),
                seed: Seed::new(0),
            };
            for key in 0..KEYS {
                let key = client.key(key);
                // A machine that is busy may have made no connection in time, or another one lead.
                let what = format!("controller-{} answers after all was healed", index + 1);
                until(&what, wait::PATIENCE, async || {
                    match client.perform(&key, Action::Read, CALM).await {
                        Outcome::Found(_) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await;
            }
        }
        let seen = self.seen.lock().expect("no holder panics");
        Seen {
            history: seen.history.clone(),
            scandals: seen.scandals.clone(),
            revisions: seen.revisions.clone(),
        }
    }
}

struct Client {
    number: u32,
    door: Door,
    prefix: String,
    /// Of each object, what it last saw: value and resourceVersion.
    known: HashMap<String, (u64, String)>,
    writes: u64,
    clock: Instant,
    seen: Arc<Mutex<Seen>>,
    is_dark: Arc<AtomicBool>,
    seed: Seed,
}

impl Client {
    fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let number = self.seed.below(KEYS);
            let key = self.key(number);
            let action = self.choose(&key);
            let outcome = self.perform(&key, action, PATIENCE).await;
            let pause = match outcome {
                Outcome::Failed | Outcome::Unknown => PAUSE,
                Outcome::Done | Outcome::Found(_) => PACE,
            };
            // Cut short by the end.
            let _ = tokio::time::timeout(pause, stop.changed()).await;
        }
    }

    fn choose(&mut self, key: &str) -> Action {
        let known = self.known.get(key).map(|(value, _)| *value);
        match (self.seed.below(100), known) {
            (0..45, _) => Action::Read,
            (45..75, Some(expected)) => Action::Swap {
                expected,
                value: self.fresh(),
            },
            (45..75, None) | (75..82, _) => Action::Create(self.fresh()),
            (82..94, _) => Action::Update(self.fresh()),
            _ => Action::Delete,
        }
    }

    /// A value that nobody else writes.
    fn fresh(&mut self) -> u64 {
        self.writes += 1;
        u64::from(self.number + 1) * 1_000_000 + self.writes
    }

    async fn perform(&mut self, key: &str, action: Action, patience: Duration) -> Outcome {
        let path = format!("{CONFIG_MAPS}/{key}");
        let object = |value: u64, revision: Option<&str>| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": key, "resourceVersion": revision },
                "data": { "value": value.to_string() },
            })
        };
        let (method, path, body) = match action {
            Action::Read => (Method::GET, path.as_str(), None),
            Action::Create(value) => (Method::POST, CONFIG_MAPS, Some(object(value, None))),
            Action::Update(value) => (Method::PUT, path.as_str(), Some(object(value, None))),
            Action::Swap { value, .. } => {
                let (_, revision) = &self.known[key];
                (
                    Method::PUT,
                    path.as_str(),
                    Some(object(value, Some(revision))),
                )
            }
            Action::Delete => (Method::DELETE, path.as_str(), None),
        };
        let began = self.now();
        let heard = match self.door.ask(method, path, body.as_ref(), patience).await {
            Heard::Answer { .. } if self.is_dark.load(Ordering::SeqCst) => {
                Heard::Nothing("the power was going".to_owned())
            }
            heard => heard,
        };
        let ended = self.now();
        let outcome = self.judge(key, action, &heard);
        let operation = Operation {
            client: self.number,
            key: key.to_owned(),
            began,
            ended,
            action,
            outcome,
        };
        self.seen
            .lock()
            .expect("no holder panics")
            .history
            .push(operation);
        outcome
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).expect("runs are short")
    }

    fn judge(&mut self, key: &str, action: Action, heard: &Heard) -> Outcome {
        let (status, body) = match heard {
            Heard::NotSent(_) => return Outcome::Failed,
            Heard::Nothing(_) => return Outcome::Unknown,
            Heard::Answer { status, body } => (*status, body),
        };
        let message = body["message"].as_str().unwrap_or_default();
        match (status, action) {
            (200, Action::Read) => Outcome::Found(Some(self.note(key, body))),
            (200 | 201, Action::Delete) => {
                self.known.remove(key);
                Outcome::Done
            }
            (200 | 201, _) => {
                self.note(key, body);
                Outcome::Done
            }
            (404, Action::Read | Action::Update(_) | Action::Swap { .. } | Action::Delete) => {
                self.known.remove(key);
                Outcome::Found(None)
            }
            (409, _) => {
                // What it knew is old.
                self.known.remove(key);
                Outcome::Failed
            }
            (429, _) => Outcome::Failed,
            // Only where it is said in so many words.
            (503, _) if message.contains("Nothing was written") => Outcome::Failed,
            (503 | 504, _) => Outcome::Unknown,
            _ => {
                let scandal = format!("{action:?} of {key} was answered by {status}: {body}");
                self.seen
                    .lock()
                    .expect("no holder panics")
                    .scandals
                    .push(scandal);
                Outcome::Unknown
            }
        }
    }

    /// The value in an answer.
    fn note(&mut self, key: &str, body: &Value) -> u64 {
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        let value = number(&body["data"]["value"]).expect("objects have what was written");
        let revision = &body["metadata"]["resourceVersion"];
        let text = revision.as_str().expect("objects have a resourceVersion");
        self.known.insert(key.to_owned(), (value, text.to_owned()));
        let revision = number(revision).expect("a resourceVersion is a number");
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.revision(key, revision, value);
        value
    }
}
