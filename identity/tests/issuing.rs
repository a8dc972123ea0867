//! What the CA certifies, what it refuses, and what its signature is good for.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use hive_identity::{
    CA_LIFETIME, CaCertificate, CaError, CertificateAuthority, Credentials, CredentialsError,
    DEFAULT_LIFETIME, DeviceKey, IssueError, IssuedCertificate, LiveCredentials, MAX_CSR_BYTES,
    Peer, SignatureError, Subject,
};
use rcgen::{CertificateParams, DnType, KeyPair};

fn node(name: &str) -> Subject {
    Subject::Node { name: name.into() }
}

fn issue(
    ca: &CertificateAuthority,
    csr: &[u8],
    subject: &Subject,
) -> Result<IssuedCertificate, IssueError> {
    ca.issue(csr, subject, &[], SystemTime::now(), DEFAULT_LIFETIME)
}

fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn a_certificate_says_who_its_holder_is_and_until_when() {
    let ca = CertificateAuthority::create("home").unwrap();
    let now = SystemTime::now();
    for subject in [node("pi-4"), Subject::Controller { raft_id: 7 }] {
        let key = DeviceKey::generate();
        let csr = key.csr().unwrap();
        let issued = ca
            .issue(&csr, &subject, &[], now, DEFAULT_LIFETIME)
            .unwrap();
        assert_eq!(issued.key, key.fingerprint());
        assert_eq!(
            whole_seconds(issued.not_after),
            whole_seconds(now + DEFAULT_LIFETIME)
        );
        assert_eq!(
            Peer::from_certificate(&issued.der).unwrap(),
            Peer {
                subject,
                key: key.fingerprint(),
                cluster: "home".into(),
                not_after: issued.not_after,
            }
        );
    }
}

#[test]
fn renewal_is_due_at_two_thirds() {
    let ca = CertificateAuthority::create("home").unwrap();
    let key = DeviceKey::generate();
    let now = SystemTime::now();
    let issued = ca
        .issue(&key.csr().unwrap(), &node("pi"), &[], now, DEFAULT_LIFETIME)
        .unwrap();
    let credentials = Credentials::new(key, issued.der, ca.certificate().clone()).unwrap();
    let after = credentials.renew_at().duration_since(now).unwrap();
    let hour = Duration::from_secs(3600);
    assert!(
        after > hour * 15 && after < hour * 16 + hour / 2,
        "{after:?}"
    );
}

#[test]
fn each_certificate_has_a_serial_of_its_own() {
    let ca = CertificateAuthority::create("home").unwrap();
    let csr = DeviceKey::generate().csr().unwrap();
    let serial = || {
        let issued = issue(&ca, &csr, &node("pi")).unwrap();
        let (_, x509) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
        x509.tbs_certificate.raw_serial().to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_ne!(first, second);
    assert_eq!(first.len(), 16);
}

#[test]
fn a_request_with_a_broken_signature_is_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let mut csr = DeviceKey::generate().csr().unwrap();
    *csr.last_mut().unwrap() ^= 1;
    assert!(matches!(
        issue(&ca, &csr, &node("pi")),
        Err(IssueError::BadSignature(_))
    ));
}

/// Somebody else's public key in one's own request: the signature can't be made for it.
#[test]
fn a_request_for_anothers_key_is_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let (victim, thief) = (DeviceKey::generate(), DeviceKey::generate());
    let (of_victim, mut csr) = (victim.csr().unwrap(), thief.csr().unwrap());
    let public_key = |csr: &[u8]| {
        // AlgorithmIdentifier of Ed25519, then the BIT STRING's header.
        let header = [0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let at = csr.windows(8).position(|bytes| bytes == header).unwrap() + 8;
        at..at + 32
    };
    let at = public_key(&csr);
    csr[at].copy_from_slice(&of_victim[public_key(&of_victim)]);
    assert!(matches!(
        issue(&ca, &csr, &node("pi")),
        Err(IssueError::BadSignature(_))
    ));
}

