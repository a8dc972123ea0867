//! The part of the state that scheduling looks at, typed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hive_manifests::function::{Artifact, CompiledArtifact, FunctionSpec};
use hive_manifests::{Assignment, AssignmentSpec, Function, Node, Phase, Resource};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;

use super::course::{Course, Version};
use super::plan::{Plan, plan};
use crate::deletion::{FOREGROUND, finalizers};
use crate::holdings::{self, Holdings};
use crate::node_conditions;
use crate::reconcile::autoscale::Scaling;
use crate::reconcile::pull;
use crate::reconcile::rollout::{Asked, Standing, TemplateDigest, template_of};
use crate::references;
use crate::state::{Key, Object, State, level};

/// The view as it was seen last, and the plan for it. A clone is the same: what one reconciler has read and
/// planned, others need not. Ten thousand nodes and assignments take a third of a second to read, and little
/// changes between two looks.
#[derive(Clone, Default)]
pub struct Seen {
    look: Arc<Mutex<Look>>,
    holdings: holdings::Heard,
}

#[derive(Default)]
struct Look {
    /// Of the state.
    revision: u64,
    view: View,
    plan: Plan,
}

impl Seen {
    /// Plans heed what nodes are heard to hold.
    pub fn heeding(holdings: holdings::Heard) -> Self {
        Self {
            holdings,
            ..Self::default()
        }
    }

    /// Brings view and plan up to a state, and lets `look` at them, while others wait.
    pub fn at<T>(&self, state: &State, now: Timestamp, look: impl FnOnce(&View, &Plan) -> T) -> T {
        let mut seen = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = seen.plan.again.is_some_and(|due| due <= now);
        if seen.revision != state.revision() || is_due {
            seen.view.follow(state);
            // It decides where copies go that go anyway: that it is otherwise wakes nobody.
            seen.view.held = self.holdings.now();
            seen.plan = plan(&seen.view, now);
            seen.revision = state.revision();
        }
        look(&seen.view, &seen.plan)
    }
}

/// In the order of their keys, as all lists of objects.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub nodes: Vec<NodeView>,
    pub functions: Vec<FunctionView>,
    pub assignments: Vec<AssignmentView>,
    /// Namespaces and uids of functions that are there and can't be read: nothing is decided about
    /// their copies.
    pub unreadable: BTreeSet<(String, String)>,
    /// All controllers know of copies that serve where they were until they do where they go.
    pub overlaps: bool,
    /// What nodes have on their disks, as the leader heard it of controllers; not of the state.
    pub held: Holdings<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    pub revision: u64,
    /// Its Ready condition is True.
    pub ready: bool,
    pub unschedulable: bool,
    /// Those that people gave it, and those that follow from its conditions.
    pub taints: Vec<Taint>,
    pub labels: BTreeMap<String, String>,
    /// Its kind of machine as Kubernetes' labels have it.
    pub os: &'static str,
    pub arch: &'static str,
    pub target: String,
    /// What compiled components must have been made with to be loaded there.
    pub wasmtime_version: String,
    /// Bytes and thousandths of a core that functions may reserve.
    pub memory: u64,
    pub cpu: u64,
}

#[derive(Clone, Debug)]
pub struct FunctionView {
    pub key: Key,
    pub revision: u64,
    pub uid: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    /// Says how, once it is being deleted.
    pub ending: Option<Ending>,
    /// Its component is named by digest, also where a person named an image. Until that is here, it is the
    /// version before.
    pub spec: FunctionSpec,
    /// Compiled forms of the component that `spec` names: one for each target and version.
    pub artifacts: Vec<CompiledArtifact>,
    /// Of the version that `spec` holds.
    pub digest: TemplateDigest,
    /// What that version refers to and is not there, in words: no node can be sent it.
    pub missing: Option<String>,
    /// The image that people named, while it is not here.
    pub awaited_image: Option<String>,
    /// What the conditions Pulled and Compiled say, where they are False.
    pub not_pulled: Option<Told>,
    pub not_compiled: Option<Told>,
    /// Compiled forms of other components, of the version that all copies ran last.
    pub older: Vec<CompiledArtifact>,
    /// Which version its copies are to run.
    pub course: Course,
    pub standing: Standing,
    /// What people asked of its rollout.
    pub asked: Asked,
    pub scaling: Scaling,
    /// How many copies were found to be needed, where it scales by itself.
    pub found_replicas: Option<u32>,
}

