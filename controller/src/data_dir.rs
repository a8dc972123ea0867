//! The directory in which a controller keeps everything: who it is, Raft's log and snapshots,
//! artifacts.

use std::io;
use std::path::{Path, PathBuf};

use hive_identity::store::save_private;
use serde::{Deserialize, Serialize};

use crate::state::Member;

/// Of the layout of this directory; raised when an older program could not read it. In layout 2
/// files may be sealed.
const VERSION: &str = "2";

/// Of directories that were never sealed. The program of that time can go on with them.
const UNSEALED: &str = "1";

/// Where things are.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    root: PathBuf,
    /// Name of Raft's directory in it.
    raft: String,
}

/// Raft's directory, until a recovery puts another in its place.
const RAFT: &str = "raft";

/// Who this controller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfRecord {
    pub raft_id: u64,
    pub cluster: String,
    pub member: Member,
    /// Where it takes TLS, where that is not the port at which it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_tls_port: Option<u16>,
    /// Name of Raft's directory, where a recovery made another: what switches to it is this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_dir: Option<String>,
    /// The file with the keys that seal this directory, where they are not named otherwise. Absent
    /// where nothing is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{path} holds no controller yet: make one with `hive controller init` or `join`")]
    Absent { path: PathBuf },
    #[error(
        "{path} holds a controller already: run it with `hive controller run`, or choose another --data-dir"
    )]
    Occupied { path: PathBuf },
    #[error(
        "the controller in {path} has left its swarm, or was removed from it, and does not come back: remove \
         the directory, or choose another --data-dir, and `hive controller join` with a new token"
    )]
    Left { path: PathBuf },
    #[error(
        "{path} was written in layout {found}, this program knows layout {VERSION}: use the program that wrote it, or another --data-dir"
    )]
    OtherVersion { path: PathBuf, found: String },
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} cannot be read: restore it from a backup, or remove this controller's data directory and join again"
    )]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Save(#[from] hive_identity::StoreError),
}

impl DataDirectory {
    /// Prepares a directory for a new controller.
    pub fn create(root: &Path) -> Result<Self, DataDirError> {
        let dir = Self {
            root: root.to_owned(),
            raft: RAFT.to_owned(),
        };
        dir.check_left()?;
        if dir.record_path().exists() {
            return Err(DataDirError::Occupied {
                path: root.to_owned(),
            });
        }
        std::fs::create_dir_all(root).map_err(|source| dir.io(source))?;
        dir.check_version()?;
        dir.raise_version()?;
        Ok(dir)
    }

    /// From here on no program reads this directory that would take a sealed file for a damaged one.
    pub fn raise_version(&self) -> Result<(), DataDirError> {
        Ok(save_private(
            &self.root.join("version"),
            VERSION.as_bytes(),
        )?)
    }

