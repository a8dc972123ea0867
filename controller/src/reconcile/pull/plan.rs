//! Which images are to be pulled, and for whom. Pure.

use std::collections::BTreeMap;

use hive_manifests::{Function, Resource};
use jiff::Timestamp;
use memchr::memmem;
use serde_json::Value;

use super::CONDITION;
use crate::state::{Key, Object, State};

/// Names one pull. Whoever changes a secret makes another one of it, which is tried at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    pub namespace: String,
    /// As the functions' specs have it.
    pub requested: String,
    /// Likewise: another time is another pull.
    pub pull_at: Option<Timestamp>,
    /// The secrets that may know who one is, in the order of the spec, with their revisions: 0 where
    /// there is none.
    pub secrets: Vec<(String, u64)>,
}

impl Job {
    /// Whether that is what `artifact` of a spec asks for still.
    pub fn is_of(&self, artifact: &Value) -> bool {
        let pull_at = artifact["pullAt"].as_str().and_then(|at| at.parse().ok());
        artifact["oci"] == *self.requested && pull_at == self.pull_at
    }
}

/// What a function has to do with images.
#[derive(Debug, PartialEq)]
pub enum Concern {
    /// It names one that is not here for it.
    Lacks {
        requested: String,
        pull_at: Option<Timestamp>,
        secrets: Vec<String>,
    },
    /// It names its component by its digest, and still tells of an image.
    Tells,
}

impl Concern {
    pub fn of(object: &Object) -> Option<Self> {
        // Most functions never named an image: they are not parsed for it.
        let says = |text: &str| memmem::find(object.encoded(), text.as_bytes()).is_some();
        if !says("\"oci\"") && !says(CONDITION) || object.is_being_deleted() {
            return None;
        }
        let function: Function = object.parse().ok()?;
        if function.spec.artifact.sha256.is_some() {
            return tells_of_an_image(&function).then_some(Self::Tells);
        }
        if function.component().is_some() {
            return None;
        }
        let secrets = function.spec.image_pull_secrets.into_iter();
        Some(Self::Lacks {
            requested: function.spec.artifact.oci?,
            pull_at: function.spec.artifact.pull_at.map(|at| at.0),
            secrets: secrets.map(|secret| secret.name).collect(),
        })
    }
}

fn tells_of_an_image(function: &Function) -> bool {
    function.status.as_ref().is_some_and(|status| {
        status.artifact.is_some() || status.conditions.iter().any(|c| c.type_ == CONDITION)
    })
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is to be pulled, for which functions.
    pub jobs: BTreeMap<Job, Vec<Key>>,
    /// Functions that name their component by its digest, and still tell of an image.
    pub settled: Vec<Key>,
}

