//! Asking in another's name: `kubectl --as`, for whom the verb `impersonate` is allowed.
//!
//! Each part of the other's identity is asked for by itself, as Kubernetes does; the request is then
//! judged as the other's, and ends with the credential of whoever sent it.

use http::{HeaderMap, HeaderName};

use super::super::Api;
use super::super::errors::ApiError;
use super::{User, nothing_shown, refuse};
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::access::rbac;
use crate::access::user::{
    ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo, service_account_groups, service_account_of,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user whom the headers name, if they name one and `user` may ask for them.
pub(super) fn apply(context: &Api, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let Some(mut wanted) = named(headers)? else {
        return Ok(user);
    };
    if user.is_anonymous() {
        return Err(nothing_shown());
    }
    for asked in questions(&wanted) {
        let asked = Attributes::Resource(asked);
        let index = context.access.of(&context.replica.state());
        if !rbac::allowed(&index, &user.info, &asked) {
            return Err(refuse(context, &user, &asked));
        }
    }
    complete(&mut wanted);
    tracing::info!(
        user = user.info.name,
        name = wanted.name,
        "asks in another's name"
    );
    Ok(User {
        info: wanted,
        impersonator: Some(user.info),
        credential: user.credential,
    })
}

/// What the headers say, without the groups that follow from the name.
fn named(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let one = |name: &str| headers.get(name).map(|value| text(name, value)).transpose();
    let name = one(USER)?.unwrap_or_default();
    let mut wanted = UserInfo {
        uid: one(UID)?.filter(|uid| !uid.is_empty()),
        name,
        ..UserInfo::default()
    };
    for group in headers.get_all(GROUP) {
        wanted.groups.push(text(GROUP, group)?);
    }
    for (header, value) in headers {
        if let Some(key) = extra_key(header) {
            let value = text(header.as_str(), value)?;
            wanted.extra.entry(key).or_default().push(value);
        }
    }
    if wanted.name.is_empty() {
        if wanted == UserInfo::default() {
            return Ok(None);
        }
        return Err(ApiError::BadRequest(
            "groups, a uid or extras can be impersonated only together with a user: add Impersonate-User"
                .into(),
        ));
    }
    Ok(Some(wanted))
}

fn text(name: &str, value: &http::HeaderValue) -> Result<String, ApiError> {
    value
        .to_str()
        .map(str::to_owned)
        .map_err(|_| ApiError::BadRequest(format!("the header {name} is not text")))
}

/// Keys are lower case and percent-encoded, since headers keep neither case nor slashes.
fn extra_key(header: &HeaderName) -> Option<String> {
    let key = header.as_str().strip_prefix(EXTRA)?;
    let decoded = percent_decode(key);
    (!decoded.is_empty()).then_some(decoded)
}

fn percent_decode(text: &str) -> String {
    // As the value of a form field, in which "+" alone would mean something else.
    let field = format!("k={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(field.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// What must be allowed, one by one.
pub(in crate::api) fn questions(wanted: &UserInfo) -> Vec<ResourceAttributes<'_>> {
    let ask = ResourceAttributes {
        verb: "impersonate",
        ..ResourceAttributes::default()
    };
    let mut questions = vec![match service_account_of(&wanted.name) {
        Some((namespace, name)) => ResourceAttributes {
            resource: "serviceaccounts",
            namespace: Some(namespace),
            name: Some(name),
            ..ask.clone()
        },
        None => ResourceAttributes {
            resource: "users",
            name: Some(&wanted.name),
            ..ask.clone()
        },
    }];
    questions.extend(wanted.groups.iter().map(|group| ResourceAttributes {
        resource: "groups",
        name: Some(group),
        ..ask.clone()
    }));
    questions.extend(wanted.uid.iter().map(|uid| ResourceAttributes {
        group: AUTHENTICATION,
        resource: "uids",
        name: Some(uid),
        ..ask.clone()
    }));
    for (key, values) in &wanted.extra {
        questions.extend(values.iter().map(|value| ResourceAttributes {
            group: AUTHENTICATION,
            resource: "userextras",
            subresource: Some(key),
            name: Some(value),
            ..ask.clone()
        }));
    }
    questions
}

/// Adds the groups that the other would have by name alone.
fn complete(wanted: &mut UserInfo) {
    if wanted.groups.is_empty()
        && let Some((namespace, _)) = service_account_of(&wanted.name)
    {
        wanted.groups = service_account_groups(namespace);
    }
    let kind = match wanted.name.as_str() {
        ANONYMOUS => UNAUTHENTICATED,
        _ => AUTHENTICATED,
    };
    let has_one = wanted.is_in(AUTHENTICATED) || wanted.is_in(UNAUTHENTICATED);
    if !has_one {
        wanted.groups.push(kind.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Lines as a request has them, a name and a value each.
    #[test]
    fn fuzzed_headers_name_somebody_or_nobody() {
        hive_fuzz::Target::new("impersonation", |input: &[u8]| {
            let lines = input.split(|byte| *byte == b'\n');
            let headers: HeaderMap = lines
                .filter_map(|line| {
                    let colon = line.iter().position(|byte| *byte == b':')?;
                    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
                    let value = http::HeaderValue::from_bytes(&line[colon + 1..]).ok()?;
                    Some((name, value))
                })
                .collect();
            let wanted = named(&headers).map_err(|error| error.to_string())?;
            let mut wanted = wanted.ok_or("nobody")?;
            assert!(!wanted.name.is_empty());
            // Whoever is named, somebody must be allowed to ask for.
            assert!(!questions(&wanted).is_empty());
            complete(&mut wanted);
            Ok::<_, String>(())
        })
        .seeds([
            "impersonate-user:me\nimpersonate-group:a\nimpersonate-group:b",
            "impersonate-user:system:serviceaccount:a:b\nimpersonate-uid:u",
            "impersonate-user:me\nimpersonate-extra-a%2fb:c",
        ])
        .words([
            "impersonate-",
            "user",
            "group",
            "uid",
            "extra-",
            ":",
            "%",
            "system:serviceaccount:",
            "\n",
        ])
        .at_most(4 * 1024)
        .hold();
    }
}
