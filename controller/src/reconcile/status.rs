//! Functions' statuses, from their assignments.

mod explain;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use hive_manifests::Phase;
use hive_proto::v1;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{self, Notice};
use super::schedule::{AssignmentView, Copies, FunctionView, Plan, Seen, View, copies};
use crate::ingress::routes::{self, Follower};
use crate::objects::{self, EditError};
use crate::reconcile::Outlook;
use crate::state::{Key, State, level};
use crate::store::Replica;
use explain::Situation;

/// Why a function is as it should be. Every other reason says what is still missing.
const SETTLED: [&str; 2] = ["Ready", "ScaledToZero"];

/// As Gateway API calls it.
const ROUTES_ACCEPTED: &str = "RoutesAccepted";
const ROUTE_CONFLICT: &str = "RouteConflict";

/// What a function's status should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub generation: i64,
    pub replicas: usize,
    pub ready: usize,
    pub updated: usize,
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
    pub url: String,
    /// Which of its routes another function or a tunnel has, in one sentence.
    pub lost_route: Option<String>,
}

/// All functions' summaries, by the view of a state, the plan for it, and who has which route. Pure.
pub fn summaries(
    state: &State,
    view: &View,
    plan: &Plan,
    routes: &Follower,
) -> BTreeMap<Key, Summary> {
    let ready_nodes: BTreeSet<&str> = view
        .nodes
        .iter()
        .filter(|node| node.ready)
        .map(|node| &*node.name)
        .collect();
    let base = Base::of(state);
    copies(view, plan)
        .map(|(function, copies)| {
            let is_ready = |a: &&&AssignmentView| {
                a.phase == Phase::Ready && ready_nodes.contains(&*a.spec.node_name)
            };
            let ready = copies.own.iter().filter(is_ready).count();
            let updated = copies.updated(&function.spec.template()).count();
            let Copies {
                own,
                trials,
                wanted,
            } = copies;
            let situation = Situation {
                function,
                own: &own,
                trials: &trials,
                ready_nodes: &ready_nodes,
                ready,
                updated,
                wanted,
                unplaced: plan.unplaced.get(&function.key).map(String::as_str),
            };
            let serves_elsewhere = own.iter().any(|copy| {
                let previous = copy.spec.previous.as_ref();
                previous.is_some_and(|it| ready_nodes.contains(&*it.node_name))
            });
            let available = ready > 0 || serves_elsewhere || situation.is_scaled_to_zero();
            let (reason, message) = situation.explain(state);
            let summary = Summary {
                generation: function.generation,
                replicas: wanted,
                ready,
                updated,
                available,
                reason,
                message,
                url: base.url_of(function),
                lost_route: routes.lost(&function.key),
            };
            (function.key.clone(), summary)
        })
        .collect()
}

/// Where the ingress is reached from outside.
pub(super) struct Base<'a> {
    domain: &'a str,
    port: Option<String>,
    tls_port: Option<String>,
}

impl<'a> Base<'a> {
    pub(super) fn of(state: &'a State) -> Self {
        let other_than = |endpoint: Option<&str>, usual: &str| {
            let (_, port) = endpoint?.rsplit_once(':')?;
            (port != usual).then(|| port.to_owned())
        };
        let mut members = state.controllers();
        let first = members.next().map(|(_, member)| &*member.ingress);
        let mut members = state.controllers();
        let first_tls = members.find_map(|(_, member)| member.ingress_tls.as_deref());
        Self {
            domain: routes::domain(state),
            port: other_than(first, "80"),
            tls_port: other_than(first_tls, "443"),
        }
    }

    pub(super) fn url(&self, route: &v1::Route) -> String {
        let v1::Route { host, path, .. } = route;
        match &self.port {
            Some(port) => format!("http://{host}:{port}{path}"),
            None => format!("http://{host}{path}"),
        }
    }

