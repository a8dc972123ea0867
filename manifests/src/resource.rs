//! Which resources there are, and how each is named in URLs, manifests and commands.
//!
//! Everything that lists, routes or discovers resources reads this one table.
//! It says nothing about the content of an object: that is the kinds' and the validation's part.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// API group of Hive's own kinds.
pub const GROUP: &str = "hive.dev";

/// API group of the kinds that say who may do what.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// API group of requests for certificates.
pub const CERTIFICATES_GROUP: &str = "certificates.k8s.io";

/// API group of what Kubernetes keeps of its workloads.
pub const APPS_GROUP: &str = "apps";

/// A resource of the API. The order is that in which objects must be created: what others refer to
/// comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    Namespace,
    ServiceAccount,
    Secret,
    ConfigMap,
    ResourceQuota,
    LimitRange,
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
    CertificateSigningRequest,
    Event,
    Node,
    Function,
    Tunnel,
    ControllerRevision,
    Assignment,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// `""` for core/v1.
    pub group: &'static str,
    pub version: &'static str,
    /// `group/version`, or only the version for core: as in a manifest.
    pub api_version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub has_status: bool,
    pub has_scale: bool,
}

const fn core(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
) -> ResourceInfo {
    ResourceInfo {
        group: "",
        version: "v1",
        api_version: "v1",
        kind,
        plural,
        singular,
        short_names,
        categories: &[],
        namespaced: true,
        has_status: false,
        has_scale: false,
    }
}

const fn hive(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
) -> ResourceInfo {
    ResourceInfo {
        group: GROUP,
        api_version: "hive.dev/v1",
        has_status: true,
        ..core(kind, plural, singular, short_names)
    }
}

const fn rbac(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
) -> ResourceInfo {
    ResourceInfo {
        group: RBAC_GROUP,
        api_version: "rbac.authorization.k8s.io/v1",
        namespaced,
        ..core(kind, plural, singular, &[])
    }
}

static NAMESPACE: ResourceInfo = ResourceInfo {
    namespaced: false,
    has_status: true,
    ..core("Namespace", "namespaces", "namespace", &["ns"])
};
static SECRET: ResourceInfo = core("Secret", "secrets", "secret", &[]);
static CONFIG_MAP: ResourceInfo = core("ConfigMap", "configmaps", "configmap", &["cm"]);
static SERVICE_ACCOUNT: ResourceInfo = core(
    "ServiceAccount",
    "serviceaccounts",
    "serviceaccount",
    &["sa"],
);
static RESOURCE_QUOTA: ResourceInfo = ResourceInfo {
    has_status: true,
    ..core(
        "ResourceQuota",
        "resourcequotas",
        "resourcequota",
        &["quota"],
    )
};
static LIMIT_RANGE: ResourceInfo = core("LimitRange", "limitranges", "limitrange", &["limits"]);
static CLUSTER_ROLE: ResourceInfo = rbac("ClusterRole", "clusterroles", "clusterrole", false);
static CLUSTER_ROLE_BINDING: ResourceInfo = rbac(
    "ClusterRoleBinding",
    "clusterrolebindings",
    "clusterrolebinding",
    false,
);
static ROLE: ResourceInfo = rbac("Role", "roles", "role", true);
static ROLE_BINDING: ResourceInfo = rbac("RoleBinding", "rolebindings", "rolebinding", true);
static CERTIFICATE_SIGNING_REQUEST: ResourceInfo = ResourceInfo {
    group: CERTIFICATES_GROUP,
    api_version: "certificates.k8s.io/v1",
    namespaced: false,
    has_status: true,
    ..core(
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
        &["csr"],
    )
};
static EVENT: ResourceInfo = core("Event", "events", "event", &["ev"]);
static NODE: ResourceInfo = ResourceInfo {
    namespaced: false,
    ..hive("Node", "nodes", "node", &["no"])
};
static FUNCTION: ResourceInfo = ResourceInfo {
    categories: &["all"],
    has_scale: true,
    ..hive("Function", "functions", "function", &["fn"])
};
static TUNNEL: ResourceInfo = ResourceInfo {
    categories: &["all"],
    ..hive("Tunnel", "tunnels", "tunnel", &["tun"])
};
static CONTROLLER_REVISION: ResourceInfo = ResourceInfo {
    group: APPS_GROUP,
    api_version: "apps/v1",
    ..core(
        "ControllerRevision",
        "controllerrevisions",
        "controllerrevision",
        &[],
    )
};
static ASSIGNMENT: ResourceInfo = hive("Assignment", "assignments", "assignment", &["asg"]);

