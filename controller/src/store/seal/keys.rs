//! The key file: which keys a controller's disk is sealed with.
//!
//! One key a line, base64 of 32 bytes; empty lines and what follows `#` are ignored. The first key
//! seals what is written from now on, the others open what was written before. `identity` in the
//! first place leaves unsealed what is written from now on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_identity::store::save_private;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{Purpose, SealReference, Sealer, hex_bytes};
use crate::store::runtime;

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;

/// In the place of a key: no encryption. Kubernetes' name for it.
const IDENTITY: &str = "identity";

/// Some keys and remarks have a few hundred bytes; more means that the path is to something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Names a key without telling anything of it: the first bytes of a SHA-256 over it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "hex_bytes")] [u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 32 random bytes. It has no `Debug` and no `Display`.
pub struct Key([u8; KEY_BYTES]);

impl Key {
    fn generate() -> Self {
        let mut bytes = [0; KEY_BYTES];
        runtime::fill_random(&mut bytes);
        Self(bytes)
    }

    fn parse(line: &str) -> Option<Self> {
        let bytes = BASE64.decode(line).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    fn id(&self) -> KeyId {
        let mut text = b"hive key id 1".to_vec();
        text.extend_from_slice(&self.0);
        let hash = digest(&SHA256, &text);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hash.as_ref()[..ID_BYTES]);
        KeyId(id)
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.0
    }
}

/// A fresh key as a line of a key file.
pub fn generate_line() -> String {
    BASE64.encode(Key::generate().0)
}

/// The keys of a controller; none where nothing is sealed. Clones share them, also when the file is
/// read anew.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Arc<Ring>>>);

const HELD: &str = "nothing panics while it holds the keys";

#[derive(Default)]
struct Ring {
    /// The file they are from.
    path: Option<PathBuf>,
    first: Option<KeyId>,
    keys: BTreeMap<KeyId, Key>,
}

/// Why keys cannot be used. No message holds any part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(
        "cannot use the encryption key file {}; another is named with --encryption-key-file",
        path.display()
    )]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{}, line {line}: not a key: each line is 32 random bytes in base64, as `hive controller \
         encryption generate-key` prints them, or \"identity\"",
        path.display()
    )]
    Malformed { path: PathBuf, line: usize },
    #[error("{} holds no key: `hive controller encryption generate-key` makes one", path.display())]
    Empty { path: PathBuf },
    #[error(
        "{} can be read by others than its owner (mode {mode:04o}): run `chmod 600 {}`, and put a \
         new key first if it may have been read",
        path.display(), path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{} does not hold key {key} any more, with which files of this controller are still sealed: \
         put it back until `hive controller encryption status` says that it is not in use",
        path.display()
    )]
    InUse { path: PathBuf, key: KeyId },
    #[error(transparent)]
    Save(#[from] hive_identity::StoreError),
}

/// A file is sealed with a key that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    pub key: KeyId,
    /// Where keys were looked for.
    pub file: Option<PathBuf>,
}

impl std::error::Error for UnknownKey {}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key;
        match &self.file {
            None => write!(
                f,
                "it is sealed with key {key}, and no key file is given: name the file that holds it \
                 with --encryption-key-file"
            ),
            Some(file) => write!(
                f,
                "it is sealed with key {key}, which {} does not hold: add that key on a line below \
                 the first, or name the right file with --encryption-key-file",
                file.display()
            ),
        }
    }
}

impl Keys {
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let keys = Self::default();
        keys.replace(Ring::load(path)?);
        Ok(keys)
    }

    /// The keys of this file, which is made with a fresh one if it does not exist.
    pub fn load_or_create(path: &Path) -> Result<Self, KeysError> {
        if !path.exists() {
            create(path)?;
        }
        Self::load(path)
    }

    /// Reads the file anew. Nothing changes where that fails, or where a key of those `in_use` would
    /// be missing.
    pub fn reload(&self, in_use: &BTreeSet<KeyId>) -> Result<(), KeysError> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        let ring = Ring::load(&path)?;
        if let Some(&key) = in_use.iter().find(|key| !ring.keys.contains_key(key)) {
            return Err(KeysError::InUse { path, key });
        }
        self.replace(ring);
        Ok(())
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.read().expect(HELD).clone()
    }

    fn replace(&self, ring: Ring) {
        *self.0.write().expect(HELD) = Arc::new(ring);
    }

    pub fn path(&self) -> Option<PathBuf> {
        self.ring().path.clone()
    }

    /// The key that seals; `None` where nothing is sealed.
    pub fn first(&self) -> Option<KeyId> {
        self.ring().first
    }

    /// All keys there are.
    pub fn ids(&self) -> BTreeSet<KeyId> {
        self.ring().keys.keys().copied().collect()
    }

    /// For a new file; `None` where nothing is sealed.
    pub fn begin(&self, purpose: Purpose) -> Option<Sealer> {
        let ring = self.ring();
        let first = ring.first?;
        let reference = SealReference::fresh(first);
        Some(Sealer::new(&ring.keys[&first], reference, purpose))
    }

    /// For a file that was sealed before.
    pub fn open(&self, reference: &SealReference, purpose: Purpose) -> Result<Sealer, UnknownKey> {
        let ring = self.ring();
        match ring.keys.get(&reference.key) {
            Some(key) => Ok(Sealer::new(key, *reference, purpose)),
            None => Err(UnknownKey {
                key: reference.key,
                file: ring.path.clone(),
            }),
        }
    }

    /// A key that follows from a number, for tests.
    #[cfg(test)]
    pub fn of(number: u8) -> Self {
        let keys = Self::default();
        keys.set(&[number]);
        keys
    }

    /// As if the file held these now; none where there are none.
    #[cfg(test)]
    pub fn set(&self, numbers: &[u8]) {
        let keys = numbers.iter().map(|number| Key([*number; KEY_BYTES]));
        let keys: Vec<(KeyId, Key)> = keys.map(|key| (key.id(), key)).collect();
        self.replace(Ring {
            path: None,
            first: keys.first().map(|(id, _)| *id),
            keys: keys.into_iter().collect(),
        });
    }
}

