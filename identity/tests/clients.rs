//! Certificates of the API's clients: what is issued for what request, and whom it is good for.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hive_identity::tls::{api_server_config, link_server_config};
use hive_identity::{
    CertificateAuthority, ClientAuthority, ClientCertificateError, ClientRequest,
    ClientRequestError, Credentials, DEFAULT_LIFETIME, DeviceKey, LiveCredentials, Peer,
    Registration, Subject,
};
use proptest::prelude::*;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const HOUR: Duration = Duration::from_secs(3600);

fn registration() -> Registration {
    Registration {
        name: "ada.x7k2p".into(),
        uid: "6a1e0c1a-0000-4000-8000-000000000001".into(),
    }
}

fn request(user: &str, groups: &[&str]) -> ClientRequest {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let pem = ClientRequest::make(&DeviceKey::generate(), user, &groups).unwrap();
    ClientRequest::parse(pem.as_bytes()).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_certificate_says_what_was_asked_for_and_ends_in_time() {
    let ca = CertificateAuthority::create("home").unwrap();
    let clients = ClientAuthority::new(&ca).unwrap();
    let now = SystemTime::now();
    let asked = request("ada@example.org", &["makers", "Größe", "makers of things"]);
    let issued = clients.issue(&asked, &registration(), now, HOUR).unwrap();

    // Any controller knows it: each derives the same authority.
    let elsewhere = CertificateAuthority::load(&ca.certificate().to_pem(), &ca.key_pem()).unwrap();
    let elsewhere = ClientAuthority::new(&elsewhere).unwrap();
    let chain = [der(&issued.pem)];
    let judged = elsewhere.judge(&chain, now).unwrap();
    assert_eq!(judged.user, "ada@example.org");
    assert_eq!(judged.groups, ["makers", "Größe", "makers of things"]);
    assert_eq!(judged.registration, registration());
    assert_eq!(judged.fingerprint, issued.fingerprint);
    assert_eq!(judged.not_after, issued.not_after);
    assert!(judged.not_after <= now + HOUR);

    let later = elsewhere.judge(&chain, now + 2 * HOUR).unwrap_err();
    assert!(matches!(later, ClientCertificateError::Expired), "{later}");
    let other = CertificateAuthority::create("home").unwrap();
    let foreign = ClientAuthority::new(&other).unwrap().judge(&chain, now);
    assert!(
        matches!(foreign, Err(ClientCertificateError::Foreign(_))),
        "{foreign:?}"
    );
}

#[test]
fn nobody_passes_for_what_they_are_not() {
    let ca = CertificateAuthority::create("home").unwrap();
    let clients = ClientAuthority::new(&ca).unwrap();
    let now = SystemTime::now();
    // Not a member by a common name that looks like one.
    let issued = clients
        .issue(&request("controller 1", &[]), &registration(), now, HOUR)
        .unwrap();
    assert!(Peer::from_certificate(&der(&issued.pem)).is_err());
    // And no member is a client of the API.
    for subject in [
        Subject::Node { name: "pi".into() },
        Subject::Controller { raft_id: 1 },
    ] {
        let csr = DeviceKey::generate().csr().unwrap();
        let member = ca
            .issue(&csr, &subject, &[], now, DEFAULT_LIFETIME)
            .unwrap();
        let judged = clients.judge(&[member.der], now);
        assert!(
            matches!(judged, Err(ClientCertificateError::Foreign(_))),
            "{judged:?}"
        );
    }
}

fn controller(ca: &CertificateAuthority, now: SystemTime) -> LiveCredentials {
    let own = DeviceKey::generate();
    let subject = Subject::Controller { raft_id: 1 };
    let certificate = ca
        .issue(&own.csr().unwrap(), &subject, &[], now, DEFAULT_LIFETIME)
        .unwrap();
    let credentials = Credentials::new(own, certificate.der, ca.certificate().clone()).unwrap();
    LiveCredentials::new(credentials)
}

/// Both ends, and whether each is content.
fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (ServerConnection, bool) {
    let name = "controller.hive.internal".try_into().unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut content = true;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            content &= server.process_new_packets().is_ok();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            content &= client.process_new_packets().is_ok();
        }
    }
    (server, content)
}

#[test]
fn the_api_sees_a_certificate_and_a_link_refuses_it() {
    let ca = CertificateAuthority::create("home").unwrap();
    let clients = ClientAuthority::new(&ca).unwrap();
    let now = SystemTime::now();
    let key = DeviceKey::generate();
    let asked = ClientRequest::make(&key, "ada", &["makers".into()]).unwrap();
    let asked = ClientRequest::parse(asked.as_bytes()).unwrap();
    let issued = clients.issue(&asked, &registration(), now, HOUR).unwrap();

    let live = controller(&ca, now);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().der().clone()).unwrap();
    let client = |alpn: &[u8], shows: Option<&str>, key: &DeviceKey| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![der(pem)], key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    };
    let api = || api_server_config(Arc::new(live.clone()), &clients);

    let (server, content) = meet(client(b"h2", Some(&issued.pem), &key), api());
    assert!(content);
    let judged = clients
        .judge(server.peer_certificates().unwrap(), now)
        .unwrap();
    assert_eq!(
        (judged.user.as_str(), &judged.groups[..]),
        ("ada", &["makers".to_owned()][..])
    );

    // None need be shown.
    let (server, content) = meet(client(b"h2", None, &key), api());
    assert!(content && server.peer_certificates().is_none());

    // On a link it is not even looked at by the gateway.
    let (server, content) = meet(
        client(b"hive/1", Some(&issued.pem), &key),
        link_server_config(&live),
    );
    assert!(!content && server.is_handshaking());
}

