//! One case for each rule of ownership.

use hive_merge::{MAX_UPDATE_ENTRIES, Managers, Operation, Scope, apply, update};
use serde_json::json;

use crate::kind::{SCHEMA, Shared, writer};

#[test]
fn an_applier_owns_what_it_declares_and_nothing_else() {
    let mut shared = Shared::new(json!({ "metadata": { "name": "x", "uid": "u" } }));
    let declared = json!({
        "metadata": { "name": "x", "labels": { "app": "a" }, "finalizers": ["a/b"] },
        "spec": {
            "title": "t", "map": {}, "whole": { "k": "v" }, "list": ["l"], "set": ["s"],
            "keyed": [{ "name": "n", "value": "v" }],
        },
        "status": { "phase": "Mine" },
    });
    shared.apply("ann", declared).unwrap();
    assert_eq!(
        shared.owned("ann", Operation::Apply),
        [
            ".metadata.finalizers[=\"a/b\"]",
            ".metadata.labels.app",
            ".spec.keyed[name=\"n\",port=80]",
            ".spec.keyed[name=\"n\",port=80].name",
            ".spec.keyed[name=\"n\",port=80].value",
            ".spec.list",
            ".spec.map",
            ".spec.set[=\"s\"]",
            ".spec.title",
            ".spec.whole",
        ]
    );
    assert_eq!(shared.object["metadata"]["uid"], "u");
    assert_eq!(shared.object.get("status"), None);
}

#[test]
fn what_an_applier_leaves_out_goes_and_the_rest_stays() {
    let mut shared = Shared::new(json!({
        "metadata": { "name": "x", "uid": "u" },
        "spec": { "count": 1 },
    }));
    let declared = json!({
        "metadata": { "labels": { "app": "a" } },
        "spec": { "title": "t", "inner": { "a": "1", "b": "2" }, "set": ["s", "t"] },
    });
    shared.apply("ann", declared).unwrap();
    shared
        .apply(
            "ann",
            json!({ "spec": { "inner": { "b": "2" }, "set": ["t"] } }),
        )
        .unwrap();
    assert_eq!(
        shared.object,
        json!({
            "metadata": { "name": "x", "uid": "u" },
            "spec": { "count": 1, "inner": { "b": "2" }, "set": ["t"] },
        })
    );
}

#[test]
fn a_field_that_another_manager_owns_too_stays() {
    let mut shared = Shared::new(json!({}));
    let declared = json!({ "spec": { "title": "t", "count": 1 } });
    shared.apply("ann", declared.clone()).unwrap();
    shared
        .apply("bob", json!({ "spec": { "title": "t" } }))
        .unwrap();
    shared
        .apply("ann", json!({ "spec": { "count": 1 } }))
        .unwrap();
    assert_eq!(shared.object, declared);
    shared.apply("bob", json!({ "spec": {} })).unwrap();
    assert_eq!(shared.object, json!({ "spec": { "count": 1 } }));
}

#[test]
fn an_updater_keeps_what_an_applier_gives_up() {
    let mut shared = Shared::new(json!({}));
    shared.update("ui", json!({ "spec": { "count": 3 } }));
    shared
        .apply("ann", json!({ "spec": { "count": 3, "title": "t" } }))
        .unwrap();
    shared
        .apply("ann", json!({ "spec": { "title": "t" } }))
        .unwrap();
    assert_eq!(
        shared.object,
        json!({ "spec": { "count": 3, "title": "t" } })
    );
}

