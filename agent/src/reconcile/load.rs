//! Makes an instance of a function from its artifact's file and its assignment.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hive_functions::{
    EgressLimits, FunctionOptions, HostServices, Instances, Limits, LoadError, Reuse, StartError,
    VerifiedArtifact, VerifyError,
};
use hive_proto::v1;
use tokio::sync::mpsc;

use crate::events::Events;
use crate::ids::{Digest, FunctionId, SlotId};
use crate::key_value::{KeyValues, OpenError};
use crate::logs::{Logs, Version};
use crate::runtime::LazyRuntime;
use crate::scratch::Scratches;
use crate::serve::Instance;
use crate::usage::Meters;

pub struct Loader {
    runtime: LazyRuntime,
    logs: Logs,
    events: Events,
    key_values: KeyValues,
    scratches: Scratches,
    meters: Meters,
    /// Instances whose code is not to be had any more.
    lost: mpsc::Sender<Arc<Instance>>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    #[error("the artifact on the disk cannot be used: {0}")]
    Artifact(#[source] VerifyError),
    #[error("this machine cannot run functions: {0}")]
    Runtime(#[source] StartError),
    #[error("{0}")]
    Load(#[source] LoadError),
    #[error("what functions keep on this node cannot be used: {0}")]
    KeyValue(#[source] OpenError),
    #[error("there can be no scratch directories on this node: {0}")]
    Scratch(#[source] io::Error),
    #[error("loading the function failed in the agent: {0}")]
    Panic(#[source] tokio::task::JoinError),
}

impl LoadFailure {
    /// For machines: the reason in the assignment's status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Artifact(_) if self.is_of_the_file() => "ArtifactDamaged",
            Self::Artifact(_) => "DiskError",
            Self::Runtime(_) => "NoRuntime",
            Self::Load(error) => match error {
                LoadError::Incompatible { .. } => "Incompatible",
                LoadError::Imports(_) => "UnknownImport",
                LoadError::WrongWorld => "WrongWorld",
                LoadError::MemoryLimit { .. } => "MemoryLimit",
                LoadError::NodeMemory { .. } => "NodeMemory",
                LoadError::TooManyMemories { .. } => "TooManyMemories",
                LoadError::NoConcurrency | LoadError::AllowedHosts(_) => "BadAssignment",
            },
            Self::KeyValue(OpenError::Io { .. }) | Self::Scratch(_) => "DiskError",
            Self::KeyValue(OpenError::Damaged { .. }) => "KeyValueDamaged",
            Self::Panic(_) => "AgentError",
        }
    }

    /// Whether the file must come again. Not when the disk could not be read just now: what is
    /// thrown away then is paid for twice on a metered link.
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Artifact(VerifyError::Digest { .. }) => true,
            Self::Artifact(VerifyError::Read { source, .. }) => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Runtime(_)
            | Self::Load(_)
            | Self::KeyValue(_)
            | Self::Scratch(_)
            | Self::Panic(_) => false,
        }
    }
}

impl Loader {
    pub fn new(
        runtime: LazyRuntime,
        logs: Logs,
        events: Events,
        key_values: KeyValues,
        scratches: Scratches,
        meters: Meters,
        lost: mpsc::Sender<Arc<Instance>>,
    ) -> Self {
        Self {
            runtime,
            logs,
            events,
            key_values,
            scratches,
            meters,
            lost,
        }
    }

    /// Hashes the file and maps it, on a thread where that may take its time.
    pub fn load(
        &self,
        slot: &SlotId,
        path: PathBuf,
        digest: Digest,
        assignment: Arc<v1::Assignment>,
    ) -> impl Future<Output = Result<Arc<Instance>, LoadFailure>> + Send + 'static {
        let runtime = self.runtime.clone();
        let id = FunctionId::of(&assignment);
        let version = Version::of(&assignment);
        let (revision, canary) = (assignment.revision.clone(), assignment.canary);
        let logs = self.logs.sink(&id, slot, version, self.events.clone());
        let meter = self.meters.of(&id);
        let (key_values, lost) = (self.key_values.clone(), self.lost.clone());
        let scratches = self.scratches.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let artifact =
                VerifiedArtifact::verify(&path, &digest.0).map_err(LoadFailure::Artifact)?;
            let runtime = runtime.get().map_err(LoadFailure::Runtime)?;
            let given = assignment.key_value.as_ref();
            let buckets = given.map(|given| key_values.given(given)).transpose();
            let given = assignment.scratch.as_ref();
            let scratch = given.map(|given| scratches.given(given)).transpose();
            let options = FunctionOptions {
                name: id.to_string(),
                limits: limits(assignment.limits.unwrap_or_default()),
                env: assignment.env.clone().into_iter().collect(),
                allowed_hosts: assignment.allowed_hosts.clone(),
                egress: egress(assignment.egress.unwrap_or_default()),
                services: HostServices {
                    config: Arc::new(assignment.config.clone()),
                    key_value: buckets.map_err(LoadFailure::KeyValue)?,
                    scratch: scratch.map_err(LoadFailure::Scratch)?,
                },
                instances: instances(assignment.instances.unwrap_or_default()),
                logs,
                meter,
            };
            let function = runtime
                .load(&artifact, options)
                .map_err(LoadFailure::Load)?;
            Ok(Arc::new(Instance {
                id,
                version,
                trial: canary.then_some(revision),
                function,
                lost,
            }))
        });
        async {
            loading
                .await
                .unwrap_or_else(|error| Err(LoadFailure::Panic(error)))
        }
    }
}