impl Resource {
    pub const ALL: [Resource; 17] = [
        Resource::Namespace,
        Resource::ServiceAccount,
        Resource::Secret,
        Resource::ConfigMap,
        Resource::ResourceQuota,
        Resource::LimitRange,
        Resource::ClusterRole,
        Resource::ClusterRoleBinding,
        Resource::Role,
        Resource::RoleBinding,
        Resource::CertificateSigningRequest,
        Resource::Event,
        Resource::Node,
        Resource::Function,
        Resource::Tunnel,
        Resource::ControllerRevision,
        Resource::Assignment,
    ];

    pub fn info(self) -> &'static ResourceInfo {
        match self {
            Resource::Namespace => &NAMESPACE,
            Resource::ServiceAccount => &SERVICE_ACCOUNT,
            Resource::Secret => &SECRET,
            Resource::ConfigMap => &CONFIG_MAP,
            Resource::ResourceQuota => &RESOURCE_QUOTA,
            Resource::LimitRange => &LIMIT_RANGE,
            Resource::ClusterRole => &CLUSTER_ROLE,
            Resource::ClusterRoleBinding => &CLUSTER_ROLE_BINDING,
            Resource::Role => &ROLE,
            Resource::RoleBinding => &ROLE_BINDING,
            Resource::CertificateSigningRequest => &CERTIFICATE_SIGNING_REQUEST,
            Resource::Event => &EVENT,
            Resource::Node => &NODE,
            Resource::Function => &FUNCTION,
            Resource::Tunnel => &TUNNEL,
            Resource::ControllerRevision => &CONTROLLER_REVISION,
            Resource::Assignment => &ASSIGNMENT,
        }
    }

    /// The resource behind a URL such as `/apis/hive.dev/v1/functions`.
    pub fn by_plural(group: &str, plural: &str) -> Option<Resource> {
        Self::ALL
            .into_iter()
            .find(|r| r.group() == group && r.plural() == plural)
    }

    /// The resource behind a manifest's `apiVersion` (its group) and `kind`.
    pub fn by_kind(group: &str, kind: &str) -> Option<Resource> {
        Self::ALL
            .into_iter()
            .find(|r| r.group() == group && r.kind() == kind)
    }

    /// `v1` or `hive.dev/v1`.
    pub fn api_version(self) -> &'static str {
        self.info().api_version
    }

    pub fn group(self) -> &'static str {
        self.info().group
    }

    pub fn version(self) -> &'static str {
        self.info().version
    }

    pub fn kind(self) -> &'static str {
        self.info().kind
    }

    pub fn plural(self) -> &'static str {
        self.info().plural
    }

    pub fn singular(self) -> &'static str {
        self.info().singular
    }

    pub fn short_names(self) -> &'static [&'static str] {
        self.info().short_names
    }

    pub fn categories(self) -> &'static [&'static str] {
        self.info().categories
    }

    pub fn namespaced(self) -> bool {
        self.info().namespaced
    }

    pub fn has_status(self) -> bool {
        self.info().has_status
    }

    /// Whether requests of this kind are approved or denied.
    pub fn has_approval(self) -> bool {
        self == Resource::CertificateSigningRequest
    }

    pub fn has_scale(self) -> bool {
        self.info().has_scale
    }
}

/// The plural name, as in a URL.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.plural())
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Plural names are unique across the groups (a test holds that).
        let plural = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::ALL
            .into_iter()
            .find(|r| r.plural() == plural)
            .ok_or_else(|| D::Error::custom(format_args!("unknown resource \"{plural}\"")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_resource_is_found_by_both_names_and_survives_serde() {
        for resource in Resource::ALL {
            let info = resource.info();
            assert_eq!(Resource::by_plural(info.group, info.plural), Some(resource));
            assert_eq!(Resource::by_kind(info.group, info.kind), Some(resource));
            let json = serde_json::to_string(&resource).unwrap();
            assert_eq!(json, format!("\"{}\"", info.plural));
            assert_eq!(serde_json::from_str::<Resource>(&json).unwrap(), resource);
        }
        assert_eq!(Resource::by_kind("", "Function"), None);
        assert_eq!(Resource::by_plural("hive.dev", "secrets"), None);
    }

    #[test]
    fn no_name_means_two_resources() {
        let mut names = BTreeSet::new();
        for resource in Resource::ALL {
            let info = resource.info();
            for name in [info.plural, info.singular].iter().chain(info.short_names) {
                assert!(names.insert(*name), "{name} is used twice");
            }
        }
    }

    #[test]
    fn api_version_is_group_and_version() {
        for resource in Resource::ALL {
            let expected = match resource.group() {
                "" => resource.version().to_owned(),
                group => format!("{group}/{}", resource.version()),
            };
            assert_eq!(resource.api_version(), expected);
        }
    }
}