    /// By https.
    pub(super) fn secure_url(&self, route: &v1::Route) -> String {
        let v1::Route { host, path, .. } = route;
        match &self.tls_port {
            Some(port) => format!("https://{host}:{port}{path}"),
            None => format!("https://{host}{path}"),
        }
    }

    fn url_of(&self, function: &FunctionView) -> String {
        let key = &function.key;
        let routes = routes::routes_of(&key.name, &key.namespace, &function.spec.http, self.domain);
        self.url(&routes[0])
    }
}

/// Writes functions' statuses.
pub struct Statuses {
    seen: Seen,
    routes: Follower,
    /// What functions were found to say, and at which revision: they need not be read again for it.
    said: BTreeMap<Key, (u64, Summary)>,
    /// At which level.
    level: u32,
}

impl Statuses {
    pub fn new(seen: Seen, state: &State) -> Self {
        Self {
            seen,
            routes: Follower::of(state),
            said: BTreeMap::new(),
            level: state.level(),
        }
    }

    /// One look: writes the statuses that say something else.
    pub async fn pass(&mut self, replica: &Replica, state: &State) -> Outlook {
        let mut outlook = Outlook::Settled;
        let level = state.level();
        self.routes.follow(state);
        let mut before = std::mem::take(&mut self.said);
        if self.level != level {
            before.clear();
            self.level = level;
        }
        let summaries = self.seen.at(state, Timestamp::now(), |view, plan| {
            summaries(state, view, plan, &self.routes)
        });
        for (key, summary) in summaries {
            let Some(object) = state.get(&key) else {
                continue;
            };
            let found = (object.revision(), summary);
            if before.get(&key) == Some(&found) {
                self.said.insert(key, found);
                continue;
            }
            let told = object.to_value()["status"].clone();
            if !set(&mut told.clone(), &found.1, &key, level) {
                self.said.insert(key, found);
                continue;
            }
            let news = route_lost(&told, &found.1);
            let written = objects::edit(replica, &key, |body| {
                set(&mut body["status"], &found.1, &key, level)
            })
            .await;
            match written {
                Ok(()) => {
                    if let Some(notice) = news {
                        events::record(replica, &key, notice).await;
                    }
                }
                Err(EditError::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(function = %key, error = &error as &dyn std::error::Error, "cannot write status");
                    outlook = Outlook::Again;
                }
            }
        }
        outlook
    }
}

/// That something else has a route, unless the status said so already.
fn route_lost(told: &Value, summary: &Summary) -> Option<Notice> {
    let why = summary.lost_route.as_ref()?;
    let mut told = told["conditions"].as_array().into_iter().flatten();
    if told.any(|it| it["type"] == ROUTES_ACCEPTED && it["message"] == **why) {
        return None;
    }
    Some(Notice {
        warning: true,
        reason: ROUTE_CONFLICT.to_owned(),
        message: why.clone(),
        source: "ingress".to_owned(),
        count: 1,
    })
}