#[test]
fn another_value_of_an_owned_field_is_a_conflict_until_it_is_forced() {
    let mut shared = Shared::new(json!({}));
    shared
        .apply("ann", json!({ "spec": { "title": "t", "count": 1, "keyed": [{ "name": "n", "value": "1" }] } }))
        .unwrap();
    let other = json!({ "spec": { "count": 2 } });
    assert_eq!(
        shared.apply("bob", other.clone()).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"ann\": .spec.count"
    );
    assert_eq!(
        shared.object["spec"]["count"], 1,
        "a refused apply changes nothing"
    );
    shared.force("bob", other);
    assert_eq!(shared.object["spec"]["count"], 2);
    assert!(
        !shared
            .owned("ann", Operation::Apply)
            .contains(&".spec.count".to_owned())
    );
    let both =
        json!({ "spec": { "title": "u", "count": 1, "keyed": [{ "name": "n", "value": "2" }] } });
    assert_eq!(
        shared.apply("cid", both).unwrap_err(),
        "Apply failed with 3 conflicts: conflicts with \"ann\":\n\
         - .spec.keyed[name=\"n\",port=80].value\n- .spec.title\n\
         conflicts with \"bob\":\n- .spec.count"
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut shared = Shared::new(json!({}));
    let declared = json!({ "spec": { "title": "t", "count": 1, "list": ["a"] } });
    shared.apply("ann", declared.clone()).unwrap();
    shared.update("edit", json!({ "spec": { "title": "t", "count": 2 } }));
    assert_eq!(shared.owned("edit", Operation::Update), [".spec.count"]);
    assert_eq!(shared.owned("ann", Operation::Apply), [".spec.title"]);
    assert_eq!(
        shared.apply("ann", declared).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"edit\" using test.dev/v1: .spec.count"
    );
    // Who agrees with the other value shares it.
    shared
        .apply("ann", json!({ "spec": { "title": "t", "count": 2 } }))
        .unwrap();
}

#[test]
fn an_atomic_value_has_one_owner_as_a_whole() {
    let mut shared = Shared::new(json!({}));
    shared
        .apply(
            "ann",
            json!({ "spec": { "whole": { "a": "1" }, "list": ["a"] } }),
        )
        .unwrap();
    let conflicts = shared
        .apply(
            "bob",
            json!({ "spec": { "whole": { "b": "1" }, "list": ["a", "b"] } }),
        )
        .unwrap_err();
    assert!(
        conflicts.contains("- .spec.list\n- .spec.whole"),
        "{conflicts}"
    );
}

#[test]
fn items_keep_their_order_and_new_ones_follow_the_declaration() {
    let mut shared = Shared::new(json!({}));
    shared
        .apply("ann", json!({ "spec": { "set": ["a", "b", "c"] } }))
        .unwrap();
    shared
        .apply("bob", json!({ "spec": { "set": ["c", "x", "a"] } }))
        .unwrap();
    assert_eq!(shared.object["spec"]["set"], json!(["b", "c", "x", "a"]));
    shared
        .apply("cid", json!({ "spec": { "set": ["y"] } }))
        .unwrap();
    assert_eq!(
        shared.object["spec"]["set"],
        json!(["b", "c", "x", "a", "y"])
    );
}

#[test]
fn a_key_that_is_left_out_has_its_default() {
    let mut shared = Shared::new(json!({
        "spec": { "keyed": [{ "name": "n", "port": 80 }, { "name": "n", "port": 81 }] },
    }));
    shared
        .apply(
            "ann",
            json!({ "spec": { "keyed": [{ "name": "n", "value": "v" }] } }),
        )
        .unwrap();
    assert_eq!(
        shared.object["spec"]["keyed"],
        json!([{ "name": "n", "port": 80, "value": "v" }, { "name": "n", "port": 81 }])
    );
}

#[test]
fn a_null_is_a_field_that_is_not_mentioned() {
    let mut shared = Shared::new(json!({ "spec": { "count": 1 } }));
    shared
        .apply("ann", json!({ "spec": { "count": null, "title": "t" } }))
        .unwrap();
    assert_eq!(shared.object["spec"], json!({ "count": 1, "title": "t" }));
    assert_eq!(shared.owned("ann", Operation::Apply), [".spec.title"]);
}

#[test]
fn status_has_owners_of_its_own() {
    let live =
        json!({ "metadata": { "name": "x" }, "spec": { "count": 1 }, "status": { "count": 1 } });
    let mut by = writer("op", Operation::Apply, "2026-01-01T00:00:00Z");
    by.subresource = "status";
    let declared = json!({ "spec": { "count": 9 }, "status": { "phase": "Up" } });
    let managers = Managers::default();
    let applied = apply(
        &SCHEMA,
        &live,
        &declared,
        &managers,
        &by,
        Scope::Status,
        false,
    )
    .unwrap();
    assert_eq!(applied.object["spec"]["count"], 1);
    assert_eq!(
        applied.object["status"],
        json!({ "count": 1, "phase": "Up" })
    );
    assert_eq!(
        applied.managers.to_json(),
        json!([{
            "manager": "op", "operation": "Apply", "apiVersion": "test.dev/v1",
            "time": "2026-01-01T00:00:00Z", "subresource": "status",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:phase": {} } },
        }])
    );
    let mut after = applied.object.clone();
    after["status"]["phase"] = json!("Down");
    by.operation = Operation::Update;
    let managers = update(
        &SCHEMA,
        &applied.object,
        &after,
        &applied.managers,
        &by,
        Scope::Status,
    );
    let entries: Vec<String> = managers.entries().iter().map(|e| e.to_string()).collect();
    assert_eq!(
        entries,
        ["\"op\" with subresource \"status\" using test.dev/v1"]
    );
}

#[test]
fn creation_by_update_owns_what_was_sent() {
    let mut shared = Shared::new(json!({}));
    shared.update(
        "create",
        json!({
            "apiVersion": "test.dev/v1", "kind": "X",
            "metadata": { "name": "x", "uid": "u", "labels": { "a": "b" } },
            "spec": { "count": 1 },
        }),
    );
    assert_eq!(
        shared.managers.to_json()[0]["fieldsV1"],
        json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            "f:spec": { ".": {}, "f:count": {} },
        })
    );
}

