//! The patch that makes a live object what its manifest says, and leaves alone what others set.
//!
//! Pure. In flow the object as it was last applied, as it is in the manifest now and as it is on
//! the server; out flows an RFC 7386 merge patch. What the manifest says is set; what was in the
//! last applied manifest and is not in this one is removed; everything else (defaults, status,
//! fields of other writers) does not appear in the patch. Lists are atomic: merge patch knows no
//! other way, and the kinds here have no lists that two writers share.

use serde_json::{Map, Value};

/// The merge patch from `live` to the manifest. An empty object means that nothing differs.
pub fn merge_patch(last_applied: Option<&Value>, manifest: &Value, live: &Value) -> Value {
    let empty = Map::new();
    let last_applied = last_applied.and_then(Value::as_object).unwrap_or(&empty);
    match (manifest.as_object(), live.as_object()) {
        (Some(manifest), Some(live)) => Value::Object(patch_object(last_applied, manifest, live)),
        _ => manifest.clone(),
    }
}

pub fn is_empty(patch: &Value) -> bool {
    patch.as_object().is_some_and(Map::is_empty)
}

fn patch_object(
    last_applied: &Map<String, Value>,
    manifest: &Map<String, Value>,
    live: &Map<String, Value>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, wanted) in manifest {
        match (wanted, live.get(key)) {
            // An explicit null asks that the field be absent.
            (Value::Null, None) => {}
            (Value::Null, Some(_)) => {
                patch.insert(key.clone(), Value::Null);
            }
            (Value::Object(wanted), Some(Value::Object(present))) => {
                let empty = Map::new();
                let before = last_applied
                    .get(key)
                    .and_then(Value::as_object)
                    .unwrap_or(&empty);
                let inner = patch_object(before, wanted, present);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (wanted, Some(present)) if equal(wanted, present) => {}
            (wanted, _) => {
                patch.insert(key.clone(), without_nulls(wanted));
            }
        }
    }
    for key in last_applied.keys() {
        if !manifest.contains_key(key) && live.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

/// `1` and `1.0` are one number to whoever writes a manifest.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Within a new subtree a null would mean "remove", which has nothing to remove.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Applies an RFC 7386 merge patch: what a client-side dry run shows.
pub fn apply_merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            apply_merge_patch(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn patches() {
        // (what it shows, last applied, manifest, live, patch)
        let table = [
            (
                "an equal object needs nothing",
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 2}, "status": {"ready": 2}}),
                json!({}),
            ),
            (
                "fields set by the server or by others stay",
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 3}}),
                json!({"spec": {"replicas": 2, "timeout": "30s"}, "metadata": {"uid": "x"}}),
                json!({"spec": {"replicas": 3}}),
            ),
            (
                "a key that left the manifest is removed",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"a": "1", "b": "2", "c": "others"}}}),
                json!({"metadata": {"labels": {"b": null}}}),
            ),
            (
                "a whole subtree that left the manifest is removed",
                json!({"spec": {"http": {"host": "x"}}}),
                json!({"spec": {}}),
                json!({"spec": {"http": {"host": "x", "path": "/"}}}),
                json!({"spec": {"http": null}}),
            ),
            (
                "what is already gone is not removed again",
                json!({"spec": {"http": {"host": "x"}}}),
                json!({"spec": {}}),
                json!({"spec": {}}),
                json!({}),
            ),
            (
                "drift is put back",
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 9}}),
                json!({"spec": {"replicas": 2}}),
            ),
            (
                "lists are atomic",
                json!({"spec": {"env": [{"name": "A"}, {"name": "B"}]}}),
                json!({"spec": {"env": [{"name": "A"}]}}),
                json!({"spec": {"env": [{"name": "A"}, {"name": "B"}]}}),
                json!({"spec": {"env": [{"name": "A"}]}}),
            ),
            (
                "an explicit null removes",
                json!({}),
                json!({"spec": {"timeout": null, "absent": null}}),
                json!({"spec": {"timeout": "30s"}}),
                json!({"spec": {"timeout": null}}),
            ),
            (
                "a scalar that becomes an object is replaced",
                json!({"spec": {"a": 1}}),
                json!({"spec": {"a": {"b": 1, "c": null}}}),
                json!({"spec": {"a": 1}}),
                json!({"spec": {"a": {"b": 1}}}),
            ),
            (
                "numbers compare by value",
                json!({}),
                json!({"n": 1.0, "l": [1.0]}),
                json!({"n": 1, "l": [1]}),
                json!({}),
            ),
        ];
        for (name, last_applied, manifest, live, expected) in table {
            assert_eq!(
                merge_patch(Some(&last_applied), &manifest, &live),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn an_object_that_was_never_applied_keeps_what_it_has() {
        let live = json!({"spec": {"replicas": 1, "timeout": "1s"}});
        assert_eq!(
            merge_patch(None, &json!({"spec": {"replicas": 2}}), &live),
            json!({"spec": {"replicas": 2}})
        );
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d]", tree(), 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
    }

    /// Every field of the manifest has its value in the live object.
    fn holds(manifest: &Value, live: &Value) -> bool {
        match (manifest, live) {
            (Value::Object(manifest), Value::Object(live)) => manifest
                .iter()
                .all(|(key, wanted)| live.get(key).is_some_and(|live| holds(wanted, live))),
            (manifest, live) => equal(manifest, live),
        }
    }

    proptest! {
        #[test]
        fn after_the_patch_the_manifest_holds_and_a_second_patch_is_empty(
            last_applied in object(), manifest in object(), live in object()
        ) {
            let mut patched = live.clone();
            let patch = merge_patch(Some(&last_applied), &manifest, &live);
            apply_merge_patch(&mut patched, &patch);
            prop_assert!(holds(&manifest, &patched), "{patched}");
            let again = merge_patch(Some(&manifest), &manifest, &patched);
            prop_assert!(is_empty(&again), "{again}");
        }

        #[test]
        fn keys_of_others_survive(manifest in object(), live in object()) {
            let mut patched = live.clone();
            apply_merge_patch(&mut patched, &merge_patch(None, &manifest, &live));
            for key in live.as_object().into_iter().flat_map(Map::keys) {
                prop_assert!(patched.get(key).is_some());
            }
        }
    }
}