/// At the swarm's `level`: controllers before revisions refuse a function whose status says more than
/// they know, whoever wrote it.
fn set(status: &mut Value, summary: &Summary, key: &Key, level: u32) -> bool {
    let before = status.clone();
    let now = SystemTime::now();
    for (kind, is_so) in [
        ("Ready", SETTLED.contains(&summary.reason)),
        ("Available", summary.available),
    ] {
        let is_so = if is_so { "True" } else { "False" };
        let (reason, message) = (summary.reason, &summary.message);
        objects::set_condition(status, kind, is_so, reason, message, now);
    }
    let is_known = |condition: &Value| condition["type"] == ROUTES_ACCEPTED;
    let mut known = status["conditions"].as_array().into_iter().flatten();
    match &summary.lost_route {
        Some(why) => {
            objects::set_condition(status, ROUTES_ACCEPTED, "False", ROUTE_CONFLICT, why, now);
        }
        // Of most functions it is not worth saying.
        None if known.any(is_known) => {
            let all = "all its routes are its own";
            objects::set_condition(status, ROUTES_ACCEPTED, "True", "Accepted", all, now);
        }
        None => {}
    }
    status["observedGeneration"] = json!(summary.generation);
    status["replicas"] = json!(summary.replicas);
    status["readyReplicas"] = json!(summary.ready);
    if level >= level::REVISIONS {
        status["updatedReplicas"] = json!(summary.updated);
    }
    status["ready"] = json!(format!("{}/{}", summary.ready, summary.replicas));
    status["url"] = json!(summary.url);
    status["selector"] = json!(format!("hive.dev/function={}", key.name));
    *status != before
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::reconcile::schedule::{Step, plan};
    use crate::state::{Command, Member};
    use hive_manifests::{FunctionSpec, Resource};

    fn put(state: &mut State, resource: Resource, name: &str, uid: &str, extra: Value) {
        let namespace = if resource.namespaced() { "default" } else { "" };
        let key = Key::new(resource, namespace, name);
        let mut body = objects::fresh(&key, json!({}), extra);
        body["metadata"]["uid"] = json!(uid);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    fn node(state: &mut State, name: &str, ready: &str) {
        put(
            state,
            Resource::Node,
            name,
            name,
            json!({
                "spec": { "key": "" },
                "status": {
                    "conditions": [{
                        "type": "Ready", "status": ready, "reason": "", "message": "",
                        "lastTransitionTime": "2020-01-01T00:00:00Z",
                    }],
                    "allocatable": { "memory": "1Gi", "cpu": "4" },
                    "nodeInfo": { "wasmtimeVersion": "48" },
                },
            }),
        );
    }

    fn assignment(state: &mut State, slot: &str, node: &str, phase: &str, message: &str) {
        let mut status = json!({ "phase": phase, "observedGeneration": 1 });
        if !message.is_empty() {
            status["message"] = json!(message);
        }
        put(
            state,
            Resource::Assignment,
            &format!("hello.{slot}"),
            slot,
            json!({
                "spec": {
                    "functionName": "hello", "functionUid": "f", "functionGeneration": 1,
                    "nodeName": node, "slot": slot,
                    "function": template_json(),
                    "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                        "wasmtimeVersion": "48", "description": "", "signature": "" },
                },
                "status": status,
            }),
        );
    }

    fn spec() -> Value {
        json!({ "artifact": { "sha256": "a".repeat(64) }, "replicas": 2 })
    }

    fn template_json() -> Value {
        let spec: FunctionSpec = serde_json::from_value(spec()).unwrap();
        json!(spec.template())
    }

    fn swarm() -> State {
        let mut state = State::default();
        let member = Member {
            link: String::new(),
            api: String::new(),
            ingress: "127.0.0.1:8080".into(),
            ingress_tls: None,
        };
        state.apply(Command::AdmitController { member }).unwrap();
        put(
            &mut state,
            Resource::Function,
            "hello",
            "f",
            json!({
                "spec": spec(),
                "status": { "artifacts": [{ "target": "", "sourceSha256": "a".repeat(64), "sha256": "11", "size": 1,
                    "wasmtimeVersion": "48", "description": "", "signature": "" }] },
            }),
        );
        state
    }

    fn all(state: &State) -> BTreeMap<Key, Summary> {
        let view = View::of(state);
        let plan = plan(&view, Timestamp::UNIX_EPOCH);
        summaries(state, &view, &plan, &Follower::of(state))
    }

    fn summary(state: &State) -> Summary {
        all(state).into_values().next().unwrap()
    }

    #[test]
    fn what_is_not_compiled_says_whether_it_will_be() {
        for (condition, shown) in [
            ("Compiling", "Compiling"),
            ("CompileFailed", "CompileFailed"),
            ("CompilerMemory", "CompileFailed"),
        ] {
            let mut state = swarm();
            node(&mut state, "a", "True");
            let key = Key::new(Resource::Function, "default", "hello");
            let mut body = state.get(&key).unwrap().body().clone();
            let compiled = body["status"]["artifacts"].take();
            objects::set_condition(
                &mut body["status"],
                "Compiled",
                "False",
                condition,
                "for arm",
                SystemTime::UNIX_EPOCH,
            );
            let put = |state: &mut State, body: &Value| {
                let (key, body, expect) = (key.clone(), body.clone().into(), None);
                state.apply(Command::Replace { key, body, expect }).unwrap();
                let summary = summary(state);
                (summary.reason, summary.message)
            };
            body["status"]["artifacts"] = json!([]);
            assert_eq!(put(&mut state, &body), (shown, "for arm".to_owned()));
            // What is compiled for some kind of machine may run there.
            body["status"]["artifacts"] = compiled;
            assert_eq!(put(&mut state, &body).0, "Progressing");
        }
    }

    #[test]
    fn copies_on_lost_nodes_are_never_counted() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        node(&mut state, "b", "Unknown");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "b", "Ready", "");
        let summary = summary(&state);
        assert_eq!((summary.ready, summary.replicas), (1, 2));
        assert!(summary.available);
        assert_eq!(summary.url, "http://hello.default.localhost:8080/");
    }

    #[test]
    fn a_copy_that_serves_an_older_version_since_the_newest_fails_says_so() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        assignment(
            &mut state,
            "0",
            "a",
            "Ready",
            "it traps at once; generation 0 serves on",
        );
        let key = Key::new(Resource::Assignment, "default", "hello.0");
        let mut body = state.get(&key).unwrap().body().clone();
        body["status"]["observedGeneration"] = json!(0);
        let expect = None;
        state
            .apply(Command::Replace {
                key,
                body: body.into(),
                expect,
            })
            .unwrap();
        let summary = summary(&state);
        assert_eq!(
            (summary.available, summary.ready, summary.reason),
            (true, 1, "Failing")
        );
    }

    fn ready(state: &State) -> (String, String) {
        let (key, summary) = all(state).pop_first().unwrap();
        let mut body = json!({});
        assert!(set(&mut body["status"], &summary, &key, level::REVISIONS));
        let conditions = body["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"))
    }

    fn is(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn ready_is_when_all_wanted_copies_answer() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "a", "Fetching", "");
        assert_eq!(ready(&state), is("False", "Progressing"));
        assert!(summary(&state).available);
        set_phase(&mut state, "hello.1", "Ready");
        assert_eq!(ready(&state), is("True", "Ready"));
        set_spec(&mut state, json!({ "replicas": 0 }));
        assert_eq!(ready(&state), is("True", "ScaledToZero"));
        assert_eq!(summary(&state).message, "no copies are wanted");
        edit(&mut state, &hello(), |body| {
            body["spec"]["replicas"].take();
            body["spec"]["autoscaling"] = json!({ "minReplicas": 0, "maxReplicas": 2 });
            body["status"]["autoscaling"] = json!({ "replicas": 0 });
        });
        assert_eq!(ready(&state), is("True", "ScaledToZero"));
        let sleeps = "nobody asks for it: the next request brings a copy";
        assert_eq!(summary(&state).message, sleeps);
    }

    #[test]
    fn one_on_every_node_is_ready_when_it_is_on_every_node() {
        let mut state = swarm();
        set_spec(&mut state, json!({ "everyNode": true, "replicas": null }));
        assert_eq!(ready(&state), is("False", "NoNodes"));
        assert!(!summary(&state).available);
        // Before the scheduler wrote anything: it is wanted there all the same.
        node(&mut state, "a", "True");
        assert_eq!(ready(&state), is("False", "Progressing"));
        assert_eq!(summary(&state).replicas, 1);
    }

    fn edit(state: &mut State, key: &Key, change: impl Fn(&mut Value)) {
        let mut body = state.get(key).unwrap().body().clone();
        change(&mut body);
        let command = Command::Replace {
            key: key.clone(),
            body: body.into(),
            expect: None,
        };
        state.apply(command).unwrap();
    }

    fn set_phase(state: &mut State, name: &str, phase: &str) {
        let key = Key::new(Resource::Assignment, "default", name);
        edit(state, &key, |body| body["status"]["phase"] = json!(phase));
    }

    fn set_ready(state: &mut State, node: &str, ready: &str) {
        edit(state, &objects::node_key(node), |body| {
            body["status"]["conditions"][0]["status"] = json!(ready);
        });
    }

    fn hello() -> Key {
        Key::new(Resource::Function, "default", "hello")
    }

    fn set_spec(state: &mut State, fields: Value) {
        edit(state, &hello(), |body| {
            for (field, value) in fields.as_object().unwrap() {
                body["spec"][field] = value.clone();
            }
        });
    }

    #[test]
    fn a_paused_function_is_not_ready_while_a_version_waits() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "a", "Ready", "");
        set_spec(&mut state, json!({ "paused": true }));
        assert_eq!(ready(&state), is("True", "Ready"));
        assert_eq!(summary(&state).updated, 2);
        set_spec(&mut state, json!({ "concurrency": 7 }));
        assert_eq!(ready(&state), is("False", "Paused"));
        assert_eq!(summary(&state).updated, 0);
    }

    #[test]
    fn a_version_that_no_node_can_be_sent_says_what_is_missing() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "a", "Ready", "");
        let from = json!({ "secretKeyRef": { "name": "none", "key": "k" } });
        let asks = json!({ "config": [{ "name": "A", "valueFrom": from }] });
        set_spec(&mut state, asks);
        let now = summary(&state);
        assert_eq!(
            (now.available, now.ready, now.reason),
            (true, 2, "MissingReference")
        );
        let why = "spec.config[0].valueFrom: secret \"none\" does not exist; create it, or mark the reference optional";
        assert_eq!(now.message, why);
        let secret = json!({ "data": { "k": "dg==" } });
        put(&mut state, Resource::Secret, "none", "s", secret);
        assert_eq!(summary(&state).reason, "RollingUpdate");
    }

    #[test]
    fn a_function_whose_route_an_older_one_has_says_so() {
        let mut state = swarm();
        edit(&mut state, &hello(), |body| {
            body["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            body["spec"]["http"] = json!({ "host": "x.org" });
        });
        let conditions = |state: &State, status: &mut Value| {
            let summary = all(state).remove(&hello()).unwrap();
            let is_news = route_lost(status, &summary).is_some();
            set(status, &summary, &hello(), level::OWN);
            let told = status["conditions"].as_array().unwrap().iter();
            let mut told = told.filter(|it| it["type"] == ROUTES_ACCEPTED);
            let told = told
                .next()
                .map(|it| (it["reason"].clone(), it["message"].clone()));
            let told = told.map(|(reason, message)| format!("{reason} {message}"));
            (told, is_news)
        };
        let mut status = json!({});
        assert_eq!(conditions(&state, &mut status), (None, false));
        let older =
            json!({ "spec": { "artifact": { "sha256": "00" }, "http": { "host": "x.org" } } });
        put(&mut state, Resource::Function, "older", "o", older);
        let key = Key::new(Resource::Function, "default", "older");
        edit(&mut state, &key, |body| {
            body["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
        });
        let why =
            r#""RouteConflict" "x.org/ is answered by function default/older, which is older""#;
        for is_news in [true, false] {
            let told = (Some(why.to_owned()), is_news);
            assert_eq!(conditions(&state, &mut status), told);
        }
        let (expect, uid) = (None, None);
        state.apply(Command::Delete { key, expect, uid }).unwrap();
        let own = r#""Accepted" "all its routes are its own""#;
        let told = (Some(own.to_owned()), false);
        assert_eq!(conditions(&state, &mut status), told);
    }

    #[test]
    fn one_sentence_says_why_it_is_not_ready() {
        let mut state = swarm();
        let none = summary(&state);
        assert_eq!((none.available, none.reason), (false, "Unschedulable"));
        assert_eq!(none.message, "the swarm has no nodes yet");
        node(&mut state, "a", "True");
        assignment(&mut state, "0", "a", "Failed", "the disk is full");
        let failing = summary(&state);
        assert_eq!(
            (failing.reason, &*failing.message),
            ("Failing", "hello.0 on a: the disk is full")
        );
    }

    #[test]
    fn it_names_the_copy_and_the_node_that_are_waited_for() {
        let told = |state: &State| {
            let summary = summary(state);
            (summary.reason, summary.message)
        };
        let mut state = swarm();
        node(&mut state, "a", "True");
        node(&mut state, "b", "True");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "b", "Fetching", "");
        let fetching = "1 of 2 copies is ready, hello.1 on b is being fetched";
        assert_eq!(told(&state), ("Progressing", fetching.to_owned()));
        set_phase(&mut state, "hello.1", "Pending");
        let pending = "1 of 2 copies is ready, hello.1 on b was not taken up yet";
        assert_eq!(told(&state), ("Progressing", pending.to_owned()));

        set_phase(&mut state, "hello.1", "Ready");
        set_ready(&mut state, "b", "Unknown");
        let moving =
            "1 of 2 copies is ready: nothing was heard of node b since 2020-01-01T00:00:00Z";
        assert_eq!(told(&state), ("NodeLost", moving.to_owned()));
        set_ready(&mut state, "a", "Unknown");
        let (reason, message) = told(&state);
        assert_eq!(reason, "NodeLost");
        assert!(
            message.starts_with("0 of 2 copies are ready: nothing was heard of node a since ")
                && message.contains(", and no other takes its copy: "),
            "{message}"
        );
        // What a person did comes before what the swarm does.
        edit(&mut state, &hello(), |body| {
            body["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
            body["metadata"]["finalizers"] = json!(["example.org/bill", "example.org/mail"]);
        });
        let deleting = "it is being deleted, which waits for its finalizers: example.org/bill, example.org/mail";
        assert_eq!(told(&state), ("Deleting", deleting.to_owned()));
    }

    #[test]
    fn an_image_that_is_not_here_yet_is_why_and_what_ran_runs_on() {
        let mut state = swarm();
        node(&mut state, "a", "True");
        assignment(&mut state, "0", "a", "Ready", "");
        assignment(&mut state, "1", "a", "Ready", "");
        assert_eq!(ready(&state), is("True", "Ready"));
        set_spec(
            &mut state,
            json!({ "artifact": { "oci": "ghcr.io/a/b:1" } }),
        );
        let summary_now = summary(&state);
        assert_eq!((summary_now.ready, summary_now.reason), (2, "Pulling"));
        let steps = |state: &State| plan(&View::of(state), Timestamp::now()).steps;
        assert!(steps(&state).is_empty());

        let key = Key::new(Resource::Function, "default", "hello");
        edit(&mut state, &key, |body| {
            body["status"]["conditions"] = json!([{
                "type": "Pulled", "status": "False", "reason": "Unauthorized", "message": "who is it",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]);
        });
        let refused = summary(&state);
        assert_eq!(
            (refused.available, refused.reason, &*refused.message),
            (true, "Unauthorized", "who is it")
        );

        // The same component by another name: its copies are told, one after the other.
        edit(&mut state, &key, |body| {
            body["status"]["artifact"] = json!({
                "requested": "ghcr.io/a/b:1", "reference": "ghcr.io/a/b@sha256:0",
                "sha256": "a".repeat(64), "size": 1, "pulledAt": "2026-01-01T00:00:00Z",
            });
        });
        assert_eq!(ready(&state), is("False", "RollingUpdate"));
        let steps = steps(&state);
        let [Step::Update { spec, .. }] = &steps[..] else {
            panic!("{steps:?}");
        };
        let artifact = &spec.function.artifact;
        assert_eq!(artifact.oci.as_deref(), Some("ghcr.io/a/b@sha256:0"));
        assert_eq!(artifact.sha256, Some("a".repeat(64)));
    }
}
