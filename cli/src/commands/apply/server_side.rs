//! `apply --server-side`: sends what the manifest says and lets the server merge it.
//!
//! One request an object, and none of it is tried again: a conflict is between people.

use http::Method;

use super::submit::{Outcome, Submission};
use super::{Apply, DryRun, Prepared};
use crate::cluster::{Call, Cluster, DRY_RUN, RequestError, STRICT, path};

/// JSON is YAML.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

pub async fn submit(
    cluster: &Cluster,
    item: &Prepared,
    apply: &Apply,
) -> Result<Submission, RequestError> {
    let manifest = &item.manifest;
    let namespace = manifest.namespace.as_deref();
    let object = path::object(manifest.resource, namespace, manifest.name());
    let query = [
        Some(STRICT),
        Some(("fieldManager", apply.field_manager.as_str())),
        apply.force_conflicts.then_some(("force", "true")),
        (apply.dry_run == DryRun::Server).then_some(DRY_RUN),
    ];
    let path = path::with_query(&object, query.into_iter().flatten());
    let call =
        Call::new(Method::PATCH, &path).body(APPLY_PATCH, item.declared().to_string().into());
    Ok(Submission {
        outcome: Outcome::ServerSideApplied,
        before: None,
        object: cluster.json(&call).await?,
    })
}

/// Whether an apply was refused because of what others own.
pub fn is_conflict_of_owners(error: &RequestError) -> bool {
    let details = error.status().and_then(|status| status.details.as_ref());
    details.is_some_and(|details| {
        let mut causes = details.causes.iter();
        causes.any(|cause| cause.reason == "FieldManagerConflict")
    })
}
