//! Encryption of a controller's disk as an operator sees it: which key file, which keys are in use,
//! and the change from one to another while the controller runs.
//!
//! The keys themselves and what is done with them are `store::seal`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{EncryptionStatusArgs, KeyFileArgs, NewDiskArgs};
use crate::data_dir::{DataDirectory, SelfRecord};
use crate::identity_files::IdentityFiles;
use crate::store::Replica;
use crate::store::seal::keys::{KeyId, Keys};
use crate::store::seal::stock::seals_of_replica;

/// Between two attempts to write everything anew; doubled up to the longest. What stands in the way
/// is a disk that fails, or entries that a majority does not have yet.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// For each key, and for none, how many files are sealed with it.
pub type Seals = BTreeMap<Option<KeyId>, u64>;

impl NewDiskArgs {
    /// The keys of a controller that is being made, from a file that is made if need be.
    pub fn keys(&self, data_dir: &Path) -> anyhow::Result<Keys> {
        if self.no_encryption {
            return Ok(Keys::default());
        }
        let path = match &self.encryption_key_file {
            Some(path) => std::path::absolute(path)?,
            None => beside(&std::path::absolute(data_dir)?)?,
        };
        check_outside(&path, data_dir)?;
        Ok(Keys::load_or_create(&path)?)
    }
}

impl KeyFileArgs {
    /// The keys of a controller that was made before.
    pub fn keys(&self, data_dir: &Path, record: &SelfRecord) -> anyhow::Result<Keys> {
        let path = match (&self.encryption_key_file, &record.encryption_key_file) {
            (Some(path), _) => std::path::absolute(path)?,
            (None, Some(noted)) => noted.clone(),
            (None, None) => return Ok(Keys::default()),
        };
        check_outside(&path, data_dir)?;
        Ok(Keys::load(&path)?)
    }
}

/// `/var/lib/hive/controller.keys` for `/var/lib/hive/controller`: a copy of the one is of no use
/// without the other.
fn beside(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let Some(name) = data_dir.file_name() else {
        bail!(
            "there is nothing beside {}: name a file with --encryption-key-file",
            data_dir.display()
        );
    };
    let mut name = name.to_owned();
    name.push(".keys");
    Ok(data_dir.with_file_name(name))
}

fn check_outside(path: &Path, data_dir: &Path) -> anyhow::Result<()> {
    if path.starts_with(std::path::absolute(data_dir)?) {
        bail!(
            "--encryption-key-file {}: a key in the data directory protects nothing that is in it; choose \
             a file elsewhere",
            path.display()
        );
    }
    Ok(())
}

/// Notes where the keys are, so that the next command needs no flag. Call once they were of use.
pub fn note(dir: &DataDirectory, record: &SelfRecord, keys: &Keys) -> anyhow::Result<()> {
    let path = keys.path();
    if path.is_some() && path != record.encryption_key_file {
        dir.save(&SelfRecord {
            encryption_key_file: path,
            ..record.clone()
        })?;
    }
    Ok(())
}

/// What a controller with keys has on its disk.
pub struct SealedFiles {
    pub replica: Replica,
    pub identity: IdentityFiles,
    pub keys: Keys,
}

