//! Another key seals from now on: what is sealed with older ones is written anew.
//!
//! Snapshots are copied; the log's entries go into a new snapshot, and their segments away.

use std::collections::BTreeMap;
use std::io;

use super::seal::keys::KeyId;
use super::{ProposeError, Replica, SnapshotError, runtime};

/// Why files cannot be sealed anew now.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error("the log")]
    Log(#[source] io::Error),
    #[error("the snapshots")]
    Snapshots(#[from] SnapshotError),
    #[error("a new snapshot")]
    Compaction(#[from] ProposeError),
}

impl Replica {
    /// For each key, and for none, how many files of the store are sealed with it.
    pub async fn seals(&self) -> Result<BTreeMap<Option<KeyId>, u64>, RenewalError> {
        let snapshots = self.shared.snapshots.clone();
        let mut seals = runtime::blocking(move || snapshots.seals())
            .await
            .map_err(RenewalError::Log)??;
        for (key, count) in self.shared.log.seals() {
            *seals.entry(key).or_default() += count;
        }
        Ok(seals)
    }

    /// The same of those that are read from, without a look at the disk.
    pub fn seals_in_use(&self) -> BTreeMap<Option<KeyId>, u64> {
        let mut seals = self.shared.log.seals();
        if let Some(snapshot) = self.shared.snapshots.current() {
            *seals.entry(snapshot.key()).or_default() += 1;
        }
        seals
    }

    /// Writes anew what is not sealed with the first key. Entries that are not agreed on yet stay as
    /// they are, and segments go soon after the entries in them: ask [`Replica::seals`].
    pub async fn renew_seals(&self) -> Result<(), RenewalError> {
        let log = &self.shared.log;
        log.renew_seal().await.map_err(RenewalError::Log)?;
        let snapshots = self.shared.snapshots.clone();
        runtime::blocking(move || snapshots.renew_seals())
            .await
            .map_err(RenewalError::Log)??;
        if log.seals().len() > 1 {
            self.compact().await?;
            // Behind the purge that this led to, most of the time.
            log.renew_seal().await.map_err(RenewalError::Log)?;
        }
        Ok(())
    }
}
