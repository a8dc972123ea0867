//! `apply --server-side`: sends what the manifest says and lets the server merge it.
//!
//! One request an object, and none of it is tried again: a conflict is between people.

use hive_manifests::Resource;
use http::Method;
use serde_json::Value;

use super::submit::{Outcome, Submission};
use super::{Apply, DryRun, Prepared};
use crate::cluster::{Call, Cluster, DRY_RUN, RequestError, STRICT, path};
use crate::object;

/// JSON is YAML.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

pub async fn submit(
    cluster: &Cluster,
    item: &Prepared,
    apply: &Apply,
) -> Result<Submission, RequestError> {
    let manifest = &item.manifest;
    let declaration = Declaration {
        resource: manifest.resource,
        namespace: manifest.namespace.as_deref(),
        object: &item.declared(),
        manager: &apply.field_manager,
        force: apply.force_conflicts,
        dry_run: apply.dry_run == DryRun::Server,
    };
    Ok(Submission {
        outcome: Outcome::ServerSideApplied,
        before: None,
        object: declaration.apply(cluster).await?,
    })
}

/// What somebody says of an object.
pub struct Declaration<'a> {
    pub resource: Resource,
    pub namespace: Option<&'a str>,
    pub object: &'a Value,
    /// Under whose name.
    pub manager: &'a str,
    /// Takes fields from their owners.
    pub force: bool,
    pub dry_run: bool,
}

impl Declaration<'_> {
    /// The object as it is then.
    pub async fn apply(&self, cluster: &Cluster) -> Result<Value, RequestError> {
        let object = path::object(self.resource, self.namespace, object::name(self.object));
        let query = [
            Some(STRICT),
            Some(("fieldManager", self.manager)),
            self.force.then_some(("force", "true")),
            self.dry_run.then_some(DRY_RUN),
        ];
        let path = path::with_query(&object, query.into_iter().flatten());
        let body = self.object.to_string().into();
        let call = Call::new(Method::PATCH, &path).body(APPLY_PATCH, body);
        cluster.json(&call).await
    }
}

/// Whether an apply was refused because of what others own.
pub fn is_conflict_of_owners(error: &RequestError) -> bool {
    let details = error.status().and_then(|status| status.details.as_ref());
    details.is_some_and(|details| {
        let mut causes = details.causes.iter();
        causes.any(|cause| cause.reason == "FieldManagerConflict")
    })
}
