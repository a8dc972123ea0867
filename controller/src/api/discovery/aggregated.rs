//! Aggregated discovery: everything that `/api` or `/apis` serves in one answer, instead of one
//! request a group. Made from the same lists as the plain form.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use serde_json::{Value, json};

use super::super::accept::Range;

/// The versions of `apidiscovery.k8s.io` that are spoken; they differ in name only.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// The version that a client asks for with this range, if it asks for this form at all.
pub(super) fn version(range: &Range) -> Option<&'static str> {
    let asked = range.media_type == "application/json"
        && range.parameter("g") == Some("apidiscovery.k8s.io")
        && range.parameter("as") == Some("APIGroupDiscoveryList");
    let version = range.parameter("v").filter(|_| asked)?;
    VERSIONS.into_iter().find(|known| *known == version)
}

pub(super) fn content_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// `groups`: name, version and resources of each.
pub(super) fn list(
    version: &str,
    groups: impl Iterator<Item = (&'static str, &'static str, Vec<APIResource>)>,
) -> Value {
    let items: Vec<Value> = groups
        .map(|(group, served, resources)| {
            json!({
                "metadata": { "name": group, "creationTimestamp": null },
                "versions": [{
                    "version": served,
                    "freshness": "Current",
                    "resources": tree(group, served, &resources),
                }],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

/// Resources with their subresources inside.
fn tree(group: &str, version: &str, resources: &[APIResource]) -> Vec<Value> {
    let response_kind = |resource: &APIResource| {
        json!({
            "group": resource.group.as_deref().unwrap_or(group),
            "version": resource.version.as_deref().unwrap_or(version),
            "kind": resource.kind,
        })
    };
    resources
        .iter()
        .filter(|resource| !resource.name.contains('/'))
        .map(|resource| {
            let subresources: Vec<Value> = resources
                .iter()
                .filter_map(|other| {
                    let (parent, name) = other.name.split_once('/')?;
                    (parent == resource.name).then(|| {
                        json!({
                            "subresource": name,
                            "responseKind": response_kind(other),
                            "verbs": other.verbs,
                        })
                    })
                })
                .collect();
            let mut described = json!({
                "resource": resource.name,
                "responseKind": response_kind(resource),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular_name,
                "verbs": resource.verbs,
            });
            if let Some(names) = &resource.short_names {
                described["shortNames"] = json!(names);
            }
            if let Some(categories) = &resource.categories {
                described["categories"] = json!(categories);
            }
            if !subresources.is_empty() {
                described["subresources"] = json!(subresources);
            }
            described
        })
        .collect()
}
