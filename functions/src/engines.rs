//! The engines of a runtime: one for nearly all components, and one for those that its pool has no room for.
//!
//! A verified artifact comes in, its code comes out in the engine that can make instances of it. That is decided here, when
//! a function is loaded and without running anything of it: no request may be the one that finds out.

use std::sync::{Arc, OnceLock};

use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};
use wasmtime_wasi_http::{handler::ProxyPre, p2, p3};

use crate::{
    artifact::VerifiedArtifact,
    code::Proxy,
    config::{self, Target},
    guest::{self, Guest},
    pool::{self, Allocation},
    runtime::LoadError,
};

pub(crate) struct Engines {
    target: Target,
    allocation: Allocation,
    usual: Arc<Linked>,
    /// Gets memories from the system one by one. Made for the first that needs it: most nodes never see any.
    beyond: OnceLock<Arc<Linked>>,
}

/// An engine with what guests import.
pub(crate) struct Linked {
    target: Target,
    pub engine: Engine,
    linker: Linker<Guest>,
}

/// Code that instances can be made of.
pub(crate) struct Fitted {
    pub linked: Arc<Linked>,
    pub component: Component,
    /// For the memories and tables of an instance.
    pub slots: u32,
}

impl Engines {
    /// The best that this machine can have.
    pub(crate) fn start(target: Target, max: u32, memory: u64) -> wasmtime::Result<Self> {
        let allocations = pool::allocations(target, max, memory);
        let (allocation, engine) = pool::probe(&allocations, |allocation| {
            pool::engine(config::running(target)?, allocation)
        })?;
        let allocation = match allocation {
            Allocation::Pooled { .. } => allocation,
            // Tried now, and not by requests.
            Allocation::OnDemand { slots } => Allocation::OnDemand {
                slots: pool::addresses(&engine, slots).max(1),
            },
        };
        Ok(Self {
            target,
            allocation,
            usual: Linked::new(target, engine)?,
            beyond: OnceLock::new(),
        })
    }

    pub(crate) fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Has guests of all engines yield.
    pub(crate) fn advance(&self) {
        self.usual.engine.increment_epoch();
        if let Some(beyond) = self.beyond.get() {
            beyond.engine.increment_epoch();
        }
    }

    /// Maps an artifact where its instances fit. Its file must have been verified just before.
    pub(crate) fn fit(&self, artifact: &VerifiedArtifact) -> Result<Fitted, LoadError> {
        let Allocation::Pooled { slots: all } = self.allocation else {
            let component = self.usual.map(artifact)?;
            return self.beyond_the_slots(self.usual.clone(), component);
        };
        match self.usual.map(artifact) {
            Ok(component) if pool::slots(&component) <= all => Ok(Fitted {
                linked: self.usual.clone(),
                slots: pool::slots(&component),
                component,
            }),
            // wasmtime has one error for what the pool has no room for and for what is no code for this machine:
            // which it is, another look tells.
            Ok(_) | Err(_) => {
                self.look(artifact)?;
                let beyond = self.beyond()?;
                let component = beyond.map(artifact)?;
                self.beyond_the_slots(beyond, component)
            }
        }
    }

    /// Fails for what no engine is to run.
    fn look(&self, artifact: &VerifiedArtifact) -> Result<(), LoadError> {
        let engine = config::running(self.target).and_then(pool::bounds_beyond);
        let engine = engine.map_err(|error| self.usual.incompatible(&error))?;
        deserialize(&engine, artifact)
            .map(drop)
            .map_err(|error| self.usual.incompatible(&error))
    }

    fn beyond(&self) -> Result<Arc<Linked>, LoadError> {
        if let Some(beyond) = self.beyond.get() {
            return Ok(beyond.clone());
        }
        let slots = self.allocation.slots();
        let engine = config::running(self.target)
            .and_then(|config| pool::engine(config, Allocation::OnDemand { slots }));
        let linked = engine.and_then(|engine| Linked::new(self.target, engine));
        let linked = linked.map_err(|error| self.usual.incompatible(&error))?;
        tracing::info!("a component is larger than the pool's slots: it gets memory on demand");
        Ok(self.beyond.get_or_init(|| linked).clone())
    }

    /// What gets its memories from the system: as many slots as keep all of its instances within what
    /// there are addresses for.
    fn beyond_the_slots(
        &self,
        linked: Arc<Linked>,
        component: Component,
    ) -> Result<Fitted, LoadError> {
        let (all, needed) = (self.allocation.slots(), pool::memories(&component));
        let is_usual = Arc::ptr_eq(&linked, &self.usual);
        let slots = if is_usual && needed <= all {
            // Slots were counted so that there are addresses for all.
            pool::slots(&component).min(all)
        } else {
            let given = pool::addresses(&linked.engine, needed.max(all));
            if needed > given {
                return Err(LoadError::TooManyMemories { needed, given });
            }
            pool::slots_beyond(&component, all, given)
        };
        Ok(Fitted {
            linked,
            component,
            slots,
        })
    }
}

impl Linked {
    fn new(target: Target, engine: Engine) -> wasmtime::Result<Arc<Self>> {
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker)?;
        Ok(Arc::new(Self {
            target,
            engine,
            linker,
        }))
    }

    /// Its file must have been verified just before.
    pub(crate) fn map(&self, artifact: &VerifiedArtifact) -> Result<Component, LoadError> {
        deserialize(&self.engine, artifact).map_err(|error| self.incompatible(&error))
    }

    pub(crate) fn prepare(&self, component: &Component) -> Result<Proxy, LoadError> {
        let instance = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::Imports(format!("{error:#}")))?;
        let proxy = proxy(instance)?;
        // Here rather than in the first request.
        component
            .initialize_copy_on_write_image()
            .map_err(|error| self.incompatible(&error))?;
        Ok(proxy)
    }

    fn incompatible(&self, error: &wasmtime::Error) -> LoadError {
        LoadError::Incompatible {
            target: self.target,
            version: config::engine_version(),
            message: format!("{error:#}"),
        }
    }
}

fn deserialize(engine: &Engine, artifact: &VerifiedArtifact) -> wasmtime::Result<Component> {
    // SAFETY: the content must be what a wasmtime engine serialized, and must stay as it is.
    // A `VerifiedArtifact` exists only for a file whose digest stood in a description signed by
    // the controllers, which sign what `Compiler` made; its contract keeps the file unchanged.
    #[allow(unsafe_code)]
    unsafe {
        Component::deserialize_file(engine, artifact.path())
    }
}

/// The newer world wins where a component exports both, as in `inspect`.
fn proxy(instance: InstancePre<Guest>) -> Result<Proxy, LoadError> {
    if let Ok(service) = p3::bindings::ServicePre::new(instance.clone()) {
        return Ok(ProxyPre::P3(service));
    }
    match p2::bindings::ProxyPre::new(instance) {
        Ok(proxy) => Ok(ProxyPre::P2(proxy)),
        Err(_) => Err(LoadError::WrongWorld),
    }
}