#[test]
fn old_updates_are_summed_up() {
    let mut shared = Shared::new(json!({}));
    shared
        .apply("ann", json!({ "spec": { "title": "t" } }))
        .unwrap();
    for n in 0..MAX_UPDATE_ENTRIES + 5 {
        let mut after = shared.object.clone();
        after["spec"]["map"][format!("k{n}")] = json!("v");
        shared.update(&format!("m{n}"), after);
    }
    let entries = shared.managers.entries();
    assert_eq!(entries.len(), 1 + MAX_UPDATE_ENTRIES);
    let ancient = shared.owned("ancient-changes", Operation::Update);
    assert_eq!(ancient.len(), 1 + 6, "{ancient:?}");
    assert!(ancient.contains(&".spec.map.k5".to_owned()));
    assert_eq!(shared.owned("m6", Operation::Update), [".spec.map.k6"]);
    let written = shared.managers.to_json();
    assert_eq!(
        Managers::from_json(Some(&written)).unwrap().to_json(),
        written
    );
}

#[test]
fn entries_that_cannot_be_read_are_named() {
    for (managed, message) in [
        (json!({}), "managedFields is not a list of objects"),
        (
            json!([{ "manager": "a" }]),
            "managedFields[0].operation: must be `Apply` or `Update`",
        ),
        (
            json!([{ "operation": "Apply", "fieldsType": "FieldsV2" }]),
            "managedFields[0].fieldsType: must be `FieldsV1`",
        ),
        (
            json!([{ "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": { "x": {} } }]),
            "managedFields[0].fieldsV1",
        ),
    ] {
        let error = Managers::from_json(Some(&managed)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_client_that_changes_its_method_keeps_its_fields() {
    let mut shared = Shared::new(json!({}));
    let annotated = json!({
        "metadata": { "labels": { "last": "x", "app": "a" } },
        "spec": { "count": 1, "title": "t" },
    });
    shared.update("client-side", annotated);
    let by = writer("client", Operation::Apply, "2026-01-01T00:00:00Z");
    let kept = [hive_merge::Path::fields(["metadata", "labels", "last"])];
    shared.managers.take_over(
        &by,
        |entry| entry.manager == "client-side",
        &kept.iter().collect(),
    );
    assert_eq!(
        shared.owned("client-side", Operation::Update),
        [".metadata.labels.last"]
    );
    shared
        .apply("client", json!({ "spec": { "count": 2 } }))
        .unwrap();
    assert_eq!(
        shared.object,
        json!({ "metadata": { "labels": { "last": "x" } }, "spec": { "count": 2 } })
    );
}
