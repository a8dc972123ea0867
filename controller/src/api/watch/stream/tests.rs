//! Watches in a model of the swarm: controllers apply the log at their own pace, take in snapshots and
//! restart; clients read slowly, break off, and come back elsewhere. Whatever happens in whatever
//! order, a client that was told it knows everything up to a revision was told everything.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::limits::Permits;
use super::super::super::media::Form;
use super::super::super::path::Target;
use super::super::super::query::{IncludeObject, Query};
use super::super::event::Kind;
use super::*;
use crate::state::{Command, State};

const CONTROLLERS: usize = 3;

/// What clients watch; two of them the same. The names are those that `command` makes.
const WATCHED: [&str; 8] = [
    "/api/v1/configmaps?",
    "/api/v1/namespaces/a/configmaps?",
    "/api/v1/namespaces/a/configmaps?",
    "/api/v1/namespaces/b/configmaps?",
    "/api/v1/namespaces/a/configmaps/n0?",
    "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dn1",
    "/api/v1/configmaps?labelSelector=app%3Dx",
    "/api/v1/namespaces/quiet/configmaps?",
];

/// So large that a few of them are more than a chunk.
const LARGE: usize = CHUNK_BYTES / 3;

#[derive(Clone, Debug)]
enum Step {
    /// A controller applies so many entries more.
    Apply(usize, usize),
    /// Its watchers are told of what it applied.
    Announce(usize),
    /// It gets a snapshot of a later entry, so many on.
    TakeSnapshot(usize, usize),
    /// It begins anew with a snapshot of an entry so many before its last, and the log behind that.
    Restart(usize, usize),
    /// A client begins a watch at a controller, from where it is; or with what there is.
    Watch(usize, usize, bool),
    /// A client reads a chunk, if there is one.
    Read(usize),
    /// It is time for a bookmark, or for the end of the client's watch: it is woken as by its timer.
    Bookmark(usize),
    End(usize),
    BreakOff(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let controller = || 0..CONTROLLERS;
    let client = || 0..WATCHED.len();
    prop_oneof![
        12 => (controller(), 1usize..6).prop_map(|(at, count)| Step::Apply(at, count)),
        12 => controller().prop_map(Step::Announce),
        1 => (controller(), 1usize..10).prop_map(|(at, on)| Step::TakeSnapshot(at, on)),
        1 => (controller(), 0usize..10).prop_map(|(at, back)| Step::Restart(at, back)),
        6 => (client(), controller(), prop::bool::weighted(0.1))
            .prop_map(|(who, at, initial)| Step::Watch(who, at, initial)),
        24 => client().prop_map(Step::Read),
        2 => client().prop_map(Step::Bookmark),
        4 => client().prop_map(Step::End),
        1 => client().prop_map(Step::BreakOff),
    ]
}

/// One of few objects comes, changes, or goes.
fn command() -> impl Strategy<Value = Command> {
    let key = (
        prop_oneof![Just("a"), Just("b")],
        prop_oneof![Just("n0"), Just("n1"), Just("n2")],
    );
    let app = prop_oneof![Just("x"), Just("y")];
    (key, app, 0u8..10, any::<u16>()).prop_map(|((namespace, name), app, what, value)| {
        let key = Key::new(Resource::ConfigMap, namespace, name);
        let load = if what == 0 { LARGE } else { 1 };
        let body = json!({
            "metadata": { "name": name, "namespace": namespace, "labels": { "app": app } },
            "data": { "value": value, "load": "x".repeat(load) },
        });
        match what {
            0..4 => Command::Create {
                key,
                body: body.into(),
            },
            4..8 => Command::Replace {
                key,
                body: body.into(),
                expect: None,
            },
            8 => Command::Delete {
                key,
                expect: None,
                uid: None,
            },
            // A change of something that nobody here watches.
            _ => Command::RegisterArtifact {
                sha256: value.to_string(),
                size: 1,
            },
        }
    })
}

struct Controller {
    /// Entries that it has applied.
    applied: usize,
    state: Arc<Mutex<State>>,
    topics: Topics,
}

impl Controller {
    fn starting_with(applied: usize, state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let source = state.clone();
        Self {
            applied,
            state,
            topics: Topics::of(move || source.lock().unwrap().clone()),
        }
    }

    fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision()
    }
}

