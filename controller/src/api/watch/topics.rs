//! Who is to be woken by a change: watchers subscribe to a topic, which is a kind, a namespace of a
//! kind, or one object, and are left alone by everything else.
//!
//! One task reads the history once for all of them. A watcher of a quiet topic would fall out of
//! the history without having missed anything: marks and ticks tell it how far it may go without
//! looking. Nothing here holds events; those are read from the history.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hive_manifests::Resource;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::stream::{Audience, Scope};
use crate::state::{Change, Key, State};
use crate::store::Replica;

/// Revisions between two ticks. A tick wakes every watcher, some milliseconds for 5,000; without
/// ticks, a watcher of a quiet topic would have as many changes to look through when it is woken.
const TICK_REVISIONS: u64 = 4096;

/// Chunks of encoded events that the watchers of a topic share; those that keep up ask for the same
/// one, or for the one before.
const SHARED_CHUNKS: usize = 4;

/// A larger chunk is encoded by each watcher for itself: a topic holds a megabyte at most.
const SHARED_BYTES: usize = 256 << 10;

/// Topics without a watcher that may lie about before they are looked for.
const IDLE_TOPICS: usize = 1024;

/// Where something is to be found in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The topic's last change but those announced together with this mark...
    before: u64,
    /// ...which begin here. Nothing of the topic lies between.
    first: u64,
    pub last: u64,
}

impl Mark {
    /// Nothing of the topic is announced, and what is announced later follows `scanned`.
    fn unread(scanned: u64) -> Self {
        Self {
            before: u64::MAX,
            first: 0,
            last: scanned,
        }
    }

    fn next(self, first: u64, last: u64) -> Self {
        Self {
            before: self.last,
            first,
            last,
        }
    }

    /// From where a watcher must read that knows everything up to `sent`.
    pub fn from(self, sent: u64) -> u64 {
        if sent >= self.before {
            sent.max(self.first.saturating_sub(1))
        } else {
            sent
        }
    }
}

/// A kind; a namespace of it, or all; one name, or all. Empty means all.
type TopicKey = (Resource, String, String);

pub(super) struct Topic {
    marks: watch::Sender<Mark>,
    chunks: Mutex<VecDeque<SharedChunk>>,
}

/// Events as they go to all who watch alike.
struct SharedChunk {
    audience: Audience,
    from: u64,
    upto: u64,
    chunk: Bytes,
    sent: u64,
}

impl Topic {
    fn new(scanned: u64) -> Self {
        Self {
            marks: watch::Sender::new(Mark::unread(scanned)),
            chunks: Mutex::default(),
        }
    }

    fn chunks(&self) -> MutexGuard<'_, VecDeque<SharedChunk>> {
        self.chunks
            .lock()
            .expect("nothing panics while it holds the shared chunks")
    }

    /// What another watcher of the same encoded for the same changes, and how far it goes.
    pub fn shared(&self, audience: &Audience, from: u64, upto: u64) -> Option<(Bytes, u64)> {
        self.chunks()
            .iter()
            .find(|shared| {
                shared.from == from && shared.upto == upto && shared.audience == *audience
            })
            .map(|shared| (shared.chunk.clone(), shared.sent))
    }

    pub fn share(&self, audience: &Audience, from: u64, upto: u64, chunk: &Bytes, sent: u64) {
        if self.marks.receiver_count() < 2 || chunk.len() > SHARED_BYTES {
            return;
        }
        let mut chunks = self.chunks();
        if chunks.len() == SHARED_CHUNKS {
            chunks.pop_front();
        }
        chunks.push_back(SharedChunk {
            audience: audience.clone(),
            from,
            upto,
            chunk: chunk.clone(),
            sent,
        });
    }
}

/// A watcher's place in a topic.
pub(super) struct Subscription {
    pub topic: Arc<Topic>,
    pub marks: watch::Receiver<Mark>,
    /// The revision up to which all topics know; changes now and then only.
    pub ticks: watch::Receiver<u64>,
}

/// All topics that somebody watches. Clones are handles to one.
#[derive(Clone)]
pub(in crate::api) struct Topics {
    shared: Arc<Shared>,
}

struct Shared {
    /// What is applied here, which announcements lag behind by a moment.
    source: Box<dyn Fn() -> State + Send + Sync>,
    topics: Mutex<Board>,
    /// Everything up to here is announced.
    scanned: AtomicU64,
    ticks: watch::Sender<u64>,
}

struct Board {
    scanned: u64,
    topics: HashMap<TopicKey, Arc<Topic>>,
    /// How many topics there were after those without watchers were last removed.
    swept: usize,
}

