//! What is served here: versions, groups, resources.
//!
//! All of it is read from the table of [`Resource`]s; nothing is listed twice.

mod aggregated;

use axum::response::Response;
use hive_manifests::Resource;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, APIVersions, GroupVersionForDiscovery,
};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Call;
use super::accept;
use super::errors::ApiError;
use super::foreign::Foreign;
use super::path::Target;
use super::respond;
use super::reviews::Review;

/// Version of the Kubernetes API whose conventions are followed; clients compare it with theirs.
const KUBERNETES_MAJOR: &str = "1";
const KUBERNETES_MINOR: &str = "34";

/// Verbs of a stored kind.
const OBJECT_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Groups with one version each, the core group apart.
pub(super) const GROUPS: &[(&str, &str)] = &[
    ("hive.dev", "v1"),
    ("apps", "v1"),
    ("rbac.authorization.k8s.io", "v1"),
    ("certificates.k8s.io", "v1"),
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
    ("metrics.k8s.io", "v1beta1"),
    ("metrics.hive.dev", "v1"),
    ("metering.hive.dev", "v1"),
];

/// Which version of Kubernetes' API this is.
pub(super) fn version() -> Result<Response, ApiError> {
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+hive.{version}"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    respond::json(StatusCode::OK, &body)
}

pub(super) fn serve(target: &Target, call: &Call) -> Result<Response, ApiError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    match target {
        Target::CoreVersions => versions_or_all(
            &call.headers,
            &[("", "v1")],
            &APIVersions {
                versions: vec!["v1".into()],
                server_address_by_client_cidrs: Vec::new(),
            },
        ),
        Target::Groups => versions_or_all(
            &call.headers,
            GROUPS,
            &APIGroupList {
                groups: GROUPS.iter().map(group).collect(),
            },
        ),
        Target::Group(name) => GROUPS
            .iter()
            .find(|(group, _)| group == name)
            .ok_or(ApiError::NoSuchPath)
            .and_then(|found| respond::json(StatusCode::OK, &group(found))),
        Target::Resources(group_version) => {
            let resources = resources(group_version).ok_or(ApiError::NoSuchPath)?;
            respond::json(
                StatusCode::OK,
                &APIResourceList {
                    group_version: group_version.clone(),
                    resources,
                },
            )
        }
        _ => Err(ApiError::NoSuchPath),
    }
}

/// The plain list, or everything in it at once if the client prefers that.
fn versions_or_all(
    headers: &HeaderMap,
    groups: &[(&'static str, &'static str)],
    plain: &impl Serialize,
) -> Result<Response, ApiError> {
    let wanted =
        accept::ranges(headers)?
            .iter()
            .find_map(|range| match aggregated::version(range) {
                Some(version) => Some(Some(version)),
                None => (range.takes_json() && range.parameter("as").is_none()).then_some(None),
            });
    let mut response = match wanted.ok_or(ApiError::NotAcceptable)? {
        None => respond::json(StatusCode::OK, plain)?,
        Some(version) => {
            let served = groups.iter().map(|(group, version)| {
                let resources = match *group {
                    "" => resources(version),
                    group => resources(&format!("{group}/{version}")),
                };
                (*group, *version, resources.unwrap_or_default())
            });
            let list = aggregated::list(version, served).to_string();
            let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&list)));
            let mut response = respond::unless_known(headers, &etag, list);
            let content_type = HeaderValue::from_str(&aggregated::content_type(version))
                .map_err(ApiError::internal)?;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type);
            response
        }
    };
    let vary = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, vary);
    Ok(response)
}

fn group((name, version): &(&str, &str)) -> APIGroup {
    let version = GroupVersionForDiscovery {
        group_version: format!("{name}/{version}"),
        version: (*version).to_owned(),
    };
    APIGroup {
        name: (*name).to_owned(),
        versions: vec![version.clone()],
        preferred_version: Some(version),
        server_address_by_client_cidrs: None,
    }
}

fn resources(group_version: &str) -> Option<Vec<APIResource>> {
    let stored: Vec<APIResource> = Resource::ALL
        .into_iter()
        .filter(|resource| resource.api_version() == group_version)
        .flat_map(object_resources)
        .collect();
    if !stored.is_empty() {
        let others = match group_version {
            "v1" => Foreign::discovered().to_vec(),
            "hive.dev/v1" => vec![controllers_resource()],
            _ => Vec::new(),
        };
        return Some(stored.into_iter().chain(others).collect());
    }
    let served = match group_version {
        "authentication.k8s.io/v1" | "authorization.k8s.io/v1" => {
            return Some(reviews(group_version));
        }
        "metering.hive.dev/v1" => {
            return Some(vec![
                resource("functions", "FunctionUsage", true, &["get", "list"]),
                resource("namespaces", "NamespaceUsage", false, &["get", "list"]),
            ]);
        }
        "metrics.k8s.io/v1beta1" => resource("nodes", "NodeMetrics", false, &["get", "list"]),
        "metrics.hive.dev/v1" => resource("functions", "FunctionMetrics", true, &["get", "list"]),
        _ => return None,
    };
    Some(vec![served])
}

fn reviews(group_version: &str) -> Vec<APIResource> {
    Review::ALL
        .into_iter()
        .filter(|review| group_version.strip_suffix("/v1") == Some(review.group()))
        .map(|review| {
            let name = review.plural();
            resource(name, review.kind(), review.namespaced(), &["create"])
        })
        .collect()
}

/// Not stored: put together from what Raft and the controllers say.
fn controllers_resource() -> APIResource {
    APIResource {
        singular_name: "controller".to_owned(),
        short_names: Some(vec!["ctrl".to_owned()]),
        ..resource(
            "controllers",
            "Controller",
            false,
            &["delete", "get", "list", "watch"],
        )
    }
}

/// A kind with its subresources.
fn object_resources(kind: Resource) -> Vec<APIResource> {
    let names = |list: &[&str]| {
        Some(
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
        .filter(|list| !list.is_empty())
    };
    let under = |subresource: &str, kind_name: &str, verbs: &[&str]| APIResource {
        singular_name: String::new(),
        ..resource(
            &format!("{}/{subresource}", kind.plural()),
            kind_name,
            kind.namespaced(),
            verbs,
        )
    };
    let mut all = vec![APIResource {
        singular_name: kind.singular().to_owned(),
        short_names: names(kind.short_names()),
        categories: names(kind.categories()),
        ..resource(kind.plural(), kind.kind(), kind.namespaced(), OBJECT_VERBS)
    }];
    if kind.has_status() {
        all.push(under("status", kind.kind(), &["get", "patch", "update"]));
    }
    if kind.has_approval() {
        all.push(under("approval", kind.kind(), &["get", "patch", "update"]));
    }
    if kind.has_scale() {
        all.push(APIResource {
            group: Some("autoscaling".into()),
            version: Some("v1".into()),
            ..under("scale", "Scale", &["get", "patch", "update"])
        });
    }
    if kind == Resource::ServiceAccount {
        all.push(APIResource {
            group: Some("authentication.k8s.io".into()),
            version: Some("v1".into()),
            ..under("token", "TokenRequest", &["create"])
        });
    }
    if kind == Resource::Function {
        all.push(under("log", kind.kind(), &["get"]));
        all.push(under("proxy", kind.kind(), &["create", "get"]));
    }
    all
}

fn resource(name: &str, kind: &str, namespaced: bool, verbs: &[&str]) -> APIResource {
    APIResource {
        name: name.to_owned(),
        kind: kind.to_owned(),
        namespaced,
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        singular_name: String::new(),
        ..APIResource::default()
    }
}
