#![allow(clippy::unwrap_used)]

use super::*;

fn stamp() -> Stamp {
    Stamp {
        now: "2025-01-01T00:00:00Z".into(),
        uid: "u-1".into(),
        suffix: "x7k2p".into(),
    }
}

fn stored() -> Object {
    Object::new(
        Key::new(Resource::Function, "default", "f"),
        json!({
            "apiVersion": "hive.dev/v1", "kind": "Function",
            "metadata": {
                "name": "f", "namespace": "default", "uid": "u-1", "generation": 3,
                "creationTimestamp": "2025-01-01T00:00:00Z",
            },
            "spec": { "replicas": 1 },
            "status": { "replicas": 1 },
        }),
        7,
    )
}

/// A whole update of what needs no defaults.
fn update(current: &Object, proposed: Value) -> Result<Value, ApiError> {
    let mut body = prepare_update(current, proposed, Part::Main)?;
    settle_update(current, &mut body)?;
    Ok(body)
}

#[test]
fn the_path_fills_what_a_body_leaves_out() {
    let body = conform(Resource::Function, Some("default"), Some("f"), json!({})).unwrap();
    assert_eq!(
        body,
        json!({
            "apiVersion": "hive.dev/v1", "kind": "Function",
            "metadata": { "namespace": "default", "name": "f" },
        })
    );
}

