//! One swarm at a time: six processes on two cores leave no room for another six, and figures such
//! as "within a second" would be of nothing.
//!
//! A lock on a file, so it holds among tests of one process and among processes alike, and the
//! system gives it back however its holder ends.

use std::fs::File;

/// Held while a test has processes running.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] File);

impl Turn {
    pub async fn take() -> Self {
        let path = std::env::temp_dir().join("hive-e2e.lock");
        let waiting = tokio::task::spawn_blocking(move || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        let locked = waiting.await.expect("waiting for a lock does not panic");
        Self(locked.expect("the directory for temporary files can be written"))
    }
}
