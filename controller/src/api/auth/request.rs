//! What a request would do, in the terms that roles speak of: from its path, method and query. Pure.

use hive_manifests::Resource;
use hive_manifests::resource::GROUP;
use http::Method;

use super::super::errors::ApiError;
use super::super::path::{ObjectPath, Subresource, Target};
use super::super::query::Query;
use crate::access::attributes::{Attributes, ResourceAttributes};

/// `path` is the URL's, for what is no resource.
pub(in crate::api) fn attributes<'a>(
    target: &'a Target,
    method: &Method,
    path: &'a str,
    query: &'a Query,
) -> Result<Attributes<'a>, ApiError> {
    // "/apis/" is "/apis".
    let path = match path.trim_end_matches('/') {
        "" => path,
        trimmed => trimmed,
    };
    let asked = match target {
        Target::Live(_)
        | Target::Ready(_)
        | Target::Metrics
        | Target::FunctionTelemetry
        | Target::Version
        | Target::CoreVersions
        | Target::Groups
        | Target::Group(_)
        | Target::Resources(_)
        | Target::OpenApiV2
        | Target::IssuerConfiguration
        | Target::IssuerKeys
        | Target::OpenApiIndex
        | Target::OpenApi(_)
        | Target::Foreign(..) => {
            return Ok(Attributes::Path {
                verb: path_verb(method)?,
                path,
            });
        }
        Target::Review(review, namespace) => ResourceAttributes {
            verb: match *method {
                Method::POST => "create",
                _ => return Err(ApiError::MethodNotAllowed),
            },
            group: review.group(),
            resource: review.plural(),
            namespace: namespace.as_deref(),
            ..ResourceAttributes::default()
        },
        Target::Artifact(digest) => ResourceAttributes {
            verb: match *method {
                Method::HEAD | Method::GET => "get",
                Method::PUT => "create",
                _ => return Err(ApiError::MethodNotAllowed),
            },
            group: GROUP,
            resource: "artifacts",
            name: Some(digest),
            ..ResourceAttributes::default()
        },
        // A backup is made by being asked for, and holds every secret: more than reading.
        Target::Backup => ResourceAttributes {
            verb: match *method {
                Method::POST => "create",
                _ => return Err(ApiError::MethodNotAllowed),
            },
            group: GROUP,
            resource: "backups",
            ..ResourceAttributes::default()
        },
        Target::Controllers(id) => ResourceAttributes {
            verb: match (method, id) {
                (&Method::DELETE, Some(_)) => "delete",
                _ => read_verb(method, id.is_some(), query.watch)?,
            },
            group: GROUP,
            resource: "controllers",
            name: id.as_deref(),
            ..ResourceAttributes::default()
        },
        Target::NodeMetrics(name) => ResourceAttributes {
            verb: read_verb(method, name.is_some(), false)?,
            group: "metrics.k8s.io",
            resource: "nodes",
            name: name.as_deref(),
            ..ResourceAttributes::default()
        },
        Target::FunctionMetrics { namespace, name } => ResourceAttributes {
            verb: read_verb(method, name.is_some(), false)?,
            group: "metrics.hive.dev",
            resource: "functions",
            namespace: namespace.as_deref(),
            name: name.as_deref(),
            ..ResourceAttributes::default()
        },
        Target::Metered(asked) => ResourceAttributes {
            verb: read_verb(method, asked.name().is_some(), false)?,
            group: "metering.hive.dev",
            resource: asked.resource(),
            namespace: asked.namespace(),
            name: asked.name(),
            ..ResourceAttributes::default()
        },
        Target::Objects(path) => ResourceAttributes {
            verb: object_verb(path, method, query.watch)?,
            group: path.resource.group(),
            resource: path.resource.plural(),
            subresource: path.subresource.as_ref().map(Subresource::name),
            // As Kubernetes has it, a namespace object lies in itself.
            namespace: match path.resource {
                Resource::Namespace => path.name.as_deref(),
                _ => path.namespace.as_deref(),
            },
            name: path
                .name
                .as_deref()
                .or_else(|| selected_name(method, query)),
        },
    };
    Ok(Attributes::Resource(asked))
}