impl Topics {
    /// Announces a replica's changes until cancelled; watches then end by themselves.
    pub fn follow(replica: Replica, stop: CancellationToken) -> Self {
        let mut revisions = replica.revisions();
        let topics = Self::of(move || replica.state());
        let announcer = topics.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            announcer.announce(&announcer.state());
            while revisions.changed().await.is_ok() {
                announcer.announce(&announcer.state());
            }
        }));
        topics
    }

    pub(super) fn of(source: impl Fn() -> State + Send + Sync + 'static) -> Self {
        let revision = source().revision();
        Self {
            shared: Arc::new(Shared {
                source: Box::new(source),
                topics: Mutex::new(Board {
                    scanned: revision,
                    topics: HashMap::new(),
                    swept: 0,
                }),
                scanned: AtomicU64::new(revision),
                ticks: watch::Sender::new(revision),
            }),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.shared
            .topics
            .lock()
            .expect("nothing panics while it holds the topics")
    }

    pub(super) fn subscribe(&self, scope: &Scope) -> Subscription {
        let ticks = self.shared.ticks.subscribe();
        let mut board = self.board();
        board.sweep();
        let scanned = board.scanned;
        let topic = board
            .topics
            .entry(topic_of(scope))
            .or_insert_with(|| Arc::new(Topic::new(scanned)))
            .clone();
        Subscription {
            marks: topic.marks.subscribe(),
            topic,
            ticks,
        }
    }

    /// What is applied here: at least what was announced.
    pub fn state(&self) -> State {
        (self.shared.source)()
    }

    /// All that happened up to here is announced.
    pub fn scanned(&self) -> u64 {
        self.shared.scanned.load(Ordering::Acquire)
    }

    pub(super) fn announce(&self, state: &State) {
        let revision = state.revision();
        let urgent = self.board().announce(state);
        self.shared.scanned.store(revision, Ordering::Release);
        let kept = revision.saturating_sub(state.remembers_after());
        self.shared.ticks.send_if_modified(|ticked| {
            let due = TICK_REVISIONS.min(kept / 4).max(1);
            let tick = revision != *ticked && (urgent || revision - *ticked >= due);
            if tick {
                *ticked = revision;
            }
            tick
        });
    }
}

impl Board {
    /// Marks the topics that something happened in; true when all watchers should look up.
    fn announce(&mut self, state: &State) -> bool {
        let revision = state.revision();
        let mut urgent = false;
        match state.changes_since(self.scanned) {
            Ok(changes) => {
                let mut touched: HashMap<&TopicKey, (u64, u64)> = HashMap::new();
                for change in changes {
                    urgent |= decides_access(change);
                    for key in topics_of(&change.key) {
                        if let Some((key, _)) = self.topics.get_key_value(&key) {
                            let (_, last) = touched.entry(key).or_insert((change.revision, 0));
                            *last = change.revision;
                        }
                    }
                }
                for (key, (first, last)) in touched {
                    let marks = &self.topics[key].marks;
                    marks.send_modify(|mark| *mark = mark.next(first, last));
                }
            }
            // A snapshot took the place of what was: each finds out what that means for it.
            Err(_) => {
                urgent = true;
                for topic in self.topics.values() {
                    topic.marks.send_replace(Mark::unread(revision));
                }
            }
        }
        self.scanned = revision;
        urgent
    }

    /// Removes topics that nobody watches, once there may be many.
    fn sweep(&mut self) {
        if self.topics.len() > 2 * self.swept + IDLE_TOPICS {
            self.topics
                .retain(|_, topic| topic.marks.receiver_count() > 0);
            self.swept = self.topics.len();
        }
    }
}

fn topic_of(scope: &Scope) -> TopicKey {
    let path = &scope.path;
    let namespace = path.namespace.clone().unwrap_or_default();
    let name = match scope.name() {
        // Of one name in all namespaces there is no topic.
        Some(name) if !namespace.is_empty() || !path.resource.namespaced() => name.to_owned(),
        _ => String::new(),
    };
    (path.resource, namespace, name)
}

/// The topics that a change of this object belongs to.
fn topics_of(key: &Key) -> Vec<TopicKey> {
    let Key {
        resource,
        namespace,
        name,
    } = key;
    let topic = |namespace: &str, name: &str| (*resource, namespace.to_owned(), name.to_owned());
    let mut topics = vec![topic("", ""), topic(namespace, name)];
    if !namespace.is_empty() {
        topics.push(topic(namespace, ""));
    }
    topics
}

