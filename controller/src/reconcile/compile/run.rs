//! Performs compilations, one at a time: each takes cores for seconds and memory besides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_functions::engine_version;
use hive_identity::CertificateAuthority;
use hive_manifests::function::CompiledArtifact;
use hive_proto::ARTIFACT_CONTEXT;
use hive_proto::v1::ArtifactDescription;
use prost::Message;
use serde_json::json;

use super::CompileWorker;
use super::failure::CompileFailure;
use super::plan::{Job, Targets, plan};
use crate::artifacts::{Artifacts, BadDigest, Digest};
use crate::gateway::bounds::cut;
use crate::objects::{self, EditError};
use crate::reconcile::Outlook;
use crate::reconcile::events::{self, MAX_MESSAGE_BYTES, Notice};
use crate::state::{Key, State};
use crate::store::Replica;

pub struct Compilation {
    replica: Replica,
    artifacts: Artifacts,
    authority: Arc<CertificateAuthority>,
    worker: CompileWorker,
    own_target: &'static str,
    targets: Targets,
    failures: HashMap<Job, Failed>,
}

/// A job that failed.
struct Failed {
    at: Instant,
    /// Absent where it will always fail.
    retry_after: Option<Duration>,
}

impl Failed {
    fn is_due(&self) -> bool {
        self.retry_after
            .is_some_and(|after| self.at.elapsed() >= after)
    }
}

impl Compilation {
    pub fn new(
        replica: Replica,
        artifacts: Artifacts,
        authority: Arc<CertificateAuthority>,
        worker: CompileWorker,
        own_target: &'static str,
    ) -> Self {
        Self {
            replica,
            artifacts,
            authority,
            worker,
            own_target,
            targets: Targets::default(),
            failures: HashMap::new(),
        }
    }

    /// One look: writes what is known, then performs one compilation if one is due.
    pub async fn pass(&mut self, state: &State) -> Outlook {
        let targets = self.targets.of(state);
        let plan = plan(state, targets, self.own_target, &engine_version());
        self.failures.retain(|job, _| plan.jobs.contains_key(job));
        let mut settled = true;
        for (key, records) in &plan.records {
            settled &= self.write(key, records).await;
        }
        let due = plan
            .jobs
            .iter()
            .find(|(job, _)| self.failures.get(job).is_none_or(Failed::is_due));
        if let Some((job, functions)) = due {
            self.perform(job, functions).await;
        }
        // What was compiled now is seen to be done, and what is next, in another look.
        let hopeless = |job: &Job| {
            let failed = self.failures.get(job);
            failed.is_some_and(|failed| failed.retry_after.is_none())
        };
        Outlook::settled_if(settled && plan.jobs.keys().all(hopeless))
    }

    async fn perform(&mut self, job: &Job, functions: &[Key]) {
        let started = Instant::now();
        match self.compile(job).await {
            Ok(artifact) => {
                tracing::info!(
                    source = job.source,
                    target = job.target,
                    size = artifact.size,
                    elapsed = ?started.elapsed(),
                    "compiled"
                );
                for key in functions {
                    self.add(key, &artifact).await;
                }
            }
            Err(failure) => {
                tracing::warn!(
                    source = job.source,
                    target = job.target,
                    reason = failure.reason(),
                    error = %failure,
                    "cannot compile"
                );
                let failed = Failed {
                    at: Instant::now(),
                    retry_after: failure.retry_after(),
                };
                self.failures.insert(job.clone(), failed);
                for key in functions {
                    self.tell(key, &job.target, &failure).await;
                }
            }
        }
    }

    async fn compile(&self, job: &Job) -> Result<CompiledArtifact, CompileFailure> {
        let source: Digest = job
            .source
            .parse()
            .map_err(|e: BadDigest| CompileFailure::Component(e.to_string()))?;
        let component = self
            .artifacts
            .file(&source)
            .await
            .map_err(|e| CompileFailure::Hindered(e.to_string()))?;
        let compiled = self.artifacts.files().part();
        self.worker
            .compile(&job.target, &component, compiled.path())
            .await?;
        let (digest, size) = self
            .artifacts
            .store_file(compiled)
            .await
            .map_err(|e| CompileFailure::Hindered(e.to_string()))?;
        let description = ArtifactDescription {
            source_sha256: source.as_bytes().to_vec(),
            sha256: digest.as_bytes().to_vec(),
            size,
            target: job.target.clone(),
            wasmtime_version: engine_version(),
        }
        .encode_to_vec();
        Ok(CompiledArtifact {
            target: job.target.clone(),
            source_sha256: job.source.clone(),
            sha256: digest.hex(),
            size,
            wasmtime_version: engine_version(),
            signature: BASE64.encode(self.authority.sign(ARTIFACT_CONTEXT, &description)),
            description: BASE64.encode(description),
        })
    }

    async fn add(&self, key: &Key, artifact: &CompiledArtifact) {
        let known = self.replica.state();
        let mut records: Vec<CompiledArtifact> = known
            .get(key)
            .and_then(|object| object.body()["status"].get("artifacts").cloned())
            .and_then(|artifacts| serde_json::from_value(artifacts).ok())
            .unwrap_or_default();
        records.retain(|known| {
            known.source_sha256 == artifact.source_sha256 && known.target != artifact.target
        });
        records.push(artifact.clone());
        records.sort_by(|a, b| a.target.cmp(&b.target));
        self.write(key, &records).await;
    }

    /// False when it could not be written.
    async fn write(&self, key: &Key, records: &[CompiledArtifact]) -> bool {
        let message = format!(
            "compiled for {}",
            records
                .iter()
                .map(|r| &*r.target)
                .collect::<Vec<_>>()
                .join(", ")
        );
        let written = objects::edit(&self.replica, key, |body| {
            let before = body["status"].clone();
            let now = SystemTime::now();
            objects::set_condition(
                &mut body["status"],
                "Compiled",
                "True",
                "Compiled",
                &message,
                now,
            );
            body["status"]["artifacts"] = json!(records);
            body["status"] != before
        })
        .await;
        match written {
            Ok(()) | Err(EditError::NotFound(_)) => true,
            Err(error) => {
                tracing::warn!(function = %key, error = &error as &dyn std::error::Error, "cannot write compiled artifacts");
                false
            }
        }
    }

    async fn tell(&self, key: &Key, target: &str, failure: &CompileFailure) {
        let mut message = format!("for {target}: {failure}");
        cut(&mut message, MAX_MESSAGE_BYTES);
        let written = objects::edit(&self.replica, key, |body| {
            let now = SystemTime::now();
            objects::set_condition(
                &mut body["status"],
                "Compiled",
                "False",
                failure.reason(),
                &message,
                now,
            )
        })
        .await;
        if let Err(error) = written {
            tracing::warn!(function = %key, %error, "cannot write the compilation's failure");
        }
        let notice = Notice {
            warning: true,
            reason: failure.reason().to_owned(),
            message,
            source: "compiler".to_owned(),
            count: 1,
        };
        events::record(&self.replica, key, notice).await;
    }
}
