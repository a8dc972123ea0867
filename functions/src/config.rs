//! The engine settings that compiled code depends on, for both sides in one place.
//!
//! A target's name goes in, a `wasmtime::Config` comes out. Whatever changes generated code is set
//! here and nowhere else: code compiled under other settings is refused by the agent at best.

use std::{fmt, str::FromStr};

use wasmtime::Config;

/// The wasmtime that this build carries. wasmtime itself checks only the major version when it
/// loads code; descriptions of artifacts carry [`engine_version`] so that all of it is compared.
const WASMTIME_VERSION: &str = "48.0.8";

/// Raised whenever [`tuned`] changes in a way that generated code depends on.
pub const CONFIG_VERSION: u32 = 1;

/// 4 GiB of address space for each memory lets generated code skip every bounds check on 32-bit
/// memories. It is address space only: nothing is committed.
const MEMORY_RESERVATION: u64 = 4 << 30;

/// Offsets in loads and stores up to this need no check either; wasmtime's default, taken from a
/// large corpus of modules (greatest offset seen: 20 MiB).
const MEMORY_GUARD: u64 = 32 << 20;

/// The version of wasmtime, for people.
pub const fn wasmtime_version() -> &'static str {
    WASMTIME_VERSION
}

/// The version that code must have been compiled with to be loaded here: wasmtime's, and that of
/// the settings. Equal on both sides or not compatible.
pub fn engine_version() -> String {
    format!("{WASMTIME_VERSION}+{CONFIG_VERSION}")
}

/// What code is compiled for. Named as the agents report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    X86_64,
    Aarch64,
    /// Portable bytecode, interpreted: for machines that none of the others fit.
    Pulley64,
}

impl Target {
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Pulley64];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::Pulley64 => "pulley64",
        }
    }

    /// What this machine runs. Android and musl run what is compiled for GNU/Linux: the code makes
    /// no system calls, and only the processor and the operating system are compared on load.
    pub const fn host() -> Self {
        const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
        if LINUX && cfg!(target_arch = "x86_64") {
            Self::X86_64
        } else if LINUX && cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::Pulley64
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A target that nothing is compiled for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown target {0:?}; known are x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu and pulley64"
)]
pub struct UnknownTarget(pub String);

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Self, UnknownTarget> {
        Self::ALL
            .into_iter()
            .find(|target| target.as_str() == name)
            .ok_or_else(|| UnknownTarget(name.to_owned()))
    }
}

/// The target string of this machine.
#[cfg(feature = "run")]
pub const fn host_target() -> &'static str {
    Target::host().as_str()
}

/// Settings that both sides share.
fn tuned(target: Target) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .concurrency_support(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .memory_init_cow(true)
        .memory_may_move(true)
        .memory_reservation(MEMORY_RESERVATION)
        .guard_before_linear_memory(true);
    if target != Target::Pulley64 {
        // The interpreter checks bounds itself: it has no use for guards or signals, and wasmtime
        // refuses them for it.
        config
            .signals_based_traps(true)
            .memory_guard_size(MEMORY_GUARD);
    }
    config
}

/// Settings of a compiling engine. The target is always named, also when it is this machine's:
/// else the flags of this machine's processor leak into the code.
#[cfg(feature = "compile")]
pub(crate) fn compiling(target: Target) -> wasmtime::Result<Config> {
    let mut config = tuned(target);
    config
        .target(target.as_str())?
        // Maps instructions back to offsets in the component, for backtraces. Nobody reads those,
        // and it is a good part of a compiled file.
        .generate_address_map(false);
    Ok(config)
}

/// Settings of an engine that runs what [`compiling`] made for the same target. It is named for
/// bytecode only: a native one would have to be equal to this machine's in its C library too.
#[cfg(feature = "run")]
pub(crate) fn running(target: Target) -> wasmtime::Result<Config> {
    let mut config = tuned(target);
    if target == Target::Pulley64 {
        config.target(target.as_str())?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_version_is_that_of_the_dependency() {
        let lock = include_str!("../../Cargo.lock");
        let package = format!(
            "name = \"wasmtime\"\nversion = \"{}\"\n",
            wasmtime_version()
        );
        assert!(lock.contains(&package), "Cargo.lock has another wasmtime");
    }

    #[test]
    fn targets_are_read_back() {
        for target in Target::ALL {
            assert_eq!(target.as_str().parse::<Target>().unwrap(), target);
        }
        let error = "riscv64".parse::<Target>().unwrap_err();
        assert!(error.to_string().contains("riscv64"));
        assert!(error.to_string().contains("pulley64"));
    }
}