impl Ring {
    fn load(path: &Path) -> Result<Self, KeysError> {
        let io = |source| KeysError::Io {
            path: path.to_owned(),
            source,
        };
        // Judges the open file, not its path, which could be exchanged in between.
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeysError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(io)?;
        let mut ring = Self {
            path: Some(path.to_owned()),
            ..Self::default()
        };
        let mut is_empty = true;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let is_first = std::mem::take(&mut is_empty);
            if line == IDENTITY {
                continue;
            }
            let key = Key::parse(line).ok_or_else(|| KeysError::Malformed {
                path: path.to_owned(),
                line: index + 1,
            })?;
            if is_first {
                ring.first = Some(key.id());
            }
            ring.keys.insert(key.id(), key);
        }
        match is_empty {
            false => Ok(ring),
            true => Err(KeysError::Empty {
                path: path.to_owned(),
            }),
        }
    }
}

/// Makes a key file with one fresh key, for its owner alone and durable; it must not exist yet.
fn create(path: &Path) -> Result<(), KeysError> {
    let write = || -> io::Result<()> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(
            format!(
                "# Keys of this controller's disk: the first one seals, all of them open.\n{}\n",
                generate_line()
            )
            .as_bytes(),
        )?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| KeysError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Puts a fresh key before the others of a key file, which is made if it does not exist. Its id.
pub fn put_fresh_key_first(path: &Path) -> Result<KeyId, KeysError> {
    if !path.exists() {
        create(path)?;
    } else {
        // What is no key file is not made one.
        Ring::load(path)?;
        let text = std::fs::read_to_string(path).map_err(|source| KeysError::Io {
            path: path.to_owned(),
            source,
        })?;
        // The directory's entry is the file's, not a link's to it.
        let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        save_private(&file, format!("{}\n{text}", generate_line()).as_bytes())?;
    }
    let first = Ring::load(path)?.first;
    first.ok_or_else(|| KeysError::Empty {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SEGMENT: Purpose = Purpose::LogSegment;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        write(&path, text);
        (dir, path)
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/keys");
        let keys = Keys::load_or_create(&path).unwrap();
        let again = Keys::load_or_create(&path).unwrap();
        assert_eq!(keys.first(), again.first(), "a key is never overwritten");
        let old = keys.begin(SEGMENT).unwrap().reference();

        let id = put_fresh_key_first(&path).unwrap();
        assert_eq!(keys.first(), Some(old.key), "not read yet");
        keys.reload(&BTreeSet::from([old.key])).unwrap();
        assert_eq!(keys.first(), Some(id));
        assert!(keys.open(&old, SEGMENT).is_ok());
        let new = keys.begin(SEGMENT).unwrap().reference();
        let unknown = again.open(&new, SEGMENT).err().unwrap();
        assert_eq!((unknown.key, unknown.file), (id, Some(path)));
    }

    #[test]
    fn a_key_in_use_is_not_given_up() {
        let (_dir, path) = file(&generate_line());
        let keys = Keys::load(&path).unwrap();
        let in_use = keys.ids();
        write(&path, &generate_line());
        let error = keys.reload(&in_use).err().unwrap();
        assert!(matches!(error, KeysError::InUse { .. }), "{error}");
        assert_eq!(keys.ids(), in_use, "nothing changed");
        write(&path, "rubbish");
        keys.reload(&in_use).unwrap_err();
        assert_eq!(keys.ids(), in_use, "nothing changed");
    }

    #[test]
    fn identity_seals_nothing_and_opens_what_was_sealed() {
        let line = generate_line();
        let (_dir, path) = file(&format!("{line} # since May\n\n"));
        let before = Keys::load(&path).unwrap();
        let sealed = before.begin(SEGMENT).unwrap().reference();
        write(&path, &format!("identity\n{line}\n"));
        let keys = Keys::load(&path).unwrap();
        assert!(keys.first().is_none() && keys.begin(SEGMENT).is_none());
        assert!(keys.open(&sealed, SEGMENT).is_ok());
    }

    #[test]
    fn what_is_no_key_file_is_named_with_its_line() {
        let good = BASE64.encode([7; KEY_BYTES]);
        let table = [
            (format!("{good}\nnonsense\n"), "line 2"),
            (BASE64.encode([7; 31]), "line 1"),
            ("# nothing\n".to_owned(), "holds no key"),
        ];
        for (text, expected) in table {
            let (_dir, path) = file(&text);
            let error = Keys::load(&path).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&good));
            assert!(put_fresh_key_first(&path).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let (_dir, path) = file(&good);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::load(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