/// What a condition says beside whether it holds.
#[derive(Clone, Debug)]
pub struct Told {
    pub reason: String,
    pub message: String,
}

/// How a function that is being deleted ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its copies stay until it is gone, and no more come.
    CopiesStay,
    /// It is deleted in the foreground: its copies go first.
    CopiesFirst,
}

impl Ending {
    fn of(function: &Object) -> Option<Self> {
        if !function.is_being_deleted() {
            return None;
        }
        let copies_first = finalizers(&function.to_value()).contains(&FOREGROUND);
        Some(match copies_first {
            true => Self::CopiesFirst,
            false => Self::CopiesStay,
        })
    }
}

#[derive(Clone, Debug)]
pub struct AssignmentView {
    pub key: Key,
    pub revision: u64,
    pub spec: AssignmentSpec,
    pub phase: Phase,
    /// The node answers requests for it, at the generation of its spec.
    pub current: bool,
    /// Since when it does, if that is known: it is not of those that did before this was noted.
    pub ready_since: Option<Timestamp>,
    /// What its status says to people; empty where all is well.
    pub message: String,
}

impl View {
    pub fn of(state: &State) -> Self {
        let mut view = Self::default();
        view.follow(state);
        view
    }

    /// Makes it the view of a state, and reads what is not as it was.
    ///
    /// Objects that don't parse are left out: an older version of this program can't plan for
    /// what a newer one wrote, and must not undo it.
    fn follow(&mut self, state: &State) {
        self.unreadable.clear();
        self.overlaps = state.level() >= level::METERING;
        let functions = state.list(Resource::Function, None);
        let known = std::mem::take(&mut self.functions);
        let read = |object: &Object| {
            let function = FunctionView::of(object, state);
            if function.is_none() {
                let namespace = object.key().namespace.clone();
                self.unreadable.insert((namespace, object.uid().to_owned()));
            }
            function
        };
        self.functions = follow(known, functions, FunctionView::version, read);
        for function in &mut self.functions {
            function.look_up_references(state);
        }
        let nodes = state.list(Resource::Node, None);
        let known = std::mem::take(&mut self.nodes);
        self.nodes = follow(known, nodes, NodeView::version, NodeView::of);
        let assignments = state.list(Resource::Assignment, None);
        let known = std::mem::take(&mut self.assignments);
        self.assignments = follow(
            known,
            assignments,
            AssignmentView::version,
            AssignmentView::of,
        );
    }
}

/// What is `known` of objects, where they are as they were, and the rest read anew. All are in the order of
/// namespaces and names, which `version` says with the revision.
pub fn follow<'a, T>(
    known: Vec<T>,
    objects: impl Iterator<Item = &'a Arc<Object>>,
    version: impl Fn(&T) -> (&str, &str, u64),
    mut read: impl FnMut(&Object) -> Option<T>,
) -> Vec<T> {
    let mut known = known.into_iter().peekable();
    objects
        .filter_map(|object| {
            let (namespace, name) = (&*object.key().namespace, &*object.key().name);
            let is_before = |one: &T| {
                let (its_namespace, its_name, _) = version(one);
                (its_namespace, its_name) < (namespace, name)
            };
            while known.next_if(is_before).is_some() {}
            known
                .next_if(|one| version(one) == (namespace, name, object.revision()))
                .or_else(|| read(object))
        })
        .collect()
}

