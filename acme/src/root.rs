//! The authority's own key, and what it signs with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

pub struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("ring makes keys");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of tests");
        let certificate = params.self_signed(&key).expect("its parameters are good");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// With which the authority itself is reached on loopback.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("ring makes keys");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]);
        let params = params.expect("an address is a good name");
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.expect("its parameters are good");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring's provider has the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        Arc::new(config)
    }

    /// The chain as PEM; or why there is none.
    pub fn issue(
        &self,
        request: &[u8],
        names: &BTreeSet<String>,
        lifetime: Duration,
    ) -> Result<String, String> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|error| format!("the request cannot be read: {error}"))?;
        let asked: BTreeSet<String> = request
            .params
            .subject_alt_names
            .iter()
            .filter_map(|name| match name {
                SanType::DnsName(name) => Some(name.as_str().to_owned()),
                _ => None,
            })
            .collect();
        if asked != *names {
            return Err(format!(
                "the request is for {asked:?}, the order for {names:?}"
            ));
        }
        let now = OffsetDateTime::now_utc();
        request.params.not_before = now;
        request.params.not_after = now + lifetime;
        let certificate = request.signed_by(&self.issuer);
        let certificate = certificate.map_err(|error| error.to_string())?;
        Ok(format!("{}{}", certificate.pem(), self.pem))
    }
}
