//! Where the controllers are: a text file of its own, one host:port a line, that a person can read
//! and mend.
//!
//! Not in the ledger, because a ledger that is lost comes again from the controllers, and without
//! this nobody would know whom to ask.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hive_identity::StoreError;
use hive_identity::store::save_private;

const FILE: &str = "controllers";

/// More controllers than any swarm has; each costs an agent a link.
const MAX_CONTROLLERS: usize = 16;

/// The file.
#[derive(Debug)]
pub struct ControllersFile(PathBuf);

impl ControllersFile {
    pub fn in_dir(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    /// Empty if nobody was ever known; blank lines and comments are skipped.
    pub fn load(&self) -> Result<Vec<String>, StoreError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(usable(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.starts_with('#')),
            )),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::Read {
                path: self.0.clone(),
                source,
            }),
        }
    }

    /// Durable on return; nothing is written if nothing changes.
    pub fn save(&self, controllers: &[String]) -> Result<(), StoreError> {
        let mut text = controllers.join("\n");
        text.push('\n');
        save_private(&self.0, text.as_bytes())
    }
}

/// Those that name something, each once.
pub fn usable<'a>(endpoints: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for endpoint in endpoints {
        if kept.len() == MAX_CONTROLLERS {
            break;
        }
        if !endpoint.is_empty() && !kept.iter().any(|other| other == endpoint) {
            kept.push(endpoint.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_file_reads_back_and_may_be_edited() {
        let dir = tempfile::tempdir().unwrap();
        let file = ControllersFile::in_dir(dir.path());
        assert!(file.load().unwrap().is_empty());
        file.save(&["a:1".into(), "b:2".into()]).unwrap();
        assert_eq!(file.load().unwrap(), ["a:1", "b:2"]);
        fs::write(dir.path().join(FILE), "# moved\n\n c:3 \nc:3\n").unwrap();
        assert_eq!(file.load().unwrap(), ["c:3"]);
    }

    #[test]
    fn the_list_is_bounded() {
        let many: Vec<String> = (0..100).map(|n| format!("h:{n}")).collect();
        assert_eq!(
            usable(many.iter().map(String::as_str)).len(),
            MAX_CONTROLLERS
        );
    }
}
