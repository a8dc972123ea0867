//! What a function's spec takes from Secrets and ConfigMaps: looked up as it is now.
//!
//! Values go to nodes and nowhere else; what is not there is named by the place that asks for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::function::{EnvVarSource, KeyRef};
use hive_manifests::{FunctionSpec, Resource};

use crate::state::{Key, State};

/// What a spec asks for and is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}.valueFrom: {} {name:?} has no key {key:?}; create it, or mark the reference optional",
    .resource.singular()
)]
pub struct Missing {
    place: String,
    resource: Resource,
    name: String,
    key: String,
}

/// A value, or where it is to be taken from.
type Source<'a> = (&'a Option<String>, &'a Option<EnvVarSource>);

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
    let found = lookup(state, namespace, resource, reference);
    if found.is_none() && !reference.optional {
        return Err(Missing {
            place: place(),
            resource,
            name: reference.name.clone(),
            key: reference.key.clone(),
        });
    }
    Ok(found)
}

fn lookup(
    state: &State,
    namespace: &str,
    resource: Resource,
    reference: &KeyRef,
) -> Option<String> {
    let object = state.get(&Key::new(resource, namespace, &reference.name))?;
    let text = object.body()["data"][&reference.key].as_str()?;
    match resource {
        Resource::Secret => String::from_utf8(BASE64.decode(text).ok()?).ok(),
        _ => Some(text.to_owned()),
    }
}