#[test]
fn a_body_that_contradicts_its_path_is_refused() {
    for (body, message) in [
        ("[]", "the body is not a JSON object"),
        (
            r#"{"kind":"Node"}"#,
            "the kind in the body (\"Node\") is not that of the URL (\"Function\")",
        ),
        (
            r#"{"metadata":{"namespace":"b"}}"#,
            "the namespace in the body (\"b\") is not that of the URL (\"a\")",
        ),
        (r#"{"metadata":1}"#, "metadata is not a JSON object"),
    ] {
        let body = serde_json::from_str(body).unwrap();
        let error = conform(Resource::Function, Some("a"), None, body).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_new_object_gets_the_servers_metadata_and_no_status() {
    let body = conform(
        Resource::Function,
        Some("a"),
        None,
        json!({
            "metadata": { "generateName": "f-", "uid": "mine", "resourceVersion": "9", "generation": 8 },
            "status": { "replicas": 5 },
        }),
    )
    .unwrap();
    let (key, body) = prepare_create(Resource::Function, body, &stamp()).unwrap();
    assert_eq!(key, Key::new(Resource::Function, "a", "f-x7k2p"));
    assert_eq!(
        body["metadata"],
        json!({
            "namespace": "a", "name": "f-x7k2p", "generateName": "f-", "uid": "u-1",
            "creationTimestamp": "2025-01-01T00:00:00Z", "generation": 1,
        })
    );
    assert!(body.get("status").is_none());
}

#[test]
fn an_object_without_a_name_is_invalid() {
    let body = conform(Resource::Function, Some("a"), None, json!({})).unwrap();
    let error = prepare_create(Resource::Function, body, &stamp()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Function.hive.dev \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
}

#[test]
fn an_update_keeps_status_and_bumps_the_generation_only_with_the_spec() {
    let current = stored();
    let mut proposed = current.body().clone();
    proposed["metadata"]["labels"] = json!({ "a": "b" });
    proposed["metadata"]["generation"] = json!(99);
    proposed["status"] = json!({ "replicas": 9 });
    let body = update(&current, proposed.clone()).unwrap();
    assert_eq!(body["metadata"]["generation"], 3);
    assert_eq!(body["status"]["replicas"], 1);
    assert_eq!(body["metadata"]["labels"]["a"], "b");

    proposed["spec"]["replicas"] = json!(2);
    let body = update(&current, proposed).unwrap();
    assert_eq!(body["metadata"]["generation"], 4);
}

#[test]
fn a_status_update_touches_nothing_else() {
    let current = stored();
    let mut proposed = current.body().clone();
    proposed["spec"]["replicas"] = json!(2);
    proposed["metadata"]["labels"] = json!({ "a": "b" });
    proposed["status"] = json!({ "replicas": 9 });
    let body = prepare_update(&current, proposed, Part::Status).unwrap();
    let mut expected = current.body().clone();
    expected["status"] = json!({ "replicas": 9 });
    assert_eq!(body, expected);
}

#[test]
fn an_update_meant_for_another_object_of_that_name_is_a_conflict() {
    let mut proposed = stored().body().clone();
    proposed["metadata"]["uid"] = json!("u-0");
    let error = update(&stored(), proposed).unwrap_err();
    assert!(matches!(error, ApiError::Conflict { .. }), "{error}");
}

#[test]
fn string_data_becomes_data_and_wins() {
    let mut secret = json!({ "data": { "a": "eA==" }, "stringData": { "a": "y", "b": "z" } });
    merge_string_data(&mut secret);
    assert_eq!(secret, json!({ "data": { "a": "eQ==", "b": "eg==" } }));
    let mut wrong = json!({ "stringData": { "a": 1 } });
    merge_string_data(&mut wrong);
    assert_eq!(wrong, json!({ "stringData": { "a": 1 } }));
}

#[test]
fn an_immutable_secret_stays() {
    let current = Object::new(
        Key::new(Resource::Secret, "a", "s"),
        json!({ "metadata": {}, "type": "Opaque", "data": { "a": "eA==" }, "immutable": true }),
        1,
    );
    let mut proposed = current.body().clone();
    proposed["data"]["a"] = json!("eQ==");
    let error = update(&current, proposed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Secret \"s\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
}

#[test]
fn a_tunnel_keeps_its_provider_and_its_account() {
    let account = |id: &str| json!({ "secretName": "s", "accountId": id });
    let key = || Key::new(Resource::Tunnel, "a", "t");
    let object = |spec: Value| Object::new(key(), json!({ "metadata": {}, "spec": spec }), 1);
    let cases = [
        (json!({}), json!({ "provider": "Hive" }), None),
        (json!({ "provider": "Hive" }), json!({ "port": 1 }), None),
        (json!({}), json!({ "provider": "Tor" }), Some("provider")),
        (json!({ "provider": "Tor" }), json!({}), Some("provider")),
        (
            json!({ "cloudflare": account("1") }),
            json!({ "cloudflare": account("2") }),
            Some("cloudflare.accountId"),
        ),
        (
            json!({ "cloudflare": account("1") }),
            json!({ "cloudflare": { "secretName": "s" } }),
            Some("cloudflare.accountId"),
        ),
        (
            json!({ "cloudflare": { "secretName": "s" } }),
            json!({ "cloudflare": { "secretName": "t" } }),
            None,
        ),
    ];
    for (before, after, refused) in cases {
        let current = object(before);
        let mut proposed = current.body().clone();
        proposed["spec"] = after;
        let said = refuse_immutable_changes(&current, &proposed).err();
        let said = said.map(|error| error.to_string());
        let expected = refused.map(|field| {
            format!(
                "Tunnel.hive.dev \"t\" is invalid: spec.{field}: field is immutable: delete the tunnel and create it anew"
            )
        });
        assert_eq!(said, expected, "{proposed}");
    }
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z./ -]{0,8}".prop_map(Value::from),
    ];
    let field = prop_oneof![
        "(metadata|name|namespace|uid|labels|finalizers|generation|resourceVersion)",
        "(spec|status|data|stringData|type|immutable|artifact|sha256|replicas|http)",
        "[a-z]{1,4}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_is_refused_or_completed_without_a_panic(
        sent in any_json(),
        changed in any_json(),
        kind in 0..Resource::ALL.len(),
    ) {
        use super::super::admission::complete;
        use super::super::query::FieldValidation;
        use crate::state::State;

        let resource = Resource::ALL[kind];
        let namespace = resource.namespaced().then_some("a");
        for validation in [FieldValidation::Strict, FieldValidation::Warn] {
            if let Ok(body) = conform(resource, namespace, None, sent.clone())
                && let Ok((key, mut body)) = prepare_create(resource, body, &stamp())
            {
                let _ = complete(&State::default(), &key, &mut body, &[], validation);
                let current = Object::new(key.clone(), body, 1);
                if let Ok(proposed) = conform(resource, namespace, None, changed.clone())
                    && let Ok(mut body) = prepare_update(&current, proposed, Part::Main)
                {
                    let _ = complete(&State::default(), &key, &mut body, &[], validation);
                    let _ = settle_update(&current, &mut body);
                }
            }
        }
    }
}