/// What a client was told since it listed.
#[derive(Default)]
struct Client {
    watch: Option<(usize, Watch)>,
    listed: u64,
    through: u64,
    told: Vec<(u64, &'static str, String)>,
    /// While it is sent what there is.
    initial: Option<Vec<String>>,
}

struct Swarm {
    log: Vec<Command>,
    /// After each entry.
    states: Vec<State>,
    controllers: Vec<Controller>,
    clients: Vec<Client>,
}

fn scope_of(watched: &str) -> (Scope, Audience) {
    let (path, query) = watched.split_once('?').unwrap();
    let Some(Target::Objects(path)) = Target::parse(path) else {
        panic!("{path} is not of objects");
    };
    let query = Query::parse(Some(query)).unwrap();
    let selectors = Selectors {
        labels: query.labels().unwrap(),
        fields: query.fields(path.resource).unwrap(),
    };
    let audience = Audience {
        labels: query.label_selector.clone(),
        fields: query.field_selector.clone(),
        shape: Shape {
            form: Form::Object,
            include: IncludeObject::Metadata,
        },
    };
    (Scope { path, selectors }, audience)
}

/// Older versions' snapshots do not remember what was before them.
fn as_of_a_snapshot(state: &State, remembers: bool) -> State {
    State::from_image(match remembers {
        true => state.image_with_history(),
        false => state.image(),
    })
}

fn named(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap().to_owned();
    format!("{}/{}", part("namespace"), part("name"))
}

fn revision_of(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.unwrap().parse().unwrap()
}

impl Swarm {
    fn new(log: Vec<Command>) -> Self {
        let mut states = vec![State::default()];
        for command in &log {
            let mut state = states.last().unwrap().clone();
            // Refusals are part of it.
            let _ = state.apply(command.clone());
            states.push(state);
        }
        let controllers = (0..CONTROLLERS).map(|_| Controller::starting_with(0, State::default()));
        Self {
            log,
            states,
            controllers: controllers.collect(),
            clients: WATCHED.iter().map(|_| Client::default()).collect(),
        }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Apply(at, count) => {
                let controller = &mut self.controllers[at];
                let end = self.log.len().min(controller.applied + count);
                let mut state = controller.state.lock().unwrap();
                for command in &self.log[controller.applied..end] {
                    let _ = state.apply(command.clone());
                }
                controller.applied = end;
            }
            Step::Announce(at) => {
                let topics = &self.controllers[at].topics;
                topics.announce(&topics.state());
            }
            Step::TakeSnapshot(at, on) => {
                let controller = &mut self.controllers[at];
                controller.applied = self.log.len().min(controller.applied + on);
                let state = &self.states[controller.applied];
                *controller.state.lock().unwrap() = as_of_a_snapshot(state, on % 2 == 0);
            }
            Step::Restart(at, back) => {
                for client in &mut self.clients {
                    client.watch.take_if(|(its, _)| *its == at);
                }
                let applied = self.controllers[at].applied;
                let snapshot = applied.saturating_sub(back);
                let state = as_of_a_snapshot(&self.states[snapshot], back % 2 == 0);
                self.controllers[at] = Controller::starting_with(snapshot, state);
                self.perform(&Step::Apply(at, back));
            }
            Step::Watch(who, at, initial) => self.begin(who, at, initial),
            Step::Read(who) => drop(self.read(who)),
            Step::Bookmark(who) => {
                if let Some((_, watch)) = &mut self.clients[who].watch {
                    watch.next_bookmark = Some(Instant::now());
                    watch.subscription.ticks.mark_changed();
                }
            }
            Step::End(who) => {
                if let Some((_, watch)) = &mut self.clients[who].watch {
                    watch.deadline = Instant::now();
                    watch.subscription.ticks.mark_changed();
                }
            }
            Step::BreakOff(who) => self.clients[who].watch = None,
        }
    }

    fn begin(&mut self, who: usize, at: usize, initial: bool) {
        let controller = &self.controllers[at];
        let client = &mut self.clients[who];
        // One that is sent what there is, and breaks off, begins anew.
        let initial = initial || client.initial.is_some();
        // A controller that is behind lets a client wait.
        if !initial && controller.revision() < client.through {
            return;
        }
        let (scope, audience) = scope_of(WATCHED[who]);
        let subscription = controller.topics.subscribe(&scope);
        let (phase, sent) = if initial {
            let view = controller.state.lock().unwrap().view();
            client.initial = Some(Vec::new());
            let sent = view.revision();
            (
                Phase::Initial {
                    view,
                    after: None,
                    announce: true,
                },
                sent,
            )
        } else {
            (Phase::CatchingUp, client.through)
        };
        let user = User::anonymous();
        let watch = Watch {
            topics: controller.topics.clone(),
            subscription,
            stop: CancellationToken::new(),
            encoder: Encoder {
                resource: scope.path.resource,
                shape: audience.shape,
            },
            scope,
            audience,
            sent,
            phase,
            next_bookmark: Some(Instant::now() + BOOKMARK_INTERVAL),
            deadline: Instant::now() + BOOKMARK_INTERVAL,
            _permit: Permits::default().watch(&user.info).unwrap(),
            user,
        };
        client.watch = Some((at, watch));
    }