#[test]
fn nothing_of_a_request_but_its_key_reaches_the_certificate() {
    let ca = CertificateAuthority::create("home").unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(["controller.hive.internal".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "controller 1");
    let csr = params.serialize_request(&key).unwrap();
    let issued = issue(&ca, csr.der(), &node("pi")).unwrap();
    let text = String::from_utf8_lossy(&issued.der).into_owned();
    assert!(!text.contains("controller"), "{text}");
    assert!(text.contains("spiffe://home/node/pi"), "{text}");
}

#[test]
fn requests_that_are_none() {
    let ca = CertificateAuthority::create("home").unwrap();
    let good = DeviceKey::generate().csr().unwrap();
    assert!(matches!(
        issue(&ca, b"hello", &node("pi")),
        Err(IssueError::Malformed(_))
    ));
    assert!(matches!(
        issue(&ca, &good[..good.len() - 1], &node("pi")),
        Err(IssueError::Malformed(_))
    ));
    assert!(matches!(
        issue(&ca, &[&good[..], b"x"].concat(), &node("pi")),
        Err(IssueError::TrailingBytes(1))
    ));
    assert!(matches!(
        issue(&ca, &vec![0; MAX_CSR_BYTES + 1], &node("pi")),
        Err(IssueError::TooLarge { .. })
    ));
    let ecdsa = CertificateParams::default()
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap();
    assert!(matches!(
        issue(&ca, ecdsa.der(), &node("pi")),
        Err(IssueError::NotEd25519)
    ));
}

#[test]
fn names_that_are_not_certified() {
    let ca = CertificateAuthority::create("home").unwrap();
    let csr = DeviceKey::generate().csr().unwrap();
    let with = |subject: &Subject, name: &str| {
        let names = [name.to_owned()];
        ca.issue(&csr, subject, &names, SystemTime::now(), DEFAULT_LIFETIME)
    };
    for name in ["", "Pi", "a/../controller/1", "a.b"] {
        assert!(matches!(
            issue(&ca, &csr, &node(name)),
            Err(IssueError::Subject(_))
        ));
    }
    assert!(matches!(
        with(&node("pi"), "controller.hive.internal"),
        Err(IssueError::NamesForNode)
    ));
    for name in ["*.example.org", "a b", "", "http://example.org"] {
        assert!(matches!(
            with(&Subject::Controller { raft_id: 1 }, name),
            Err(IssueError::ServerName(refused)) if refused == name
        ));
    }
}

#[test]
fn no_certificate_outlives_the_ca() {
    let ca = CertificateAuthority::create("home").unwrap();
    let end = ca.certificate().not_after();
    let csr = DeviceKey::generate().csr().unwrap();
    let at = |now, lifetime| ca.issue(&csr, &node("pi"), &[], now, lifetime);
    for lifetime in [DEFAULT_LIFETIME, Duration::MAX] {
        let issued = at(end - Duration::from_secs(3600), lifetime).unwrap();
        assert_eq!(issued.not_after, end);
        assert_eq!(Peer::from_certificate(&issued.der).unwrap().not_after, end);
    }
    for now in [
        end,
        end + CA_LIFETIME,
        SystemTime::UNIX_EPOCH,
        SystemTime::now() - Duration::from_secs(3600),
    ] {
        assert!(matches!(
            at(now, DEFAULT_LIFETIME),
            Err(IssueError::OutsideCaValidity)
        ));
    }
}

#[test]
fn a_ca_read_back_from_pem_is_the_same() {
    let ca = CertificateAuthority::create("home").unwrap();
    let pem = ca.certificate().to_pem();
    let again = CertificateAuthority::load(&pem, &ca.key_pem()).unwrap();
    assert_eq!(again.certificate(), ca.certificate());
    assert_eq!(again.certificate().cluster(), "home");
    let public = CaCertificate::from_der(ca.certificate().der()).unwrap();
    assert_eq!(public.fingerprint(), ca.certificate().fingerprint());

    let other = CertificateAuthority::create("home").unwrap();
    assert!(matches!(
        CertificateAuthority::load(&pem, &other.key_pem()),
        Err(CaError::KeyMismatch)
    ));
}

#[test]
fn certificates_that_are_no_ca() {
    let ca = CertificateAuthority::create("home").unwrap();
    let csr = DeviceKey::generate().csr().unwrap();
    let leaf = issue(&ca, &csr, &node("pi")).unwrap();
    assert!(matches!(
        CaCertificate::from_der(&leaf.der),
        Err(CaError::NotCa)
    ));
    assert!(matches!(
        CaCertificate::from_pem("hello"),
        Err(CaError::Pem(_))
    ));
    assert!(matches!(
        CertificateAuthority::create("My Home"),
        Err(CaError::Cluster(_))
    ));
    assert!(Peer::from_certificate(ca.certificate().der()).is_err());
}

#[test]
fn a_signature_is_good_for_its_purpose_and_content_only() {
    let ca = CertificateAuthority::create("home").unwrap();
    let signature = ca.sign("hive.artifact.v1", b"bytes");
    let verify = |context, message: &[u8], signature: &[u8]| {
        ca.certificate().verify(context, message, signature)
    };
    assert_eq!(verify("hive.artifact.v1", b"bytes", &signature), Ok(()));
    assert_eq!(
        verify("hive.artifact.v2", b"bytes", &signature),
        Err(SignatureError)
    );
    assert_eq!(
        verify("hive.artifact.v1", b"bytes!", &signature),
        Err(SignatureError)
    );
    assert_eq!(
        verify("hive.artifact.v1", b"bytes", &signature[1..]),
        Err(SignatureError)
    );
    let other = CertificateAuthority::create("home").unwrap();
    assert_eq!(
        other
            .certificate()
            .verify("hive.artifact.v1", b"bytes", &signature),
        Err(SignatureError)
    );
}

#[test]
fn credentials_whose_parts_do_not_belong_together_are_refused() {
    let ca = CertificateAuthority::create("home").unwrap();
    let other = CertificateAuthority::create("home").unwrap();
    let key = DeviceKey::generate();
    let certificate = issue(&ca, &key.csr().unwrap(), &node("pi")).unwrap().der;
    assert!(matches!(
        Credentials::new(
            DeviceKey::generate(),
            certificate.clone(),
            ca.certificate().clone()
        ),
        Err(CredentialsError::OtherKey { .. })
    ));
    assert!(matches!(
        Credentials::new(
            key.clone(),
            certificate.clone(),
            other.certificate().clone()
        ),
        Err(CredentialsError::OtherCa { .. })
    ));

    let good = Credentials::new(key.clone(), certificate, ca.certificate().clone()).unwrap();
    let live = LiveCredentials::new(good);
    let foreign = issue(&other, &key.csr().unwrap(), &node("pi")).unwrap().der;
    let foreign = Credentials::new(key, foreign, other.certificate().clone()).unwrap();
    let refused = live.replace(foreign).unwrap_err();
    assert_eq!(refused.current, ca.certificate().fingerprint());
    assert_eq!(live.current().ca(), ca.certificate());
}

#[test]
fn debug_output_holds_no_private_key() {
    let ca = CertificateAuthority::create("home").unwrap();
    let key = DeviceKey::generate();
    let certificate = issue(&ca, &key.csr().unwrap(), &node("pi")).unwrap().der;
    let live = LiveCredentials::new(
        Credentials::new(key.clone(), certificate, ca.certificate().clone()).unwrap(),
    );
    let shown = format!("{ca:?} {live:?} {key:?}");
    assert!(shown.len() < 1_500, "{shown}");
    for pem in [ca.key_pem(), key.to_pem()] {
        let body = pem.lines().nth(1).unwrap();
        assert!(!shown.contains(&body[..20]));
    }
}
