//! The engine of an agent, and how compiled artifacts become functions.
//!
//! One [`Runtime`] a process. Verified artifacts come in, functions that answer requests go out. It
//! compiles nothing and maps nothing that was not verified.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use wasmtime_wasi_http::handler::ProxyPre;

use crate::{
    admission::{Admission, Needs},
    artifact::VerifiedArtifact,
    code::{Code, Proxy},
    config::{self, Target},
    egress::{AllowedHosts, InvalidHostPattern, Outbound, Resolve, SystemResolver},
    engines::{Engines, Fitted},
    function::{Function, FunctionOptions, WeakFunction},
    lane::SlowLane,
    limits::budget::{INSTANCE_BYTES, MachineMemory},
    pool::{self, Allocation},
    ticker::Ticker,
};

const PAGE: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Instances at once over all functions, at most; fewer where memory or address space are small.
    pub max_instances: u32,
    /// What all instances together may use of the machine's memory.
    pub memory_bytes: u64,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            max_instances: pool::POOL_SLOTS[0],
            memory_bytes: u64::MAX,
        }
    }
}

/// Why there is no runtime on this machine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("max_instances is 0: no function could ever run")]
    NoInstances,
    #[error(
        "this processor lacks {}, which functions need: processors of level x86-64-v2 have it (Intel Core \
         since 2009, AMD since Bulldozer and Jaguar)",
        .0.join(", ")
    )]
    Processor(Vec<&'static str>),
    #[error("cannot set up WebAssembly: {0}")]
    Engine(String),
    #[error("cannot start the thread that makes functions yield")]
    Ticker(#[source] std::io::Error),
}

/// Why an artifact is no function. Only `Incompatible` can change: by compiling anew.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the artifact was not compiled for this machine and version ({target}, {version}): {message}"
    )]
    Incompatible {
        target: Target,
        version: String,
        message: String,
    },
    #[error("the component imports what functions do not get: {0}")]
    Imports(String),
    #[error(
        "the component exports neither wasi:http/incoming-handler@0.2 nor wasi:http/handler@0.3"
    )]
    WrongWorld,
    #[error("the component starts with {initial} bytes of memory, its limit is {limit}")]
    MemoryLimit { initial: u64, limit: u64 },
    #[error("the component starts with {initial} bytes of memory, this node has {given} for all")]
    NodeMemory { initial: u64, given: u64 },
    #[error("the component has {needed} memories, this machine has addresses for {given} now")]
    TooManyMemories { needed: u32, given: u32 },
    #[error("a concurrency of 0 would answer nothing")]
    NoConcurrency,
    #[error(transparent)]
    AllowedHosts(#[from] InvalidHostPattern),
}

/// Memory that an instance may grow by without asking the node, as it has it from the start: what
/// answers with little more than it begins with waits for its turn while others take all there is, but
/// does not fail. Bytes.
const HEADROOM: u64 = 1 << 20;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Runtime(Arc<Shared>);

pub(crate) struct Shared {
    engines: Arc<Engines>,
    pub ticker: Ticker,
    pub admission: Admission,
    pub lane: Arc<SlowLane>,
    outbound: Arc<Outbound>,
    functions: Mutex<Vec<WeakFunction>>,
}

impl Runtime {
    /// Takes address space but next to no memory: an idle runtime costs about half a megabyte.
    pub fn start(options: RuntimeOptions) -> Result<Self, StartError> {
        Self::start_resolving(options, Arc::new(SystemResolver::default()))
    }

