//! What a function's spec takes from Secrets and ConfigMaps: looked up as it is now.
//!
//! Values go to nodes and nowhere else; what is not there is named by the place that asks for it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::function::{EnvVarSource, KeyRef};
use hive_manifests::{FunctionSpec, Resource};

use crate::state::{Change, Key, Object, State};

/// What a spec asks for and cannot have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}.valueFrom: {} {name:?} {why}, or mark the reference optional",
    .resource.singular()
)]
pub struct Missing {
    place: String,
    resource: Resource,
    name: String,
    why: Lack,
}

/// With what helps.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Lack {
    #[error("does not exist; create it")]
    Object,
    #[error("has no key {0:?}; add it")]
    Key(String),
    #[error("has something else than text as {0:?}; replace it")]
    Text(String),
}

/// A value, or where it is to be taken from.
type Source<'a> = (&'a Option<String>, &'a Option<EnvVarSource>);

/// Whether something may be missing after a change that was not, or the other way around.
pub fn may_matter(change: &Change) -> bool {
    if !matches!(change.key.resource, Resource::Secret | Resource::ConfigMap) {
        return false;
    }
    let data = |object: &Option<Arc<Object>>| {
        let object = object.as_ref()?.to_value();
        Some(object["data"].clone())
    };
    data(&change.before) != data(&change.after)
}

/// The first thing that a spec asks for and is not there: without it no node gets it.
pub fn missing(state: &State, namespace: &str, spec: &FunctionSpec) -> Option<Missing> {
    let look = |list: &str, index: usize, source: Source<'_>| {
        source.1.as_ref()?;
        let place = || format!("spec.{list}[{index}]");
        value(state, namespace, place, source).err()
    };
    let mut env = spec.env.iter().enumerate();
    let mut config = spec.config.iter().enumerate();
    env.find_map(|(index, it)| look("env", index, (&it.value, &it.value_from)))
        .or_else(|| {
            config.find_map(|(index, it)| look("config", index, (&it.value, &it.value_from)))
        })
}

/// None where an optional reference leads nowhere.
pub fn value(
    state: &State,
    namespace: &str,
    place: impl FnOnce() -> String,
    (value, source): Source<'_>,
) -> Result<Option<String>, Missing> {
    let Some(source) = source else {
        return Ok(Some(value.clone().unwrap_or_default()));
    };
    let (reference, resource) = match (&source.secret_key_ref, &source.config_map_key_ref) {
        (Some(reference), _) => (reference, Resource::Secret),
        (None, Some(reference)) => (reference, Resource::ConfigMap),
        (None, None) => return Ok(None),
    };
    match lookup(state, namespace, resource, reference) {
        Ok(found) => Ok(Some(found)),
        Err(_) if reference.optional => Ok(None),
        Err(why) => Err(Missing {
            place: place(),
            resource,
            name: reference.name.clone(),
            why,
        }),
    }
}

fn lookup(
    state: &State,
    namespace: &str,
    resource: Resource,
    reference: &KeyRef,
) -> Result<String, Lack> {
    let object = state.get(&Key::new(resource, namespace, &reference.name));
    let value = &object.ok_or(Lack::Object)?.body()["data"][&reference.key];
    let key = || reference.key.clone();
    let text = value.as_str().ok_or_else(|| Lack::Key(key()))?;
    let decoded = match resource {
        Resource::Secret => {
            let bytes = BASE64.decode(text).ok();
            bytes.and_then(|bytes| String::from_utf8(bytes).ok())
        }
        _ => Some(text.to_owned()),
    };
    decoded.ok_or_else(|| Lack::Text(key()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_named_with_what_helps() {
        let mut state = State::default();
        let key = Key::new(Resource::Secret, "default", "s");
        let data =
            json!({ "data": { "k": BASE64.encode("v"), "raw": BASE64.encode([0xff, 0xfe]) } });
        declare(&mut state, key, data);
        let told = |name: &str, key: &str, optional: bool| {
            let spec: FunctionSpec = serde_json::from_value(json!({
                "artifact": { "sha256": "00" },
                "env": [{ "name": "A", "valueFrom": {
                    "secretKeyRef": { "name": name, "key": key, "optional": optional },
                } }],
            }))
            .unwrap();
            missing(&state, "default", &spec).map(|missing| missing.to_string())
        };
        let why = |why: &str| {
            Some(format!(
                "spec.env[0].valueFrom: secret {why}, or mark the reference optional"
            ))
        };
        assert_eq!(told("s", "k", false), None);
        assert_eq!(
            told("none", "k", false),
            why("\"none\" does not exist; create it")
        );
        assert_eq!(
            told("s", "none", false),
            why("\"s\" has no key \"none\"; add it")
        );
        assert_eq!(
            told("s", "raw", false),
            why("\"s\" has something else than text as \"raw\"; replace it")
        );
        for (name, key) in [("none", "k"), ("s", "none"), ("s", "raw")] {
            assert_eq!(told(name, key, true), None);
        }
    }
}
