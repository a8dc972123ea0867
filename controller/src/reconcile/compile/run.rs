//! Performs compilations, one at a time: each takes cores for seconds and memory besides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use hive_functions::engine_version;
use hive_identity::CertificateAuthority;
use hive_manifests::Function;
use hive_manifests::function::CompiledArtifact;
use hive_proto::ARTIFACT_CONTEXT;
use hive_proto::v1::ArtifactDescription;
use prost::Message;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::CompileWorker;
use super::failure::CompileFailure;
use super::plan::SourcePlan;
use super::progress::{self, Progress, Rates};
use super::view::{Kind, View};
use crate::artifacts::{Artifacts, BadDigest, Digest};
use crate::gateway::bounds::cut;
use crate::objects::{self, EditError, Writer as _};
use crate::reconcile::Outlook;
use crate::reconcile::events::{self, MAX_MESSAGE_BYTES, Notice};
use crate::reconcile::rollout::proven_artifacts;
use crate::reconcile::schedule::source_sha256;
use crate::state::{Key, State};
use crate::together::{self, Together};

/// Statuses on their way at once: two entries full of them, so that one is gathered while one is written.
const WRITES: usize = 2 * together::MOST;

/// Names one compilation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Job {
    /// Of the component, lower hex.
    source: String,
    target: String,
}

pub struct Compilation {
    writer: Together,
    artifacts: Artifacts,
    authority: Arc<CertificateAuthority>,
    worker: CompileWorker,
    view: View,
    failures: HashMap<Job, Failed>,
    rates: Rates,
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

/// What functions are to say of their component.
struct Records {
    source: String,
    artifacts: Vec<CompiledArtifact>,
    /// It is compiled for all that it is to be compiled for.
    is_complete: bool,
}

impl Compilation {
    pub fn new(
        writer: Together,
        artifacts: Artifacts,
        authority: Arc<CertificateAuthority>,
        worker: CompileWorker,
        own_target: &'static str,
    ) -> Self {
        Self {
            writer,
            artifacts,
            authority,
            worker,
            view: View::new(own_target, engine_version()),
            failures: HashMap::new(),
            rates: Rates::default(),
        }
    }

    /// One look: writes what is known, then performs one compilation if one is due.
    pub async fn pass(&mut self, state: &State) -> Outlook {
        let plans = self.view.plans(state, Instant::now());
        let jobs: BTreeSet<Job> = plans
            .iter()
            .flat_map(|(source, plan)| {
                plan.missing.iter().map(|target| Job {
                    source: source.clone(),
                    target: target.clone(),
                })
            })
            .collect();
        self.failures.retain(|job, _| jobs.contains(job));
        let size = |job: &Job| state.artifact(&job.source).map_or(0, |record| record.size);
        // What takes a second never waits for what takes a minute.
        let due = jobs
            .iter()
            .filter(|job| self.failures.get(job).is_none_or(Failed::is_due))
            .min_by_key(|job| size(job))
            .cloned();
        let planned = due.as_ref().map(|job| plans[&job.source].clone());
        let stale: Vec<(Key, Arc<Records>)> = plans
            .iter()
            .flat_map(|(source, plan)| {
                let records = Arc::new(Records {
                    source: source.clone(),
                    artifacts: plan.records.to_vec(),
                    is_complete: plan.missing.is_empty(),
                });
                let stale = plan.stale.iter().cloned();
                stale.map(move |key| (key, records.clone()))
            })
            .collect();
        let settled = self.write_all(stale).await;
        if let (Some(job), Some(plan)) = (due, planned) {
            let size = size(&job);
            self.perform(job, size, plan).await;
        }
        // What was compiled now is seen to be done, and what is next, in another look.
        let hopeless = |job: &Job| {
            let failed = self.failures.get(job);
            failed.is_some_and(|failed| failed.retry_after.is_none())
        };
        Outlook::settled_if(settled && jobs.iter().all(hopeless))
    }

    async fn perform(&mut self, job: Job, size: u64, plan: SourcePlan) {
        let functions: Vec<Key> = self.view.functions(&job.source).cloned().collect();
        let progress = Progress {
            target: &job.target,
            number: self.view.targets() + 1 - plan.missing.len(),
            targets: self.view.targets(),
            size,
            estimate: self.rates.estimate(&job.target, size),
        };
        if progress.is_worth_telling() {
            progress::begun(&self.writer, &functions, &progress).await;
        }
        let started = Instant::now();
        match self.compile(&job).await {
            Ok(artifact) => {
                let took = started.elapsed();
                tracing::info!(
                    source = job.source,
                    target = job.target,
                    size = artifact.size,
                    elapsed = ?took,
                    "compiled"
                );
                if progress.is_worth_telling() {
                    progress::done(&self.writer, &functions, &artifact, took).await;
                }
                self.rates.learn(&job.target, size, took);
                let mut artifacts = plan.records.to_vec();
                artifacts.push(artifact);
                artifacts.sort_by_key(Kind::of_artifact);
                let records = Arc::new(Records {
                    source: job.source,
                    artifacts,
                    is_complete: plan.missing == [job.target],
                });
                let functions = functions.into_iter();
                self.write_all(functions.map(|key| (key, records.clone())))
                    .await;
            }
            Err(failure) => {
                tracing::warn!(
                    source = job.source,
                    target = job.target,
                    reason = failure.reason(),
                    error = %failure,
                    "cannot compile"
                );
                for key in &functions {
                    self.tell(key, &job.target, &failure).await;
                }
                let failed = Failed {
                    at: Instant::now(),
                    retry_after: failure.retry_after(),
                };
                self.failures.insert(job, failed);
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

    /// False when one could not be written.
    async fn write_all(&self, all: impl IntoIterator<Item = (Key, Arc<Records>)>) -> bool {
        let writes = all.into_iter().map(|(key, records)| {
            let writer = self.writer.clone();
            async move { write(&writer, &key, &records).await }
        });
        futures::stream::iter(writes)
            .buffer_unordered(WRITES)
            .fold(true, async |all, written| all && written)
            .await
    }

    async fn tell(&self, key: &Key, target: &str, failure: &CompileFailure) {
        let mut message = format!("for {target}: {failure}");
        cut(&mut message, MAX_MESSAGE_BYTES);
        let written = objects::edit(&self.writer, key, |body| {
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
        events::record(&self.writer, key, notice).await;
    }
}

/// False when it could not be written.
async fn write(writer: &Together, key: &Key, records: &Records) -> bool {
    let targets: BTreeSet<&str> = records.artifacts.iter().map(|r| &*r.target).collect();
    let targets: Vec<&str> = targets.into_iter().collect();
    let message = format!("compiled for {}", targets.join(", "));
    let written = objects::edit(writer, key, |body| {
        if source_of(body).as_deref() != Some(&*records.source) {
            // It names another component by now.
            return false;
        }
        let before = body["status"].clone();
        let now = SystemTime::now();
        if records.is_complete {
            let status = &mut body["status"];
            objects::set_condition(status, "Compiled", "True", "Compiled", &message, now);
        }
        let state = writer.replica().state();
        let mut artifacts = proven_artifacts(&state, key, &body["status"]);
        artifacts.retain(|artifact| artifact.source_sha256 != records.source);
        artifacts.extend(records.artifacts.iter().cloned());
        body["status"]["artifacts"] = json!(artifacts);
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

/// As its spec has it, or as its image was found to be.
fn source_of(function: &Value) -> Option<String> {
    source_sha256(&Function::deserialize(function).ok()?)
}
