//! TLS as a client of a tunnel sees it: whose certificates it trusts, and what it makes of what goes wrong.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::Why;
use super::probe::Answer;
use crate::client_tls;
use crate::tunnels::certificates::Certificate;

/// How a tunnel is asked by https.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    /// Who vouches for its certificate; empty for those whom browsers trust.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Until when its certificate is good, where it is known.
    pub expires: Option<Timestamp>,
}

impl Trust {
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            authorities: certificate.authorities.clone(),
            expires: Some(certificate.expires),
        }
    }

    /// Of a client that speaks HTTP/1.1.
    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match self.authorities.is_empty() {
            true => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            false => {
                roots.add_parsable_certificates(self.authorities.iter().cloned());
            }
        }
        let mut config = client_tls::config(roots);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// What it means that a handshake failed, where HTTP was to follow.
pub fn failed(error: &io::Error) -> Answer {
    let Some(error) = of_tls(error) else {
        return Answer::Closed;
    };
    Answer::Untrusted(match error {
        Error::AlertReceived(AlertDescription::UnrecognisedName) => Why::new(
            "NoCertificate",
            "a controller answers that it has no certificate for this name: it was just declared, or its Secret is not \
             known there",
        ),
        Error::InvalidCertificate(error) => judged(error),
        _ => Why::new(
            "NoTls",
            format!("somebody answers otherwise than in TLS ({error})"),
        ),
    })
}

/// What it means for a connection that is passed through: whoever shows a certificate is the target, which clients of
/// its own trust.
pub fn passed(error: &io::Error) -> Option<Answer> {
    match of_tls(error) {
        None => Some(Answer::Closed),
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => {
            let message = "it knows no such name: the tunnel was just declared, or the target refuses the name";
            Some(Answer::Refused(Why::new("UnrecognizedName", message)))
        }
        Some(Error::AlertReceived(_) | Error::InvalidCertificate(_)) => None,
        Some(error) => {
            let message = format!("the target answers otherwise than in TLS ({error})");
            Some(Answer::Refused(Why::new("NoTls", message)))
        }
    }
}

fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Without times, which would make news of what is known.
fn judged(error: &CertificateError) -> Why {
    let (reason, message) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "CertificateExpired",
            "the certificate has expired: put a renewed one into the Secret of spec.tls.secretName".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "CertificateNotValidYet",
            "the certificate is not valid yet: look at the clocks, or put another one into the Secret of \
             spec.tls.secretName"
                .to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "CertificateForOthers",
            "the certificate is for other hosts: put one for this host into the Secret of spec.tls.secretName"
                .to_owned(),
        ),
        CertificateError::UnknownIssuer => (
            "CertificateNotTrusted",
            "the certificate is of nobody whom browsers trust: put its whole chain into tls.crt of the Secret of \
             spec.tls.secretName, or, where only your own clients come, their authority into its ca.crt"
                .to_owned(),
        ),
        error => (
            "CertificateNotTrusted",
            format!("the certificate is not good ({error}): put another one into the Secret of spec.tls.secretName"),
        ),
    };
    Why::new(reason, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(error: Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn what_is_wrong_with_a_certificate_has_its_reason() {
        for (wrong, reason) in [
            (CertificateError::Expired, "CertificateExpired"),
            (CertificateError::NotValidYet, "CertificateNotValidYet"),
            (CertificateError::NotValidForName, "CertificateForOthers"),
            (CertificateError::UnknownIssuer, "CertificateNotTrusted"),
            (CertificateError::BadSignature, "CertificateNotTrusted"),
        ] {
            let wrong = error(Error::InvalidCertificate(wrong));
            let Answer::Untrusted(why) = failed(&wrong) else {
                panic!("{wrong:?}");
            };
            assert_eq!(why.reason, reason);
            assert!(
                why.message.contains("spec.tls.secretName"),
                "{}",
                why.message
            );
            // The target's own clients know better.
            assert_eq!(passed(&wrong), None);
        }
    }

    #[test]
    fn who_answers_without_tls_is_told_from_who_ends() {
        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(failed(&ended), Answer::Closed);
        assert_eq!(passed(&ended), Some(Answer::Closed));
        let unknown = error(Error::AlertReceived(AlertDescription::UnrecognisedName));
        let other = error(Error::DecryptError);
        for (error, first, second) in [
            (&unknown, "NoCertificate", "UnrecognizedName"),
            (&other, "NoTls", "NoTls"),
        ] {
            assert!(matches!(failed(error), Answer::Untrusted(why) if why.reason == first));
            assert!(matches!(passed(error), Some(Answer::Refused(why)) if why.reason == second));
        }
        let wants = error(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert_eq!(passed(&wants), None);
    }
}
