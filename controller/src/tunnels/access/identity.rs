//! Who a client turned out to be: what is believed of it, whom that lets in, and what the service is told. Pure.

use hive_manifests::tunnel::access::Allow;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name by which somebody is known.
const USER: HeaderName = HeaderName::from_static("x-hive-user");

/// What programs expect that were made to stand behind a proxy that signs people in.
const AUTH_USER: HeaderName = HeaderName::from_static("x-auth-request-user");
const AUTH_EMAIL: HeaderName = HeaderName::from_static("x-auth-request-email");
const AUTH_NAME: HeaderName = HeaderName::from_static("x-auth-request-preferred-username");
const AUTH_GROUPS: HeaderName = HeaderName::from_static("x-auth-request-groups");

/// Headers of requests that begin so say who somebody is.
const PREFIXES: [&str; 2] = ["x-hive-user", "x-auth-request-"];

/// Bytes of all groups of one person: a session has to fit a cookie.
const MAX_GROUPS: usize = 1024;

/// Bytes of a name; what is longer is none.
const MAX_NAME: usize = 256;

/// The claim that lists somebody's groups, where nothing else is said.
const GROUPS: &str = "groups";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// What the issuer, or the list of passwords, calls somebody.
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
}

impl Identity {
    /// Of a list of passwords.
    pub fn named(name: &str) -> Self {
        Self {
            subject: name.to_owned(),
            ..Self::default()
        }
    }

    /// What verified claims say. Of groups those are kept first that `allow` names; `None` of who has no subject.
    pub fn of(
        claims: &Map<String, Value>,
        groups_claim: Option<&str>,
        allow: &Allow,
    ) -> Option<Self> {
        let text = |claim: &str| {
            let text = claims.get(claim)?.as_str()?;
            let is_name = !text.is_empty() && text.len() <= MAX_NAME;
            (is_name && !text.chars().any(char::is_control)).then(|| text.to_owned())
        };
        // Whoever may type in an address is not who reads mail there.
        let verified = claims.get("email_verified");
        let is_unverified = verified.is_some_and(|it| *it != Value::Bool(true));
        let groups = match claims.get(groups_claim.unwrap_or(GROUPS)) {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            subject: text("sub")?,
            email: text("email").filter(|_| !is_unverified),
            name: text("preferred_username").or_else(|| text("name")),
            groups: kept(groups, allow),
        })
    }

    /// As people know themselves.
    pub fn user(&self) -> &str {
        self.email.as_deref().unwrap_or(&self.subject)
    }

    /// Whether one of the lists names them; empty ones let everybody in.
    pub fn is_among(&self, allow: &Allow) -> bool {
        if allow.is_empty() {
            return true;
        }
        let email = self.email.as_deref().unwrap_or_default();
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let is_named = |list: &[String], text: &str| {
            !text.is_empty() && list.iter().any(|it| it.eq_ignore_ascii_case(text))
        };
        is_named(&allow.emails, email)
            || is_named(&allow.domains, domain)
            || self.groups.iter().any(|group| allow.groups.contains(group))
    }

    /// Puts it into headers for the service, out of which [`forget`] took what the client said.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let mut put = |name: HeaderName, text: &str| {
            // Text without control characters always is a value.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(name, value);
            }
        };
        put(USER, self.user());
        put(AUTH_USER, &self.subject);
        if let Some(email) = &self.email {
            put(AUTH_EMAIL, email);
        }
        if let Some(name) = &self.name {
            put(AUTH_NAME, name);
        }
        if !self.groups.is_empty() {
            put(AUTH_GROUPS, &self.groups.join(","));
        }
    }
}

/// Those that have room, the important ones first. One with a comma would be two to the service.
fn kept(groups: Vec<&str>, allow: &Allow) -> Vec<String> {
    let is_one = |group: &&str| {
        let is_name = !group.is_empty() && group.len() <= MAX_NAME;
        is_name && !group.chars().any(|c| c == ',' || c.is_control())
    };
    let mut groups: Vec<&str> = groups.into_iter().filter(is_one).collect();
    groups.sort_by_key(|group| !allow.groups.iter().any(|it| it == group));
    let mut room = MAX_GROUPS;
    let fit = groups.into_iter().take_while(|group| {
        let fits = group.len() < room;
        room = room.saturating_sub(group.len() + 1);
        fits
    });
    fit.map(str::to_owned).collect()
}

