//! WebAssembly functions: looked at (`inspect`) and compiled ahead of time by controllers
//! (feature `compile`), run under limits by agents (feature `run`).
//!
//! Component bytes flow in on the controller's side and machine code for one target flows out; the
//! agent's side takes that code and HTTP requests and gives HTTP responses. Neither side may ever
//! hold an engine whose settings differ from [`config`], and the agent's side carries no compiler.

pub mod address;
pub mod config;

#[cfg(feature = "compile")]
pub mod compile;
#[cfg(feature = "compile")]
pub mod inspect;

#[cfg(test)]
mod fuzz;

#[cfg(feature = "run")]
mod abort;
#[cfg(feature = "run")]
mod admission;
#[cfg(feature = "run")]
mod artifact;
#[cfg(feature = "run")]
mod backtrace;
#[cfg(feature = "run")]
mod code;
#[cfg(feature = "run")]
mod crowd;
#[cfg(feature = "run")]
mod egress;
#[cfg(feature = "run")]
mod engines;
#[cfg(feature = "run")]
mod fresh;
#[cfg(feature = "run")]
mod function;
#[cfg(feature = "run")]
mod guest;
#[cfg(feature = "run")]
mod host;
#[cfg(any(feature = "compile", feature = "run"))]
mod interfaces;
#[cfg(feature = "run")]
mod invoke;
#[cfg(feature = "run")]
mod lane;
pub mod latency;
mod limits;
#[cfg(feature = "run")]
mod logs;
#[cfg(feature = "run")]
mod meter;
#[cfg(feature = "run")]
mod origin;
#[cfg(feature = "run")]
mod pool;
mod reason;
#[cfg(feature = "run")]
mod request;
#[cfg(feature = "run")]
mod response;
#[cfg(feature = "run")]
mod reuse;
#[cfg(feature = "run")]
mod run;
#[cfg(feature = "run")]
mod runtime;
#[cfg(feature = "run")]
mod ticker;
#[cfg(feature = "run")]
mod trace;
#[cfg(feature = "run")]
mod work;

pub use config::{CONFIG_VERSION, Target, UnknownTarget, engine_version, wasmtime_version};
pub use limits::{EgressLimits, Limits};
pub use reason::Reason;

#[cfg(feature = "compile")]
pub use compile::{CompileError, Compiler};
#[cfg(feature = "compile")]
pub use inspect::{ComponentInfo, InspectError, InspectLimits, World, inspect};

#[cfg(feature = "run")]
pub use admission::Waited;
#[cfg(feature = "run")]
pub use artifact::{VerifiedArtifact, VerifyError};
#[cfg(feature = "run")]
pub use config::{host_target, older_versions};
#[cfg(feature = "run")]
pub use egress::{AllowedHosts, InvalidHostPattern, Resolve, SystemResolver, dial};
#[cfg(feature = "run")]
pub use function::{Function, FunctionOptions};
#[cfg(feature = "run")]
pub use host::{
    Buckets, Config, Entry, Expected, HostServices, KeyValue, KeyValueError, LogLevel, MAX_BATCH,
    MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, PAGE, Scratch, ScratchSpace, Write,
};
#[cfg(feature = "run")]
pub use invoke::{BoxBody, BoxError, InvokeError};
#[cfg(feature = "run")]
pub use limits::budget::MachineMemory;
#[cfg(feature = "run")]
pub use logs::{LogEvent, LogRecord, LogSink, LogStream};
#[cfg(feature = "run")]
pub use meter::{FunctionUsage, Meter};
#[cfg(feature = "run")]
pub use pool::Allocation;
#[cfg(feature = "run")]
pub use reuse::{Instances, Reuse};
#[cfg(feature = "run")]
pub use runtime::{LoadError, Runtime, RuntimeOptions, StartError};
