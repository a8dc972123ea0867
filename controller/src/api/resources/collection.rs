//! Lists, whole or page by page.
//!
//! A continue token says after which object the next page begins and of which revision the first
//! page was: every page is cut from the objects as they were then. When those are forgotten, the
//! client may go on with the objects of the moment, if it says so.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::super::errors::ApiError;
use super::super::path::ObjectPath;
use super::super::reads::Wanted;
use super::super::respond::{self, ListMetadata};
use super::super::selectors::Selectors;
use super::super::{Api, Call};
use crate::state::{Key, Object, View};

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
    let (objects, metadata) = select(context, path, call).await?;
    Ok(respond::list(shape, path.resource, objects, &metadata))
}

/// The objects that a request is about: all of them, or a page.
pub(super) async fn select(
    context: &Api,
    path: &ObjectPath,
    call: &Call,
) -> Result<(Vec<Arc<Object>>, ListMetadata), ApiError> {
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
    let wanted = Wanted::by(query, after.as_ref().map(|after| after.revision))?;
    let view = context
        .view(wanted)
        .await?
        .ok_or_else(|| forgotten(after.as_ref()))?;
    let page = page(&view, path, &selectors, after.as_ref(), query.limit);
    let revision = view.revision();
    let metadata = ListMetadata {
        revision,
        continue_token: page
            .more
            .then(|| page.objects.last())
            .flatten()
            .map(|last| Continue::after(last, Some(revision)).encode()),
        remaining: page.remaining,
    };
    Ok((page.objects, metadata))
}

struct Page {
    objects: Vec<Arc<Object>>,
    more: bool,
    /// As Kubernetes has it: counted only where every object of the range is in the list.
    remaining: Option<usize>,
}

fn page(
    view: &View,
    path: &ObjectPath,
    selectors: &Selectors,
    after: Option<&Continue>,
    limit: Option<usize>,
) -> Page {
    let after = after.map(|after| Key::new(path.resource, &*after.namespace, &*after.name));
    let mut matching = view
        .list(path.resource, path.namespace.as_deref(), after.as_ref())
        .filter(|object| selectors.matches(object));
    let limit = limit.unwrap_or(usize::MAX);
    let objects: Vec<_> = matching.by_ref().take(limit).cloned().collect();
    let rest = if selectors.is_empty() {
        matching.count()
    } else {
        usize::from(matching.next().is_some())
    };
    Page {
        objects,
        more: rest > 0,
        remaining: (rest > 0 && selectors.is_empty()).then_some(rest),
    }
}

/// The asked revision is no longer known. A list that was going on may do so regardless.
fn forgotten(after: Option<&Continue>) -> ApiError {
    match after {
        None => ApiError::Expired {
            message: "The resourceVersion for the provided list is too old.".into(),
            restart: None,
        },
        Some(after) => ApiError::Expired {
            message: "The provided continue parameter is too old to display a consistent list result. \
                      You can start a new list without the continue parameter, or use the continue token in \
                      this response to retrieve the remainder of the results; such a list is inconsistent"
                .into(),
            restart: Some(
                Continue {
                    revision: None,
                    namespace: after.namespace.clone(),
                    name: after.name.clone(),
                }
                .encode(),
            ),
        },
    }
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

    #[test]
    fn fuzzed_continue_tokens_are_read_or_refused() {
        let token = |revision| Continue {
            revision,
            namespace: "a".into(),
            name: "b".into(),
        };
        hive_fuzz::Target::new("continue", |input: &[u8]| {
            let decode = |text: &str| Continue::decode(text).map_err(|error| error.to_string());
            // As it comes, and as what is inside.
            let text = String::from_utf8_lossy(input);
            let read = decode(&text).or_else(|_| decode(&BASE64.encode(input)))?;
            assert_eq!(decode(&read.encode()), Ok(read));
            Ok::<_, String>(())
        })
        .seeds([token(Some(7)).encode(), token(None).encode()])
        .words(["{\"revision\":1,\"namespace\":\"\",\"name\":\"\"}", "null"])
        .at_most(1024)
        .hold();
    }
}
