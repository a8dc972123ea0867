//! Levers inside a controller's process: how its syncs end, and what its clock says.
//!
//! Two libraries are preloaded: one of ours, compiled on the spot, and libfaketime where it is
//! installed. Both look at files, so that a lever can be pulled while the controller runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::tool::must;

/// Where Debian's package `libfaketime` puts it.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// libfaketime for this machine; `None` where it is not installed.
pub fn faketime() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let arch = std::env::consts::ARCH;
        ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
            .iter()
            .flat_map(|lib| {
                [
                    format!("{lib}/{arch}-linux-gnu/{FAKETIME}"),
                    format!("{lib}/{FAKETIME}"),
                ]
            })
            .map(PathBuf::from)
            .find(|path| path.is_file())
    });
    found.as_deref()
}

/// Compiles the library of ours.
pub fn shim(dir: &Path) -> PathBuf {
    let source = dir.join("shim.c");
    let library = dir.join("shim.so");
    std::fs::write(&source, include_str!("shim.c")).expect("a file of ours");
    let (source, made) = (source.display().to_string(), library.display().to_string());
    must(
        "cc",
        &[
            "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &made, &source, "-ldl",
        ],
    );
    library
}

/// The levers of one process.
#[derive(Debug)]
pub struct Levers {
    dir: PathBuf,
}

impl Levers {
    pub fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory of ours");
        let levers = Self { dir };
        levers.set_clock("+0");
        levers
    }

    /// What its process must have in its environment.
    pub fn environment(&self, shim: &Path) -> Vec<(&'static str, String)> {
        let mut preload = shim.display().to_string();
        let mut environment = vec![("HIVE_LEVERS", self.dir.display().to_string())];
        if let Some(faketime) = faketime() {
            preload = format!("{preload} {}", faketime.display());
            environment.extend([
                (
                    "FAKETIME_TIMESTAMP_FILE",
                    self.dir.join("clock").display().to_string(),
                ),
                // Looked at each second; the clock that timers run by is the machine's own.
                ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ("NO_FAKE_STAT", "1".to_owned()),
            ]);
        }
        environment.push(("LD_PRELOAD", preload));
        environment
    }

    /// As libfaketime has it: "+3600" is an hour ahead, "+0 x1.5" runs faster.
    pub fn set_clock(&self, clock: &str) {
        // Replaced whole: the process may look at any time.
        let part = self.dir.join("clock.partial");
        std::fs::write(&part, format!("{clock}\n")).expect("a file of ours");
        std::fs::rename(&part, self.dir.join("clock")).expect("a file of ours");
    }

    pub fn fail_syncs(&self) {
        std::fs::write(self.dir.join("sync-fails"), "").expect("a file of ours");
    }

    pub fn slow_syncs(&self, by: Duration) {
        std::fs::write(self.dir.join("sync-takes-ms"), by.as_millis().to_string())
            .expect("a file of ours");
    }

    pub fn heal_syncs(&self) {
        for lever in ["sync-fails", "sync-takes-ms"] {
            // Not all are pulled.
            let _ = std::fs::remove_file(self.dir.join(lever));
        }
    }

    pub fn syncs_failed(&self) -> u64 {
        self.count("sync-failed")
    }

    pub fn syncs_slowed(&self) -> u64 {
        self.count("sync-slowed")
    }

    fn count(&self, name: &str) -> u64 {
        std::fs::metadata(self.dir.join(name)).map_or(0, |file| file.len())
    }
}
