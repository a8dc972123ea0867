//! Lists, whole or page by page.
//!
//! A page is cut from the state of the moment; a continue token says after which object the next
//! begins and at which revision the first page was made. All pages name that revision, so that a
//! client that watches from it misses nothing, whatever changed between pages.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::super::errors::ApiError;
use super::super::path::ObjectPath;
use super::super::query::VersionMatch;
use super::super::respond::{self, ListMetadata};
use super::super::selectors::Selectors;
use super::super::{Api, Call};
use crate::state::{Object, State};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Continue {
    /// Of the first page; absent when the client accepted to go on without.
    revision: Option<u64>,
    namespace: String,
    name: String,
}

pub(super) async fn list(
    context: &Api,
    path: &ObjectPath,
    call: &Call,
) -> Result<Response, ApiError> {
    let shape = call.shape()?;
    let query = &call.query;
    let selectors = Selectors {
        labels: query.labels()?,
        fields: query.fields(path.resource)?,
    };
    let after = query
        .continue_token
        .as_deref()
        .map(Continue::decode)
        .transpose()?;
    let state = match &after {
        Some(_) if query.resource_version.is_some_and(|revision| revision > 0) => {
            return Err(ApiError::BadRequest(
                "resourceVersion and continue exclude each other".into(),
            ));
        }
        // Where it goes on, the newest is wanted only if the first page's revision is given up.
        Some(Continue { revision, .. }) => context.state_at_least(*revision).await?,
        None => context.state_at_least(query.resource_version).await?,
    };
    if let Some(after) = &after {
        after.check(&state)?;
    }
    if query.resource_version_match == Some(VersionMatch::Exact)
        && query.resource_version != Some(state.revision())
    {
        return Err(ApiError::Expired {
            message:
                "The resourceVersion for the provided list is too old: only the newest is kept"
                    .into(),
            restart: None,
        });
    }
    let revision = after
        .as_ref()
        .and_then(|after| after.revision)
        .unwrap_or(state.revision());
    let (page, rest) = page(&state, path, &selectors, after.as_ref(), query.limit);
    let metadata = ListMetadata {
        revision,
        // As Kubernetes has it: counted only where every object of the range is in the list.
        remaining: (rest > 0 && selectors.is_empty()).then_some(rest),
        continue_token: (rest > 0)
            .then(|| page.last())
            .flatten()
            .map(|last| Continue::after(last, Some(revision)).encode()),
    };
    Ok(respond::list(shape, path.resource, page, &metadata))
}

/// At most `limit` objects, and how many that match are left.
fn page(
    state: &State,
    path: &ObjectPath,
    selectors: &Selectors,
    after: Option<&Continue>,
    limit: Option<usize>,
) -> (Vec<Arc<Object>>, usize) {
    let mut matching = select(state, path, selectors).filter(|object| {
        after.is_none_or(|after| {
            let key = object.key();
            (&key.namespace, &key.name) > (&after.namespace, &after.name)
        })
    });
    let limit = limit.unwrap_or(usize::MAX);
    let page: Vec<_> = matching.by_ref().take(limit).cloned().collect();
    (page, matching.count())
}

/// The objects that a path and selectors are about, in key order.
pub(super) fn select<'a>(
    state: &'a State,
    path: &'a ObjectPath,
    selectors: &'a Selectors,
) -> impl Iterator<Item = &'a Arc<Object>> {
    state
        .list(path.resource, path.namespace.as_deref())
        .filter(move |object| selectors.matches(object))
}

impl Continue {
    fn after(object: &Object, revision: Option<u64>) -> Self {
        Self {
            revision,
            namespace: object.key().namespace.clone(),
            name: object.key().name.clone(),
        }
    }

    fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).expect("plain data"))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        BASE64
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| {
                ApiError::BadRequest(
                    "continue key is not valid: it is not one that this API gave out".into(),
                )
            })
    }

    /// A list can go on as long as what changed since its first page is known.
    fn check(&self, state: &State) -> Result<(), ApiError> {
        let Some(revision) = self.revision else {
            return Ok(());
        };
        if state.changes_since(revision).is_ok() {
            return Ok(());
        }
        let restart = Self {
            revision: None,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        };
        Err(ApiError::Expired {
            message: "The provided continue parameter is too old to display a consistent list result. \
                      You can start a new list without the continue parameter, or use the continue token in \
                      this response to retrieve the remainder of the results; such a list is inconsistent"
                .into(),
            restart: Some(restart.encode()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_continue_token_reads_back_and_nothing_else_does() {
        let token = Continue {
            revision: Some(7),
            namespace: "a".into(),
            name: "b".into(),
        };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        for text in ["", "x", "e30"] {
            assert!(Continue::decode(text).is_err(), "{text}");
        }
    }
}
