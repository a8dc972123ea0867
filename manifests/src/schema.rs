//! The shape of every kind as data: OpenAPI schemas, CRDs, and JSON schemas for editors.
//!
//! All of it is derived from the Rust types, so that documentation, validation and
//! `hivectl explain` cannot disagree. Built once a process; nothing here looks at an object.

mod topology;

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::CustomResourceExt;
use kube_core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;
use serde_json::{Map, Value, json};

use crate::{Assignment, Controller, Function, GROUP, Node, Resource, Tunnel};

static SCHEMAS: LazyLock<[Value; Resource::ALL.len()]> = LazyLock::new(|| Resource::ALL.map(build));

/// The OpenAPI v3 schema of a whole object: self-contained, structural, with a description of every
/// field.
pub fn openapi_schema(resource: Resource) -> &'static Value {
    let position = Resource::ALL
        .iter()
        .position(|r| *r == resource)
        .expect("ALL holds every resource");
    &SCHEMAS[position]
}

static CONTROLLER: LazyLock<Value> = LazyLock::new(|| {
    let schema = hive_object(Controller::crd());
    whole(schema, (GROUP, "v1", "Controller"))
});

/// The same of a controller, which is seen and not declared.
pub fn controller_schema() -> &'static Value {
    &CONTROLLER
}

/// The definition that makes Kubernetes, or a tool that reads CRDs, know one of Hive's kinds.
/// `None` for the kinds that Kubernetes has.
pub fn crd(resource: Resource) -> Option<CustomResourceDefinition> {
    match resource {
        Resource::Node => Some(Node::crd()),
        Resource::Function => Some(Function::crd()),
        Resource::Tunnel => Some(Tunnel::crd()),
        Resource::Assignment => Some(Assignment::crd()),
        Resource::Namespace
        | Resource::ServiceAccount
        | Resource::Secret
        | Resource::ConfigMap
        | Resource::ResourceQuota
        | Resource::LimitRange
        | Resource::ClusterRole
        | Resource::ClusterRoleBinding
        | Resource::Role
        | Resource::RoleBinding
        | Resource::CertificateSigningRequest
        | Resource::Event
        | Resource::ControllerRevision => None,
    }
}

fn build(resource: Resource) -> Value {
    let mut schema = match resource {
        Resource::Namespace => structural::<core::Namespace>(),
        Resource::Secret => structural::<core::Secret>(),
        Resource::ConfigMap => structural::<core::ConfigMap>(),
        Resource::ServiceAccount => structural::<core::ServiceAccount>(),
        Resource::ResourceQuota => structural::<core::ResourceQuota>(),
        Resource::LimitRange => structural::<core::LimitRange>(),
        Resource::ClusterRole => structural::<rbac::ClusterRole>(),
        Resource::ClusterRoleBinding => structural::<rbac::ClusterRoleBinding>(),
        Resource::Role => structural::<rbac::Role>(),
        Resource::RoleBinding => structural::<rbac::RoleBinding>(),
        Resource::CertificateSigningRequest => {
            structural::<certificates::CertificateSigningRequest>()
        }
        Resource::Event => structural::<core::Event>(),
        Resource::ControllerRevision => structural::<apps::ControllerRevision>(),
        Resource::Node | Resource::Function | Resource::Tunnel | Resource::Assignment => {
            hive_object(crd(resource).expect("these kinds have one"))
        }
    };
    topology::annotate(resource, &mut schema);
    let named = (resource.group(), resource.version(), resource.kind());
    whole(schema, named)
}

/// With what the schema of every object says: its group, version and kind.
fn whole(mut schema: Value, (group, version, kind): (&str, &str, &str)) -> Value {
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    let object = schema
        .as_object_mut()
        .expect("a kind's schema is an object");
    object.remove("title");
    let properties = object
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .expect("a kind has properties");
    properties.insert(
        "apiVersion".into(),
        json!({
            "type": "string",
            "description": format!("Group and version of the kind: {api_version}"),
        }),
    );
    properties.insert(
        "kind".into(),
        json!({
            "type": "string",
            "description": format!("The kind of this object: {kind}"),
        }),
    );
    object.insert(
        "x-kubernetes-group-version-kind".into(),
        json!([{ "group": group, "version": version, "kind": kind }]),
    );
    schema
}

/// A CRD's schema names metadata only; the whole object needs its fields too.
fn hive_object(crd: CustomResourceDefinition) -> Value {
    let props = crd
        .spec
        .versions
        .into_iter()
        .next()
        .and_then(|version| version.schema)
        .and_then(|schema| schema.open_api_v3_schema)
        .expect("the derive makes one version with a schema");
    let mut schema = serde_json::to_value(props).expect("a schema is JSON");
    whole_numbers(&mut schema);
    schema["properties"]["metadata"] = structural::<ObjectMeta>();
    schema
}