/// Certificates are no secrets.
#[test]
fn whoever_shows_a_certificate_must_have_its_key() {
    let ca = CertificateAuthority::create("home").unwrap();
    let clients = ClientAuthority::new(&ca).unwrap();
    let now = SystemTime::now();
    let (own, other) = (DeviceKey::generate(), DeviceKey::generate());
    let asked = ClientRequest::make(&own, "ada", &[]).unwrap();
    let asked = ClientRequest::parse(asked.as_bytes()).unwrap();
    let issued = clients.issue(&asked, &registration(), now, HOUR).unwrap();
    let live = controller(&ca, now);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().der().clone()).unwrap();
    for (key, expected) in [(&own, true), (&other, false)] {
        let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
        let signing = any_supported_type(&key).unwrap();
        let shown = CertifiedKey::new(vec![der(&issued.pem)], signing);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        client.alpn_protocols = vec![b"h2".to_vec()];
        let server = api_server_config(Arc::new(live.clone()), &clients);
        let (_, content) = meet(Arc::new(client), server);
        assert_eq!(content, expected);
    }
}

#[test]
fn requests_that_cannot_be_certified_are_refused_by_name() {
    let refused = |pem: &[u8]| ClientRequest::parse(pem).unwrap_err().to_string();
    assert!(refused(b"x").contains("BEGIN CERTIFICATE REQUEST"));
    assert!(refused(&vec![b'x'; 64 << 10]).contains("bytes"));
    let nobody = ClientRequest::make(&DeviceKey::generate(), "", &[]);
    assert!(
        matches!(nobody, Err(ClientRequestError::Name(_))),
        "{nobody:?}"
    );
    let many = vec!["g".to_owned(); 65];
    let many = ClientRequest::make(&DeviceKey::generate(), "ada", &many);
    assert!(
        matches!(many, Err(ClientRequestError::TooManyGroups { found: 65 })),
        "{many:?}"
    );

    // A changed name: the proof is for another.
    let good = ClientRequest::make(&DeviceKey::generate(), "ada", &[]).unwrap();
    let mut bytes = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes())
        .unwrap()
        .to_vec();
    let at = bytes.windows(3).position(|part| part == b"ada").unwrap();
    bytes[at] = b'b';
    let forged = pem(&bytes);
    let error = ClientRequest::parse(forged.as_bytes()).unwrap_err();
    assert!(
        matches!(error, ClientRequestError::BadSignature(_)),
        "{error}"
    );
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

/// What other tools make is taken, and what is made here can be read by them.
#[test]
fn openssl_and_this_understand_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .ok()?;
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8(output.stdout).unwrap())
    };
    if openssl(&["version"]).is_none() {
        eprintln!("SKIPPED: there is no openssl");
        return;
    }
    let ca = CertificateAuthority::create("home").unwrap();
    let clients = ClientAuthority::new(&ca).unwrap();
    for (kind, good) in [
        (&["-newkey", "rsa:2048"][..], true),
        (&["-newkey", "rsa:1024"], false),
        (&["-newkey", "ed25519"], true),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            true,
        ),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
            false,
        ),
    ] {
        let mut arguments = vec!["req", "-new", "-nodes", "-keyout", "key.pem"];
        arguments.extend(kind);
        arguments.extend(["-subj", "/O=makers/O=readers/CN=ada", "-out", "ada.csr"]);
        openssl(&arguments);
        let csr = std::fs::read(dir.path().join("ada.csr")).unwrap();
        let parsed = ClientRequest::parse(&csr);
        assert_eq!(parsed.is_ok(), good, "{kind:?}: {parsed:?}");
        let Ok(parsed) = parsed else { continue };
        assert_eq!((parsed.user(), parsed.groups().len()), ("ada", 2));
        let issued = clients
            .issue(&parsed, &registration(), SystemTime::now(), HOUR)
            .unwrap();
        std::fs::write(dir.path().join("ada.crt"), issued.pem).unwrap();
        let shown = openssl(&["x509", "-in", "ada.crt", "-noout", "-text"]).unwrap();
        for part in [
            "O = makers, O = readers, CN = ada",
            "TLS Web Client Authentication",
            "CA:FALSE",
            "Digital Signature",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let own = ClientRequest::make(&DeviceKey::generate(), "ada", &["makers".into()]).unwrap();
    std::fs::write(dir.path().join("own.csr"), own).unwrap();
    let shown = openssl(&["req", "-in", "own.csr", "-noout", "-verify", "-subject"]).unwrap();
    assert!(shown.contains("O = makers, CN = ada"), "{shown}");
}

proptest! {
    #[test]
    fn any_name_reads_back(
        user in "\\PC{1,80}",
        groups in proptest::collection::vec("\\PC{1,40}", 0..5),
    ) {
        let key = DeviceKey::generate();
        let pem = ClientRequest::make(&key, &user, &groups).unwrap();
        let parsed = ClientRequest::parse(pem.as_bytes()).unwrap();
        prop_assert_eq!(parsed.user(), &user);
        prop_assert_eq!(parsed.groups(), &groups[..]);
    }

    #[test]
    fn no_bytes_are_too_much(bytes: Vec<u8>) {
        let _ = ClientRequest::parse(&bytes);
        let _ = ClientRequest::parse(pem(&bytes).as_bytes());
    }
}