    /// Opens the directory of a controller that was made before.
    pub fn open(root: &Path) -> Result<(Self, SelfRecord), DataDirError> {
        let mut dir = Self {
            root: root.to_owned(),
            raft: RAFT.to_owned(),
        };
        dir.check_version()?;
        dir.check_left()?;
        let path = dir.record_path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(DataDirError::Absent {
                    path: root.to_owned(),
                });
            }
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        let record: SelfRecord = serde_json::from_slice(&text)
            .map_err(|source| DataDirError::Malformed { path, source })?;
        if let Some(raft) = &record.raft_dir {
            dir.raft.clone_from(raft);
        }
        Ok((dir, record))
    }

    /// Last act of `init` and `join`: from here on the directory holds a controller.
    pub fn save(&self, record: &SelfRecord) -> Result<(), DataDirError> {
        let text = serde_json::to_vec_pretty(record).expect("strings and numbers are JSON");
        Ok(save_private(&self.record_path(), &text)?)
    }

    /// The controller is no member any more: it must not start again, as it could still vote.
    pub fn mark_left(&self) -> Result<(), DataDirError> {
        Ok(save_private(&self.left_path(), b"left\n")?)
    }

    pub fn has_left(&self) -> bool {
        self.left_path().exists()
    }

    fn check_left(&self) -> Result<(), DataDirError> {
        match self.has_left() {
            true => Err(DataDirError::Left {
                path: self.root.clone(),
            }),
            false => Ok(()),
        }
    }

    fn left_path(&self) -> PathBuf {
        self.root.join("left")
    }

    fn check_version(&self) -> Result<(), DataDirError> {
        match std::fs::read_to_string(self.root.join("version")) {
            Ok(found) if [VERSION, UNSEALED].contains(&found.trim()) => Ok(()),
            Ok(found) => Err(DataDirError::OtherVersion {
                path: self.root.clone(),
                found: found.trim().to_owned(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(self.io(source)),
        }
    }

    fn io(&self, source: io::Error) -> DataDirError {
        DataDirError::Io {
            path: self.root.clone(),
            source,
        }
    }

    fn record_path(&self) -> PathBuf {
        self.root.join("controller.json")
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub fn raft(&self) -> PathBuf {
        self.root.join(&self.raft)
    }

    /// Raft's directories: the one in use, and those that a recovery left behind.
    pub fn replicas(&self) -> Result<Vec<PathBuf>, DataDirError> {
        let mut replicas = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(|source| self.io(source))? {
            let path = entry.map_err(|source| self.io(source))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name == RAFT || name.starts_with("raft-")) {
                replicas.push(path);
            }
        }
        Ok(replicas)
    }

    /// A directory beside the others.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn audit_log(&self) -> PathBuf {
        self.root.join("audit/audit.log")
    }

    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record() -> SelfRecord {
        SelfRecord {
            raft_id: 1,
            cluster: "hive".into(),
            member: Member::default(),
            ingress_tls_port: None,
            raft_dir: None,
            encryption_key_file: None,
        }
    }

    #[test]
    fn a_directory_becomes_a_controllers_with_its_record() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("c1");
        assert!(matches!(
            DataDirectory::open(&root),
            Err(DataDirError::Absent { .. })
        ));
        let dir = DataDirectory::create(&root).unwrap();
        // A first attempt that failed half-way doesn't stand in the way.
        let dir = DataDirectory::create(&dir.root).unwrap();
        dir.save(&record()).unwrap();
        assert_eq!(DataDirectory::open(&root).unwrap().1, record());
        assert!(matches!(
            DataDirectory::create(&root),
            Err(DataDirError::Occupied { .. })
        ));
        // After a recovery Raft's files are elsewhere.
        let recovered = SelfRecord {
            raft_dir: Some("raft-4".into()),
            ..record()
        };
        dir.save(&recovered).unwrap();
        let (dir, _) = DataDirectory::open(&root).unwrap();
        assert_eq!(dir.raft(), root.join("raft-4"));
        // Who has left does not come back.
        dir.mark_left().unwrap();
        for error in [
            DataDirectory::open(&root).map(|_| ()).unwrap_err(),
            DataDirectory::create(&root).map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, DataDirError::Left { .. }), "{error}");
        }
    }

    #[test]
    fn a_directory_from_before_is_opened_and_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDirectory::create(temp.path()).unwrap();
        dir.save(&record()).unwrap();
        let version = temp.path().join("version");
        std::fs::write(&version, "1").unwrap();
        let (dir, _) = DataDirectory::open(temp.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&version).unwrap(), "1");
        dir.raise_version().unwrap();
        assert_eq!(std::fs::read_to_string(&version).unwrap(), VERSION);
        DataDirectory::open(temp.path()).unwrap();
    }

    #[test]
    fn another_layout_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("version"), "7\n").unwrap();
        for error in [
            DataDirectory::open(temp.path()).map(|_| ()).unwrap_err(),
            DataDirectory::create(temp.path()).map(|_| ()).unwrap_err(),
        ] {
            assert!(error.to_string().contains("layout 7"), "{error}");
        }
    }
}
