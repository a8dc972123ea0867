//! Compiles components ahead of time, for one target.
//!
//! Component bytes in, a file for [`Runtime::load`](crate::Runtime) out. It never runs anything:
//! what an agent may map is decided by the signature over the description of what comes out here.

use wasmtime::Engine;

use crate::config::{self, Target, UnknownTarget};

/// Why a component could not be compiled. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Target(#[from] UnknownTarget),
    #[error("cannot set up a compiler for {target}: {message}")]
    Engine { target: Target, message: String },
    #[error("cannot compile for {target}: {message}")]
    Component { target: Target, message: String },
}

/// Compiles for one target. Cheap to make; uses every core while it compiles.
pub struct Compiler {
    target: Target,
    engine: Engine,
}

impl Compiler {
    /// `target` is one of [`Target::ALL`] by name.
    pub fn new(target: &str) -> Result<Self, CompileError> {
        let target = target.parse()?;
        let engine = config::compiling(target)
            .and_then(|config| Engine::new(&config))
            .map_err(|error| CompileError::Engine {
                target,
                message: format!("{error:#}"),
            })?;
        Ok(Self { target, engine })
    }

    pub fn target(&self) -> Target {
        self.target
    }

    /// Blocks: from milliseconds (80 KB of Rust) to tens of seconds (13 MB of JavaScript), with
    /// hundreds of megabytes of memory for the latter.
    pub fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
        self.engine
            .precompile_component(bytes)
            .map_err(|error| CompileError::Component {
                target: self.target,
                message: format!("{error:#}"),
            })
    }
}
