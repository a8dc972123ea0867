//! The certificate that a tunnel has: a Secret that the tunnel owns.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use jiff::Timestamp;
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;

use super::orders::Order;
use crate::objects::{self, EditError};
use crate::state::{Key, State};
use crate::store::Replica;

/// How the Secrets of certificates are called, behind the name of the tunnel.
pub const SUFFIX: &str = "-acme";

const TYPE: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// Who vouches for it, where browsers do not.
const AUTHORITY: &str = "ca.crt";

/// Who issued it: another authority's is replaced.
const DIRECTORY: &str = "hive.dev/acme-directory";

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub names: BTreeSet<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Of the authority.
    pub directory: String,
}

/// What is found where a tunnel's certificate belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing, or nothing that can be served.
    Nothing,
    /// Somebody else's Secret.
    Foreign,
    Own(Certificate),
}

impl Certificate {
    /// When it is renewed: a third of its life is left, in which a failure can be noticed and mended.
    pub fn renewal(&self) -> Timestamp {
        let life = self.not_after.as_second() - self.not_before.as_second();
        let renewal = self.not_after.as_second() - life.max(0) / 3;
        Timestamp::from_second(renewal).unwrap_or(self.not_before)
    }

    /// Of the first one in a chain in PEM.
    fn read(chain: &[u8], directory: String) -> Option<Self> {
        let first = CertificateDer::pem_slice_iter(chain).next()?.ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&first).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let names = names.value.general_names.iter();
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let validity = parsed.validity();
        Some(Self {
            names: names.collect(),
            not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
            directory,
        })
    }
}

impl Held {
    /// Of the tunnel with that uid.
    pub fn of(state: &State, namespace: &str, secret: &str, uid: &str) -> Self {
        let Some(found) = state.get(&key(namespace, secret)) else {
            return Self::Nothing;
        };
        let found = found.to_value();
        if !is_own(&found, uid) {
            return Self::Foreign;
        }
        let directory = found["metadata"]["annotations"][DIRECTORY].as_str();
        let directory = directory.unwrap_or_default().to_owned();
        let chain = found["data"][CERTIFICATE].as_str();
        let chain = chain.and_then(|text| BASE64.decode(text).ok());
        let read = chain.and_then(|chain| Certificate::read(&chain, directory));
        read.map_or(Self::Nothing, Self::Own)
    }
}

fn key(namespace: &str, secret: &str) -> Key {
    Key::new(Resource::Secret, namespace, secret)
}

fn is_own(secret: &Value, uid: &str) -> bool {
    let owners = secret["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    owners.any(|owner| owner["uid"] == uid)
}

/// Why what an authority sent is not what was ordered, if it is not.
pub fn check(chain: &str, order: &Order) -> Result<(), String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    // Words of the parser may quote what it read.
    let private = PrivateKeyDer::from_pem_slice(order.key.as_bytes())
        .map_err(|_| "the key of the order cannot be read".to_owned())?;
    if certificates.is_empty() {
        return Err("there is none in the answer".to_owned());
    }
    CertifiedKey::from_der(certificates, private, &default_provider())
        .map_err(|error| error.to_string())?;
    let read = Certificate::read(chain.as_bytes(), String::new());
    let read = read.ok_or("it cannot be read")?;
    let missing = order.names.iter().find(|name| !read.names.contains(*name));
    match missing {
        Some(name) => Err(format!("it is not for {name}")),
        None => Ok(()),
    }
}

/// Keeps a certificate in the Secret of a tunnel, with the `roots` of an authority that nobody else trusts. `false`
/// where somebody else has put a Secret there.
pub async fn store(
    replica: &Replica,
    secret: &str,
    uid: &str,
    order: &Order,
    chain: &str,
    roots: &str,
) -> Result<bool, EditError> {
    let key = key(&order.namespace, secret);
    let fill = |body: &mut Value| {
        body["type"] = json!(TYPE);
        body["metadata"]["annotations"][DIRECTORY] = json!(order.directory);
        body["data"] = json!({
            CERTIFICATE: BASE64.encode(chain),
            PRIVATE_KEY: BASE64.encode(&order.key),
        });
        if !roots.is_empty() {
            body["data"][AUTHORITY] = json!(BASE64.encode(roots));
        }
    };
    let mut body = objects::fresh(&key, json!({}), json!({}));
    body["metadata"]["ownerReferences"] = json!([{
        "apiVersion": Resource::Tunnel.api_version(),
        "kind": Resource::Tunnel.kind(),
        "name": order.tunnel,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    fill(&mut body);
    objects::ensure(replica, key.clone(), body).await?;
    let mut own = false;
    objects::edit(replica, &key, |body| {
        own = is_own(body, uid);
        let before = body.clone();
        if own {
            fill(body);
        }
        *body != before
    })
    .await?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::certificates::tests::Authority;

    #[test]
    fn only_what_was_ordered_is_taken() {
        let authority = Authority::create();
        let [both, key] = authority.issue(&["a.example", "b.example"], 2030);
        let [one, own] = authority.issue(&["a.example"], 2030);
        for (chain, key, expected) in [
            (&*both, &*key, true),
            // For another name, and of another key: nobody could serve it.
            (&*one, &*own, false),
            (&*both, &*own, false),
            (&*both, "", false),
            ("", &*key, false),
        ] {
            let order = Order {
                namespace: "default".into(),
                tunnel: "photos".into(),
                names: vec!["a.example".into(), "b.example".into()],
                directory: String::new(),
                began: Timestamp::UNIX_EPOCH,
                key: key.to_owned(),
                url: None,
                answers: Vec::new(),
            };
            let checked = check(chain, &order);
            assert_eq!(checked.is_ok(), expected, "{checked:?}");
        }
    }
}