impl SealedFiles {
    /// Reads the key file anew at SIGHUP, and writes anew whatever is not sealed with the first key,
    /// until nothing is left.
    pub fn follow_keys(self, stop: CancellationToken) -> impl Future<Output = ()> + Send {
        // At once: where nobody listens, the signal ends the process.
        let hangups = signal(SignalKind::hangup());
        async move {
            let mut hangups = match hangups {
                Ok(hangups) => hangups,
                Err(error) => {
                    tracing::error!(%error, "SIGHUP cannot be heard: the key file is read at a start only");
                    return;
                }
            };
            let mut retry = Some(RETRY);
            loop {
                retry = match self.renew_seals().await {
                    Ok(true) => None,
                    Ok(false) => retry.or(Some(RETRY)),
                    Err(error) => {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "cannot seal all files with the first key"
                        );
                        retry.or(Some(RETRY))
                    }
                };
                let wait = retry.unwrap_or(Duration::MAX);
                retry = retry.map(|wait| (2 * wait).min(LONGEST_RETRY));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                    _ = hangups.recv() => {
                        self.reload().await;
                        retry = None;
                    }
                }
            }
        }
    }

    async fn reload(&self) {
        let Some(path) = self.keys.path() else {
            tracing::info!("nothing to read anew: this controller has no encryption key file");
            return;
        };
        let reloaded = match self.seals().await {
            Ok(seals) => {
                let in_use = seals.into_keys().flatten().collect();
                self.keys.reload(&in_use).map_err(anyhow::Error::new)
            }
            Err(error) => Err(error),
        };
        match reloaded {
            Ok(()) => tracing::info!(
                file = %path.display(),
                first = %Named(self.keys.first()),
                "read the encryption keys anew"
            ),
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "goes on with the encryption keys from before"
                );
            }
        }
    }

    async fn seals(&self) -> anyhow::Result<Seals> {
        let mut seals = self.replica.seals().await?;
        add(&mut seals, self.identity.seals()?);
        Ok(seals)
    }

    /// Whether everything is sealed with the first key now.
    async fn renew_seals(&self) -> anyhow::Result<bool> {
        if self.keys.path().is_none() || is_only(&self.seals().await?, self.keys.first()) {
            return Ok(true);
        }
        let identity = self.identity.clone();
        tokio::task::spawn_blocking(move || identity.renew_seals()).await??;
        self.replica.renew_seals().await?;
        let done = is_only(&self.seals().await?, self.keys.first());
        if done {
            tracing::info!(key = %Named(self.keys.first()), "all files are sealed with the first key");
        }
        Ok(done)
    }
}

fn is_only(seals: &Seals, first: Option<KeyId>) -> bool {
    seals.keys().all(|key| *key == first)
}

fn add(to: &mut Seals, more: Seals) {
    for (key, count) in more {
        *to.entry(key).or_default() += count;
    }
}

/// A key, or that there is none.
struct Named(Option<KeyId>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => key.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Which keys are in use in a data directory, whether or not its controller runs.
pub struct Status {
    seals: Seals,
    keys: Keys,
    /// What recoveries left behind; nothing writes these anew.
    left_behind: Vec<(PathBuf, Seals)>,
}

pub fn status(args: &EncryptionStatusArgs) -> anyhow::Result<Status> {
    let data_dir = &args.data.data_dir;
    let (dir, record) = DataDirectory::open(data_dir)?;
    let keys = args.encryption.keys(data_dir, &record)?;
    let mut seals = IdentityFiles::new(dir.identity(), keys.clone()).seals()?;
    let mut left_behind = Vec::new();
    for replica in dir.replicas()? {
        let found = seals_of_replica(&replica)
            .with_context(|| format!("cannot look into {}", replica.display()))?;
        match replica == dir.raft() {
            true => add(&mut seals, found),
            false => left_behind.push((replica, found)),
        }
    }
    Ok(Status {
        seals,
        keys,
        left_behind,
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.keys.first();
        let known = self.keys.ids();
        let mut listed: Vec<Option<KeyId>> = Vec::from_iter(first.map(Some));
        listed.extend(known.iter().copied().map(Some).filter(|key| *key != first));
        listed.extend(
            self.seals
                .keys()
                .filter(|key| key.is_none_or(|key| !known.contains(&key))),
        );
        writeln!(f, "{:<18}{:<8}STATE", "KEY", "FILES")?;
        for key in listed {
            let files = self.seals.get(&key).copied().unwrap_or_default();
            let state = match key {
                None if first.is_none() => "not encrypted",
                None => "not encrypted yet: written anew while the controller runs",
                Some(_) if key == first => "seals what is written",
                Some(id) if !known.contains(&id) => {
                    "missing in the key file: its files cannot be read"
                }
                Some(_) if files == 0 => "not in use: can be removed from the key file",
                Some(_) => "in use: its files are written anew while the controller runs",
            };
            writeln!(f, "{:<18}{files:<8}{state}", Named(key).to_string())?;
        }
        for (path, seals) in &self.left_behind {
            let keys: Vec<String> = seals.keys().map(|key| Named(*key).to_string()).collect();
            writeln!(
                f,
                "{} is from before a recovery and stays sealed with: {}",
                path.display(),
                keys.join(", ")
            )?;
        }
        match self.keys.path() {
            Some(path) => write!(f, "Key file: {}", path.display()),
            None => write!(f, "No key file: nothing is encrypted."),
        }
    }
}