/// A CRD's type holds limits as floating point: `10000.0`. People and most tools write `10000`.
pub(crate) fn whole_numbers(value: &mut Value) {
    /// Every integer up to here is exact in an `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64()
                && float.fract() == 0.0
                && float.abs() <= EXACT
            {
                *value = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// The same settings and transforms as kube's derive, so that core kinds look like ours.
pub fn structural<T: JsonSchema>() -> Value {
    let schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator()
        .into_root_schema_for::<T>();
    serde_json::to_value(schema).expect("a schema is JSON")
}

/// JSON schema (draft 2020-12) of a kind, as editors read it: unknown fields are errors there too.
pub fn editor_schema(resource: Resource) -> Value {
    let mut schema = openapi_schema(resource).clone();
    for_editors(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        object.insert("title".into(), resource.kind().into());
        object.insert(
            "required".into(),
            match resource.group() {
                GROUP => json!(["apiVersion", "kind", "metadata", "spec"]),
                // Kubernetes' kinds have their content beside the metadata, most of it optional.
                _ => json!(["apiVersion", "kind", "metadata"]),
            },
        );
        object["properties"]["apiVersion"]["const"] = resource.api_version().into();
        object["properties"]["kind"]["const"] = resource.kind().into();
    }
    schema
}

/// OpenAPI says `nullable` and `x-kubernetes-int-or-string` where JSON schema lists types.
fn for_editors(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if object.remove("x-kubernetes-int-or-string").is_some() {
        object.insert("type".into(), json!(["integer", "string"]));
    }
    if object.remove("nullable") == Some(Value::Bool(true))
        && let Some(Value::String(single)) = object.get("type").cloned()
    {
        object.insert("type".into(), json!([single, "null"]));
    }
    object.retain(|name, _| !name.starts_with("x-kubernetes-"));
    if object.contains_key("properties") && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".into(), false.into());
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(for_editors);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(name) {
            for_editors(child);
        }
    }
}

/// The properties of an object schema, if it lists any.
pub(crate) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::FieldPath;

    #[test]
    fn crds_agree_with_the_table_of_resources() {
        for resource in Resource::ALL {
            let info = resource.info();
            let Some(crd) = crd(resource) else {
                assert_ne!(info.group, GROUP);
                continue;
            };
            let names = crd.spec.names;
            assert_eq!(crd.spec.group, info.group);
            assert_eq!(names.kind, info.kind);
            assert_eq!(names.plural, info.plural);
            assert_eq!(names.singular.as_deref(), Some(info.singular));
            assert_eq!(names.short_names.unwrap_or_default(), info.short_names);
            assert_eq!(names.categories.unwrap_or_default(), info.categories);
            assert_eq!(crd.spec.scope == "Namespaced", info.namespaced);
            let version = &crd.spec.versions[0];
            assert_eq!(version.name, info.version);
            let subresources = version.subresources.as_ref().unwrap();
            assert_eq!(subresources.status.is_some(), info.has_status);
            assert_eq!(subresources.scale.is_some(), info.has_scale);
        }
    }

    #[test]
    fn every_field_of_our_kinds_is_described() {
        fn undescribed(schema: &Value, path: &FieldPath, found: &mut Vec<String>) {
            for (name, field) in properties(schema).into_iter().flatten() {
                let path = path.field(name);
                if field.get("description").is_none() {
                    found.push(path.to_string());
                }
                undescribed(field, &path, found);
                undescribed(&field["items"], &path, found);
            }
        }
        for resource in Resource::ALL {
            if resource.group() == GROUP {
                for part in ["spec", "status"] {
                    let mut found = Vec::new();
                    let schema = &openapi_schema(resource)["properties"][part];
                    undescribed(schema, &FieldPath::of([part]), &mut found);
                    assert_eq!(found, [""; 0], "{resource}");
                }
            }
        }
    }

    #[test]
    fn the_schemas_hold_only_what_the_walker_understands() {
        fn check(schema: &Value) {
            let Some(object) = schema.as_object() else {
                return;
            };
            for keyword in ["$ref", "anyOf", "oneOf", "allOf", "not", "definitions"] {
                assert!(!object.contains_key(keyword), "{keyword} in {schema}");
            }
            properties(schema)
                .into_iter()
                .flat_map(Map::values)
                .chain(object.get("items"))
                .chain(object.get("additionalProperties"))
                .for_each(check);
        }
        for resource in Resource::ALL {
            check(openapi_schema(resource));
        }
    }

    #[test]
    fn keyed_lists_hold_objects_that_have_their_keys() {
        fn check(schema: &Value, path: &FieldPath, found: &mut usize) {
            let items = &schema["items"];
            match schema["x-kubernetes-list-type"].as_str() {
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
                    assert!(!keys.is_empty(), "{path}");
                    for key in keys {
                        let field = &items["properties"][key.as_str().unwrap()];
                        assert!(field["type"] != "object", "{path} {key}");
                        assert!(!field.is_null(), "{path} has no {key}");
                    }
                    *found += 1;
                }
                Some("set") => assert_eq!(items["type"], "string", "{path}"),
                Some("atomic") | None => {}
                Some(other) => panic!("{path}: {other}"),
            }
            for (name, field) in properties(schema).into_iter().flatten() {
                check(field, &path.field(name), found);
            }
            if !items.is_null() {
                check(items, path, found);
            }
        }
        for resource in Resource::ALL {
            let mut found = 0;
            check(openapi_schema(resource), &FieldPath::root(), &mut found);
            assert!(found >= 1, "{resource}: metadata.ownerReferences at least");
        }
        let function = openapi_schema(Resource::Function);
        let env = &function["properties"]["spec"]["properties"]["env"];
        assert_eq!(env["x-kubernetes-list-map-keys"], json!(["name"]));
    }
}
