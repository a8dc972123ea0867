//! Laws that hold for whatever is declared.

use hive_manifests::{Resource, openapi_schema};
use hive_merge::{
    FieldSet, Managers, Operation, Scope, apply, compare, merge, remove_items, strategic,
    to_field_set, update,
};
use proptest::collection::{btree_map, btree_set};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::kind::{SCHEMA, Shared, writer};

/// Declarations whose members of lists and maps are named from `names`, and that use only those
/// fields of which others cannot share a part if `own` says so.
fn declared(names: &'static str, own: bool) -> impl Strategy<Value = Value> {
    let value = || "[xyz]";
    let map = move || btree_map(names, value(), 0..3).prop_map(|map| json!(map));
    let keyed = btree_map(
        (names, 80..82u32),
        (of("[xyz]"), of(map()), any::<bool>()),
        0..3,
    )
    .prop_map(|items| {
        let items = items.into_iter().map(|((name, port), (value, map, says))| {
            let mut item = json!({ "name": name });
            if says || port != 80 {
                item["port"] = json!(port);
            }
            put(&mut item, "value", value.map(Value::from));
            put(&mut item, "map", map);
            item
        });
        items.collect::<Value>()
    });
    let leaves = (
        of(value()),
        of(0..3u8),
        of(map()),
        of(prop::collection::vec(value(), 0..3)),
    );
    (
        of(map()),
        of(btree_set(names, 0..3)),
        of(keyed),
        of(btree_set(names, 0..3)),
        leaves,
        of((of(value()), of(value()))),
    )
        .prop_map(move |(map, set, keyed, finalizers, leaves, inner)| {
            let mut spec = json!({});
            put(&mut spec, "map", map.clone());
            put(&mut spec, "set", set.map(|set| json!(set)));
            put(&mut spec, "keyed", keyed);
            let (title, count, whole, list) = leaves;
            if own {
                put(&mut spec, "title", title.map(Value::from));
                put(&mut spec, "count", count.map(Value::from));
                put(&mut spec, "whole", whole);
                put(&mut spec, "list", list.map(Value::from));
                if let Some((a, b)) = inner {
                    spec["inner"] = json!({});
                    put(&mut spec["inner"], "a", a.map(Value::from));
                    put(&mut spec["inner"], "b", b.map(Value::from));
                }
            }
            let mut metadata = json!({});
            put(&mut metadata, "labels", map);
            put(
                &mut metadata,
                "finalizers",
                finalizers.map(|set| json!(set)),
            );
            json!({ "metadata": metadata, "spec": spec })
        })
}

/// Functions whose parts are named from `names`.
fn function(names: &'static str) -> impl Strategy<Value = Value> {
    let variable = prop_oneof![
        "[xyz]".prop_map(|value| json!({ "value": value })),
        ("[xyz]", "[xyz]").prop_map(|(name, key)| {
            json!({ "valueFrom": { "secretKeyRef": { "name": name, "key": key } } })
        }),
    ];
    let env = btree_map(names, variable, 0..3).prop_map(|variables| {
        let named = variables.into_iter().map(|(name, mut variable)| {
            variable["name"] = json!(name);
            variable
        });
        named.collect::<Value>()
    });
    (
        of(env),
        of(btree_set(names, 0..3)),
        of(btree_map(names, "[xyz]", 0..3)),
        of(btree_set(names, 0..2)),
    )
        .prop_map(|(env, hosts, labels, owners)| {
            let mut function = json!({ "metadata": { "name": "f" }, "spec": {} });
            put(&mut function["spec"], "env", env);
            put(
                &mut function["spec"],
                "allowedHosts",
                hosts.map(|hosts| json!(hosts)),
            );
            put(
                &mut function["metadata"],
                "labels",
                labels.map(|labels| json!(labels)),
            );
            let owner = |uid| json!({ "uid": uid, "apiVersion": "v1", "kind": "X", "name": "x" });
            let owners = owners.map(|uids| uids.into_iter().map(owner).collect());
            put(&mut function["metadata"], "ownerReferences", owners);
            function
        })
}

fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[name] = value;
    }
}

