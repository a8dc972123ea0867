//! `hivectl create -f`: everything is read and checked first, then made one by one.

use kube::core::Status;
use serde_json::Value;

use super::How;
use crate::api_error;
use crate::arguments::FileArguments;
use crate::cluster::Cluster;
use crate::commands::apply::{self, DryRun, Prepared};
use crate::commands::lookup::finish;
use crate::failure::Failure;
use crate::object;
use crate::output;
use crate::session::Session;

pub async fn run(
    files: &FileArguments,
    how: &How,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let prepared = apply::prepare_unnamed(files, session).await?;
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    let mut made = Vec::new();
    for item in &prepared {
        match create(item, how.dry_run, &cluster, session).await {
            Ok(object) if how.output.is_some() => made.push(object),
            Ok(object) => {
                let reference = object::reference(item.manifest.resource, object::name(&object));
                let suffix = how.dry_run.suffix();
                session
                    .world
                    .line(format_args!("{reference} created{suffix}"))?;
            }
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(form) = &how.output {
        let value = match made.len() {
            1 => made.remove(0),
            _ => output::list(made),
        };
        let value = output::without_managed_fields(value);
        session.world.text(form.render(&value, true)?)?;
    }
    finish(failures)
}

async fn create(
    item: &Prepared,
    dry_run: DryRun,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<Value, Failure> {
    let object = item.declared();
    if dry_run == DryRun::Client {
        return Ok(object);
    }
    item.upload(cluster, session).await?;
    let manifest = &item.manifest;
    let dry_run = dry_run == DryRun::Server;
    cluster
        .create(
            manifest.resource,
            manifest.namespace.as_deref(),
            &object,
            dry_run,
        )
        .await
        .map_err(|error| {
            let exists = error.status().is_some_and(Status::is_already_exists);
            let failure = api_error::locate(error, manifest);
            match exists {
                true => failure.hint("`hivectl apply` changes what exists"),
                false => failure,
            }
        })
}
