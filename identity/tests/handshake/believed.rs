//! Who gets through and who doesn't.

use std::time::Duration;

use hive_identity::tls::{api_server_config, enrol_client_config};
use hive_identity::{CaFingerprint, ClientAuthority, MANY_STREAMS_ALPN, PinMismatch};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The error that our verifier gave its reason in.
fn reason<E: std::error::Error + 'static>(error: &Error) -> &E {
    let Error::Other(other) = error else {
        panic!("no reason of ours: {error}");
    };
    other.0.downcast_ref().unwrap()
}

/// What either end says of a certificate of another CA.
fn unknown_issuer() -> Option<Error> {
    let why = CertificateError::UnknownIssuer;
    Some(Error::InvalidCertificate(why))
}

/// How either end hears that its own certificate is not good.
fn told(why: AlertDescription) -> Option<Error> {
    Some(Error::AlertReceived(why))
}

/// A server that shows this chain and signs with this key, whether they belong together or not.
fn server_showing(chain: Vec<CertificateDer<'static>>, key: &DeviceKey) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes());
    let signing = any_supported_type(&key.unwrap()).unwrap();
    let shown = CertifiedKey::new(chain, signing);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![LINK_ALPN.to_vec()];
    Arc::new(config)
}

#[test]
fn members_of_one_cluster_know_each_other() {
    let ca = ca();
    let (controller, node) = (controller(&ca, 3), node(&ca, "pi"));
    let outcome = handshake(link(&node), link_server_config(&controller)).connected();

    assert_eq!(outcome.server_peer(), *controller.current().own());
    assert_eq!(outcome.client_peer().unwrap(), *node.current().own());
    let peer = outcome.client_peer().unwrap();
    assert_eq!(peer.subject, Subject::Node { name: "pi".into() });
    assert_eq!(peer.cluster, "home");
    assert_eq!(peer.key, node.current().key().fingerprint());
    assert_eq!(outcome.client.alpn_protocol(), Some(MANY_STREAMS_ALPN));
    assert_eq!(
        outcome.client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    // There is a faster one on every processor.
    let suite = outcome.server.negotiated_cipher_suite().unwrap().suite();
    assert_ne!(suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
}

#[test]
fn the_address_that_was_dialled_does_not_matter() {
    let ca = ca();
    let (controller, node) = (controller(&ca, 1), node(&ca, "pi"));
    for dialled in ["192.0.2.7", "seed.example.org"] {
        handshake_at(link(&node), link_server_config(&controller), dialled).connected();
    }
}

#[test]
fn a_raft_member_reaches_the_controller_it_means() {
    let ca = ca();
    let (one, two) = (controller(&ca, 1), controller(&ca, 2));
    let to = |raft_id| link_client_config(&one, ExpectedController::Id(raft_id));
    handshake(to(2), link_server_config(&two)).connected();

    let outcome = handshake(to(4), link_server_config(&two));
    let error = outcome.client_error.unwrap();
    assert!(
        error
            .to_string()
            .contains("the server is controller 2, expected controller 4"),
        "{error}"
    );
}

#[test]
fn a_newcomer_connects_without_a_certificate_and_is_nobody() {
    let ca = ca();
    let controller = controller(&ca, 1);
    let newcomer = enrol_client_config(ca.certificate().fingerprint());
    let outcome = handshake(newcomer, link_server_config(&controller)).connected();
    assert_eq!(outcome.client_peer(), None);
    assert_eq!(outcome.server_peer(), *controller.current().own());
}

#[test]
fn a_server_of_another_ca_is_refused() {
    let server = controller(&ca(), 1);
    let member = node(&ca(), "pi");
    let outcome = handshake(link(&member), link_server_config(&server));
    assert_eq!(outcome.client_error, unknown_issuer());
    assert_eq!(outcome.server_error, told(AlertDescription::UnknownCA));
}

#[test]
fn a_client_of_another_ca_is_refused() {
    let ours = ca();
    let server = controller(&ours, 1);
    // Under the same cluster name: what a cluster that was made anew meets.
    let outcome = handshake(
        stranger(&ours, node(&ca(), "pi")),
        link_server_config(&server),
    );
    assert_eq!(outcome.server_error, unknown_issuer());
    assert_eq!(outcome.client_error, told(AlertDescription::UnknownCA));
}

#[test]
fn a_node_cannot_pose_as_a_controller() {
    let ca = ca();
    let (false_controller, victim) = (node(&ca, "mallory"), node(&ca, "pi"));
    for client in [
        link(&victim),
        enrol_client_config(ca.certificate().fingerprint()),
    ] {
        let outcome = handshake(client, link_server_config(&false_controller));
        assert!(matches!(
            outcome.client_error,
            Some(Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        ));
    }
}

#[test]
fn a_token_for_another_cluster_is_refused_and_both_fingerprints_are_named() {
    let (ours, other) = (ca(), ca());
    let pinned = other.certificate().fingerprint();
    let presented = ours.certificate().fingerprint();
    let outcome = handshake(
        enrol_client_config(pinned),
        link_server_config(&controller(&ours, 1)),
    );
    let error = outcome.client_error.unwrap();
    assert_eq!(
        *reason::<PinMismatch>(&error),
        PinMismatch {
            presented: Some(presented),
            pinned
        }
    );
    let wanted =
        format!("the server's CA is sha256:{presented} but the token pins sha256:{pinned}");
    assert!(error.to_string().contains(&wanted), "{error}");
    assert!(outcome.server_error.is_some());
}

/// A CA certificate is public: showing it proves nothing unless it issued the leaf.
#[test]
fn a_borrowed_ca_certificate_does_not_satisfy_a_pin() {
    let (genuine, forged) = (ca(), ca());
    let leaf = controller(&forged, 1).current();
    let chain = vec![
        leaf.certificate().clone(),
        genuine.certificate().der().clone(),
    ];
    let server = server_showing(chain, leaf.key());
    let pin = genuine.certificate().fingerprint();
    let outcome = handshake(enrol_client_config(pin), server);
    assert_eq!(outcome.client_error, unknown_issuer());
}

#[test]
fn a_server_that_shows_no_ca_is_refused_by_a_newcomer() {
    let ca = ca();
    let leaf = controller(&ca, 1).current();
    let server = server_showing(vec![leaf.certificate().clone()], leaf.key());
    let pinned: CaFingerprint = ca.certificate().fingerprint();
    let error = handshake(enrol_client_config(pinned), server)
        .client_error
        .unwrap();
    assert_eq!(reason::<PinMismatch>(&error).presented, None);
}

/// The certificate of a controller is public as well.
#[test]
fn a_controller_s_certificate_is_nothing_without_its_key() {
    let ca = ca();
    let genuine = controller(&ca, 1).current();
    let chain = vec![
        genuine.certificate().clone(),
        ca.certificate().der().clone(),
    ];
    let server = |key: &DeviceKey| server_showing(chain.clone(), key);
    let pin = ca.certificate().fingerprint();
    for client in [link(&node(&ca, "pi")), enrol_client_config(pin)] {
        handshake(client.clone(), server(genuine.key())).connected();
        let outcome = handshake(client, server(&DeviceKey::generate()));
        assert!(outcome.client_error.is_some());
    }
}

#[test]
fn expired_certificates_are_refused_on_both_sides() {
    let ca = ca_made_before(3 * DAY);
    let long_ago = SystemTime::now() - 2 * DAY;
    let expired =
        |subject| LiveCredentials::new(issue(&ca, DeviceKey::generate(), subject, long_ago));

    let server = expired(Subject::Controller { raft_id: 1 });
    let outcome = handshake(link(&node(&ca, "pi")), link_server_config(&server));
    assert!(matches!(
        outcome.client_error,
        Some(Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
        ))
    ));

    let client = expired(Subject::Node { name: "pi".into() });
    let server = controller(&ca, 1);
    let outcome = handshake(link(&client), link_server_config(&server));
    assert!(matches!(
        outcome.server_error,
        Some(Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
        ))
    ));
    assert_eq!(
        outcome.client_error,
        told(AlertDescription::CertificateExpired)
    );

    // Its way back: with the CA that it still holds, and its device key.
    let pin = client.current().ca().fingerprint();
    handshake(enrol_client_config(pin), link_server_config(&server)).connected();
}

#[test]
fn the_api_answers_ordinary_clients_under_its_own_names() {
    let ca = ca();
    let key = DeviceKey::generate();
    let names = ["localhost", "127.0.0.1", "::1", "Seed.Example.org"].map(String::from);
    let subject = Subject::Controller { raft_id: 1 };
    let issued = ca
        .issue(
            &key.csr().unwrap(),
            &subject,
            &names,
            SystemTime::now(),
            DEFAULT_LIFETIME,
        )
        .unwrap();
    let live =
        LiveCredentials::new(Credentials::new(key, issued.der, ca.certificate().clone()).unwrap());
    let clients = ClientAuthority::new(&ca).unwrap();
    let server = api_server_config(Arc::new(live.clone()), &clients);

    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().der().clone()).unwrap();
    let mut client =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let client = Arc::new(client);

    for dialled in ["localhost", "127.0.0.1", "::1", "seed.example.org"] {
        let outcome = handshake_at(client.clone(), server.clone(), dialled).connected();
        assert_eq!(outcome.client.alpn_protocol(), Some(&b"h2"[..]));
    }
    let outcome = handshake_at(client, server, "elsewhere.example.org");
    assert!(outcome.client_error.is_some());
    // And a link's client is no client of the API.
    let outcome = handshake(
        link(&node(&ca, "pi")),
        api_server_config(Arc::new(live.clone()), &clients),
    );
    assert_eq!(outcome.server_error, Some(Error::NoApplicationProtocol));
}

/// A CA that is older than the certificates of the test: `create` would start it now.
fn ca_made_before(age: Duration) -> CertificateAuthority {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let made = (SystemTime::now() - age)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("spiffe://home".try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + made;
    params.not_after = params.not_before + 365 * DAY;
    let certificate = params.self_signed(&key).unwrap();
    CertificateAuthority::load(&certificate.pem(), &key.serialize_pem()).unwrap()
}
