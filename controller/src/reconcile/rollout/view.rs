//! Revisions as plans look at them.

use hive_manifests::function::CompiledArtifact;
use hive_manifests::{FunctionSpec, Resource};
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::reconcile::schedule::digest_of;
use crate::state::{Key, Object, State};

/// Of a version as this program reads it: a field that it fills in is no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateDigest([u8; 32]);

impl TemplateDigest {
    pub fn of(template: &FunctionSpec) -> Self {
        let text = serde_json::to_vec(template).expect("a spec is JSON");
        Self(Sha256::digest(text).into())
    }

    /// What a revision of that version is called. The function's uid is in it: what another function of that
    /// name left behind has other names.
    pub fn name(&self, function: &Key, uid: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(uid);
        hash.update(self.0);
        let hash = hex::encode(hash.finalize());
        format!("{}-{}", function.name, &hash[..16])
    }
}

/// One version of a function. Only what is compared is kept of it: there may be a hundred thousand.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionView {
    pub key: Key,
    pub revision: u64,
    /// The function's uid.
    pub owner: String,
    /// What people count them by.
    pub number: i64,
    pub template: TemplateDigest,
}

/// What is in a revision.
#[derive(Deserialize)]
struct Data {
    spec: FunctionSpec,
}

/// The version that a revision holds; none if it is not of a function, or can't be read.
pub fn template_of(object: &Object) -> Option<FunctionSpec> {
    let body = object.to_value();
    let data = Data::deserialize(&body["data"]).ok()?;
    Some(data.spec.template())
}

/// What a function's status knows of the component that all its copies ran last: they may go back to it, and
/// must not wait for the compiler then.
pub fn proven_artifacts(state: &State, function: &Key, status: &Value) -> Vec<CompiledArtifact> {
    let name = status["currentRevision"].as_str().unwrap_or_default();
    let namespace = function.namespace.clone();
    let revision = state.get(&Key::new(Resource::ControllerRevision, namespace, name));
    let template = revision.and_then(|revision| template_of(revision));
    let Some(source) = template.and_then(|template| digest_of(&template.artifact)) else {
        return Vec::new();
    };
    let known = Vec::<CompiledArtifact>::deserialize(&status["artifacts"]);
    let mut known = known.unwrap_or_default();
    known.retain(|artifact| artifact.source_sha256 == source);
    known
}

impl RevisionView {
    pub fn of(object: &Object) -> Option<Self> {
        let template = template_of(object)?;
        let parsed: ControllerRevision = object.parse().ok()?;
        let owners = parsed.metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|it| it.controller == Some(true))?;
        Some(Self {
            key: object.key().clone(),
            revision: object.revision(),
            owner: owner.uid,
            number: parsed.revision,
            template: TemplateDigest::of(&template),
        })
    }

    pub fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }
}
