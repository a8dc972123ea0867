//! How the lists and maps of Kubernetes' own types are merged, as annotations of their schemas.
//!
//! Our kinds say it beside the field; the crate that Kubernetes' types come from leaves it out. What
//! is not named here is as Kubernetes has it without an annotation: a list is one value, a map
//! is merged key by key.

use serde_json::{Value, json};

use crate::Resource;

/// How a list or map is merged.
#[derive(Clone, Copy)]
enum Topology {
    /// Each text is a member of its own.
    Set,
    /// Entries are told apart by one of their fields.
    By(&'static str),
    /// An object that is only ever replaced whole: half a reference means nothing.
    Whole,
}

/// `*` steps into the items of a list.
type Row = (&'static [&'static str], Topology);

const METADATA: [Row; 3] = [
    (&["metadata", "ownerReferences"], Topology::By("uid")),
    (&["metadata", "ownerReferences", "*"], Topology::Whole),
    (&["metadata", "finalizers"], Topology::Set),
];

fn rows(resource: Resource) -> &'static [Row] {
    use Topology::{By, Whole};
    match resource {
        Resource::Namespace => &[(&["status", "conditions"], By("type"))],
        Resource::ServiceAccount => &[
            (&["secrets"], By("name")),
            (&["secrets", "*"], Whole),
            // A list of references that Kubernetes replaces as one.
            (&["imagePullSecrets", "*"], Whole),
        ],
        Resource::ResourceQuota => &[(&["spec", "scopeSelector"], Whole)],
        Resource::ClusterRole => &[(&["aggregationRule", "clusterRoleSelectors", "*"], Whole)],
        Resource::ClusterRoleBinding | Resource::RoleBinding => {
            &[(&["roleRef"], Whole), (&["subjects", "*"], Whole)]
        }
        Resource::CertificateSigningRequest => &[(&["status", "conditions"], By("type"))],
        Resource::Event => &[(&["involvedObject"], Whole), (&["related"], Whole)],
        Resource::Secret
        | Resource::ConfigMap
        | Resource::LimitRange
        | Resource::Role
        | Resource::Node
        | Resource::Function
        | Resource::Tunnel
        | Resource::ControllerRevision
        | Resource::Assignment => &[],
    }
}

pub(super) fn annotate(resource: Resource, schema: &mut Value) {
    for (path, topology) in METADATA.iter().chain(rows(resource)) {
        let field = path.iter().fold(&mut *schema, |schema, step| match *step {
            "*" => &mut schema["items"],
            name => &mut schema["properties"][name],
        });
        assert!(
            field.is_object(),
            "the schema of {resource} has no {path:?}"
        );
        match topology {
            // The patch annotations say the same to whoever computes strategic merge patches: without
            // them kubectl sends a list whole, to be merged here.
            Topology::Set => {
                field["x-kubernetes-list-type"] = json!("set");
                field["x-kubernetes-patch-strategy"] = json!("merge");
            }
            Topology::By(key) => {
                field["x-kubernetes-list-type"] = json!("map");
                field["x-kubernetes-list-map-keys"] = json!([key]);
                field["x-kubernetes-patch-strategy"] = json!("merge");
                field["x-kubernetes-patch-merge-key"] = json!(key);
            }
            Topology::Whole => field["x-kubernetes-map-type"] = json!("atomic"),
        }
    }
}