/// Whether somebody who watches may have lost the right to.
fn decides_access(change: &Change) -> bool {
    match change.key.resource {
        Resource::Secret | Resource::CertificateSigningRequest => change.before.is_some(),
        Resource::ServiceAccount
        | Resource::Role
        | Resource::RoleBinding
        | Resource::ClusterRole
        | Resource::ClusterRoleBinding => true,
        Resource::Namespace
        | Resource::ConfigMap
        | Resource::Event
        | Resource::ResourceQuota
        | Resource::LimitRange
        | Resource::Node
        | Resource::Function
        | Resource::Tunnel
        | Resource::ControllerRevision
        | Resource::Assignment => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::path::Target;
    use crate::api::selectors::Selectors;
    use crate::state::Command;
    use serde_json::json;

    fn scope(path: &str) -> Scope {
        let Some(Target::Objects(path)) = Target::parse(path) else {
            panic!("{path} is not of objects");
        };
        Scope {
            path,
            selectors: Selectors::default(),
        }
    }

    fn create(state: &mut State, namespace: &str, name: &str) -> u64 {
        state
            .apply(Command::Create {
                key: Key::new(Resource::ConfigMap, namespace, name),
                body: json!({ "metadata": { "name": name } }).into(),
            })
            .unwrap();
        state.revision()
    }

    #[test]
    fn only_those_whom_a_change_may_concern_are_woken() {
        let mut state = State::default();
        let topics = Topics::of(State::default);
        let mut subscriptions: Vec<(&str, Subscription)> = [
            "/api/v1/configmaps",
            "/api/v1/namespaces/a/configmaps",
            "/api/v1/namespaces/b/configmaps",
            "/api/v1/namespaces/a/configmaps/x",
            "/api/v1/namespaces/a/configmaps/y",
            "/api/v1/namespaces/a/secrets",
        ]
        .map(|path| (path, topics.subscribe(&scope(path))))
        .into();
        create(&mut state, "a", "x");
        topics.announce(&state);
        let woken: Vec<&str> = subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.marks.has_changed().unwrap())
            .map(|(path, _)| *path)
            .collect();
        assert_eq!(
            woken,
            [
                "/api/v1/configmaps",
                "/api/v1/namespaces/a/configmaps",
                "/api/v1/namespaces/a/configmaps/x"
            ]
        );
        subscriptions.clear();
        let mut board = topics.board();
        board.swept = 0;
        for n in 0..IDLE_TOPICS {
            let key = (Resource::ConfigMap, "a".to_owned(), n.to_string());
            board.topics.insert(key, Arc::new(Topic::new(1)));
        }
        board.sweep();
        assert_eq!(board.topics.len(), 0);
    }

    #[test]
    fn what_is_quiet_is_stepped_over() {
        let mut state = State::default();
        let topics = Topics::of(State::default);
        let quiet = topics.subscribe(&scope("/api/v1/namespaces/quiet/configmaps"));
        for n in 0..100 {
            create(&mut state, "noisy", &format!("n{n}"));
            topics.announce(&state);
        }
        let event = create(&mut state, "quiet", "q");
        create(&mut state, "noisy", "last");
        topics.announce(&state);
        let mark = *quiet.marks.borrow();
        assert_eq!(mark.from(0), event - 1, "the first hundred are none of its");
        assert_eq!(mark.last, event);
        // A second change before the watcher looked: from where it stood, the safe place.
        let second = create(&mut state, "quiet", "q2");
        topics.announce(&state);
        let mark = *quiet.marks.borrow();
        assert_eq!(mark.from(0), 0);
        assert_eq!(mark.from(event), second - 1);
        assert_eq!(mark.from(second), second);
    }

    #[test]
    fn who_begins_in_the_past_reads_it() {
        let mut state = State::default();
        for n in 0..3 {
            create(&mut state, "a", &format!("n{n}"));
        }
        let then = state.clone();
        let topics = Topics::of(move || then.clone());
        let past = topics.subscribe(&scope("/api/v1/namespaces/a/configmaps"));
        assert_eq!(past.marks.borrow().from(1), 1);
        create(&mut state, "a", "new");
        topics.announce(&state);
        assert_eq!(past.marks.borrow().from(1), 1);
        assert_eq!(past.marks.borrow().from(3), 3);
    }

    #[test]
    fn a_tick_comes_now_and_then_and_when_rights_change() {
        let mut state = State::default();
        let topics = Topics::of(State::default);
        let mut quiet = topics.subscribe(&scope("/apis/hive.dev/v1/nodes"));
        let mut ticks = 0;
        for n in 0..3 * TICK_REVISIONS {
            create(&mut state, "a", &format!("n{n}"));
            topics.announce(&state);
            ticks += u64::from(quiet.ticks.has_changed().unwrap());
            quiet.ticks.mark_unchanged();
        }
        // While little is remembered they come more often.
        assert!((3..100).contains(&ticks), "{ticks}");
        state
            .apply(Command::Create {
                key: Key::new(Resource::RoleBinding, "a", "r"),
                body: json!({ "metadata": { "name": "r" } }).into(),
            })
            .unwrap();
        topics.announce(&state);
        assert!(quiet.ticks.has_changed().unwrap());
    }
}
