//! What comes from the network or a disk and says who somebody is, damaged in every way.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::time::{Duration, SystemTime};

use hive_fuzz::{Target, text};
use rustls_pki_types::CertificateDer;

use super::ca::{CaCertificate, CertificateAuthority};
use super::*;

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

#[test]
fn tokens_are_read_or_refused() {
    let ca = "ab".repeat(32).parse().unwrap();
    let join = JoinToken::generate(ca).to_string();
    let api = ApiToken::generate().to_string();
    Target::new("tokens", |input: &[u8]| {
        let text = text(input)?;
        // What reads back is what was meant, but for the space around it and the case of the hash.
        if let Ok(token) = text.parse::<ApiToken>() {
            assert_eq!(token.to_string(), text.trim());
            return Ok(());
        }
        let token: JoinToken = text.parse().map_err(|e: TokenError| e.to_string())?;
        let again: JoinToken = token.to_string().parse().unwrap();
        assert_eq!(again.to_string(), token.to_string());
        assert_eq!(token.secret.id().len(), 8);
        Ok::<_, String>(())
    })
    .seeds([join, api])
    .words(["hive1", "hivetok", ".", "-", "hive2"])
    .hold();
}

#[test]
fn certificates_are_read_or_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let key = DeviceKey::generate();
    let csr = key.csr().unwrap();
    let issued = |subject: &Subject, names: &[String]| {
        let now = SystemTime::now();
        let lifetime = Duration::from_secs(3600);
        ca.issue(&csr, subject, names, now, lifetime).unwrap().der
    };
    let node = issued(&Subject::Node { name: "pi".into() }, &[]);
    let names = ["a.example".to_owned(), "10.0.0.1".to_owned()];
    let controller = issued(&Subject::Controller { raft_id: 7 }, &names);
    Target::new("certificates", |input: &[u8]| {
        let peer = Peer::from_certificate(&CertificateDer::from(input));
        if let Ok(peer) = &peer {
            // Only what names a member in the one way there is.
            assert!(peer.subject.uri(&peer.cluster).is_ok());
        }
        let anchor = CaCertificate::from_der(input);
        if let Ok(anchor) = &anchor {
            assert_eq!(anchor.der().as_ref(), input);
        }
        peer.map(|_| ())
            .map_err(|error| error.to_string())
            .or_else(|reason| anchor.map(|_| ()).map_err(|_| reason))
    })
    .seeds([
        node.as_ref(),
        controller.as_ref(),
        ca.certificate().der().as_ref(),
    ])
    .words([
        "spiffe://home/node/",
        "spiffe://home/controller/1",
        "\x06\x03",
    ])
    .hold();
}

#[test]
fn requests_for_certificates_are_read_or_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let csr = DeviceKey::generate().csr().unwrap();
    let subject = Subject::Node { name: "pi".into() };
    Target::new("csr", |input: &[u8]| {
        let lifetime = Duration::from_secs(3600);
        let issued = ca.issue(input, &subject, &[], SystemTime::now(), lifetime);
        let issued = issued.map_err(|error| format!("{error:?}"))?;
        let peer = Peer::from_certificate(&issued.der).unwrap();
        // Whatever the request says, only its key counts.
        assert_eq!(peer.subject, subject);
        Ok::<_, String>(())
    })
    .seeds([csr])
    .hold();
}

#[test]
fn pem_files_are_read_or_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let key = DeviceKey::generate().to_pem();
    Target::new("pem", |input: &[u8]| {
        let text = text(input)?;
        let key = DeviceKey::from_pem(text);
        if let Ok(key) = &key {
            let again = DeviceKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.fingerprint(), key.fingerprint());
        }
        let certificate = CaCertificate::from_pem(text);
        if let Ok(certificate) = &certificate {
            let again = CaCertificate::from_pem(&certificate.to_pem()).unwrap();
            assert_eq!(again.der(), certificate.der());
        }
        match (key, certificate) {
            (Err(key), Err(certificate)) => Err(format!("{key}; {certificate}")),
            _ => Ok(()),
        }
    })
    .seeds([
        key.as_bytes(),
        ca.key_pem().as_bytes(),
        ca.certificate().to_pem().as_bytes(),
    ])
    .words([
        "-----BEGIN ",
        "-----END ",
        "PRIVATE KEY-----",
        "CERTIFICATE-----",
        "\n",
    ])
    .hold();
}

/// Frames of lengths that the envelope says, with a checksum that matches.
#[test]
fn backups_are_read_or_refused() {
    let header = BackupHeader {
        cluster: "home".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        revision: 7,
        epoch: 0,
        objects: 2,
        artifacts: 0,
        registered_artifacts: 0,
        seal: None,
    };
    let body = |length: usize| {
        let mut writer = BackupWriter::new(Vec::new(), header.clone(), None).unwrap();
        std::io::Write::write_all(&mut writer, &vec![b'x'; length]).unwrap();
        writer.finish().unwrap()
    };
    Target::new("backup_envelope", |input: &[u8]| {
        let mut reader = BackupReader::new(input, None).map_err(|e| e.to_string())?;
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map_err(|e| e.to_string())?;
        assert!(read.len() < input.len());
        Ok::<_, String>(())
    })
    .seeds([body(0), body(300), body(3_000)])
    .words([
        "hivebak1",
        "\"seal\":{\"iterations\":1,\"salt\":\"00\"}",
        "\0\0\0\u{80}",
    ])
    .repaired(|input| {
        if let Some(end) = input.len().checked_sub(32) {
            let sum = ring::digest::digest(&ring::digest::SHA256, &input[..end]);
            input[end..].copy_from_slice(sum.as_ref());
        }
    })
    .hold();
}