/// Takes out of a request what says who the client is: only the ingress does. Programs that make variables of headers
/// do not tell `_` from `-`.
pub fn forget(headers: &mut HeaderMap) {
    let says_who = |name: &&HeaderName| {
        let name = name.as_str().replace('_', "-");
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let said: Vec<HeaderName> = headers.keys().filter(says_who).cloned().collect();
    for name in said {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn of(claims: Value, allow: &Allow) -> Option<Identity> {
        Identity::of(claims.as_object().unwrap(), None, allow)
    }

    fn allow(lists: Value) -> Allow {
        serde_json::from_value(lists).unwrap()
    }

    #[test]
    fn whom_a_list_names_is_let_in() {
        let ada = json!({ "sub": "1", "email": "Ada@Example.org", "groups": ["makers"] });
        let unverified = json!({ "sub": "1", "email": "ada@example.org", "email_verified": false });
        let odd = json!({ "sub": "1", "email": "ada@example.org", "email_verified": "true" });
        let robot = json!({ "sub": "robot" });
        for (claims, lists, expected) in [
            (&robot, json!({}), true),
            (&ada, json!({ "emails": ["ada@example.org"] }), true),
            (&ada, json!({ "emails": ["bob@example.org"] }), false),
            (&ada, json!({ "domains": ["example.org"] }), true),
            // A domain is not the end of another one.
            (&ada, json!({ "domains": ["ample.org"] }), false),
            (&ada, json!({ "domains": ["org"] }), false),
            (&ada, json!({ "groups": ["makers"] }), true),
            (&ada, json!({ "groups": ["Makers"] }), false),
            (
                &ada,
                json!({ "emails": ["bob@example.org"], "groups": ["makers"] }),
                true,
            ),
            (&unverified, json!({ "emails": ["ada@example.org"] }), false),
            (&odd, json!({ "domains": ["example.org"] }), false),
            (&robot, json!({ "domains": [""], "emails": [""] }), false),
        ] {
            let allow = allow(lists.clone());
            let found = of(claims.clone(), &allow).unwrap().is_among(&allow);
            assert_eq!(found, expected, "{claims} {lists}");
        }
        for nobody in [
            json!({}),
            json!({ "sub": "" }),
            json!({ "sub": 1 }),
            json!({ "sub": "a\nb" }),
            json!({ "sub": "a".repeat(257) }),
        ] {
            assert_eq!(of(nobody.clone(), &Allow::default()), None, "{nobody}");
        }
    }

    #[test]
    fn a_crowd_of_groups_is_cut_behind_those_that_matter() {
        let many: Vec<String> = (0..500).map(|n| format!("group-{n}")).collect();
        let claims = json!({ "sub": "1", "groups": many });
        let allow = allow(json!({ "groups": ["group-499"] }));
        let identity = of(claims, &allow).unwrap();
        assert_eq!(identity.groups[0], "group-499");
        assert!(identity.groups.join(",").len() <= MAX_GROUPS);
        assert!(identity.is_among(&allow));
        let odd = json!({ "sub": "1", "groups": ["a,admin", "b\n", "", 7, "c"] });
        assert_eq!(of(odd, &Allow::default()).unwrap().groups, ["c"]);
    }

    #[test]
    fn the_service_hears_of_nobody_but_whom_the_ingress_knows() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-hive-user", "root"),
            ("x_hive_user", "root"),
            ("x-auth-request-user", "root"),
            ("x_auth-request_email", "root@example.org"),
            ("x-auth-request-groups", "admin"),
            ("x-auth-request-access-token", "t"),
            ("x-authority", "kept"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        forget(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
        let claims = json!({ "sub": "1", "email": "ada@example.org", "preferred_username": "ada",
                             "groups": ["makers", "readers"] });
        of(claims, &Allow::default()).unwrap().tell(&mut headers);
        for (name, expected) in [
            ("x-hive-user", "ada@example.org"),
            ("x-auth-request-user", "1"),
            ("x-auth-request-email", "ada@example.org"),
            ("x-auth-request-preferred-username", "ada"),
            ("x-auth-request-groups", "makers,readers"),
            ("x-authority", "kept"),
        ] {
            assert_eq!(headers[name], expected);
        }
        Identity::named("zoë").tell(&mut headers);
        assert_eq!(headers["x-hive-user"].as_bytes(), "zoë".as_bytes());
    }
}