    /// Whether there was something to read.
    fn read(&mut self, who: usize) -> bool {
        let Some((_, watch)) = &mut self.clients[who].watch else {
            return false;
        };
        let Some(next) = watch.next().now_or_never() else {
            return false;
        };
        let Some(chunk) = next else {
            self.clients[who].watch = None;
            return false;
        };
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.tell(who, &serde_json::from_slice(line).unwrap());
        }
        true
    }

    fn tell(&mut self, who: usize, event: &Value) {
        let client = &mut self.clients[who];
        let object = &event["object"];
        match (event["type"].as_str().unwrap(), &mut client.initial) {
            ("ERROR", _) => {
                assert_eq!(object["code"], 410, "{event}");
                // It lists, here and now.
                let (at, _) = client.watch.take().unwrap();
                let listed = self.controllers[at].revision();
                *client = Client {
                    listed,
                    through: listed,
                    ..Client::default()
                };
            }
            ("ADDED", Some(initial)) => initial.push(named(object)),
            ("BOOKMARK", Some(initial)) => {
                let annotations = &object["metadata"]["annotations"];
                assert_eq!(annotations["k8s.io/initial-events-end"], "true");
                let listed = revision_of(object);
                let (scope, _) = scope_of(WATCHED[who]);
                let state = self.states.iter().find(|state| state.revision() == listed);
                let there: Vec<String> = state
                    .unwrap()
                    .list(scope.path.resource, scope.path.namespace.as_deref())
                    .filter(|object| scope.selects(object))
                    .map(|object| named(object.body()))
                    .collect();
                assert_eq!(*initial, there);
                client.initial = None;
                client.told.clear();
                (client.listed, client.through) = (listed, listed);
            }
            ("BOOKMARK", None) => client.through = client.through.max(revision_of(object)),
            (kind, None) => {
                let kind = ["ADDED", "MODIFIED", "DELETED"]
                    .into_iter()
                    .find(|k| *k == kind);
                let revision = revision_of(object);
                client.told.push((revision, kind.unwrap(), named(object)));
                client.through = client.through.max(revision);
            }
            (kind, Some(_)) => panic!("{kind} among what there is"),
        }
        self.check(who);
    }

    /// What a client was told is what happened, up to where it believes to know everything.
    fn check(&self, who: usize) {
        let client = &self.clients[who];
        let (scope, _) = scope_of(WATCHED[who]);
        let all = self.states.last().unwrap();
        let happened: Vec<_> = all
            .changes_since(client.listed)
            .unwrap()
            .take_while(|change| change.revision <= client.through)
            .filter(|change| scope.concerns(&change.key))
            .filter_map(|change| {
                let event = transition(change, |object| scope.selects(object))?;
                let kind = match event.kind {
                    Kind::Added => "ADDED",
                    Kind::Modified => "MODIFIED",
                    Kind::Deleted => "DELETED",
                };
                Some((event.object.revision(), kind, named(event.object.body())))
            })
            .collect();
        assert_eq!(
            client.told, happened,
            "client {who} through {}",
            client.through
        );
    }

    /// All is applied and announced, and everybody reads to the end.
    fn settle(&mut self) {
        for at in 0..CONTROLLERS {
            self.perform(&Step::Apply(at, self.log.len()));
            self.perform(&Step::Announce(at));
        }
        let newest = self.states.last().unwrap().revision();
        for who in 0..self.clients.len() {
            // Some end, some are told to list again; then they come back.
            for _ in 0..3 {
                if self.clients[who].watch.is_none() {
                    self.perform(&Step::Watch(who, who % CONTROLLERS, false));
                }
                while self.read(who) {}
                self.perform(&Step::Bookmark(who));
                while self.read(who) {}
            }
            let client = &self.clients[who];
            assert_eq!(client.through, newest, "client {who} knows everything");
            self.check(who);
        }
    }
}

proptest! {
    #[test]
    fn no_event_is_lost_doubled_or_out_of_order(
        log in proptest::collection::vec(command(), 1..80),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        // For the timers, which nothing waits for.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let mut swarm = Swarm::new(log);
        for step in &steps {
            swarm.perform(step);
        }
        swarm.settle();
    }
}
