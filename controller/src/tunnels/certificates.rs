//! The certificates with which tunnels are served: those of Secrets, as they are now.
//!
//! Every controller reads them from its own replica. A Secret is read once for each of its versions. Nothing of a
//! private key is ever said.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use hive_manifests::tunnel::TunnelSpec;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use crate::reconcile::Followed;
use crate::state::{Key, Object, State};

/// The type of Secrets that have a certificate, as in Kubernetes.
const TYPE: &str = "kubernetes.io/tls";

const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// A certificate, and how it is shown.
#[derive(Debug)]
pub struct Certificate {
    /// TLS 1.2 and 1.3; sessions are resumed with this certificate only.
    pub config: Arc<ServerConfig>,
    /// Who vouches for it, where that is none of those whom browsers trust.
    pub authorities: Vec<CertificateDer<'static>>,
    /// From when on it is good.
    begins: Timestamp,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Itself, without its chain.
    first: CertificateDer<'static>,
}

/// Why a Secret cannot be served, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error(
        "there is no such Secret with a certificate: create it from tls.crt and tls.key, or correct the name"
    )]
    Absent,
    #[error("it has no {0}: put it in, as PEM")]
    Missing(&'static str),
    #[error("its {field} cannot be read ({why}): replace it by one in PEM")]
    Unreadable { field: &'static str, why: String },
    #[error("its tls.key and tls.crt cannot be served together ({0}): replace both by a pair")]
    Mismatch(String),
}

impl CertificateError {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Absent | Self::Missing(_) => "CertificateNotFound",
            Self::Unreadable { .. } | Self::Mismatch(_) => "CertificateInvalid",
        }
    }
}

type Read = Result<Arc<Certificate>, CertificateError>;

/// All Secrets that have a certificate, or should.
pub struct Certificates(Followed<Read>);

impl Default for Certificates {
    fn default() -> Self {
        Self(Followed::new(Resource::Secret, read))
    }
}

impl Certificates {
    /// Goes on to a state, which is no older than the one before.
    pub fn follow(&mut self, state: &State) {
        self.0.follow(state);
    }

    /// What a tunnel is to be served with; `None` of one that is not by https.
    pub fn of(&self, tunnel: &Key, spec: &TunnelSpec) -> Option<Read> {
        let name = spec.certificate_secret(&tunnel.name)?;
        let key = Key::new(Resource::Secret, &*tunnel.namespace, name);
        Some(match self.0.get(&key) {
            Some(read) => read.clone(),
            None => Err(CertificateError::Absent),
        })
    }
}

/// `None` of a Secret that is for something else.
fn read(object: &Object) -> Option<Read> {
    let secret = object.to_value();
    let is_one = secret["type"] == TYPE || !secret["data"][CERTIFICATE].is_null();
    is_one.then(|| Certificate::of(&secret["data"]).map(Arc::new))
}

impl Certificate {
    fn of(data: &Value) -> Result<Self, CertificateError> {
        let chain = certificates(data, CERTIFICATE)?;
        let first = chain
            .first()
            .ok_or(CertificateError::Missing(CERTIFICATE))?;
        let first = first.clone();
        let [begins, expires] = validity(&first)?;
        let key = field(data, PRIVATE_KEY)?.ok_or(CertificateError::Missing(PRIVATE_KEY))?;
        // Words of the parser may quote what it read.
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            let why = "there is no private key in it".to_owned();
            unreadable(PRIVATE_KEY, why)
        })?;
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| CertificateError::Mismatch(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's provider has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            authorities: certificates(data, AUTHORITY)?,
            begins,
            expires,
            first,
        })
    }

    /// Whether it says that it is for a host.
    pub fn is_for(&self, host: &str) -> bool {
        let (Ok(parsed), Ok(name)) = (
            ParsedCertificate::try_from(&self.first),
            ServerName::try_from(host),
        ) else {
            return false;
        };
        verify_server_name(&parsed, &name).is_ok()
    }

    pub fn is_good_at(&self, time: Timestamp) -> bool {
        self.has_begun(time) && time < self.expires
    }

    /// It is good at that time, or was.
    pub fn has_begun(&self, time: Timestamp) -> bool {
        self.begins <= time
    }
}

fn unreadable(field: &'static str, why: String) -> CertificateError {
    CertificateError::Unreadable { field, why }
}

/// `None` of one that is not there.
fn field(data: &Value, name: &'static str) -> Result<Option<Vec<u8>>, CertificateError> {
    let Some(text) = data[name].as_str().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let decoded = BASE64.decode(text);
    decoded
        .map(Some)
        .map_err(|error| unreadable(name, error.to_string()))
}

fn certificates(
    data: &Value,
    name: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let Some(pem) = field(data, name)? else {
        return Ok(Vec::new());
    };
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(name, error.to_string()))?;
    match all.is_empty() {
        true => Err(unreadable(name, "there is no certificate in it".to_owned())),
        false => Ok(all),
    }
}

