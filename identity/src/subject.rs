//! What a certificate says about its holder: a controller or a node, and of which cluster.
//! Written as one SPIFFE URI by the CA, read back here from the peer's verified certificate.
//! Only a certificate that TLS has verified may be read as a `Peer`: nothing here checks signatures.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::KeyFingerprint;

/// The name that every controller's certificate carries and every link asks for, whatever address
/// was dialled: controllers move, and an address proves nothing. Under `.internal`, which the
/// public DNS never delegates.
pub const CONTROLLER_SERVER_NAME: &str = "controller.hive.internal";

/// The part a process plays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Controller {
        raft_id: u64,
    },
    /// `name` is a DNS label.
    Node {
        name: String,
    },
}

/// Who is at the other end of a link, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub subject: Subject,
    pub key: KeyFingerprint,
    pub cluster: String,
    pub not_after: SystemTime,
}

/// A name that can't stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a DNS label: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
)]
pub struct InvalidLabel(pub String);

/// A certificate that the cluster's CA would not have issued.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("the certificate cannot be parsed")]
    Malformed(#[source] x509_parser::error::X509Error),
    #[error("the certificate is followed by {0} stray bytes")]
    TrailingBytes(usize),
    #[error("the certificate has {0} URI names, a member's has exactly one")]
    UriNames(usize),
    #[error("{0:?} names no member: expected spiffe://<cluster>/controller/<id> or /node/<name>")]
    Uri(String),
    #[error("the certificate ends before 1970")]
    Validity,
}

impl Subject {
    /// `spiffe://<cluster>/controller/<id>` or `spiffe://<cluster>/node/<name>`.
    pub(crate) fn uri(&self, cluster: &str) -> Result<String, InvalidLabel> {
        check_label(cluster)?;
        Ok(match self {
            Self::Controller { raft_id } => format!("spiffe://{cluster}/controller/{raft_id}"),
            Self::Node { name } => {
                check_label(name)?;
                format!("spiffe://{cluster}/node/{name}")
            }
        })
    }

    /// The cluster and the subject of a URI; `None` for anything that [`Subject::uri`] can't have made.
    fn from_uri(uri: &str) -> Option<(String, Self)> {
        let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let subject = match path.split_once('/')? {
            ("controller", id) => Self::Controller {
                raft_id: id.parse().ok()?,
            },
            ("node", name) => Self::Node {
                name: name.to_owned(),
            },
            _ => return None,
        };
        // One spelling for each subject: "+7" and "007" parse as numbers but name nobody.
        (subject.uri(cluster).ok()? == uri).then(|| (cluster.to_owned(), subject))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller { raft_id } => write!(f, "controller {raft_id}"),
            Self::Node { name } => write!(f, "node {name}"),
        }
    }
}

impl Peer {
    /// Reads a leaf certificate that TLS has already verified against the cluster's CA.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let x509 = parse(certificate)?;
        let uris = uri_names(&x509)?;
        let [uri] = uris[..] else {
            return Err(PeerError::UriNames(uris.len()));
        };
        let (cluster, subject) =
            Subject::from_uri(uri).ok_or_else(|| PeerError::Uri(uri.to_owned()))?;
        Ok(Self {
            subject,
            key: KeyFingerprint::of_public_key(x509.public_key().raw),
            cluster,
            not_after: system_time(x509.validity().not_after.timestamp())?,
        })
    }
}

/// Cluster and node names: what fits a URI, a DNS name and a directory without escaping.
pub(crate) fn check_label(name: &str) -> Result<(), InvalidLabel> {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = bytes.len() <= 63
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-');
    valid
        .then_some(())
        .ok_or_else(|| InvalidLabel(name.to_owned()))
}

pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, PeerError> {
    let (rest, x509) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| PeerError::Malformed(error.into()))?;
    if !rest.is_empty() {
        return Err(PeerError::TrailingBytes(rest.len()));
    }
    Ok(x509)
}

pub(crate) fn uri_names<'a>(x509: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, PeerError> {
    let names = x509
        .subject_alternative_name()
        .map_err(PeerError::Malformed)?;
    Ok(names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect())
}

pub(crate) fn system_time(unix_seconds: i64) -> Result<SystemTime, PeerError> {
    let seconds = u64::try_from(unix_seconds).map_err(|_| PeerError::Validity)?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn uris_read_back(cluster in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", raft_id: u64) {
            for subject in [Subject::Controller { raft_id }, Subject::Node { name: name.clone() }] {
                let uri = subject.uri(&cluster).unwrap();
                prop_assert_eq!(Subject::from_uri(&uri), Some((cluster.clone(), subject)));
            }
        }

        #[test]
        fn only_canonical_uris_are_read(uri in "(spiffe://)?[a-z-]{0,4}/(controller|node|x)/[+0-9a-zA-Z/.]{0,4}") {
            if let Some((cluster, subject)) = Subject::from_uri(&uri) {
                prop_assert_eq!(subject.uri(&cluster).unwrap(), uri);
            }
        }
    }

    #[test]
    fn uris_of_nobody() {
        for uri in [
            "spiffe://home",
            "spiffe:///node/a",
            "spiffe://home/node/",
            "spiffe://home/node/a/b",
            "spiffe://home/node/A",
            "spiffe://home/controller/007",
            "spiffe://home/controller/+7",
            "spiffe://home/controller/18446744073709551616",
            "spiffe://home/operator/a",
            "https://home/node/a",
        ] {
            assert_eq!(Subject::from_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn labels() {
        for good in ["a", "0", "pi-4", &"a".repeat(63)] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "ü",
            "a b",
            &"a".repeat(64),
        ] {
            assert_eq!(check_label(bad), Err(InvalidLabel(bad.to_owned())));
        }
    }
}
