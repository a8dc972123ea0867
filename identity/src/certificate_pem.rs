//! Certificates and requests as PEM text. rustls-pki-types reads PEM but doesn't write it, and rcgen writes only
//! what it has just made itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

/// RFC 7468, section 2: base64 in lines of 64 characters.
const LINE: usize = 64;

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem_text("CERTIFICATE", certificate)
}

pub(crate) fn pem_text(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // ASCII, so every index is a character's.
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