/// What Kubernetes calls an operating system or a processor; empty where it knows none such.
fn as_in_kubernetes(name: &str) -> &'static str {
    match name {
        "linux" => "linux",
        "android" => "android",
        "macos" => "darwin",
        "windows" => "windows",
        "freebsd" => "freebsd",
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "arm" => "arm",
        "riscv64" => "riscv64",
        _ => "",
    }
}

impl NodeView {
    /// The value of a label, also of those that every node has without being given them.
    pub fn label(&self, key: &str) -> Option<&str> {
        let given = self.labels.get(key).map(String::as_str);
        given.or_else(|| {
            let own = match key {
                "kubernetes.io/hostname" => &*self.name,
                "kubernetes.io/os" => self.os,
                "kubernetes.io/arch" => self.arch,
                _ => "",
            };
            (!own.is_empty()).then_some(own)
        })
    }

    fn version(&self) -> (&str, &str, u64) {
        ("", &self.name, self.revision)
    }

    fn of(object: &Object) -> Option<Self> {
        let node: Node = object.parse().ok()?;
        let status = node.status.unwrap_or_default();
        let holding = || {
            let conditions = status.conditions.iter();
            conditions.filter(|one| one.status == "True")
        };
        let derived = node_conditions::taints(holding().map(|one| &*one.type_));
        let taints = node.spec.taints.into_iter().chain(derived).collect();
        let ready = holding().any(|one| one.type_ == "Ready");
        let allocatable = status.allocatable.unwrap_or_default();
        let info = status.node_info.unwrap_or_default();
        Some(Self {
            name: object.key().name.clone(),
            revision: object.revision(),
            ready,
            unschedulable: node.spec.unschedulable,
            taints,
            labels: node.metadata.labels.unwrap_or_default(),
            os: as_in_kubernetes(&info.os),
            arch: as_in_kubernetes(&info.arch),
            target: info.target,
            wasmtime_version: info.wasmtime_version,
            memory: allocatable.memory.0,
            cpu: allocatable.cpu.0,
        })
    }
}

impl AssignmentView {
    fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }

    fn of(object: &Object) -> Option<Self> {
        let assignment: Assignment = object.parse().ok()?;
        let status = assignment.status.unwrap_or_default();
        Some(Self {
            key: object.key().clone(),
            revision: object.revision(),
            phase: status.phase,
            // Agents before revisions report none.
            current: status.phase == Phase::Ready
                && status.observed_generation == Some(assignment.spec.function_generation)
                && (status.observed_revision.is_empty()
                    || status.observed_revision == assignment.spec.revision),
            ready_since: status.ready_since.map(|time| time.0),
            spec: assignment.spec,
            message: status.message,
        })
    }

    /// When it will have answered for `min_ready`; `None` while it does not answer.
    pub fn settled_at(&self, min_ready: Duration) -> Option<Timestamp> {
        let since = self.ready_since.unwrap_or(Timestamp::MIN);
        self.current.then(|| since + min_ready)
    }
}

