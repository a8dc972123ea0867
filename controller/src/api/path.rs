//! What a request's path asks for.
//!
//! Parsed once, before anything else: routing and authorisation both match on [`Target`], so a path
//! cannot be served without a rule that says who may.

use hive_manifests::{APPS_GROUP, CERTIFICATES_GROUP, RBAC_GROUP, Resource};

use serde_json::Value;

use super::errors::ApiError;
use super::foreign::Foreign;
use super::metadata;
use super::metering::Metered;
use super::reviews::Review;
use crate::state::Key;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/livez`, and `/healthz` as its older name; one check of it by its name.
    Live(Option<String>),
    Ready(Option<String>),
    /// In Prometheus' form.
    Metrics,
    FunctionTelemetry,
    Version,
    /// `/api`: versions of the core group.
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/v1`, `/apis/{group}/{version}`
    Resources(String),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/{api/v1 | apis/group/version}`
    OpenApi(String),
    /// A question that is asked by creating it; some are about a namespace.
    Review(Review, Option<String>),
    /// `/.well-known/openid-configuration`: who issues service accounts' tokens.
    IssuerConfiguration,
    /// `/openid/v1/jwks`: what they are verified with.
    IssuerKeys,
    Artifact(String),
    Backup,
    /// The controllers, or one by its id.
    Controllers(Option<String>),
    NodeMetrics(Option<String>),
    FunctionMetrics {
        namespace: Option<String>,
        name: Option<String>,
    },
    /// What was used, of functions or namespaces.
    Metered(Metered),
    Objects(ObjectPath),
    /// There are none of these; whether one of them is named.
    Foreign(Foreign, bool),
}

/// Objects of a kind: one by name, or all in a namespace or everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectPath {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<Subresource>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subresource {
    Status,
    Scale,
    /// Of a request for a certificate: who may, says yes or no there.
    Approval,
    Log,
    /// The path for the function, with its leading slash.
    Proxy(String),
    /// Of a service account: made, never stored.
    Token,
}

impl Subresource {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Approval => "approval",
            Self::Log => "log",
            Self::Proxy(_) => "proxy",
            Self::Token => "token",
        }
    }
}

impl Target {
    /// `None` when nothing is served under this path.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        // A trailing slash means nothing to Kubernetes, but belongs to the path of a proxied request.
        let trimmed = match segments.as_slice() {
            [rest @ .., ""] if !rest.is_empty() => rest,
            all => all,
        };
        let target = match *trimmed {
            ["healthz" | "livez"] => Self::Live(None),
            ["healthz" | "livez", check] => Self::Live(Some(check.to_owned())),
            ["readyz"] => Self::Ready(None),
            ["readyz", check] => Self::Ready(Some(check.to_owned())),
            ["metrics"] => Self::Metrics,
            ["metrics", "functions"] => Self::FunctionTelemetry,
            ["version"] => Self::Version,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group(group.to_owned()),
            ["api", "v1"] => Self::Resources("v1".to_owned()),
            ["apis", group, version] => Self::Resources(format!("{group}/{version}")),
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiIndex,
            ["openapi", "v3", ref rest @ ..] => Self::OpenApi(rest.join("/")),
            [".well-known", "openid-configuration"] => Self::IssuerConfiguration,
            ["openid", "v1", "jwks"] => Self::IssuerKeys,
            ["apis", group, "v1", plural] if Review::by_plural(group, plural, false).is_some() => {
                Self::Review(Review::by_plural(group, plural, false)?, None)
            }
            ["apis", group, "v1", "namespaces", namespace, plural]
                if Review::by_plural(group, plural, true).is_some() =>
            {
                let review = Review::by_plural(group, plural, true)?;
                Self::Review(review, Some(namespace.to_owned()))
            }
            ["apis", "hive.dev", "v1", "artifacts", digest] => Self::Artifact(digest.to_owned()),
            ["apis", "hive.dev", "v1", "backups"] => Self::Backup,
            ["apis", "hive.dev", "v1", "controllers"] => Self::Controllers(None),
            ["apis", "hive.dev", "v1", "controllers", id] => Self::Controllers(Some(id.to_owned())),
            ["apis", "metrics.k8s.io", "v1beta1", ref rest @ ..] => match *rest {
                ["nodes"] => Self::NodeMetrics(None),
                ["nodes", name] => Self::NodeMetrics(Some(name.to_owned())),
                _ => return Self::foreign("metrics.k8s.io", rest),
            },
            ["apis", "metrics.hive.dev", "v1", ref rest @ ..] => {
                let (namespace, name) = match *rest {
                    ["functions"] => (None, None),
                    ["namespaces", namespace, "functions"] => (Some(namespace), None),
                    ["namespaces", namespace, "functions", name] => (Some(namespace), Some(name)),
                    _ => return None,
                };
                Self::FunctionMetrics {
                    namespace: namespace.map(str::to_owned),
                    name: name.map(str::to_owned),
                }
            }
            ["apis", "metering.hive.dev", "v1", ref rest @ ..] => {
                Self::Metered(Metered::parse(rest)?)
            }
            ["api", "v1", ref rest @ ..] => match ObjectPath::parse("", &segments[2..]) {
                Some(path) => Self::Objects(path),
                None => return Self::foreign("", rest),
            },
            ["apis", "hive.dev", "v1", ..] => {
                Self::Objects(ObjectPath::parse("hive.dev", &segments[3..])?)
            }
            [
                "apis",
                group @ (APPS_GROUP | RBAC_GROUP | CERTIFICATES_GROUP),
                "v1",
                ..,
            ] => Self::Objects(ObjectPath::parse(group, &segments[3..])?),
            _ => return None,
        };
        Some(target)
    }

    fn foreign(group: &str, segments: &[&str]) -> Option<Self> {
        let (kind, is_named) = Foreign::parse(group, segments)?;
        Some(Self::Foreign(kind, is_named))
    }
}

impl ObjectPath {
    pub fn is_proxy(&self) -> bool {
        matches!(self.subresource, Some(Subresource::Proxy(_)))
    }

    pub fn is_log(&self) -> bool {
        self.subresource == Some(Subresource::Log)
    }

    pub fn is_token(&self) -> bool {
        self.subresource == Some(Subresource::Token)
    }

    /// The object that is named; `None` for a whole collection.
    pub fn key(&self) -> Option<Key> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        Some(Key::new(self.resource, namespace, self.name.as_deref()?))
    }

    /// Fills in of a body what the path says of it, and refuses another object's.
    pub fn conform(&self, body: Value) -> Result<Value, ApiError> {
        let (namespace, name) = (self.namespace.as_deref(), self.name.as_deref());
        metadata::conform(self.resource, namespace, name, body)
    }

    /// `segments` follow the group and version; the last is empty after a trailing slash.
    fn parse(group: &str, segments: &[&str]) -> Option<Self> {
        let (namespace, rest) = match *segments {
            // `namespaces/{name}/{plural}` is a list in a namespace, `namespaces/{name}/status` is not.
            ["namespaces", namespace, plural, ref rest @ ..]
                if Resource::by_plural(group, plural).is_some_and(|r| r.namespaced()) =>
            {
                (Some(namespace), [&[plural], rest].concat())
            }
            _ => (None, segments.to_vec()),
        };
        let [plural, rest @ ..] = rest.as_slice() else {
            return None;
        };
        let resource = Resource::by_plural(group, plural)?;
        let (name, subresource) = match *rest {
            [] | [""] => (None, None),
            [name] | [name, ""] => (Some(name), None),
            [name, "status"] if resource.has_status() => (Some(name), Some(Subresource::Status)),
            [name, "approval"] if resource.has_approval() => {
                (Some(name), Some(Subresource::Approval))
            }
            [name, "scale"] if resource.has_scale() => (Some(name), Some(Subresource::Scale)),
            [name, "token"] if resource == Resource::ServiceAccount => {
                (Some(name), Some(Subresource::Token))
            }
            [name, "log"] if resource == Resource::Function => (Some(name), Some(Subresource::Log)),
            [name, "proxy", ref path @ ..] if resource == Resource::Function => (
                Some(name),
                Some(Subresource::Proxy(format!("/{}", path.join("/")))),
            ),
            _ => return None,
        };
        // A namespaced object is named with its namespace, everything else without.
        if (name.is_some() && resource.namespaced()) != (name.is_some() && namespace.is_some()) {
            return None;
        }
        Some(Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(
        resource: Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        subresource: Option<Subresource>,
    ) -> Option<Target> {
        Some(Target::Objects(ObjectPath {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource,
        }))
    }

    #[test]
    fn paths_name_targets() {
        use Resource::{Function, Namespace, Node, Secret};
        let table = [
            ("/api/v1/namespaces", objects(Namespace, None, None, None)),
            (
                "/api/v1/namespaces/a",
                objects(Namespace, None, Some("a"), None),
            ),
            (
                "/api/v1/namespaces/a/status",
                objects(Namespace, None, Some("a"), Some(Subresource::Status)),
            ),
            ("/api/v1/secrets", objects(Secret, None, None, None)),
            (
                "/api/v1/namespaces/a/secrets",
                objects(Secret, Some("a"), None, None),
            ),
            (
                "/api/v1/namespaces/a/secrets/s",
                objects(Secret, Some("a"), Some("s"), None),
            ),
            ("/apis/hive.dev/v1/nodes/", objects(Node, None, None, None)),
            (
                "/apis/hive.dev/v1/nodes/n",
                objects(Node, None, Some("n"), None),
            ),
            (
                "/apis/hive.dev/v1/namespaces/a/functions/f/scale",
                objects(Function, Some("a"), Some("f"), Some(Subresource::Scale)),
            ),
            (
                "/apis/hive.dev/v1/namespaces/a/functions/f/proxy/x//y/",
                objects(
                    Function,
                    Some("a"),
                    Some("f"),
                    Some(Subresource::Proxy("/x//y/".into())),
                ),
            ),
            (
                "/apis/hive.dev/v1",
                Some(Target::Resources("hive.dev/v1".into())),
            ),
            (
                "/apis/hive.dev/v1/artifacts/ab",
                Some(Target::Artifact("ab".into())),
            ),
            (
                "/apis/hive.dev/v1/controllers/3",
                Some(Target::Controllers(Some("3".into()))),
            ),
            (
                "/apis/metering.hive.dev/v1/namespaces/a",
                Some(Target::Metered(Metered::Namespaces(Some("a".into())))),
            ),
            (
                "/apis/metering.hive.dev/v1/namespaces/a/functions/f",
                Some(Target::Metered(Metered::Functions {
                    namespace: Some("a".into()),
                    name: Some("f".into()),
                })),
            ),
            ("/apis/metering.hive.dev/v1/functions/f", None),
            ("/api/v1/namespaces/a/secrets/s/scale", None),
            ("/api/v1/secrets/s", None),
            ("/apis/hive.dev/v1/functions/f", None),
            ("/apis/hive.dev/v1/namespaces/a/nodes/n", None),
            (
                "/api/v1/namespaces/a/pods/p/log",
                Some(Target::Foreign(Foreign::Pods, true)),
            ),
            ("/api/v1/endpoints", None),
            ("/api/v2/secrets", None),
            ("/", None),
            ("", None),
        ];
        for (path, target) in table {
            assert_eq!(Target::parse(path), target, "{path}");
        }
    }
}