impl Loader {
    /// Gives back the code of functions that nobody asked for anything for `idle`.
    pub fn unmap_idle(&self, idle: Duration) {
        let Some(runtime) = self.runtime.started() else {
            return;
        };
        tokio::task::spawn_blocking(move || {
            let unmapped = runtime.unmap_idle(idle);
            if unmapped > 0 {
                tracing::debug!(functions = unmapped, "gave back the code of idle functions");
            }
        });
    }
}

/// What the assignment leaves unsaid is as the defaults say.
fn limits(limits: v1::Limits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes,
        timeout: Duration::from_millis(limits.timeout_ms),
        concurrency: limits.concurrency,
        queue: limits.queue_ms.map_or(Limits::QUEUE, Duration::from_millis),
        cpu_time: match limits.cpu_ms {
            0 => Limits::CPU_TIME,
            millis => Duration::from_millis(millis),
        },
        response_bytes: match limits.response_bytes {
            0 => Limits::RESPONSE_BYTES,
            bytes => bytes,
        },
        handles: match limits.handles {
            0 => Limits::HANDLES,
            handles => handles,
        },
    }
}

fn instances(said: v1::Instances) -> Instances {
    let default = Instances::default();
    Instances {
        reuse: match said.reuse() {
            // Or what only later versions know.
            v1::Reuse::Unspecified => None,
            v1::Reuse::Fresh => Some(Reuse::Fresh),
            v1::Reuse::Serial => Some(Reuse::Serial),
            v1::Reuse::Concurrent => Some(Reuse::Concurrent),
        },
        max_requests: said.max_requests.unwrap_or(default.max_requests),
        max_concurrent: said.max_concurrent.unwrap_or(default.max_concurrent),
        idle_timeout: said
            .idle_ms
            .map_or(default.idle_timeout, Duration::from_millis),
    }
}

fn egress(egress: v1::Egress) -> EgressLimits {
    let default = EgressLimits::default();
    EgressLimits {
        max_connections: egress.max_connections.unwrap_or(default.max_connections),
        connect: egress
            .connect_ms
            .map_or(default.connect, Duration::from_millis),
        first_byte: egress.first_byte_ms.map(Duration::from_millis),
        idle: egress.idle_ms.map(Duration::from_millis),
    }
}