/// The object but for what ownership does not speak of: the order of items, and things that hold nothing.
fn essence(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter_map(|(name, value)| {
                // What is atomic is taken as it is.
                if matches!(name.as_str(), "list" | "whole") {
                    return Some((name.clone(), value.clone()));
                }
                let value = essence(value);
                let is_nothing = value == json!({}) || value == json!([]);
                (!is_nothing).then(|| (name.clone(), value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items
                .iter()
                .map(|item| {
                    let mut item = essence(item);
                    if item["port"] == 80 {
                        item.as_object_mut().unwrap().remove("port");
                    }
                    item
                })
                .collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        "[abc]?".prop_map(Value::from),
    ];
    let field = prop_oneof![
        "(metadata|spec|status|labels|finalizers|ownerReferences|uid|env|name|value|valueFrom)",
        "(keyed|set|list|map|whole|port|conditions|type|allowedHosts|tolerations|\\$patch)",
        "(\\$setElementOrder/set|\\$deleteFromPrimitiveList/set|\\$retainKeys)",
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(field.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(
        first in declared("[a-d]", true),
        second in declared("[a-d]", true),
    ) {
        let mut shared = Shared::new(json!({}));
        shared.update("creator", json!({ "metadata": { "name": "x" }, "spec": { "count": 7 } }));
        shared.force("ann", first);
        shared.force("ann", second.clone());
        let once = shared.clone();
        shared.apply("ann", second).unwrap();
        prop_assert_eq!(&shared.object, &once.object);
        prop_assert!(shared.managers.own_the_same(&once.managers));
    }

    #[test]
    fn managers_of_other_fields_never_conflict_and_their_order_does_not_matter(
        before in (declared("[ab]", true), declared("[cd]", false)),
        after in (declared("[ab]", true), declared("[cd]", false)),
    ) {
        let mut one = Shared::new(json!({ "metadata": { "name": "x" } }));
        let mut other = one.clone();
        for (ann, bob) in [before, after] {
            prop_assert_eq!(one.apply("ann", ann.clone()), Ok(()));
            prop_assert_eq!(one.apply("bob", bob.clone()), Ok(()));
            prop_assert_eq!(other.apply("bob", bob), Ok(()));
            prop_assert_eq!(other.apply("ann", ann), Ok(()));
            prop_assert_eq!(essence(&one.object), essence(&other.object));
            prop_assert!(one.managers.own_the_same(&other.managers));
        }
    }

    #[test]
    fn managers_of_one_function_get_along(
        before in (function("[AB]"), function("[CD]")),
        after in (function("[AB]"), function("[CD]")),
    ) {
        let live = json!({
            "metadata": { "name": "f", "uid": "u", "labels": { "swarm": "own" } },
            "spec": { "timeout": "30s" },
        });
        let mut shared = Shared::of(openapi_schema(Resource::Function), live.clone());
        let mut alone = shared.clone();
        for (ann, bob) in [before, after] {
            prop_assert_eq!(shared.apply("ann", ann.clone()), Ok(()));
            prop_assert_eq!(shared.apply("bob", bob), Ok(()));
            alone.apply("ann", ann.clone()).unwrap();
            let once = shared.clone();
            prop_assert_eq!(shared.apply("ann", ann), Ok(()));
            prop_assert_eq!(&shared.object, &once.object);
            prop_assert!(shared.managers.own_the_same(&once.managers));
        }
        // When bob leaves, what ann alone would have made is there, and what nobody ever owned.
        shared.apply("bob", json!({})).unwrap();
        prop_assert_eq!(essence(&shared.object), essence(&alone.object));
        shared.apply("ann", json!({})).unwrap();
        prop_assert_eq!(essence(&shared.object), live);
    }

    #[test]
    fn a_field_that_its_only_manager_drops_goes(
        first in declared("[a-d]", true),
        second in declared("[a-d]", true),
        others in declared("[ef]", false),
    ) {
        let base = json!({ "metadata": { "name": "x", "uid": "u" } });
        let mut shared = Shared::new(base.clone());
        shared.apply("bob", others.clone()).unwrap();
        shared.apply("ann", first).unwrap();
        shared.apply("ann", second.clone()).unwrap();
        let mut expected = Shared::new(base);
        expected.apply("bob", others).unwrap();
        expected.apply("ann", second).unwrap();
        prop_assert_eq!(essence(&shared.object), essence(&expected.object));
        prop_assert!(shared.managers.own_the_same(&expected.managers));
    }

    #[test]
    fn a_refused_apply_names_what_others_own_and_force_takes_it(
        live in declared("[abc]", true),
        wanted in declared("[abc]", true),
    ) {
        let mut shared = Shared::new(json!({}));
        shared.update("creator", live.clone());
        let changed = compare(&SCHEMA, &live, &merge(&SCHEMA, &live, &wanted)).modified;
        prop_assert_eq!(shared.clone().apply("ann", wanted.clone()).is_err(), !changed.is_empty());
        shared.force("ann", wanted.clone());
        let creator = shared.managers.find(&writer("creator", Operation::Update, ""));
        if let Some(creator) = creator {
            prop_assert!(creator.fields.intersection(&changed).is_empty());
        }
        // What was forced is there.
        let lacking = compare(&SCHEMA, &wanted, &shared.object);
        prop_assert!(lacking.modified.is_empty());
        prop_assert!(essence(&merge(&SCHEMA, &shared.object, &wanted)) == essence(&shared.object));
    }

    #[test]
    fn an_update_owns_its_changes_alone(
        first in declared("[a-d]", true),
        second in declared("[a-d]", true),
    ) {
        let mut shared = Shared::new(json!({}));
        shared.apply("ann", first).unwrap();
        let before = shared.object.clone();
        shared.update("edit", second.clone());
        let changes = compare(&SCHEMA, &before, &second);
        let edit = writer("edit", Operation::Update, "");
        let owned = shared.managers.find(&edit).map(|e| e.fields.clone()).unwrap_or_default();
        for path in owned.paths() {
            prop_assert!(changes.written().contains(&path), "{}", path);
        }
        if let Some(ann) = shared.managers.find(&writer("ann", Operation::Apply, "")) {
            prop_assert!(ann.fields.intersection(&owned).is_empty());
            prop_assert!(ann.fields.intersection(&changes.removed).is_empty());
        }
    }

    #[test]
    fn sets_of_fields_survive_being_written_down(object in declared("[a-d]", true)) {
        let set = to_field_set(&SCHEMA, &object);
        let written = set.to_json();
        prop_assert_eq!(FieldSet::from_json(written.as_object().unwrap()).unwrap(), set.clone());
        let paths = set.paths();
        prop_assert_eq!(paths.iter().collect::<FieldSet>(), set);
    }

    #[test]
    fn sets_combine_by_the_laws_of_sets(
        a in declared("[a-d]", true),
        b in declared("[a-d]", true),
    ) {
        let (a, b) = (to_field_set(&SCHEMA, &a), to_field_set(&SCHEMA, &b));
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        for path in a.paths() {
            prop_assert!(a.union(&b).contains(&path));
            prop_assert_eq!(a.difference(&b).contains(&path), !b.contains(&path));
        }
    }

    #[test]
    fn merging_lays_over_and_removing_takes_away(
        a in declared("[a-d]", true),
        b in declared("[a-d]", true),
    ) {
        let both = merge(&SCHEMA, &a, &b);
        prop_assert_eq!(&merge(&SCHEMA, &a, &a), &a);
        prop_assert_eq!(&merge(&SCHEMA, &both, &b), &both);
        // Everything of both is there, and nothing else.
        let of = |object: &Value| to_field_set(&SCHEMA, &essence(object));
        prop_assert_eq!(of(&both), of(&a).union(&of(&b)));
        prop_assert_eq!(compare(&SCHEMA, &essence(&b), &essence(&both)).modified.to_json(), json!({}));
        // What is taken away is gone, the rest is untouched.
        let places = of(&b).difference(&of(&a));
        let rest = remove_items(&SCHEMA, &both, &places);
        prop_assert!(to_field_set(&SCHEMA, &rest).intersection(&places).is_empty());
        prop_assert_eq!(of(&rest).leaves(), of(&a).leaves());
    }

    #[test]
    fn whatever_is_sent_is_merged_or_refused_without_a_panic(
        live in any_json(),
        sent in any_json(),
        managed in any_json(),
        kind in 0..=Resource::ALL.len(),
    ) {
        let schema = Resource::ALL.get(kind).map_or(&*SCHEMA, |r| openapi_schema(*r));
        let managers = Managers::from_json(Some(&managed)).unwrap_or_default();
        for scope in [Scope::Main, Scope::Status] {
            let by = writer("ann", Operation::Apply, "");
            if let Ok(first) = apply(schema, &live, &sent, &managers, &by, scope, true) {
                let again = apply(schema, &first.object, &live, &first.managers, &by, scope, true);
                let _ = again.map(|applied| applied.managers.to_json());
            }
            let by = writer("edit", Operation::Update, "");
            update(schema, &live, &sent, &managers, &by, scope);
        }
        let _ = strategic::apply(schema, &live, &sent);
    }
}