/// From when and until when it is good.
fn validity(certificate: &CertificateDer<'_>) -> Result<[Timestamp; 2], CertificateError> {
    let bad = |why: String| unreadable(CERTIFICATE, why);
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| bad(error.to_string()))?;
    let validity = parsed.validity();
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| bad(error.to_string()));
    Ok([
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ])
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };
    use serde_json::json;

    use super::*;
    use crate::fixture::declare;

    /// Who vouches for certificates in tests.
    pub struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        pub fn create() -> Self {
            let mut params = CertificateParams::default();
            params
                .distinguished_name
                .push(DnType::CommonName, "authority of tests");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        pub fn pem(&self) -> String {
            self.0.pem()
        }

        pub fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }

        /// Certificate and key for hosts, in PEM, good until that year.
        pub fn issue(&self, hosts: &[&str], until: i32) -> [String; 2] {
            let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
            let mut params = CertificateParams::new(hosts).unwrap();
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            [certificate.pem(), key.serialize_pem()]
        }
    }

    /// The data of a Secret.
    pub fn data(fields: &[(&str, &str)]) -> Value {
        let fields = fields.iter();
        let fields = fields.map(|(name, text)| ((*name).to_owned(), json!(BASE64.encode(text))));
        Value::Object(fields.collect())
    }

    /// Of a server that shows this certificate.
    pub fn server_config([certificate, key]: &[String; 2]) -> Arc<ServerConfig> {
        let data = data(&[("tls.crt", certificate.as_str()), ("tls.key", key.as_str())]);
        Certificate::of(&data).unwrap().config
    }

    /// Writes a Secret of that name.
    pub fn put(state: &mut State, name: &str, data: &Value) {
        let key = Key::new(Resource::Secret, "default", name);
        let extra = json!({ "type": TYPE, "data": data });
        declare(state, key, extra);
    }

    fn of(certificates: &Certificates) -> Read {
        let spec = json!({ "tls": { "secretName": "photos-tls" } });
        let spec: TunnelSpec = serde_json::from_value(spec).unwrap();
        let tunnel = Key::new(Resource::Tunnel, "default", "photos");
        assert!(certificates.of(&tunnel, &TunnelSpec::default()).is_none());
        certificates.of(&tunnel, &spec).unwrap()
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said() {
        let authority = Authority::create();
        let [certificate, key] = authority.issue(&["a.example"], 2030);
        let [_, other] = authority.issue(&["a.example"], 2030);
        let (certificate, key, other) = (&*certificate, &*key, &*other);
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[], "CertificateNotFound: it has no tls.crt"),
            (
                &[("tls.crt", certificate)],
                "CertificateNotFound: it has no tls.key",
            ),
            (
                &[("tls.crt", "x"), ("tls.key", key)],
                "CertificateInvalid: its tls.crt cannot be read (there is no certificate in it)",
            ),
            (
                &[("tls.crt", certificate), ("tls.key", "secret")],
                "CertificateInvalid: its tls.key cannot be read (there is no private key in it)",
            ),
            (
                &[("tls.crt", certificate), ("tls.key", other)],
                "CertificateInvalid: its tls.key and tls.crt cannot be served together",
            ),
            (
                &[("tls.crt", certificate), ("tls.key", key), ("ca.crt", "x")],
                "CertificateInvalid: its ca.crt cannot be read",
            ),
            (&[("tls.crt", certificate), ("tls.key", key)], ""),
        ];
        let mut state = State::default();
        let mut certificates = Certificates::default();
        certificates.follow(&state);
        assert_eq!(of(&certificates).unwrap_err(), CertificateError::Absent);
        for (fields, expected) in cases {
            put(&mut state, "photos-tls", &data(fields));
            certificates.follow(&state);
            let said = match of(&certificates) {
                Ok(_) => String::new(),
                Err(error) => format!("{}: {error}", error.reason()),
            };
            assert!(said.starts_with(expected), "{said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
        }
    }

    #[test]
    fn a_secret_that_changes_is_another_certificate() {
        let authority = Authority::create();
        let mut state = State::default();
        let mut certificates = Certificates::default();
        let mut until = |year: i32| {
            let [certificate, key] = authority.issue(&["a.example"], year);
            let ca = authority.pem();
            let fields = [
                ("tls.crt", &*certificate),
                ("tls.key", &*key),
                ("ca.crt", &*ca),
            ];
            put(&mut state, "photos-tls", &data(&fields));
            certificates.follow(&state);
            let read = of(&certificates).unwrap();
            assert_eq!(read.authorities, [authority.der()]);
            read.expires.to_string()
        };
        assert_eq!(until(2030), "2030-01-01T00:00:00Z");
        assert_eq!(until(2031), "2031-01-01T00:00:00Z");
    }

    #[test]
    fn a_certificate_is_good_from_its_first_moment_until_its_last() {
        let authority = Authority::create();
        let [certificate, key] = authority.issue(&["a.example"], 2030);
        let data = data(&[("tls.crt", &*certificate), ("tls.key", &*key)]);
        let certificate = Certificate::of(&data).unwrap();
        for (time, has_begun, is_good) in [
            ("2019-12-31T23:59:59Z", false, false),
            ("2020-01-01T00:00:00Z", true, true),
            ("2029-12-31T23:59:59Z", true, true),
            ("2030-01-01T00:00:00Z", true, false),
        ] {
            let at: Timestamp = time.parse().unwrap();
            assert_eq!(certificate.has_begun(at), has_begun, "{time}");
            assert_eq!(certificate.is_good_at(at), is_good, "{time}");
        }
    }
}
