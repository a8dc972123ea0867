//! An assignment as the reconciler wants it: vetted, with what it needs spelled out.
//!
//! Signature, target, version and size are judged here, once for each change and before a byte is
//! fetched. What is refused stays in the list, because its refusal must be reported.

use std::sync::Arc;

use hive_identity::CaCertificate;
use hive_proto::desired::{ARTIFACT_CONTEXT, EncodedAssignment};
use hive_proto::v1;
use prost::Message;

use crate::desired::DesiredSet;
use crate::ids::{Digest, FunctionId, SlotId};

/// The largest compiled artifact that is fetched. 18 MB of Python compile to some 60 MB.
pub const MAX_ARTIFACT_BYTES: u64 = 512 << 20;

/// One slot to be filled.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub slot: SlotId,
    pub function: FunctionId,
    /// The hash of the assignment: any change of it is another instance.
    pub instance: Digest,
    pub artifact: Result<Artifact, Refusal>,
    pub assignment: Arc<v1::Assignment>,
}

/// A compiled artifact that the cluster's CA vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub digest: Digest,
    pub size: u64,
}

/// Why an assignment can't run here as it is. Only another assignment helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the assignment names no compiled artifact")]
    NoArtifact,
    #[error("the artifact's description is not signed by this cluster's CA")]
    Signature,
    #[error("the artifact's description is malformed")]
    Description,
    #[error("the artifact is compiled for {found}, and this machine runs {host}")]
    Target { found: String, host: String },
    #[error("the artifact is compiled by wasmtime {found}, and this agent carries {own}")]
    Version { found: String, own: String },
    #[error("the artifact has {size} bytes, and {MAX_ARTIFACT_BYTES} is the most")]
    Size { size: u64 },
}

/// What this machine can load.
#[derive(Clone, Debug)]
pub struct Host {
    pub ca: CaCertificate,
    pub target: String,
    pub wasmtime_version: String,
    /// Other versions whose code is loaded here.
    pub older_versions: Vec<String>,
}

impl Host {
    /// As the machine tells of itself.
    pub fn of(ca: &CaCertificate, info: &v1::NodeInfo) -> Self {
        Self {
            ca: ca.clone(),
            target: info.target.clone(),
            wasmtime_version: info.wasmtime_version.clone(),
            older_versions: hive_functions::older_versions(),
        }
    }
}

impl Refusal {
    /// For machines: the reason in the assignment's status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoArtifact => "NoArtifact",
            Self::Signature | Self::Description => "BadSignature",
            Self::Target { .. } => "WrongTarget",
            Self::Version { .. } => "WrongVersion",
            Self::Size { .. } => "ArtifactTooLarge",
        }
    }
}

/// The desired set, vetted.
pub fn wanted(desired: &DesiredSet, host: &Host) -> Vec<Wanted> {
    let vetted = |encoded: &EncodedAssignment| {
        let assignment = encoded.assignment();
        Wanted {
            slot: SlotId::of(assignment),
            function: FunctionId::of(assignment),
            instance: Digest(encoded.hash()),
            artifact: vet(assignment.artifact.as_ref(), host),
            assignment: assignment.clone(),
        }
    };
    desired.assignments.iter().map(vetted).collect()
}

fn vet(artifact: Option<&v1::CompiledArtifact>, host: &Host) -> Result<Artifact, Refusal> {
    let artifact = artifact.ok_or(Refusal::NoArtifact)?;
    host.ca
        .verify(ARTIFACT_CONTEXT, &artifact.description, &artifact.signature)
        .map_err(|_| Refusal::Signature)?;
    let description = v1::ArtifactDescription::decode(&artifact.description[..])
        .map_err(|_| Refusal::Description)?;
    let digest = Digest::from_slice(&description.sha256).ok_or(Refusal::Description)?;
    if description.target != host.target {
        return Err(Refusal::Target {
            found: description.target,
            host: host.target.clone(),
        });
    }
    let version = &description.wasmtime_version;
    if *version != host.wasmtime_version && !host.older_versions.contains(version) {
        return Err(Refusal::Version {
            found: description.wasmtime_version,
            own: host.wasmtime_version.clone(),
        });
    }
    if description.size > MAX_ARTIFACT_BYTES {
        return Err(Refusal::Size {
            size: description.size,
        });
    }
    Ok(Artifact {
        digest,
        size: description.size,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_identity::CertificateAuthority;

    use super::*;

    #[test]
    fn only_what_this_cluster_signed_for_this_machine_is_taken() {
        let ca = CertificateAuthority::create("home").unwrap();
        let other = CertificateAuthority::create("home").unwrap();
        let host = Host {
            ca: ca.certificate().clone(),
            target: "pulley64".into(),
            wasmtime_version: "48.0.8+1".into(),
            older_versions: vec!["48.0.8+0".into()],
        };
        let description = v1::ArtifactDescription {
            sha256: vec![1; 32],
            size: 10,
            target: "pulley64".into(),
            wasmtime_version: "48.0.8+1".into(),
            ..Default::default()
        };
        let signed = |by: &CertificateAuthority, description: v1::ArtifactDescription| {
            let description = description.encode_to_vec();
            let signature = by.sign(ARTIFACT_CONTEXT, &description);
            vet(
                Some(&v1::CompiledArtifact {
                    description,
                    signature,
                }),
                &host,
            )
        };
        let with = |change: fn(&mut v1::ArtifactDescription)| {
            let mut changed = description.clone();
            change(&mut changed);
            signed(&ca, changed).map_err(|refusal| refusal.reason())
        };

        assert_eq!(
            with(|_| {}),
            Ok(Artifact {
                digest: Digest([1; 32]),
                size: 10
            })
        );
        assert_eq!(with(|d| d.target = "x86".into()), Err("WrongTarget"));
        assert_eq!(
            with(|d| d.wasmtime_version = "48.0.7+1".into()),
            Err("WrongVersion")
        );
        assert!(with(|d| d.wasmtime_version = "48.0.8+0".into()).is_ok());
        assert_eq!(with(|d| d.size = u64::MAX), Err("ArtifactTooLarge"));
        assert_eq!(with(|d| d.sha256 = vec![1; 31]), Err("BadSignature"));
        assert_eq!(signed(&other, description.clone()), Err(Refusal::Signature));
        assert_eq!(vet(None, &host), Err(Refusal::NoArtifact));
    }
}
