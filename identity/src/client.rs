//! Certificates that clients of the API show: people with kubectl, curl, programs elsewhere.
//!
//! A signing request names a user and groups; a certificate repeats them and names the request that
//! was approved, so that whoever deletes that ends the certificate. They come from a CA of their own,
//! whose key follows from the cluster's: none of them is ever good for a link, and no member's
//! certificate is good for the API. Whether a name may be had is for others to say.

mod authority;
mod der;
mod request;

pub use authority::{
    ClientAuthority, ClientCertificate, ClientCertificateError, IssuedClientCertificate,
    Registration, client_certificate_end, client_certificate_fingerprint,
};
pub use request::{ClientRequest, ClientRequestError};