/// A list or watch of one object by its name may be allowed by a rule that names it.
fn selected_name<'a>(method: &Method, query: &'a Query) -> Option<&'a str> {
    if *method != Method::GET {
        return None;
    }
    let selector = query.field_selector.as_deref()?;
    selector.split(',').find_map(|requirement| {
        let name = requirement.trim().strip_prefix("metadata.name=")?;
        Some(name.strip_prefix('=').unwrap_or(name)).filter(|name| !name.is_empty())
    })
}

fn path_verb(method: &Method) -> Result<&'static str, ApiError> {
    Ok(match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => return Err(ApiError::MethodNotAllowed),
    })
}

fn read_verb(method: &Method, named: bool, watch: bool) -> Result<&'static str, ApiError> {
    match *method {
        Method::GET | Method::HEAD if watch => Ok("watch"),
        Method::GET | Method::HEAD if named => Ok("get"),
        Method::GET | Method::HEAD => Ok("list"),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

fn object_verb(path: &ObjectPath, method: &Method, watch: bool) -> Result<&'static str, ApiError> {
    let named = path.name.is_some();
    match *method {
        Method::GET | Method::HEAD => read_verb(method, named, watch && path.subresource.is_none()),
        // A proxied request reads or writes as its method says.
        _ if matches!(path.subresource, Some(Subresource::Proxy(_))) => Ok("create"),
        Method::POST if !named || path.is_token() => Ok("create"),
        Method::PUT if named => Ok("update"),
        Method::PATCH if named => Ok("patch"),
        Method::DELETE if named => Ok("delete"),
        Method::DELETE => Ok("deletecollection"),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use super::*;
    use crate::access::index::Index;
    use crate::access::rbac;
    use crate::access::user::{AUTHENTICATED, MASTERS, UserInfo};
    use crate::reconcile::roles::plan;
    use crate::state::State;

    /// The roles that every swarm has.
    static INDEX: LazyLock<Index> = LazyLock::new(|| {
        let mut state = State::default();
        loop {
            let steps = plan(&state);
            if steps.is_empty() {
                return Index::build(&state);
            }
            for step in steps {
                state.apply(step.into()).unwrap();
            }
        }
    });

    fn may(group: &str, method: &str, url: &str) -> bool {
        let user = UserInfo {
            name: "u".into(),
            groups: vec![group.into(), AUTHENTICATED.into()],
            ..UserInfo::default()
        };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let target = Target::parse(path).unwrap();
        let query = Query::parse(Some(query)).unwrap();
        let asked = attributes(&target, &method.parse().unwrap(), path, &query).unwrap();
        rbac::allowed(&INDEX, &user, &asked)
    }

    /// Who may do what: `a`dmin, `e`dit, `v`iew, and `n`obody in particular.
    #[test]
    fn roles_allow_what_they_say() {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let roles = format!("{RBAC}/namespaces/x/roles");
        let table = [
            ("GET", "/apis/hive.dev/v1/namespaces/x/functions/f", "aev"),
            ("GET", "/apis/hive.dev/v1/functions", "aev"),
            ("GET", "/apis/hive.dev/v1/functions?watch=1", "aev"),
            ("GET", "/apis/hive.dev/v1/nodes", "aev"),
            (
                "GET",
                "/apis/hive.dev/v1/namespaces/x/functions/f/log",
                "aev",
            ),
            ("GET", "/api/v1/namespaces/hive-system/configmaps", "aev"),
            ("GET", "/api/v1/namespaces/x/secrets/s", "ae"),
            ("GET", "/api/v1/namespaces/x/secrets", "ae"),
            ("GET", "/api/v1/secrets", "a"),
            ("GET", "/api/v1/namespaces/hive-system/secrets", "a"),
            ("POST", "/api/v1/namespaces/hive-system/secrets", "a"),
            ("POST", "/api/v1/namespaces/hive-system/configmaps", "a"),
            ("POST", "/api/v1/namespaces/x/secrets", "ae"),
            ("POST", "/apis/hive.dev/v1/namespaces/x/functions", "ae"),
            (
                "PUT",
                "/apis/hive.dev/v1/namespaces/x/functions/f/scale",
                "ae",
            ),
            ("PATCH", "/apis/hive.dev/v1/namespaces/x/functions/f", "ae"),
            (
                "PATCH",
                "/apis/hive.dev/v1/namespaces/x/functions/f/status",
                "a",
            ),
            ("DELETE", "/apis/hive.dev/v1/namespaces/x/functions", "ae"),
            ("DELETE", "/apis/hive.dev/v1/functions", "a"),
            (
                "DELETE",
                "/apis/hive.dev/v1/namespaces/hive-system/functions/f",
                "a",
            ),
            (
                "DELETE",
                "/apis/hive.dev/v1/namespaces/x/assignments/a",
                "ae",
            ),
            ("POST", "/apis/hive.dev/v1/namespaces/x/assignments", "a"),
            ("PATCH", "/apis/hive.dev/v1/nodes/n", "a"),
            ("POST", "/api/v1/namespaces", "a"),
            ("DELETE", "/api/v1/namespaces/x", "a"),
            ("GET", "/api/v1/namespaces/x", "aev"),
            ("POST", "/api/v1/namespaces/x/serviceaccounts", "ae"),
            ("POST", "/api/v1/namespaces/x/resourcequotas", "a"),
            ("GET", "/api/v1/namespaces/x/resourcequotas", "aev"),
            ("GET", &roles, "a"),
            ("POST", &roles, "a"),
            ("PUT", "/apis/hive.dev/v1/artifacts/00", "ae"),
            ("HEAD", "/apis/hive.dev/v1/artifacts/00", "aev"),
            (
                "POST",
                "/apis/hive.dev/v1/namespaces/x/functions/f/proxy/a",
                "ae",
            ),
            (
                "GET",
                "/apis/hive.dev/v1/namespaces/x/functions/f/proxy/a",
                "aev",
            ),
            ("GET", "/apis/hive.dev/v1/controllers", "aev"),
            ("DELETE", "/apis/hive.dev/v1/controllers/3", "a"),
            ("POST", "/apis/hive.dev/v1/backups", "a"),
            ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", "aev"),
            ("GET", "/apis", "aevn"),
            ("GET", "/openapi/v3", "aevn"),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "aevn",
            ),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                "a",
            ),
        ];
        for (method, url, expected) in table {
            let allowed: String = [
                ("hive:admin", 'a'),
                ("hive:edit", 'e'),
                ("hive:view", 'v'),
                ("nobody", 'n'),
            ]
            .into_iter()
            .filter(|(group, _)| may(group, method, url))
            .map(|(_, letter)| letter)
            .collect();
            assert_eq!(allowed, expected, "{method} {url}");
            assert!(may(MASTERS, method, url), "{method} {url}");
        }
    }

    #[test]
    fn a_list_of_one_object_is_a_list_of_that_name() {
        let path = "/api/v1/namespaces/x/secrets";
        let target = Target::parse(path).unwrap();
        for (method, query, name) in [
            (
                Method::GET,
                "watch=1&fieldSelector=metadata.name%3Da",
                Some("a"),
            ),
            (
                Method::GET,
                "fieldSelector=type%3DOpaque,metadata.name%3D%3Da",
                Some("a"),
            ),
            (Method::GET, "fieldSelector=metadata.name!%3Da", None),
            // A deletion of all that a selector selects is not one of that name.
            (Method::DELETE, "fieldSelector=metadata.name%3Da", None),
        ] {
            let parsed = Query::parse(Some(query)).unwrap();
            let Attributes::Resource(asked) = attributes(&target, &method, path, &parsed).unwrap()
            else {
                panic!("{query}");
            };
            assert_eq!(asked.name, name, "{query}");
        }
    }
}
