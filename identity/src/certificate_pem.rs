//! Certificates as PEM text. rustls-pki-types reads PEM but doesn't write it, and rcgen writes only
//! what it has just made itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

/// RFC 7468, section 2: base64 in lines of 64 characters.
const LINE: usize = 64;

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // ASCII, so every index is a character's.
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
