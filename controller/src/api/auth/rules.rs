//! What a request would do, in Kubernetes' terms, and which role may do it. Pure.

use std::fmt;

use hive_manifests::Resource;
use hive_manifests::resource::GROUP;
use http::Method;

use super::super::errors::ApiError;
use super::super::path::{ObjectPath, Subresource, Target};
use crate::access::tokens::{Role, SYSTEM_NAMESPACE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// What a request would do, in Kubernetes' terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Attributes<'a> {
    pub verb: Verb,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// `None` for what every authenticated user may do.
    pub fn of(target: &'a Target, method: &Method, watch: bool) -> Result<Option<Self>, ApiError> {
        let attributes = match target {
            Target::Live
            | Target::Ready
            | Target::Version
            | Target::CoreVersions
            | Target::Groups
            | Target::Group(_)
            | Target::Resources(_)
            | Target::OpenApiIndex
            | Target::OpenApi(_)
            | Target::AccessReview
            | Target::SelfReview => return Ok(None),
            Target::Artifact(digest) => Self {
                verb: match *method {
                    Method::HEAD | Method::GET => Verb::Get,
                    Method::PUT => Verb::Create,
                    _ => return Err(ApiError::MethodNotAllowed),
                },
                group: GROUP,
                resource: "artifacts",
                subresource: None,
                namespace: None,
                name: Some(digest),
            },
            Target::NodeMetrics(name) => Self {
                verb: read_verb(method, name.as_deref(), false)?,
                group: "metrics.k8s.io",
                resource: "nodes",
                subresource: None,
                namespace: None,
                name: name.as_deref(),
            },
            Target::FunctionMetrics { namespace, name } => Self {
                verb: read_verb(method, name.as_deref(), false)?,
                group: "metrics.hive.dev",
                resource: "functions",
                subresource: None,
                namespace: namespace.as_deref(),
                name: name.as_deref(),
            },
            Target::Objects(path) => Self {
                verb: object_verb(path, method, watch)?,
                group: path.resource.group(),
                resource: path.resource.plural(),
                subresource: path.subresource.as_ref().map(Subresource::name),
                // As Kubernetes has it, a namespace object lies in itself.
                namespace: match path.resource {
                    Resource::Namespace => path.name.as_deref(),
                    _ => path.namespace.as_deref(),
                },
                name: path.name.as_deref(),
            },
        };
        Ok(Some(attributes))
    }

    /// The rules. `view` reads all but secrets; `edit` also writes in namespaces that are not the
    /// system's, secrets included; `admin` does all.
    pub fn allowed_to(&self, role: Role) -> bool {
        let secrets = self.group.is_empty() && self.resource == "secrets";
        let is_read = matches!(self.verb, Verb::Get | Verb::List | Verb::Watch);
        // Namespaces are the walls between teams: those who live inside don't move them.
        let inside = self.namespace.is_some_and(|ns| ns != SYSTEM_NAMESPACE)
            && !(self.group.is_empty() && self.resource == "namespaces");
        match role {
            Role::Admin => true,
            Role::Edit if secrets => inside,
            Role::View if secrets => false,
            _ if is_read => true,
            // An artifact grants nothing by itself, and `hivectl apply` must upload it.
            Role::Edit => inside || self.is_artifact(),
            Role::View => false,
        }
    }

    fn is_artifact(&self) -> bool {
        self.group == GROUP && self.resource == "artifacts"
    }

    /// Kubernetes' wording, with the role in the user's place.
    pub fn refusal(&self, role: Role) -> String {
        let mut resource = self.resource.to_owned();
        if let Some(subresource) = self.subresource {
            resource = format!("{resource}/{subresource}");
        }
        let qualified = match self.group {
            "" => self.resource.to_owned(),
            group => format!("{}.{group}", self.resource),
        };
        let name = self
            .name
            .map(|name| format!(" {name:?}"))
            .unwrap_or_default();
        let scope = match self.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        format!(
            "{qualified}{name} is forbidden: role {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
            role.name(),
            self.verb,
            self.group,
        )
    }
}

