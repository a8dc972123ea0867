//! Whether a name leads to who ordered a certificate for it: really asked for, at every door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;

/// For one door to answer, on a busy machine too: who is not proven is tried again much later.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key authorization has about 90 bytes.
const MAX_ANSWER: usize = 1024;

/// RFC 8737.
const ALPN: &[u8] = b"acme-tls/1";
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// The end of a problem's type, and its detail.
pub type Trouble = (&'static str, String);

pub async fn http_01(
    door: SocketAddr,
    name: &str,
    token: &str,
    authorization: &str,
) -> Result<(), Trouble> {
    let url = format!("http://{name}/.well-known/acme-challenge/{token}");
    let broken = |why: String| ("connection", format!("{door}: Fetching {url}: {why}"));
    let asked = async {
        let stream = TcpStream::connect(door).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        // Ends with its sender.
        tokio::spawn(connection);
        let request = Request::get(format!("/.well-known/acme-challenge/{token}"))
            .header(HOST, name)
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body.await.map_err(|e| e.to_string())?.to_bytes();
        Ok::<_, String>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    let asked = asked.unwrap_or_else(|_| Err("Timeout during connect".to_owned()));
    let (status, body) = asked.map_err(broken)?;
    if status != 200 {
        let detail = format!("{door}: Invalid response from {url}: {status}");
        return Err(("unauthorized", detail));
    }
    if body.trim_end() != authorization {
        let detail = format!("{door}: the key authorization from {url} is another");
        return Err(("unauthorized", detail));
    }
    Ok(())
}

pub async fn tls_alpn_01(door: SocketAddr, name: &str, authorization: &str) -> Result<(), Trouble> {
    let broken = |why: String| ("connection", format!("{door}: {name}: {why}"));
    let wrong = |why: &str| ("unauthorized", format!("{door}: {name}: {why}"));
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("ring's provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(Arc::new(default_provider()))))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let server = ServerName::try_from(name.to_owned()).map_err(|e| broken(e.to_string()))?;
    let asked = async {
        let stream = TcpStream::connect(door).await?;
        TlsConnector::from(Arc::new(config))
            .connect(server, stream)
            .await
    };
    let stream = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| broken("Timeout during connect".to_owned()))?
        .map_err(|error| broken(error.to_string()))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN) {
        return Err(wrong("the server does not speak acme-tls/1"));
    }
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| wrong("no certificate was shown"))?;
    let (_, shown) = x509_parser::parse_x509_certificate(shown)
        .map_err(|_| wrong("the certificate cannot be read"))?;
    let names = shown.subject_alternative_name().ok().flatten();
    let names = names.as_ref().map(|it| it.value.general_names.as_slice());
    if !matches!(names, Some([GeneralName::DNSName(only)]) if *only == name) {
        return Err(wrong("the certificate is not for this name alone"));
    }
    let identifier = shown
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    let identifier = identifier.ok_or_else(|| wrong("the certificate has no acmeIdentifier"))?;
    // An octet string of 32 bytes.
    let mut expected = vec![4, 32];
    expected.extend_from_slice(digest(&SHA256, authorization.as_bytes()).as_ref());
    if !identifier.critical || identifier.value != expected {
        return Err(wrong("the acmeIdentifier is another"));
    }
    Ok(())
}

/// The certificate that is shown is signed by nobody, and has an extension that no library knows: only whose key
/// it holds counts here. What else is in it is looked at above.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    /// It is not offered.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let malformed = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, shown) = x509_parser::parse_x509_certificate(certificate).map_err(malformed)?;
        let key = SubjectPublicKeyInfoDer::from(shown.public_key().raw);
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
