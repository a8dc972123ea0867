//! Certificates of people: whom one speaks for, and whether it still does.
//!
//! A certificate is good while the request that it was issued for is stored and approved, so that it
//! ends with the commit that deletes the request. Its signature was verified before; the rest is read
//! from the state at each use. Names that mean something here are nobody's to ask for.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hive_identity::{ClientCertificate, ClientRequest};
use hive_manifests::Resource;
use hive_manifests::certificates::{self, APPROVED, DENIED};

use super::user::{AUTHENTICATED, UserInfo};
use crate::state::{Key, State};

/// How long a certificate lives when nobody says: a working day and the night after it.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// As long as a service account's token at most: a request stays stored as long as its certificate
/// is good.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Groups and names of Kubernetes' own parts; `system:masters` is one, whom nothing is refused.
const RESERVED: &str = "system:";
/// Names of users of this swarm's tokens. Groups that begin so are roles, which may be given.
const RESERVED_USERS: &str = "hive:";

/// Why a certificate opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the client certificate has expired: ask for a new one with `hivectl create user`")]
    Expired,
    #[error("the client certificate was revoked: its request is gone or denied")]
    Revoked,
}

/// Why nobody may be certified by such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?}: names that begin with {prefix:?} are the swarm's own")]
pub struct Reserved {
    kind: &'static str,
    name: String,
    prefix: &'static str,
}

pub fn request_key(name: &str) -> Key {
    Key::new(Resource::CertificateSigningRequest, "", name)
}

/// Whether a certificate is good in this state.
pub fn check(
    certificate: &ClientCertificate,
    state: &State,
    now: SystemTime,
) -> Result<(), Refused> {
    if now >= certificate.not_after {
        return Err(Refused::Expired);
    }
    let registration = &certificate.registration;
    let request = state
        .get(&request_key(&registration.name))
        .filter(|request| request.uid() == registration.uid && !request.is_being_deleted())
        .ok_or(Refused::Revoked)?;
    let body = request.body();
    match certificates::is(body, APPROVED) && !certificates::is(body, DENIED) {
        true => Ok(()),
        false => Err(Refused::Revoked),
    }
}

/// Whom it speaks for.
pub fn user(certificate: &ClientCertificate) -> UserInfo {
    let mut groups = certificate.groups.clone();
    groups.push(AUTHENTICATED.into());
    UserInfo {
        name: certificate.user.clone(),
        uid: None,
        groups,
        extra: BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={}", certificate.fingerprint)],
        )]),
    }
}

/// Refuses a request for a name or a group that no certificate may carry.
pub fn check_names(request: &ClientRequest) -> Result<(), Reserved> {
    let refuse = |kind, name: &str, prefix| Reserved {
        kind,
        name: name.to_owned(),
        prefix,
    };
    for prefix in [RESERVED, RESERVED_USERS] {
        if request.user().starts_with(prefix) {
            return Err(refuse("user", request.user(), prefix));
        }
    }
    let group = |group: &&String| group.starts_with(RESERVED);
    match request.groups().iter().find(group) {
        Some(group) => Err(refuse("group", group, RESERVED)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_identity::{DeviceKey, Registration};
    use serde_json::{Value, json};

    use super::*;
    use crate::objects;
    use crate::state::Command;

    #[test]
    fn a_certificate_is_good_while_its_request_is() {
        let now = SystemTime::now();
        let mut state = State::default();
        let key = request_key("ada");
        let conditions = |conditions: &[(&str, &str)]| -> Value {
            let conditions: Vec<Value> = conditions
                .iter()
                .map(|(kind, status)| json!({ "type": kind, "status": status }))
                .collect();
            json!({ "status": { "conditions": conditions } })
        };
        let body = objects::fresh(&key, json!({}), conditions(&[("Approved", "True")]));
        let uid = body["metadata"]["uid"].as_str().unwrap().to_owned();
        state
            .apply(Command::Create {
                key: key.clone(),
                body: body.clone().into(),
            })
            .unwrap();
        let certificate = ClientCertificate {
            user: "ada".into(),
            groups: vec!["makers".into()],
            registration: Registration {
                name: "ada".into(),
                uid,
            },
            not_after: now + Duration::from_secs(60),
            fingerprint: "00".into(),
        };
        assert_eq!(check(&certificate, &state, now), Ok(()));
        let later = now + Duration::from_secs(60);
        assert_eq!(check(&certificate, &state, later), Err(Refused::Expired));

        let mut other = certificate.clone();
        other.registration.uid = objects::fresh_uid();
        assert_eq!(check(&other, &state, now), Err(Refused::Revoked));

        for (held, good) in [
            (&[("Approved", "True")][..], true),
            (&[("Approved", "True"), ("Denied", "False")], true),
            (&[("Approved", "True"), ("Denied", "True")], false),
            (&[("Approved", "False")], false),
            (&[], false),
        ] {
            let mut body = body.clone();
            body["status"] = conditions(held)["status"].take();
            let replaced = Command::Replace {
                key: key.clone(),
                body: body.into(),
                expect: None,
            };
            state.apply(replaced).unwrap();
            assert_eq!(check(&certificate, &state, now).is_ok(), good, "{held:?}");
        }
        state
            .apply(Command::Delete {
                key,
                expect: None,
                uid: None,
            })
            .unwrap();
        assert_eq!(check(&certificate, &state, now), Err(Refused::Revoked));
    }

    #[test]
    fn names_of_the_swarm_are_nobodys() {
        for (user, groups, refused) in [
            ("ada", &["makers", "hive:edit"][..], None),
            ("system:admin", &[], Some("user \"system:admin\"")),
            ("hive:token-a", &[], Some("user \"hive:token-a\"")),
            (
                "ada",
                &["makers", "system:masters"],
                Some("group \"system:masters\""),
            ),
        ] {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let pem = ClientRequest::make(&DeviceKey::generate(), user, &groups).unwrap();
            let request = ClientRequest::parse(pem.as_bytes()).unwrap();
            let found = check_names(&request).map_err(|error| error.to_string());
            match refused {
                None => assert_eq!(found, Ok(())),
                Some(part) => assert!(found.unwrap_err().contains(part)),
            }
        }
    }
}
