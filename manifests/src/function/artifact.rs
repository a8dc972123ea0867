//! The component of a function: what names it, the image it is from, and what is compiled of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Function;

/// Large enough for a Python or JavaScript component (18 MB) with much beside it; small enough that one
/// upload can't fill an SD card. Bytes.
pub const MAX_COMPONENT_BYTES: u64 = 128 << 20;
/// Of a component's compiled form, which has three to four times its size. Agents take as much. Bytes.
pub const MAX_COMPILED_BYTES: u64 = 512 << 20;

/// Where a Secret of type [`DOCKER_CONFIG_TYPE`] holds a Docker config.
pub const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";
pub const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";

/// Where the bytes of a component come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// A file, relative to the manifest. hivectl uploads it and sends the sha256 in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of a component that was uploaded before: 64 hexadecimal digits, with or without
    /// "sha256:" before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// An image in a registry, such as "oci://ghcr.io/acme/hello:1.2". The controllers pull its
    /// component once; it stays the same when the tag moves, until another image is named here.
    /// Together with sha256 it only says where that component is from, and names a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<String>,
    /// When the image was last asked to be looked up again, should its tag have moved:
    /// `hivectl rollout restart --pull` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_at: Option<Time>,
}

impl Function {
    /// The component to run, named by its digest: as the spec has it, or as its image was found to be.
    /// `None` while that is not known.
    pub fn component(&self) -> Option<Artifact> {
        let named = &self.spec.artifact;
        if named.sha256.is_some() {
            return Some(named.clone());
        }
        let pulled = self.status.as_ref()?.artifact.as_ref()?;
        // Compared, not ordered: clocks differ. A manifest that does not say it asks for nothing.
        let is_asked = named.pull_at.is_some() && named.pull_at != pulled.pull_at;
        let is_it = named.oci.as_ref() == Some(&pulled.requested) && !is_asked;
        is_it.then(|| Artifact {
            sha256: Some(pulled.sha256.clone()),
            oci: Some(pulled.reference.clone()),
            ..Artifact::default()
        })
    }
}

/// The component of an image that was pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PulledArtifact {
    /// The spec.artifact.oci that it was pulled for.
    pub requested: String,
    /// The spec.artifact.pullAt that it was pulled for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_at: Option<Time>,
    /// The image by its digest.
    pub reference: String,
    /// SHA-256 of the component, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// When it was pulled.
    pub pulled_at: String,
}

/// A component compiled for one kind of node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompiledArtifact {
    /// What it was compiled for, such as "aarch64-unknown-linux-gnu".
    pub target: String,
    /// SHA-256 of the component it was compiled from, 64 hexadecimal digits.
    pub source_sha256: String,
    /// SHA-256 of the compiled bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// The Wasmtime it was compiled with; an agent runs its own version only.
    pub wasmtime_version: String,
    /// The signed description, base64.
    pub description: String,
    /// The signature of the cluster's CA over the description, base64.
    pub signature: String,
}
