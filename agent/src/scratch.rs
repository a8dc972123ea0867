//! Where instances of functions have their directories, in the agent's own.
//!
//! What an agent leaves there when it is killed goes when the next one starts. There is a directory, and a
//! thread that removes what is left in it, once a function is loaded that may have one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hive_functions::{Scratch, ScratchSpace};
use hive_proto::v1;

use crate::os;

const DIRECTORY: &str = "scratch";

/// A clone is the same.
#[derive(Clone)]
pub struct Scratches(Arc<Shared>);

struct Shared {
    path: PathBuf,
    space: Mutex<Option<ScratchSpace>>,
}

impl Scratches {
    /// Removes what is left of an earlier process. Blocks.
    pub fn in_dir(dir: &Path) -> Self {
        let path = dir.join(DIRECTORY);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Functions that want none can run all the same.
                tracing::warn!(%error, path = %path.display(), "cannot remove old scratch directories");
            }
            _ => {}
        }
        let space = Mutex::new(None);
        Self(Arc::new(Shared { path, space }))
    }

    /// What a function was given. Blocks.
    pub fn given(&self, given: &v1::Scratch) -> io::Result<Scratch> {
        let mut space = self.0.space.lock().unwrap_or_else(PoisonError::into_inner);
        let space = match &*space {
            Some(space) => space.clone(),
            None => space.insert(self.start()?).clone(),
        };
        Ok(Scratch {
            space,
            size_limit: given.size_limit,
        })
    }

    fn start(&self) -> io::Result<ScratchSpace> {
        os::create_private_dir(&self.0.path)?;
        let on_disk = self.0.path.clone();
        ScratchSpace::start(self.0.path.clone(), move || Ok(os::space(&on_disk)?.free))
    }
}
