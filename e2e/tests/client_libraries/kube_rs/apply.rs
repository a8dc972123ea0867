//! Server-side apply: who owns what, and what others hear of it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Error, ResourceExt};
use serde_json::{Value, json};

fn declared(data: Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "applied" },
        "data": data,
    }))
}

fn data(map: &ConfigMap) -> Value {
    json!(map.data)
}

fn managers(map: &ConfigMap) -> Vec<(&str, &str)> {
    map.managed_fields()
        .iter()
        .map(|entry| {
            let (manager, operation) = (entry.manager.as_deref(), entry.operation.as_deref());
            (manager.unwrap_or_default(), operation.unwrap_or_default())
        })
        .collect()
}

pub async fn cases(maps: &Api<ConfigMap>) {
    let (chief, clerk) = (PatchParams::apply("chief"), PatchParams::apply("clerk"));
    let apply = async |who: &PatchParams, wanted: Value| {
        maps.patch("applied", who, &declared(wanted)).await
    };

    // A trial makes nothing.
    let trial = PatchParams::apply("chief").dry_run();
    let tried = apply(&trial, json!({ "open": "9" })).await.unwrap();
    assert_eq!(data(&tried), json!({ "open": "9" }));
    assert!(maps.get_opt("applied").await.unwrap().is_none());

    let made = apply(&chief, json!({ "open": "9", "close": "18" }))
        .await
        .unwrap();
    let again = apply(&chief, json!({ "open": "9", "close": "18" }))
        .await
        .unwrap();
    assert_eq!(again.resource_version(), made.resource_version());

    // The conflict names who owns what.
    let refused = apply(&clerk, json!({ "open": "8" })).await.unwrap_err();
    let Error::Api(status) = refused else {
        panic!("not an answer of the API: {refused}");
    };
    assert!(status.is_conflict(), "{status:?}");
    let [cause] = &status.details.as_ref().unwrap().causes[..] else {
        panic!("{status:?}");
    };
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(cause.field, ".data.open");
    assert!(cause.message.contains("\"chief\""), "{cause:?}");
    assert_eq!(data(&maps.get("applied").await.unwrap()), data(&made));

    // The same value is owned together, another is taken by force only.
    apply(&clerk, json!({ "open": "9" })).await.unwrap();
    let forced = apply(&clerk.clone().force(), json!({ "close": "20" }))
        .await
        .unwrap();
    assert_eq!(data(&forced), json!({ "open": "9", "close": "20" }));

    // What its last owner leaves out goes.
    let less = apply(&chief, json!({ "open": "9" })).await.unwrap();
    assert_eq!(data(&less), json!({ "open": "9", "close": "20" }));
    let gone = apply(&clerk, json!({})).await.unwrap();
    assert_eq!(data(&gone), json!({ "open": "9" }));

    // An update of another kind is an owner as well.
    let update = Patch::Merge(json!({ "data": { "open": "7" } }));
    let by_hand = PatchParams {
        field_manager: Some("hand".to_owned()),
        ..PatchParams::default()
    };
    let updated = maps.patch("applied", &by_hand, &update).await.unwrap();
    let owners = managers(&updated);
    assert!(owners.contains(&("hand", "Update")), "{owners:?}");
    assert!(!owners.iter().any(|(who, _)| *who == "chief"), "{owners:?}");
    let refused = apply(&chief, json!({ "open": "9" })).await.unwrap_err();
    assert!(refused.to_string().contains("\"hand\""), "{refused}");

    // Who applies must say who they are.
    let nobody = PatchParams::default();
    let refused = apply(&nobody, json!({})).await.unwrap_err();
    assert!(refused.to_string().contains("fieldManager"), "{refused}");
}
