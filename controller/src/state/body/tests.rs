#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn text(value: &Value) -> Text {
    Text::encode(value)
}

#[test]
fn keys_are_sorted_and_the_version_is_put_where_it_belongs() {
    for (value, encoded, at_7) in [
        (
            json!({ "spec": 1, "metadata": { "uid": "u", "resourceVersion": "3", "name": "a" } }),
            r#"{"metadata":{"name":"a","uid":"u"},"spec":1}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"7","uid":"u"},"spec":1}"#,
        ),
        (
            json!({ "metadata": { "name": "a" } }),
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#,
        ),
        (
            json!({ "metadata": { "uid": "u" } }),
            r#"{"metadata":{"uid":"u"}}"#,
            r#"{"metadata":{"resourceVersion":"7","uid":"u"}}"#,
        ),
        (
            json!({ "metadata": { "resourceVersion": "1" } }),
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"resourceVersion":"7"}}"#,
        ),
        (
            json!({ "b": 1, "a": [] }),
            r#"{"a":[],"b":1}"#,
            r#"{"a":[],"b":1}"#,
        ),
        (
            json!({ "metadata": 3 }),
            r#"{"metadata":3}"#,
            r#"{"metadata":3}"#,
        ),
        (json!("x"), r#""x""#, r#""x""#),
    ] {
        let body = text(&value);
        assert_eq!(body.bytes, encoded);
        assert_eq!(body.at(7).bytes, at_7);
        // Once in, another takes its place.
        assert_eq!(body.at(123_456).at(7), body.at(7));
    }
}

#[test]
fn what_everyone_asks_for_is_found_without_parsing() {
    let value = json!({ "metadata": {
        "uid": "u-1",
        "labels": { "app": "hello", "quoted": "say \"hi\"" },
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    } });
    for text in [text(&value), text(&value).at(1), text(&value).at(123_456)] {
        assert_eq!(text.uid(), "u-1");
        assert_eq!(text.labels().get("app").unwrap(), "hello");
        assert_eq!(text.labels().get("quoted").unwrap(), "say \"hi\"");
        assert!(text.is_being_deleted());
    }
    let bare = text(&json!({ "metadata": { "name": "a" } })).at(1);
    assert_eq!((bare.uid(), bare.labels().len()), ("", 0));
    assert!(!bare.is_being_deleted());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(field(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("metadata".to_owned()),
        Just("resourceVersion".to_owned()),
        Just("uid".to_owned()),
        Just("labels".to_owned()),
        Just("name".to_owned()),
        ".{0,4}",
    ]
}

/// What an object reads as at a revision: the value with its resourceVersion set.
fn at(mut value: Value, revision: u64) -> Value {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(VERSION_FIELD.into(), revision.to_string().into());
    }
    value
}

proptest! {
    #[test]
    fn a_text_reads_as_what_was_encoded(value in json_value(), revision: u64, other: u64) {
        let body = text(&value);
        prop_assert_eq!(body.at(revision).to_value(), at(value.clone(), revision));
        prop_assert_eq!(body.at(other).at(revision), body.at(revision));
        prop_assert_eq!(body.at(revision).bytes, at(value, revision).to_string());
    }

    #[test]
    fn same_content_is_the_same_but_for_the_version(a in json_value(), b in json_value(), r: u64) {
        prop_assert!(text(&a).at(r).same_content(&text(&a)));
        prop_assert!(text(&a).same_content(&text(&at(a.clone(), r))));
        prop_assert_eq!(text(&a).at(1).same_content(&text(&b)), at(a, 0) == at(b, 0));
    }

    #[test]
    fn a_text_survives_both_of_its_encodings(value in json_value(), r in proptest::option::of(any::<u64>())) {
        let text = r.map_or(text(&value), |r| text(&value).at(r));
        let mut binary = Vec::new();
        text.put(&mut binary);
        prop_assert_eq!(&Text::get(binary.into()).unwrap(), &text);
        let json = serde_json::to_vec(&text).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Text>(&json).unwrap(), &text);
    }

    /// Whatever a peer sends: refused, or usable without a panic.
    #[test]
    fn garbage_does_no_harm(numbers in proptest::collection::vec(0u32..12, 6), flag: bool, text in ".{0,10}") {
        let mut bytes = Vec::new();
        for number in numbers {
            bytes.put_u32_le(number);
        }
        bytes.put_u8(flag.into());
        bytes.put_slice(text.as_bytes());
        if let Ok(text) = Text::get(bytes.into()) {
            let text = text.at(u64::MAX);
            let _ = (text.uid(), text.labels(), text.to_value(), text.at(0).same_content(&text));
        }
    }
}
