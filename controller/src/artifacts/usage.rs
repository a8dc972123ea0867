//! Which artifacts the objects of a state name. Pure.
//!
//! Read from the objects' text, not as this version's types: what a newer version wrote must not lose its
//! artifacts because this one can't parse it. Nor are they parsed at all: there may be tens of thousands.

use std::collections::BTreeSet;

use hive_manifests::Resource;
use memchr::{memchr, memmem};

use super::Digest;
use crate::state::{Object, State};

/// Before each name, in the text of objects.
const FIELD: &str = "\"sha256\":\"";

/// All that functions, what they were, and assignments name, in lower hex.
pub fn used(state: &State) -> BTreeSet<String> {
    objects(state)
        .flat_map(named)
        .map(|digest| digest.hex())
        .collect()
}

pub fn is_used(state: &State, digest: &Digest) -> bool {
    objects(state).any(|object| named(object).any(|named| named == *digest))
}

fn objects(state: &State) -> impl Iterator<Item = &Object> {
    state
        .list(Resource::Function, None)
        .chain(state.list(Resource::ControllerRevision, None))
        .chain(state.list(Resource::Assignment, None))
        .map(|object| &**object)
}

/// Wherever a field of that name is: what is no artifact's after all only keeps one for longer.
fn named(object: &Object) -> impl Iterator<Item = Digest> {
    let text = object.encoded();
    memmem::find_iter(text, FIELD).filter_map(move |at| {
        let value = &text[at + FIELD.len()..];
        let value = &value[..memchr(b'"', value)?];
        std::str::from_utf8(value).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::declare;
    use crate::state::Key;
    use serde_json::json;

    #[test]
    fn whatever_names_an_artifact_uses_it_be_it_understood_or_not() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let mut state = State::default();
        let mut put = |resource, extra| {
            let key = Key::new(resource, "default", "x");
            declare(&mut state, key, extra);
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
