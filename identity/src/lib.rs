//! Who a process is, and how it proves it.
//!
//! Every process owns one Ed25519 [`DeviceKey`]; its fingerprint is its identity for life. The
//! cluster's [`CertificateAuthority`] binds that key to a [`Subject`] in a certificate of a day,
//! [`LiveCredentials`] hold the newest one, and [`tls`] turns them into rustls configurations. A
//! [`JoinToken`] carries what a newcomer needs: which CA to trust and a secret to show it.
//!
//! This crate opens no sockets, starts no tasks, and touches no file but those it is handed.

mod backup;
mod ca;
mod certificate_pem;
mod client;
mod credentials;
mod fingerprint;
#[cfg(test)]
mod fuzz;
mod key;
mod random;
pub mod store;
mod subject;
pub mod tls;
mod token;

pub use backup::{BackupError, BackupHeader, BackupReader, BackupWriter, Seal};
pub use ca::{
    BACKDATE, CA_LIFETIME, CaCertificate, CaError, CertificateAuthority, DEFAULT_LIFETIME,
    IssueError, IssuedCertificate, MAX_CSR_BYTES, SignatureError,
};
pub use client::{
    ClientAuthority, ClientCertificate, ClientCertificateError, ClientRequest, ClientRequestError,
    IssuedClientCertificate, Registration, client_certificate_end, client_certificate_fingerprint,
};
pub use credentials::{Credentials, CredentialsError, DifferentCa, LiveCredentials};
pub use fingerprint::{CaFingerprint, FingerprintError, KeyFingerprint};
pub use key::{DeviceKey, KeyError};
pub use random::bytes as random_bytes;
pub use store::StoreError;
pub use subject::{CONTROLLER_SERVER_NAME, InvalidLabel, Peer, PeerError, Subject};
pub use tls::{ExpectedController, LINK_ALPN, MANY_STREAMS_ALPN, PinMismatch};
pub use token::{ApiToken, JoinToken, TokenError, TokenHash, TokenSecret};
