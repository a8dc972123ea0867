//! Inputs on disk: those committed beside a target, those of a long run, and findings.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::settings::{Run, Settings};

pub struct Corpus {
    name: &'static str,
    /// In the crate of the target.
    committed: PathBuf,
    /// Of long runs.
    grown: Option<PathBuf>,
    /// The input that runs now: all that is left of one that ends the process.
    now: Option<File>,
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn findings() -> PathBuf {
    std::env::temp_dir().join("hive-fuzz")
}

fn make(directory: &Path) {
    fs::create_dir_all(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
}

impl Corpus {
    pub fn of(name: &'static str, settings: &Settings) -> Self {
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
        let grown = settings.corpus.as_ref().map(|corpus| corpus.join(name));
        if let Some(grown) = &grown {
            make(grown);
        }
        let now = matches!(settings.run, Run::For(_)).then(|| {
            make(&findings());
            let path = findings().join(format!("{name}.now"));
            File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        Self {
            name,
            committed: package.join("fuzz").join(name),
            grown,
            now,
        }
    }

    /// In the order of their names, so that a seed is a run.
    pub fn inputs(&self) -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = [Some(&self.committed), self.grown.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
            .collect();
        paths.sort();
        paths.iter().map(|path| read(path)).collect()
    }

    pub fn about_to_run(&self, input: &[u8]) {
        if let Some(now) = &self.now {
            // Only for a person to look at: a full disk must not end the run.
            let _ = now.set_len(input.len() as u64);
            let _ = now.write_all_at(input, 0);
        }
    }

    pub fn keep(&self, input: &[u8]) {
        if let Some(grown) = &self.grown {
            write(&grown.join(file_name(input)), input);
        }
    }

    pub fn keep_finding(&self, input: &[u8]) -> PathBuf {
        make(&findings());
        let path = findings().join(format!("{}-{}", self.name, file_name(input)));
        write(&path, input);
        path
    }
}

fn file_name(input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn write(path: &Path, input: &[u8]) {
    fs::write(path, input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
