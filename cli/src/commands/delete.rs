//! `hivectl delete`: by manifest, by name, by label. Waits until the objects are gone.

use std::time::Instant;

use clap::Args;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use http::Method;

use crate::arguments::FileArguments;
use crate::cluster::{Call, Cluster, path};
use crate::commands::lookup::{self, Targets, finish};
use crate::failure::Failure;
use crate::manifest;
use crate::object;
use crate::selection;
use crate::session::Session;
use crate::watch::{self, Scope};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl delete -f function.yaml
  hivectl delete function hello world
  hivectl delete fn/hello secret/key
  hivectl delete functions -l app=shop
  hivectl delete functions --all --wait=false")]
pub struct Delete {
    #[command(flatten)]
    targets: Targets,

    #[command(flatten)]
    files: FileArguments,

    /// What becomes of the objects that these own: they go after them (the default), before them,
    /// or stay
    #[arg(long, value_name = "HOW", value_parser = ["background", "foreground", "orphan"])]
    cascade: Option<String>,

    /// Return when the objects are gone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          default_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    wait: bool,

    /// How long --wait waits; 0 waits as long as it takes
    #[arg(long, default_value = "0", value_name = "DURATION")]
    timeout: GoDuration,

    /// Objects that don't exist are not an error
    #[arg(long)]
    ignore_not_found: bool,

    /// Change nothing; let the server check whether it would work
    #[arg(long, value_name = "WHERE", value_parser = ["none", "server"], default_value = "none")]
    dry_run: String,
}

impl Delete {
    /// The API's word for `--cascade`.
    fn propagation(&self) -> Option<&'static str> {
        match self.cascade.as_deref()? {
            "foreground" => Some("Foreground"),
            "orphan" => Some("Orphan"),
            _ => Some("Background"),
        }
    }
}

/// One object to delete.
struct Doomed {
    resource: Resource,
    namespace: Option<String>,
    name: String,
}

pub async fn run(delete: Delete, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let doomed = doomed(&delete, session).await?;
    let dry_run = delete.dry_run == "server";
    if doomed.is_empty() {
        session.world.note("No resources found.")?;
    }
    let mut failures = Vec::new();
    let mut leaving = Vec::new();
    for object in doomed {
        match delete_one(&object, delete.propagation(), dry_run, &cluster).await {
            Ok(uid) => {
                session.world.line(format_args!(
                    "{} {:?} deleted{}",
                    object::reference_prefix(object.resource).trim_end_matches('/'),
                    object.name,
                    if dry_run { " (server dry run)" } else { "" }
                ))?;
                leaving.push((object, uid));
            }
            Err(error) if error.is_not_found() && delete.ignore_not_found => {}
            Err(error) => failures.push(
                lookup::not_found(
                    &cluster,
                    object.resource,
                    object.namespace.as_deref(),
                    &object.name,
                    error,
                )
                .await,
            ),
        }
    }
    if delete.wait && !dry_run {
        let timeout = Some(delete.timeout.0).filter(|timeout| !timeout.is_zero());
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        for (object, uid) in leaving {
            wait_gone(&object, &uid, deadline, &cluster).await?;
        }
    }
    finish(failures)
}

async fn doomed(delete: &Delete, session: &mut Session<'_>) -> Result<Vec<Doomed>, Failure> {
    let targets = &delete.targets;
    if !delete.files.files.is_empty() {
        if !targets.words.is_empty() || targets.all || targets.selector.is_some() {
            return Err(Failure::usage(
                "delete by manifest (-f), or by name or label, not both",
            ));
        }
        let mut named = manifest::named_objects(&delete.files, session).await?;
        // What refers to others goes first: the reverse of the order of creation.
        named.sort_by_key(|(selection, _)| std::cmp::Reverse(selection.resource));
        return Ok(named
            .into_iter()
            .flat_map(|(selection, namespace)| {
                selection.names.into_iter().map(move |name| Doomed {
                    resource: selection.resource,
                    namespace: namespace.clone(),
                    name,
                })
            })
            .collect());
    }
    let selections = selection::parse(&targets.words)?;
    if selections
        .iter()
        .any(|selection| !selection.names.is_empty())
        && targets.selector.is_none()
        && !targets.all
        && !targets.all_namespaces
    {
        // Names need no look-up: the deletion itself says which don't exist.
        let mut doomed = Vec::new();
        for selection in selections {
            let namespace = lookup::namespace_for(selection.resource, session).await?;
            doomed.extend(selection.names.into_iter().map(|name| Doomed {
                resource: selection.resource,
                namespace: namespace.clone(),
                name,
            }));
        }
        return Ok(doomed);
    }
    Ok(targets
        .find(session)
        .await?
        .targets
        .into_iter()
        .map(|target| Doomed {
            resource: target.resource,
            name: target.name().to_owned(),
            namespace: target.namespace,
        })
        .collect())
}

/// Deletes and returns the uid of what was deleted, if the server said.
async fn delete_one(
    object: &Doomed,
    propagation: Option<&str>,
    dry_run: bool,
    cluster: &Cluster,
) -> Result<String, crate::cluster::RequestError> {
    let path = path::with_query(
        &path::object(object.resource, object.namespace.as_deref(), &object.name),
        propagation
            .map(|policy| ("propagationPolicy", policy))
            .into_iter()
            .chain(dry_run.then_some(("dryRun", "All"))),
    );
    let answer = cluster.json(&Call::new(Method::DELETE, &path)).await?;
    // The answer is the object if it lingers (finalizers), else a Status that names it.
    let uid = match answer["kind"].as_str() {
        Some("Status") => answer["details"]["uid"].as_str().unwrap_or_default(),
        _ => object::uid(&answer),
    };
    Ok(uid.to_owned())
}

async fn wait_gone(
    object: &Doomed,
    uid: &str,
    deadline: Option<Instant>,
    cluster: &Cluster,
) -> Result<(), Failure> {
    let scope = Scope::one(object.resource, object.namespace.as_deref(), &object.name);
    let mut finalizers = String::new();
    let gone = watch::until(cluster, &scope, deadline, |objects| {
        // Another object may have taken the name meanwhile.
        let still = objects
            .values()
            .find(|live| uid.is_empty() || object::uid(live) == uid);
        if let Some(live) = still {
            finalizers = live["metadata"]["finalizers"].to_string();
        }
        still.is_none().then_some(())
    })
    .await?;
    match gone {
        Some(()) => Ok(()),
        None => Err(Failure::new(format_args!(
            "timed out waiting for {} to go",
            object::reference(object.resource, &object.name)
        ))
        .hint(format_args!("its finalizers are {finalizers}"))),
    }
}
