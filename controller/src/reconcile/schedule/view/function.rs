//! A function, as scheduling sees it.

use std::collections::BTreeMap;

use hive_manifests::function::{Artifact, CompiledArtifact, FunctionSpec};
use hive_manifests::{Function, Resource};

use crate::deletion::{FOREGROUND, finalizers};
use crate::reconcile::autoscale::Scaling;
use crate::reconcile::pull;
use crate::reconcile::rollout::{Asked, Standing, TemplateDigest, template_of};
use crate::reconcile::schedule::course::{Course, Version};
use crate::references;
use crate::state::{Key, Object, State, level};

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

impl FunctionView {
    pub(super) fn version(&self) -> (&str, &str, u64) {
        (&self.key.namespace, &self.key.name, self.revision)
    }

    /// How many copies there should be, where not one on every node.
    pub fn wanted_replicas(&self) -> u32 {
        self.spec.wanted_replicas(self.found_replicas)
    }

    /// These come and go without a change of the function.
    pub(super) fn look_up_references(&mut self, state: &State) {
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
    pub(super) fn of(object: &Object, state: &State) -> Option<Self> {
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
