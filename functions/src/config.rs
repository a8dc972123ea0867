//! The engine settings that compiled code depends on, for both sides in one place.
//!
//! A target's name goes in, a `wasmtime::Config` comes out. Whatever changes generated code is set
//! here and nowhere else: code compiled under other settings is refused by the agent at best.

#[cfg(feature = "run")]
use std::num::NonZeroUsize;
use std::{fmt, str::FromStr};

use wasmtime::{Config, WasmBacktraceDetails};

#[cfg(feature = "run")]
use crate::backtrace::FRAMES;

/// The wasmtime that this build carries. wasmtime itself checks only the major version when it
/// loads code; descriptions of artifacts carry [`engine_version`] so that all of it is compared.
const WASMTIME_VERSION: &str = "48.0.8";

/// Raised whenever [`tuned`] changes in a way that generated code depends on.
pub const CONFIG_VERSION: u32 = 2;

/// Settings of before whose code is loaded under those of now: 1 expected less of processors, and was the same else.
#[cfg(feature = "run")]
const STILL_LOADED: [u32; 1] = [1];

/// 4 GiB of address space for each memory lets generated code skip every bounds check on 32-bit
/// memories. It is address space only: nothing is committed.
const MEMORY_RESERVATION: u64 = 4 << 30;

/// The same on machines with 32-bit addresses, where each memory is reserved whole and its bounds are checked:
/// wasmtime's own figure for them.
const MEMORY_RESERVATION_32: u64 = 10 << 20;

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

/// What is loaded here beside code of [`engine_version`]: a node that goes to this version before the controllers do
/// serves on what it has.
#[cfg(feature = "run")]
pub fn older_versions() -> Vec<String> {
    let version = |settings: u32| format!("{WASMTIME_VERSION}+{settings}");
    STILL_LOADED.map(version).into()
}

/// What code is compiled for. Named as the agents report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    X86_64,
    Aarch64,
    /// Portable bytecode, interpreted: for machines that none of the others fit.
    Pulley64,
    /// The same for machines with 32-bit addresses: the bytecode knows how wide those are.
    Pulley32,
}