impl FunctionView {
    fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }

    /// How many copies there should be, where not one on every node.
    pub fn wanted_replicas(&self) -> u32 {
        self.spec.wanted_replicas(self.found_replicas)
    }

    /// These come and go without a change of the function.
    fn look_up_references(&mut self, state: &State) {
        let namespace = &self.key.namespace;
        let missing = |spec: &FunctionSpec| {
            let missing = references::missing(state, namespace, spec)?;
            Some(missing.to_string())
        };
        self.missing = missing(&self.spec);
        let Course { held, kept, .. } = &mut self.course;
        for version in [held, kept].into_iter().flatten() {
            version.missing = missing(&version.template);
        }
    }

    /// Of the state only the revisions that it names are read, which never change, and the level.
    fn of(object: &Object, state: &State) -> Option<Self> {
        let function: Function = object.parse().ok()?;
        let status = function.status.clone().unwrap_or_default();
        let named = |name: &str| {
            let namespace = object.key().namespace.clone();
            let key = Key::new(Resource::ControllerRevision, namespace, name);
            Some(Version {
                name: name.to_owned(),
                template: template_of(state.get(&key)?)?,
                missing: None,
            })
        };
        let asked = &function.spec.artifact;
        let awaited_image = asked.oci.clone().filter(|_| asked.sha256.is_none());
        let spec = match function.component() {
            Some(artifact) => FunctionSpec {
                artifact,
                ..function.spec
            },
            // Its image is not here yet: until then it is what it was.
            None => match named(&status.update_revision) {
                Some(rolling) => function.spec.with_template(&rolling.template),
                None => function.spec,
            },
        };
        let source = digest_of(&spec.artifact);
        if source.is_none() && spec.artifact.oci.is_none() {
            return None;
        }
        let digest = TemplateDigest::of(&spec.template());
        let standing = Standing::of(&status);
        let own = match state.level() < level::REVISIONS {
            true => String::new(),
            false => digest.name(object.key(), object.uid()),
        };
        // One that begins to scale by itself goes on with the copies that it has.
        let found_replicas = match &status.autoscaling {
            Some(found) => Some(found.replicas),
            None => Some(status.replicas).filter(|copies| *copies > 0),
        };
        let wanted = spec.wanted_replicas(found_replicas);
        let scaling = Scaling::of(&status);
        let not = |kind: &str| {
            let mut conditions = status.conditions.iter();
            let told = conditions.find(|it| it.type_ == kind && it.status == "False")?;
            Some(Told {
                reason: told.reason.clone(),
                message: told.message.clone(),
            })
        };
        let (not_pulled, not_compiled) = (not(pull::CONDITION), not("Compiled"));
        let pulled = status.artifact.as_ref().map(|pulled| &pulled.requested);
        let (artifacts, older) = status
            .artifacts
            .into_iter()
            .partition(|artifact| Some(&artifact.source_sha256) == source.as_ref());
        Some(Self {
            key: object.key().clone(),
            revision: object.revision(),
            uid: object.uid().to_owned(),
            ending: Ending::of(object),
            generation: function.metadata.generation.unwrap_or_default(),
            labels: function.metadata.labels.clone().unwrap_or_default(),
            digest,
            missing: None,
            awaited_image: awaited_image.filter(|image| Some(image) != pulled),
            not_pulled,
            not_compiled,
            course: Course::of(&spec, wanted, own, &standing, named),
            standing,
            asked: Asked::of(&function.metadata),
            scaling,
            found_replicas,
            artifacts,
            older,
            spec,
        })
    }
}

/// The digest of a function's component in lower hex, as the state's artifacts are named.
pub fn source_sha256(function: &Function) -> Option<String> {
    digest_of(&function.component()?)
}