    /// As `start`, for functions whose names are looked up in another way.
    pub fn start_resolving(
        options: RuntimeOptions,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, StartError> {
        Self::start_for(Target::host(), options, resolver)
    }

    fn start_for(
        target: Target,
        options: RuntimeOptions,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, StartError> {
        if options.max_instances == 0 {
            return Err(StartError::NoInstances);
        }
        let lacking = config::lacking(target);
        if !lacking.is_empty() {
            return Err(StartError::Processor(lacking));
        }
        let failed = |error: wasmtime::Error| StartError::Engine(format!("{error:#}"));
        let engines = Engines::start(target, options.max_instances, options.memory_bytes);
        let engines = Arc::new(engines.map_err(failed)?);
        let ticking = engines.clone();
        let ticker = Ticker::start(move || ticking.advance()).map_err(StartError::Ticker)?;
        let allocation = engines.allocation();
        tracing::info!(?allocation, "WebAssembly is ready");
        Ok(Self(Arc::new(Shared {
            engines,
            ticker,
            admission: Admission::new(allocation.slots(), options.memory_bytes),
            lane: Arc::default(),
            outbound: Outbound::new(resolver),
            functions: Mutex::default(),
        })))
    }

    /// Where instances get their memory from on this machine.
    pub fn allocation(&self) -> Allocation {
        self.0.engines.allocation()
    }

    /// Bytes that all instances use now, as they are counted against `memory_bytes`.
    pub fn memory_used(&self) -> u64 {
        self.0.admission.memory().used()
    }

    /// Says what the machine has for instances, of which they never get more than `memory_bytes`.
    pub fn set_machine_memory(&self, machine: MachineMemory) {
        self.0.admission.set_machine_memory(machine);
    }

    /// Comes when an instance starts after there was none, also when that was before it was asked for. One
    /// at a time may wait for it.
    pub async fn begun(&self) {
        self.0.admission.memory().begun().await;
    }

    /// Maps an artifact and prepares it for requests. Blocks for milliseconds (relocation and the
    /// memory image of a large component).
    pub fn load(
        &self,
        artifact: &VerifiedArtifact,
        options: FunctionOptions,
    ) -> Result<Function, LoadError> {
        if options.limits.concurrency == 0 {
            return Err(LoadError::NoConcurrency);
        }
        let allowed_hosts = AllowedHosts::parse(&options.allowed_hosts)?;

        let Fitted {
            linked,
            component,
            slots,
        } = self.0.engines.fit(artifact)?;

        // None only for components that import whole modules, which the linker does not have.
        let needs = component.resources_required();
        let initial = needs
            .and_then(|needs| needs.max_initial_memory_size)
            .map_or(0, |pages| pages.saturating_mul(PAGE));
        if initial > options.limits.memory_bytes {
            return Err(LoadError::MemoryLimit {
                initial,
                limit: options.limits.memory_bytes,
            });
        }
        // It would wait for ever.
        let least = initial.saturating_add(INSTANCE_BYTES);
        let given = self.0.admission.memory().limit();
        if least > given {
            return Err(LoadError::NodeMemory { initial, given });
        }
        let room = initial.saturating_add(HEADROOM);
        let room = room.min(options.limits.memory_bytes);
        let bytes = room.saturating_add(INSTANCE_BYTES).min(given);

        let proxy = linked.prepare(&component)?;
        let slots = slots.max(stacks(&proxy)).min(self.allocation().slots());
        let code = Code::new(artifact.clone(), linked, proxy);
        let outgoing = self
            .0
            .outbound
            .client(allowed_hosts, options.egress.clone());
        let needs = Needs { slots, bytes };
        let function = Function::new(self.0.clone(), code, needs, outgoing, options);
        let mut functions = self.0.functions();
        functions.retain(WeakFunction::is_alive);
        functions.push(function.downgrade());
        Ok(function)
    }

    /// Gives back the code of functions that nobody asked for anything for `idle`; their next request maps
    /// it again. Returns how many there were. Blocks for some 100 microseconds each.
    pub fn unmap_idle(&self, idle: Duration) -> usize {
        let functions = self.0.functions().clone();
        let unmapped = functions.iter().filter(|function| function.unmap(idle));
        unmapped.count()
    }
}

impl Shared {
    fn functions(&self) -> MutexGuard<'_, Vec<WeakFunction>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stacks that an instance has at once: a guest of 0.3 runs its tasks on another than that on which it is called.
fn stacks(proxy: &Proxy) -> u32 {
    match proxy {
        ProxyPre::P2(_) => 1,
        ProxyPre::P3(_) => 2,
    }
}

#[cfg(all(test, feature = "compile"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::{BodyExt, Empty};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{BoxBody, Compiler, HostServices, Instances, Limits};

    /// What machines run for which there is no native code. It needs no such machine.
    #[tokio::test]
    async fn bytecode_is_interpreted_on_any_machine() {
        let component = include_bytes!("../tests/fixtures/rust-hello-p2.wasm");
        let code = Compiler::new("pulley64").unwrap().compile(component);
        let code = code.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("artifact");
        std::fs::write(&path, &code).unwrap();
        let artifact = VerifiedArtifact::verify(&path, &Sha256::digest(&code).into()).unwrap();

        let options = RuntimeOptions {
            max_instances: 4,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::start_for(
            Target::Pulley64,
            options,
            Arc::new(SystemResolver::default()),
        )
        .unwrap();
        let function = runtime.load(
            &artifact,
            FunctionOptions {
                name: "default/test".to_owned(),
                limits: Limits {
                    memory_bytes: 64 << 20,
                    timeout: Duration::from_secs(60),
                    concurrency: 1,
                    queue: Limits::QUEUE,
                    cpu_time: Limits::CPU_TIME,
                    response_bytes: Limits::RESPONSE_BYTES,
                    handles: Limits::HANDLES,
                },
                env: Vec::new(),
                allowed_hosts: Vec::new(),
                egress: crate::EgressLimits::default(),
                services: HostServices::default(),
                instances: Instances::default(),
                logs: Arc::new(|_| {}),
                meter: Arc::default(),
            },
        );
        let body = BoxBody::new(Empty::new().map_err(|never| match never {}));
        let response = function.unwrap().handle(http::Request::new(body)).await;
        assert_eq!(response.unwrap().status(), 200);
    }
}
