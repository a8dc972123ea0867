#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use super::*;
use crate::{DEFAULT_LIFETIME, Subject};

fn node_credentials(ca: &CertificateAuthority, key: DeviceKey) -> Credentials {
    let subject = Subject::Node { name: "pi".into() };
    let issued = ca
        .issue(
            &key.csr().unwrap(),
            &subject,
            &[],
            SystemTime::now(),
            DEFAULT_LIFETIME,
        )
        .unwrap();
    Credentials::new(key, issued.der, ca.certificate().clone()).unwrap()
}

#[test]
fn credentials_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create("home").unwrap();
    let saved = node_credentials(&ca, DeviceKey::generate());
    saved.save(dir.path()).unwrap();
    let loaded = Credentials::load(dir.path()).unwrap();
    assert_eq!(loaded.own(), saved.own());
    assert_eq!(loaded.certificate(), saved.certificate());
    assert_eq!(loaded.ca(), saved.ca());

    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [CA_CERTIFICATE_FILE, DEVICE_KEY_FILE, CERTIFICATE_FILE]
    );
}

#[test]
fn a_ca_read_back_issues_for_the_same_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create("home").unwrap();
    ca.save(dir.path()).unwrap();
    let loaded = CertificateAuthority::load_dir(dir.path()).unwrap();
    assert_eq!(loaded.certificate(), ca.certificate());
    let credentials = node_credentials(&loaded, DeviceKey::generate());
    assert!(
        credentials
            .renewed(credentials.certificate().clone())
            .is_ok()
    );
    assert_eq!(credentials.ca(), ca.certificate());
}

#[test]
fn a_fresh_directory_is_told_from_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Credentials::load(dir.path()).unwrap_err().is_missing());
    assert!(DeviceKey::load(dir.path()).unwrap_err().is_missing());
    let error = CertificateAuthority::load_dir(dir.path()).unwrap_err();
    assert!(error.is_missing());

    save_private(&dir.path().join(DEVICE_KEY_FILE), b"garbage").unwrap();
    let error = DeviceKey::load(dir.path()).unwrap_err();
    assert!(!error.is_missing());
    assert!(error.to_string().contains(DEVICE_KEY_FILE), "{error}");
}

#[test]
fn files_of_two_members_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create("home").unwrap();
    node_credentials(&ca, DeviceKey::generate())
        .save(dir.path())
        .unwrap();
    DeviceKey::generate().save(dir.path()).unwrap();
    assert!(matches!(
        Credentials::load(dir.path()),
        Err(StoreError::Credentials {
            source: CredentialsError::OtherKey { .. },
            ..
        })
    ));

    let other = CertificateAuthority::create("home").unwrap();
    ca.save(dir.path()).unwrap();
    save_private(&dir.path().join(CA_KEY_FILE), other.key_pem().as_bytes()).unwrap();
    assert!(matches!(
        CertificateAuthority::load_dir(dir.path()),
        Err(StoreError::Ca {
            source: CaError::KeyMismatch,
            ..
        })
    ));
}

#[test]
fn a_leftover_of_a_crash_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".device.key.new"), "half a k").unwrap();
    let key = DeviceKey::generate();
    key.save(dir.path()).unwrap();
    let loaded = DeviceKey::load(dir.path()).unwrap();
    assert_eq!(loaded.fingerprint(), key.fingerprint());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = DeviceKey::generate()
        .save(&dir.path().join("no"))
        .unwrap_err();
    assert!(error.to_string().contains("no/device.key"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn an_oversized_file_is_not_read_into_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DEVICE_KEY_FILE);
    save_private(&path, &vec![b'a'; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert!(matches!(
        DeviceKey::load(dir.path()),
        Err(StoreError::TooLarge { .. })
    ));
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn what_is_saved_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        save_private(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn saving_the_same_again_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        save_private(&path, b"same").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        save_private(&path, b"same").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        save_private(&path, b"else").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        DeviceKey::generate().save(dir.path()).unwrap();
        let path = dir.path().join(DEVICE_KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = DeviceKey::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("0640"), "{error}");
        assert!(
            error.contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
    }
}
