//! Who owns what, and patches, as strangers may write them.

#![allow(clippy::unwrap_used)]

use hive_fuzz::Target;
use hive_manifests::{Resource, openapi_schema};
use serde_json::{Value, json};

use super::*;

#[global_allocator]
static COUNTING: hive_fuzz::Counting = hive_fuzz::Counting;

fn json(input: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(input).map_err(|error| error.to_string())
}

const FIELDS: [&str; 12] = [
    "\"f:",
    "\"k:{\\\"name\\\":\\\"a\\\"}\":",
    "\"v:\\\"a\\\"\":",
    "\"i:0\":",
    "\".\":{}",
    "{}",
    "f:metadata",
    "f:spec",
    "k:{",
    "v:1",
    "v:true",
    "i:",
];

#[test]
fn field_sets_are_read_or_refused() {
    Target::new("fields_v1", |input: &[u8]| {
        let fields = json(input)?;
        let fields = fields.as_object().ok_or("no object")?;
        let set = FieldSet::from_json(fields).map_err(|error| error.to_string())?;
        let written = set.to_json();
        let again = FieldSet::from_json(written.as_object().unwrap()).unwrap();
        assert_eq!(again, set);
        assert_eq!(set.union(&set), set);
        assert_eq!(set.intersection(&set), set);
        assert!(set.difference(&set).is_empty());
        for path in set.paths() {
            assert!(set.contains(&path));
        }
        Ok::<_, String>(())
    })
    .seeds([
        r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:env":{"k:{\"name\":\"A\"}":{".":{},"f:name":{}}},"f:set":{"v:\"x\"":{}},"f:old":{"i:3":{}}}}"#,
        r#"{"f:a":{}}"#,
    ])
    .words(FIELDS)
    .at_most(16 * 1024)
    .hold();
}

#[test]
fn managed_fields_are_read_or_refused() {
    let schema = openapi_schema(Resource::Function);
    let live = json!({
        "metadata": { "name": "hello", "labels": { "a": "b" } },
        "spec": { "artifact": { "digest": "sha256:x" }, "env": [{ "name": "A", "value": "1" }] },
    });
    let declared = json!({
        "metadata": { "name": "hello", "labels": { "c": "d" } },
        "spec": { "env": [{ "name": "B", "value": "2" }] },
    });
    let by = Writer {
        manager: "fuzz",
        operation: Operation::Apply,
        api_version: "hive.dev/v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    };
    Target::new("managed_fields", |input: &[u8]| {
        let value = json(input)?;
        let managers = Managers::from_json(Some(&value)).map_err(|error| error.to_string())?;
        let again = Managers::from_json(Some(&managers.to_json())).unwrap();
        assert!(again.own_the_same(&managers));
        // Whatever others are said to own, a forced apply does what was declared.
        let scope = Scope::Main;
        let applied = apply(schema, &live, &declared, &managers, &by, scope, true).unwrap();
        assert_eq!(applied.object["metadata"]["labels"]["c"], "d");
        update(schema, &live, &applied.object, &managers, &by, scope);
        Ok::<_, String>(())
    })
    .seeds([
        r#"[{"manager":"kubectl","operation":"Apply","apiVersion":"hive.dev/v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:env":{"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}}}}},{"manager":"x","operation":"Update","apiVersion":"hive.dev/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:artifact":{}}},"subresource":"status"}]"#,
    ])
    .words(FIELDS)
    .words(["\"fieldsV1\":", "\"operation\":\"Apply\"", "\"fuzz\"", "\"subresource\":"])
    .at_most(16 * 1024)
    .hold();
}

#[test]
fn strategic_patches_are_applied_or_refused() {
    let schema = openapi_schema(Resource::Function);
    let live = json!({
        "metadata": { "name": "hello", "labels": { "a": "b" }, "finalizers": ["x"] },
        "spec": { "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] },
    });
    Target::new("strategic", |input: &[u8]| {
        let patch = json(input)?;
        let patched = strategic::apply(schema, &live, &patch).map_err(|error| error.to_string())?;
        // No directive is ever stored.
        if patch.is_object() {
            let text = patched.to_string();
            assert!(!text.contains("\"$patch\":\"delete\""), "{text}");
        }
        Ok::<_, String>(())
    })
    .seeds([
        r#"{"metadata":{"labels":{"a":null,"c":"d"},"$deleteFromPrimitiveList/finalizers":["x"]},"spec":{"env":[{"name":"A","$patch":"delete"},{"name":"C","value":"3"}],"$setElementOrder/env":[{"name":"C"},{"name":"B"}]}}"#,
        r#"{"spec":{"$patch":"replace","env":[]}}"#,
        r#"{"metadata":{"$retainKeys":["labels"],"labels":{}}}"#,
    ])
    .words([
        "\"$patch\":", "\"delete\"", "\"replace\"", "\"merge\"", "\"$retainKeys\":",
        "\"$setElementOrder/env\":", "\"$deleteFromPrimitiveList/finalizers\":", "\"env\":",
        "\"name\":", "null", "[]", "{}",
    ])
    .at_most(16 * 1024)
    .hold();
}

/// What an apply declares, whatever its shape: refused, or owned as it was declared.
#[test]
fn declarations_are_merged_or_refused() {
    let schema = openapi_schema(Resource::Function);
    let by = Writer {
        manager: "fuzz",
        operation: Operation::Apply,
        api_version: "hive.dev/v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    };
    let none = Managers::default();
    Target::new("declarations", |input: &[u8]| {
        let declared = json(input)?;
        let empty = json!({});
        let once = apply(schema, &empty, &declared, &none, &by, Scope::Main, false)
            .map_err(|error| error.to_string())?;
        let (live, managers) = (&once.object, &once.managers);
        let twice = apply(schema, live, &declared, managers, &by, Scope::Main, false).unwrap();
        assert_eq!(twice.object, once.object, "applied twice, it changes nothing");
        assert!(twice.managers.own_the_same(managers));
        Ok::<_, String>(())
    })
    .seeds([
        r#"{"apiVersion":"hive.dev/v1","kind":"Function","metadata":{"name":"a","labels":{"x":"y"},"finalizers":["f"]},"spec":{"env":[{"name":"A","value":"1"}],"routes":[{"host":"a","path":"/"}],"replicas":2}}"#,
    ])
    .words(["\"env\":", "\"name\":", "null", "[]", "{}", "\"spec\":", "\"finalizers\":", "\"metadata\":"])
    .at_most(16 * 1024)
    .hold();
}
