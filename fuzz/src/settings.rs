//! What the environment asks for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Of each target in `cargo test`: all of them together take some seconds.
const RUNS: u64 = 3_000;

pub enum Run {
    /// So many inputs.
    Times(u64),
    For(Duration),
    /// What another fuzzer made, or what was found before.
    One(PathBuf),
}

pub struct Settings {
    pub run: Run,
    pub seed: u64,
    /// Where inputs that reached something new are kept; those there are read first.
    pub corpus: Option<PathBuf>,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

impl Settings {
    pub fn from_environment() -> Self {
        let run = match (path("HIVE_FUZZ_INPUT"), number("HIVE_FUZZ_SECONDS")) {
            (Some(path), _) => Run::One(path),
            (None, Some(seconds)) => Run::For(Duration::from_secs(seconds)),
            (None, None) => Run::Times(number("HIVE_FUZZ_RUNS").unwrap_or(RUNS)),
        };
        Self {
            run,
            seed: number("HIVE_FUZZ_SEED").unwrap_or(1),
            corpus: path("HIVE_FUZZ_CORPUS"),
        }
    }

    pub fn runs(&self) -> u64 {
        match self.run {
            Run::Times(times) => times,
            Run::For(_) => u64::MAX,
            Run::One(_) => 0,
        }
    }

    pub fn goes_on(&self, begun: Instant) -> bool {
        match self.run {
            Run::For(duration) => begun.elapsed() < duration,
            Run::Times(_) | Run::One(_) => true,
        }
    }
}
