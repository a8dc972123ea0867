//! Which artifacts the objects of a state name. Pure.
//!
//! Read from the objects as they are, not as this version's types: what a newer version wrote must
//! not lose its artifacts because this one can't parse it.

use std::collections::BTreeSet;

use hive_manifests::Resource;
use serde_json::Value;

use super::Digest;
use crate::state::{Object, State};

/// All that functions, what they were, and assignments name, in lower hex.
pub fn used(state: &State) -> BTreeSet<String> {
    objects(state)
        .flat_map(named)
        .map(|digest| digest.hex())
        .collect()
}

pub fn is_used(state: &State, digest: &Digest) -> bool {
    objects(state).any(|object| named(object).contains(digest))
}

fn objects(state: &State) -> impl Iterator<Item = &Object> {
    state
        .list(Resource::Function, None)
        .chain(state.list(Resource::ControllerRevision, None))
        .chain(state.list(Resource::Assignment, None))
        .map(|object| &**object)
}

fn named(object: &Object) -> Vec<Digest> {
    match object.key().resource {
        // There are many, and nothing else reads them often: they are not kept as they are read.
        Resource::ControllerRevision => digests(&object.to_value()["data"]),
        _ => digests(object.body()),
    }
}

fn digests(body: &Value) -> Vec<Digest> {
    let lists = [&body["status"]["artifacts"], &body["artifacts"]];
    [
        // A function's component, now or once; an assignment's, and what the assignment runs.
        &body["spec"]["artifact"],
        &body["spec"]["function"]["artifact"],
        // What was pulled for a function.
        &body["status"]["artifact"],
    ]
    .into_iter()
    .chain(lists.into_iter().filter_map(Value::as_array).flatten())
    .filter_map(|artifact| artifact["sha256"].as_str()?.parse().ok())
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use crate::state::{Command, Key};
    use serde_json::json;

    #[test]
    fn whatever_names_an_artifact_uses_it_be_it_understood_or_not() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let mut state = State::default();
        let mut put = |resource, extra| {
            let key = Key::new(resource, "default", "x");
            let body = objects::fresh(&key, json!({}), extra);
            state
                .apply(Command::Create {
                    key,
                    body: body.into(),
                })
                .unwrap();
        };
        put(
            Resource::Function,
            json!({
                "spec": { "artifact": { "sha256": digest("a").to_string() }, "replicas": "of a later version" },
                "status": { "artifacts": [{ "sha256": digest("b").hex() }], "artifact": { "sha256": digest("h").hex() } },
            }),
        );
        put(
            Resource::Assignment,
            json!({ "spec": {
                "artifact": { "sha256": digest("c").hex() },
                "function": { "artifact": { "sha256": digest("d").hex() } },
            }}),
        );
        put(
            Resource::ControllerRevision,
            json!({ "revision": 1, "data": {
                "spec": { "artifact": { "sha256": digest("f").to_string() } },
                "artifacts": [{ "sha256": digest("g").hex() }],
            }}),
        );
        for name in ["a", "b", "c", "d", "f", "g", "h"] {
            assert!(is_used(&state, &digest(name)), "{name}");
        }
        assert!(!is_used(&state, &digest("e")));
        assert_eq!(used(&state).len(), 7);
    }
}