impl Target {
    pub const ALL: [Self; 4] = [Self::X86_64, Self::Aarch64, Self::Pulley64, Self::Pulley32];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::Pulley64 => "pulley64",
            Self::Pulley32 => "pulley32",
        }
    }

    /// What generated code expects of the processor, by Cranelift's name
    /// ([decision 7](../../docs/decisions/0007-cpu-baselines.md)). Stated, so that it is no accident of a release.
    pub const fn baseline(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => Some("x86-64-v2"),
            // Armv8.0, which Cranelift takes for granted: a Raspberry Pi 4 has no more.
            Self::Aarch64 => None,
            Self::Pulley64 | Self::Pulley32 => None,
        }
    }

    const fn is_bytecode(self) -> bool {
        matches!(self, Self::Pulley64 | Self::Pulley32)
    }

    /// What this machine runs. Android and musl run what is compiled for GNU/Linux: the code makes
    /// no system calls, and only the processor and the operating system are compared on load.
    pub const fn host() -> Self {
        const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
        if LINUX && cfg!(target_arch = "x86_64") {
            Self::X86_64
        } else if LINUX && cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else if cfg!(target_pointer_width = "32") {
            Self::Pulley32
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
    "unknown target {0:?}; known are x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu, pulley64 and pulley32"
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

/// What this processor lacks of its target's [baseline](Target::baseline): no code would be loaded here.
#[cfg(feature = "run")]
pub(crate) fn lacking(target: Target) -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if target == Target::X86_64 {
        let features = [
            ("SSE4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("POPCNT", std::arch::is_x86_feature_detected!("popcnt")),
            (
                "CMPXCHG16B",
                std::arch::is_x86_feature_detected!("cmpxchg16b"),
            ),
        ];
        let lacking = features.into_iter().filter(|(_, is_there)| !is_there);
        return lacking.map(|(name, _)| name).collect();
    }
    let _ = target;
    Vec::new()
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
        .memory_reservation(match target {
            Target::Pulley32 => MEMORY_RESERVATION_32,
            _ => MEMORY_RESERVATION,
        })
        .guard_before_linear_memory(true)
        // Else a variable of the environment decides, on each side: one that is set there would make an agent
        // refuse whatever was compiled.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    if !target.is_bytecode() {
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
        // Maps instructions back to offsets in the component. Backtraces do with the functions'
        // names, which are there without it, and it is a good part of a compiled file.
        .generate_address_map(false);
    if let Some(baseline) = target.baseline() {
        // SAFETY: code that uses what a processor lacks must not run there. Each setting of the preset stands in
        // the compiled file by its name, and wasmtime compares all of them with the processor when it loads one.
        #[allow(unsafe_code)]
        unsafe {
            config.cranelift_flag_enable(baseline);
        }
    }
    Ok(config)
}

/// Settings of an engine that runs what [`compiling`] made for the same target. It is named for
/// bytecode only: a native one would have to be equal to this machine's in its C library too.
#[cfg(feature = "run")]
pub(crate) fn running(target: Target) -> wasmtime::Result<Config> {
    let mut config = tuned(target);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES));
    if target.is_bytecode() {
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

    /// Exports that the baseline has instructions for, as functions of bits to bits.
    #[cfg(all(feature = "compile", feature = "run"))]
    const INSTRUCTIONS: &str = r#"(module
        (func (export "nearest") (param i64) (result i64)
            (i64.reinterpret_f64 (f64.nearest (f64.reinterpret_i64 (local.get 0)))))
        (func (export "floor") (param i64) (result i64)
            (i64.reinterpret_f64 (f64.floor (f64.reinterpret_i64 (local.get 0)))))
        (func (export "trunc") (param i64) (result i64)
            (i64.reinterpret_f64 (f64.trunc (f64.reinterpret_i64 (local.get 0)))))
        (func (export "popcnt") (param i64) (result i64) (i64.popcnt (local.get 0)))
        (func (export "swizzle") (param i64) (result i64)
            (i64x2.extract_lane 0 (i8x16.swizzle
                (i64x2.splat (local.get 0)) (v128.const i8x16 9 2 1 99 5 4 -1 0 0 0 0 0 0 0 0 0)))))"#;

    /// Each side's settings load what the other's made, and native code means what bytecode does.
    #[cfg(all(feature = "compile", feature = "run"))]
    #[tokio::test]
    async fn every_target_that_runs_here_computes_the_same() {
        use wasmtime::{Engine, Linker, Module, Store};

        let text = wat::parse_str(INSTRUCTIONS).unwrap();
        let mut results: Vec<Vec<(String, i64)>> = Vec::new();
        let targets = [Target::host(), Target::Pulley64];
        for target in targets {
            let compiler = Engine::new(&compiling(target).unwrap()).unwrap();
            let code = compiler.precompile_module(&text).unwrap();
            let engine = Engine::new(&running(target).unwrap()).unwrap();
            // SAFETY: it was serialized by wasmtime a moment ago.
            #[allow(unsafe_code)]
            let module = unsafe { Module::deserialize(&engine, &code) }.unwrap();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1);
            let linker = Linker::new(&engine);
            let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
            let names: Vec<String> = module.exports().map(|e| e.name().to_owned()).collect();
            let mut computed = Vec::new();
            for name in names {
                let function = instance
                    .get_typed_func::<i64, i64>(&mut store, &name)
                    .unwrap();
                for value in [
                    0.0,
                    -0.5,
                    0.5,
                    1.5,
                    2.5,
                    -2.5,
                    1e300,
                    4503599627370497.5_f64,
                ] {
                    let bits = value.to_bits().cast_signed();
                    let result = function.call_async(&mut store, bits).await.unwrap();
                    computed.push((format!("{name} {value}"), result));
                }
            }
            results.push(computed);
        }
        assert_eq!(results[0], results[1], "{targets:?}");
        let of = |call: &str| results[0].iter().find(|(name, _)| name == call).unwrap().1;
        assert_eq!(f64::from_bits(of("nearest 2.5").cast_unsigned()), 2.0);
        assert_eq!(of("popcnt 0.5"), i64::from(0.5_f64.to_bits().count_ones()));
    }

    #[cfg(all(feature = "compile", feature = "run"))]
    #[test]
    fn code_of_the_settings_before_is_loaded() {
        use wasmtime::{Engine, Module};

        assert_eq!(older_versions(), [format!("{WASMTIME_VERSION}+1")]);
        for target in [Target::host(), Target::Pulley64] {
            let mut before = tuned(target);
            before
                .target(target.as_str())
                .unwrap()
                .generate_address_map(false);
            let text = wat::parse_str(INSTRUCTIONS).unwrap();
            let code = Engine::new(&before).unwrap().precompile_module(&text);
            let engine = Engine::new(&running(target).unwrap()).unwrap();
            // SAFETY: it was serialized by wasmtime a moment ago.
            #[allow(unsafe_code)]
            let loaded = unsafe { Module::deserialize(&engine, code.unwrap()) };
            assert!(loaded.is_ok(), "{target}: {:#}", loaded.unwrap_err());
        }
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
