//! The private keys in a controller's data directory: its own, and the swarm's CA's.
//!
//! Sealed with the keys that seal the log, where there are any. Whoever has the CA's key is the
//! swarm, so it never stands on the disk as it is where the swarm's secrets do not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hive_identity::store::{
    CA_CERTIFICATE_FILE, CA_KEY_FILE, DEVICE_KEY_FILE, read, read_private, save_private,
};
use hive_identity::{CertificateAuthority, DeviceKey, StoreError};

use crate::store::seal::keys::{KeyId, Keys};
use crate::store::seal::text::{self, TextError};

const PRIVATE: [&str; 2] = [DEVICE_KEY_FILE, CA_KEY_FILE];

/// The directory of the private keys.
#[derive(Clone)]
pub struct IdentityFiles {
    dir: PathBuf,
    keys: Keys,
}

/// Why a private key cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {}", path.display())]
    Sealed {
        path: PathBuf,
        #[source]
        source: TextError,
    },
}

impl IdentityFiles {
    pub fn new(dir: PathBuf, keys: Keys) -> Self {
        Self { dir, keys }
    }

    /// Makes the directory if need be.
    pub fn create(dir: PathBuf, keys: Keys) -> std::io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self::new(dir, keys))
    }

    pub fn save_device_key(&self, key: &DeviceKey) -> Result<(), IdentityError> {
        self.save(DEVICE_KEY_FILE, &key.to_pem())
    }

    pub fn load_device_key(&self) -> Result<DeviceKey, IdentityError> {
        let pem = self.load(DEVICE_KEY_FILE)?;
        Ok(DeviceKey::from_pem(&pem).map_err(|source| StoreError::Key {
            path: self.dir.join(DEVICE_KEY_FILE),
            source,
        })?)
    }

    /// Writes the key and, last, the certificate.
    pub fn save_authority(&self, authority: &CertificateAuthority) -> Result<(), IdentityError> {
        self.save(CA_KEY_FILE, &authority.key_pem())?;
        let certificate = authority.certificate().to_pem();
        let path = self.dir.join(CA_CERTIFICATE_FILE);
        Ok(save_private(&path, certificate.as_bytes())?)
    }

    pub fn load_authority(&self) -> Result<CertificateAuthority, IdentityError> {
        let certificate = read(&self.dir.join(CA_CERTIFICATE_FILE))?;
        let key = self.load(CA_KEY_FILE)?;
        let authority = CertificateAuthority::load(&certificate, &key);
        Ok(authority.map_err(|source| StoreError::Ca {
            dir: self.dir.clone(),
            source,
        })?)
    }

    /// Writes those anew that are not sealed with the first key.
    pub fn renew_seals(&self) -> Result<(), IdentityError> {
        for name in PRIVATE {
            let pem = self.load(name)?;
            self.save(name, &pem)?;
        }
        Ok(())
    }

    /// For each key, and for none, how many private keys are sealed with it.
    pub fn seals(&self) -> Result<BTreeMap<Option<KeyId>, u64>, IdentityError> {
        let mut counts = BTreeMap::new();
        for name in PRIVATE {
            match read_private(&self.dir.join(name)) {
                Ok(stored) => *counts.entry(text::key_of(&stored)).or_default() += 1,
                Err(missing) if missing.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(counts)
    }

    fn load(&self, name: &str) -> Result<String, IdentityError> {
        let path = self.dir.join(name);
        let stored = read_private(&path)?;
        text::open(&self.keys, name, &stored)
            .map_err(|source| IdentityError::Sealed { path, source })
    }

    /// Sealed anew it would look different each time: what is there already is left alone.
    fn save(&self, name: &str, pem: &str) -> Result<(), IdentityError> {
        let path = self.dir.join(name);
        if let Ok(stored) = read_private(&path)
            && text::key_of(&stored) == self.keys.first()
            && text::open(&self.keys, name, &stored).is_ok_and(|held| held == pem)
        {
            return Ok(());
        }
        let stored = text::seal(&self.keys, name, pem);
        Ok(save_private(&path, stored.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn private_keys_are_sealed_and_follow_the_first_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::default();
        let files = IdentityFiles::new(dir.path().to_owned(), keys.clone());
        let authority = CertificateAuthority::create("hive").unwrap();
        let device = DeviceKey::generate();
        let stored = || PRIVATE.map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
        let holds = || {
            let fingerprint = |key: &DeviceKey| key.fingerprint();
            assert_eq!(
                files.load_authority().unwrap().key_pem(),
                authority.key_pem()
            );
            assert_eq!(
                fingerprint(&files.load_device_key().unwrap()),
                fingerprint(&device)
            );
        };
        // Of a version before, or of who wants no encryption.
        files.save_device_key(&device).unwrap();
        files.save_authority(&authority).unwrap();
        assert!(stored().iter().all(|text| text.contains("PRIVATE KEY")));
        holds();
        for held in [&[1][..], &[2, 1]] {
            keys.set(held);
            holds();
            files.renew_seals().unwrap();
            assert!(stored().iter().all(|text| !text.contains("PRIVATE KEY")));
            assert_eq!(files.seals().unwrap(), BTreeMap::from([(keys.first(), 2)]));
            holds();
        }
        let before = stored();
        files.renew_seals().unwrap();
        files.save_authority(&authority).unwrap();
        assert_eq!(stored(), before, "flash is spared");

        keys.set(&[3]);
        let error = files.load_authority().err().unwrap();
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(
            text.contains("ca.key") && text.contains("--encryption-key-file"),
            "{text}"
        );
        assert_eq!(stored(), before);
    }
}