/// Of the state only the secrets' revisions are asked.
pub fn plan<'a>(functions: impl Iterator<Item = (&'a Key, &'a Concern)>, state: &State) -> Plan {
    let mut plan = Plan::default();
    for (key, concern) in functions {
        let Concern::Lacks {
            requested,
            pull_at,
            secrets,
        } = concern
        else {
            plan.settled.push(key.clone());
            continue;
        };
        let revision = |name: &String| {
            let secret = Key::new(Resource::Secret, &*key.namespace, &**name);
            let revision = state.get(&secret).map_or(0, |object| object.revision());
            (name.clone(), revision)
        };
        let job = Job {
            namespace: key.namespace.clone(),
            requested: requested.clone(),
            pull_at: *pull_at,
            secrets: secrets.iter().map(revision).collect(),
        };
        plan.jobs.entry(job).or_default().push(key.clone());
    }
    plan
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;
    use crate::reconcile::Followed;
    use serde_json::json;

    fn plan(state: &State) -> Plan {
        let mut functions = Followed::new(Resource::Function, Concern::of);
        functions.follow(state);
        super::plan(functions.iter(), state)
    }

    fn put(state: &mut State, resource: Resource, namespace: &str, name: &str, extra: Value) {
        let key = Key::new(resource, namespace, name);
        declare(state, key, extra);
    }

    fn function(state: &mut State, namespace: &str, name: &str, artifact: Value, status: Value) {
        let spec = json!({ "artifact": artifact, "imagePullSecrets": [{ "name": "ghcr" }] });
        put(
            state,
            Resource::Function,
            namespace,
            name,
            json!({ "spec": spec, "status": status }),
        );
    }

    #[test]
    fn an_image_is_pulled_once_for_all_who_name_it_alike() {
        let mut state = State::default();
        let image = |tag: &str| json!({ "oci": format!("ghcr.io/a/b:{tag}") });
        let pulled = json!({ "artifact": {
            "requested": "ghcr.io/a/b:1", "reference": "ghcr.io/a/b@sha256:0", "sha256": "a".repeat(64),
            "size": 1, "pulledAt": "2026-01-01T00:00:00Z",
        }});
        let by_digest = json!({ "sha256": "a".repeat(64) });
        function(&mut state, "x", "one", image("1"), json!({}));
        function(&mut state, "x", "two", image("1"), json!({}));
        function(&mut state, "x", "has-it", image("1"), pulled.clone());
        function(&mut state, "x", "has-another", image("2"), pulled.clone());
        function(&mut state, "x", "uploaded", by_digest, json!({}));
        // It was pulled for another time than is asked for.
        let again = json!({ "oci": "ghcr.io/a/b:1", "pullAt": "2026-01-02T00:00:00Z" });
        function(&mut state, "x", "once-more", again, pulled.clone());
        // What a namespace may see is its own: another asks with its own secrets.
        function(&mut state, "y", "one", image("1"), json!({}));
        let told = |state: &State| -> Vec<String> {
            let jobs = plan(state).jobs.into_iter();
            jobs.map(|(job, functions)| {
                let names: Vec<&str> = functions.iter().map(|key| &*key.name).collect();
                let known = job
                    .secrets
                    .iter()
                    .filter(|(_, revision)| *revision > 0)
                    .count();
                format!(
                    "{} {}: {} ({known} secrets)",
                    job.namespace,
                    job.requested,
                    names.join(" ")
                )
            })
            .collect()
        };
        let expected = [
            "x ghcr.io/a/b:1: one two (0 secrets)",
            "x ghcr.io/a/b:1: once-more (0 secrets)",
            "x ghcr.io/a/b:2: has-another (0 secrets)",
            "y ghcr.io/a/b:1: one (0 secrets)",
        ];
        assert_eq!(told(&state), expected);
        let before = plan(&state).jobs;
        put(
            &mut state,
            Resource::Secret,
            "x",
            "ghcr",
            json!({ "data": {} }),
        );
        assert_eq!(told(&state)[0], "x ghcr.io/a/b:1: one two (1 secrets)");
        let again = plan(&state).jobs;
        assert_eq!(
            again.keys().filter(|job| before.contains_key(*job)).count(),
            1
        );

        // And once it was pulled for that, there is nothing more to do.
        let mut pulled = pulled;
        pulled["artifact"]["pullAt"] = json!("2026-01-02T00:00:00Z");
        let again = json!({ "oci": "ghcr.io/a/b:1", "pullAt": "2026-01-02T00:00:00.0Z" });
        function(&mut state, "z", "up-to-date", again, pulled);
        assert!(told(&state).iter().all(|line| !line.starts_with("z ")));
    }

    #[test]
    fn what_names_a_digest_tells_of_no_image() {
        let mut state = State::default();
        let conditions = json!([{
            "type": CONDITION, "status": "False", "reason": "ErrImagePull", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        let by_digest = json!({ "sha256": "a".repeat(64) });
        let told = json!({ "conditions": conditions });
        function(&mut state, "x", "failed-once", by_digest.clone(), told);
        function(&mut state, "x", "never-pulled", by_digest, json!({}));
        let plan = plan(&state);
        assert_eq!(
            plan.settled,
            [Key::new(Resource::Function, "x", "failed-once")]
        );
        assert!(plan.jobs.is_empty());
    }
}
