//! Keys and certificates in files: in a directory that the caller hands over, and nowhere else.
//! A file is there whole or not at all, even when the power goes in between, and what is already
//! there is not written again, for the flash's sake.
//! A private key never gets a mode that lets others read it, and is refused if it has one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate_pem::certificate_pem;
use crate::{
    CaCertificate, CaError, CertificateAuthority, Credentials, CredentialsError, DeviceKey,
    KeyError,
};

pub const DEVICE_KEY_FILE: &str = "device.key";
pub const CERTIFICATE_FILE: &str = "node.crt";
pub const CA_CERTIFICATE_FILE: &str = "ca.crt";
pub const CA_KEY_FILE: &str = "ca.key";

/// Keys and certificates have some hundred bytes; more means that the path is to something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A file that couldn't be kept or used. Names the file, and what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} does not exist", .path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_FILE_BYTES} bytes: it is no key or certificate", .path.display())]
    TooLarge { path: PathBuf },
    #[error(
        "{} is a private key that others can read (mode {mode:04o}): run `chmod 600 {}`, and \
         replace the key if it may have been read",
        .path.display(), .path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} holds no usable private key: restore it from a backup, or remove it and join again", .path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("{} holds no certificate in PEM: restore it from a backup, or remove it and join again", .path.display())]
    Certificate {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("the CA in {} cannot be used: restore its ca.crt and ca.key from one backup", .dir.display())]
    Ca { dir: PathBuf, source: CaError },
    #[error(
        "the files in {} do not belong together: restore all of them from one backup, or remove \
         node.crt and join again", .dir.display()
    )]
    Credentials {
        dir: PathBuf,
        source: CredentialsError,
    },
}

impl StoreError {
    /// Whether a file was just not there: a fresh directory, not a broken one.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl DeviceKey {
    /// Writes `device.key`. Do so before the key is used: a key that is lost with the power is an
    /// identity that the swarm knows and nobody has.
    pub fn save(&self, dir: &Path) -> Result<(), StoreError> {
        save_private(&dir.join(DEVICE_KEY_FILE), self.to_pem().as_bytes())
    }

    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(DEVICE_KEY_FILE);
        Self::from_pem(&read_private(&path)?).map_err(|source| StoreError::Key { path, source })
    }
}

impl Credentials {
    /// Writes `device.key`, `ca.crt` and, last, `node.crt`: while that is missing, no member lives here.
    pub fn save(&self, dir: &Path) -> Result<(), StoreError> {
        self.key().save(dir)?;
        save_private(
            &dir.join(CA_CERTIFICATE_FILE),
            self.ca().to_pem().as_bytes(),
        )?;
        let certificate = certificate_pem(self.certificate());
        save_private(&dir.join(CERTIFICATE_FILE), certificate.as_bytes())
    }

    /// [`StoreError::is_missing`] if nothing was saved yet. An expired certificate loads.
    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(CERTIFICATE_FILE);
        let certificate = CertificateDer::from_pem_slice(read(&path)?.as_bytes())
            .map_err(|source| StoreError::Certificate { path, source })?;
        let ca =
            CaCertificate::from_pem(&read(&dir.join(CA_CERTIFICATE_FILE))?).map_err(|source| {
                StoreError::Ca {
                    dir: dir.into(),
                    source,
                }
            })?;
        let key = DeviceKey::load(dir)?;
        Self::new(key, certificate, ca).map_err(|source| StoreError::Credentials {
            dir: dir.into(),
            source,
        })
    }
}

impl CertificateAuthority {
    /// Writes `ca.key` and, last, `ca.crt`.
    pub fn save(&self, dir: &Path) -> Result<(), StoreError> {
        save_private(&dir.join(CA_KEY_FILE), self.key_pem().as_bytes())?;
        let certificate = self.certificate().to_pem();
        save_private(&dir.join(CA_CERTIFICATE_FILE), certificate.as_bytes())
    }

    /// [`StoreError::is_missing`] if nothing was saved yet.
    pub fn load_dir(dir: &Path) -> Result<Self, StoreError> {
        let certificate = read(&dir.join(CA_CERTIFICATE_FILE))?;
        let key = read_private(&dir.join(CA_KEY_FILE))?;
        Self::load(&certificate, &key).map_err(|source| StoreError::Ca {
            dir: dir.into(),
            source,
        })
    }
}

/// Makes `path` hold exactly `bytes`, readable by its owner alone, and durable on return. The
/// directory must exist, and only one process may write in it.
pub fn save_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if holds_privately(path, bytes) {
        return Ok(());
    }
    write_whole(path, bytes).map_err(|source| StoreError::Write {
        path: path.into(),
        source,
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = dir.join(temporary);

    // What a crash left here; made anew below, because an existing file would keep its mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = create_private(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The error that matters is the one above; the next attempt removes it too.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(dir)
}

fn holds_privately(path: &Path, bytes: &[u8]) -> bool {
    read_private(path).is_ok_and(|held| held.as_bytes() == bytes)
}

/// A file that others may read.
pub fn read(path: &Path) -> Result<String, StoreError> {
    read_checked(path, |_| Ok(()))
}

/// A file that is refused where others may read it.
pub fn read_private(path: &Path) -> Result<String, StoreError> {
    read_checked(path, |file| refuse_exposed(path, file))
}

fn read_checked(
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), StoreError>,
) -> Result<String, StoreError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { path: path.into() },
        _ => StoreError::Read {
            path: path.into(),
            source,
        },
    };
    let file = File::open(path).map_err(failed)?;
    check(&file)?;
    let mut text = String::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(StoreError::TooLarge { path: path.into() });
    }
    Ok(text)
}

/// Judges the open file, not its path, which could be exchanged in between.
#[cfg(unix)]
fn refuse_exposed(path: &Path, file: &File) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| StoreError::Read {
        path: path.into(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed {
            path: path.into(),
            mode,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_path: &Path, _file: &File) -> Result<(), StoreError> {
    Ok(())
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A rename is durable once its directory is.
#[cfg(unix)]
fn sync_directory(dir: &Path) -> io::Result<()> {
    // The parent of a bare file name is "", which means here.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