pub fn digest_of(artifact: &Artifact) -> Option<String> {
    let digest: crate::artifacts::Digest = artifact.sha256.as_ref()?.parse().ok()?;
    Some(digest.hex())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use crate::state::Command;
    use serde_json::{Value, json};

    #[test]
    fn copies_of_a_function_that_cannot_be_read_stay() {
        let mut state = State::default();
        let mut put = |resource, name: &str, extra: Value| {
            let key = Key::new(resource, "default", name);
            let mut body = objects::fresh(&key, json!({}), extra);
            body["metadata"]["uid"] = json!(name);
            state
                .apply(Command::Create {
                    key,
                    body: body.into(),
                })
                .unwrap();
        };
        put(
            Resource::Function,
            "later",
            json!({ "spec": { "artifact": { "sha256": "a".repeat(64) }, "replicas": "as many as needed" } }),
        );
        for function in ["later", "gone"] {
            put(
                Resource::Assignment,
                &format!("{function}.0"),
                json!({ "spec": {
                    "functionName": function, "functionUid": function, "functionGeneration": 1,
                    "nodeName": "pi", "slot": "0",
                    "function": { "artifact": { "sha256": "a".repeat(64) } },
                    "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                        "wasmtimeVersion": "48", "description": "", "signature": "" },
                }}),
            );
        }
        let view = View::of(&state);
        assert_eq!((view.functions.len(), view.assignments.len()), (0, 2));
        let steps = plan(&view, Timestamp::UNIX_EPOCH).steps;
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!(
            matches!(&steps[0], super::super::Step::Delete { key, .. } if key.name == "gone.0")
        );
    }

    #[test]
    fn a_view_that_follows_is_the_view_of_the_state() {
        let mut state = State::default();
        let mut seen = View::default();
        let spec = |resource, value: u64| match resource {
            Resource::Node => json!({ "spec": { "key": "k", "unschedulable": value == 1 } }),
            Resource::Function => json!({ "spec": {
                "artifact": { "sha256": "a".repeat(64) }, "replicas": value,
            } }),
            _ => json!({ "spec": {
                "functionName": "f", "functionUid": "f", "functionGeneration": value,
                "nodeName": "pi", "slot": "0",
                "function": { "artifact": { "sha256": "a".repeat(64) } },
                "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                    "wasmtimeVersion": "48", "description": "", "signature": "" },
            }}),
        };
        // A walk through all three kinds in which things come, change, go and come back.
        for step in 0..600_u64 {
            let draw = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let resource =
                [Resource::Node, Resource::Function, Resource::Assignment][(draw % 3) as usize];
            let namespace = match resource {
                Resource::Node => "",
                _ => ["a", "b"][(draw / 3 % 2) as usize],
            };
            let key = Key::new(resource, namespace, format!("n{}", draw / 6 % 5));
            let body = objects::fresh(&key, json!({}), spec(resource, draw / 30 % 2)).into();
            let _ = state.apply(match draw / 60 % 3 {
                0 => Command::Delete {
                    key,
                    expect: None,
                    uid: None,
                },
                _ if state.get(&key).is_some() => Command::Replace {
                    key,
                    body,
                    expect: None,
                },
                _ => Command::Create { key, body },
            });
            if draw / 180 % 3 == 0 {
                seen.follow(&state);
                assert_eq!(format!("{seen:?}"), format!("{:?}", View::of(&state)));
            }
        }
        seen.follow(&state);
        assert!(!seen.nodes.is_empty() && !seen.assignments.is_empty());
    }

    #[test]
    fn until_its_image_is_here_a_function_is_the_version_before() {
        let mut state = State::default();
        let old = "a".repeat(64);
        let pinned = json!({ "oci": "ghcr.io/a/b@sha256:0", "sha256": old });
        let mut put = |resource, name: &str, extra: Value| {
            let key = Key::new(resource, "default", name);
            let body = objects::fresh(&key, json!({}), extra).into();
            state.apply(Command::Create { key, body }).unwrap();
        };
        put(
            Resource::ControllerRevision,
            "hello-1",
            json!({ "revision": 1, "data": { "spec": { "artifact": pinned, "timeout": "3s" } } }),
        );
        let compiled = json!({ "target": "t", "sourceSha256": old, "sha256": "11", "size": 1,
            "wasmtimeVersion": "48", "description": "", "signature": "" });
        let waits =
            json!({ "artifact": { "oci": "ghcr.io/a/b:2" }, "timeout": "9s", "replicas": 4 });
        let status = json!({ "artifacts": [compiled], "updateRevision": "hello-1" });
        put(
            Resource::Function,
            "hello",
            json!({ "spec": waits, "status": status }),
        );
        put(Resource::Function, "new", json!({ "spec": waits }));

        let view = View::of(&state);
        let [hello, new] = &view.functions[..] else {
            panic!("{:?}", view.functions);
        };
        assert_eq!(json!(hello.spec.artifact), pinned);
        assert_eq!(hello.spec.timeout.to_string(), "3s");
        // Where and how often is as it is said now.
        assert_eq!(hello.spec.replicas, Some(4));
        assert_eq!(hello.artifacts.len(), 1);
        assert_eq!(new.spec.artifact.sha256, None);
        assert!(new.artifacts.is_empty());
    }
}