fn read_verb(method: &Method, name: Option<&str>, watch: bool) -> Result<Verb, ApiError> {
    match *method {
        Method::GET | Method::HEAD if watch => Ok(Verb::Watch),
        Method::GET | Method::HEAD if name.is_some() => Ok(Verb::Get),
        Method::GET | Method::HEAD => Ok(Verb::List),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

fn object_verb(path: &ObjectPath, method: &Method, watch: bool) -> Result<Verb, ApiError> {
    let named = path.name.is_some();
    // A proxied request reads or writes as its method says.
    let proxied = matches!(path.subresource, Some(Subresource::Proxy(_)));
    match *method {
        Method::GET | Method::HEAD => read_verb(
            method,
            path.name.as_deref(),
            watch && path.subresource.is_none(),
        ),
        _ if proxied => Ok(Verb::Create),
        Method::POST if !named => Ok(Verb::Create),
        Method::PUT if named => Ok(Verb::Update),
        Method::PATCH if named => Ok(Verb::Patch),
        Method::DELETE if named => Ok(Verb::Delete),
        Method::DELETE => Ok(Verb::DeleteCollection),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// `None` for a verb that nothing here knows, which only an admin's `*` covers.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Get,
            Self::List,
            Self::Watch,
            Self::Create,
            Self::Update,
            Self::Patch,
            Self::Delete,
            Self::DeleteCollection,
        ]
        .into_iter()
        .find(|verb| verb.name() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Who may do what: `a`dmin, `e`dit, `v`iew.
    #[test]
    fn roles_allow_what_they_say() {
        let table = [
            ("GET", "/apis/hive.dev/v1/namespaces/x/functions/f", "aev"),
            ("GET", "/apis/hive.dev/v1/functions", "aev"),
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
            ("POST", "/api/v1/namespaces/x/secrets", "ae"),
            ("POST", "/apis/hive.dev/v1/namespaces/x/functions", "ae"),
            (
                "PUT",
                "/apis/hive.dev/v1/namespaces/x/functions/f/scale",
                "ae",
            ),
            ("PATCH", "/apis/hive.dev/v1/namespaces/x/functions/f", "ae"),
            ("DELETE", "/apis/hive.dev/v1/namespaces/x/functions", "ae"),
            (
                "DELETE",
                "/apis/hive.dev/v1/namespaces/hive-system/functions/f",
                "a",
            ),
            ("PATCH", "/apis/hive.dev/v1/nodes/n", "a"),
            ("POST", "/api/v1/namespaces", "a"),
            ("DELETE", "/api/v1/namespaces/x", "a"),
            ("GET", "/api/v1/namespaces/x", "aev"),
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
            ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", "aev"),
            ("GET", "/apis", "aev"),
        ];
        for (method, path, expected) in table {
            let target = Target::parse(path).unwrap();
            let method: Method = method.parse().unwrap();
            let attributes = Attributes::of(&target, &method, false).unwrap();
            let allowed: String = [(Role::Admin, 'a'), (Role::Edit, 'e'), (Role::View, 'v')]
                .into_iter()
                .filter(|(role, _)| attributes.as_ref().is_none_or(|a| a.allowed_to(*role)))
                .map(|(_, letter)| letter)
                .collect();
            assert_eq!(allowed, expected, "{method} {path}");
        }
    }

    #[test]
    fn a_refusal_reads_as_kubernetes_words_it() {
        let target = Target::parse("/apis/hive.dev/v1/namespaces/x/functions/f/scale").unwrap();
        let attributes = Attributes::of(&target, &Method::PUT, false)
            .unwrap()
            .unwrap();
        assert_eq!(
            attributes.refusal(Role::View),
            "functions.hive.dev \"f\" is forbidden: role \"view\" cannot update resource \
             \"functions/scale\" in API group \"hive.dev\" in the namespace \"x\""
        );
    }
}
