//! `apply --prune -l`: deletes what was applied before and is no longer in the manifests.
//!
//! Only objects that apply itself made (they carry its annotation), that match the selector and
//! are in a namespace that the manifests name are ever touched.

use std::collections::BTreeSet;

use hive_manifests::Resource;

use super::{DryRun, Prepared};
use crate::cluster::{Call, Cluster, path};
use crate::failure::Failure;
use crate::object::{self, LAST_APPLIED};
use crate::session::Session;

/// What people declare in namespaces. Deleting a Namespace would take along objects that the
/// selector does not match; nodes are machines.
const PRUNED: [Resource; 4] = [
    Resource::Tunnel,
    Resource::Function,
    Resource::ConfigMap,
    Resource::Secret,
];

pub async fn run(
    applied: &[Prepared],
    selector: &str,
    dry_run: DryRun,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let kept: BTreeSet<_> = applied
        .iter()
        .map(|item| {
            let manifest = &item.manifest;
            (
                manifest.resource,
                manifest.namespace.as_deref(),
                manifest.name(),
            )
        })
        .collect();
    let mut namespaces: BTreeSet<&str> = kept
        .iter()
        .filter_map(|(_, namespace, _)| *namespace)
        .collect();
    let own = session.namespace().await?;
    if namespaces.is_empty() {
        namespaces.insert(&own);
    }
    for namespace in namespaces {
        for resource in PRUNED {
            let selected = [("labelSelector", selector)];
            let list = match cluster.list(resource, Some(namespace), &selected).await {
                // Controllers of a release before have no such kind.
                Err(error) if error.is_not_found() => continue,
                list => list?,
            };
            for live in list["items"].as_array().into_iter().flatten() {
                let name = object::name(live);
                let ours = live["metadata"]["annotations"][LAST_APPLIED].is_string();
                if !ours || kept.contains(&(resource, Some(namespace), name)) {
                    continue;
                }
                delete(resource, namespace, name, dry_run, cluster).await?;
                session.world.line(format_args!(
                    "{} pruned{}",
                    object::reference(resource, name),
                    dry_run.suffix()
                ))?;
            }
        }
    }
    Ok(())
}

async fn delete(
    resource: Resource,
    namespace: &str,
    name: &str,
    dry_run: DryRun,
    cluster: &Cluster,
) -> Result<(), Failure> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let path = path::with_query(
        &path::object(resource, Some(namespace), name),
        (dry_run == DryRun::Server).then_some(("dryRun", "All")),
    );
    match cluster.json(&Call::new(http::Method::DELETE, &path)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
