//! `hivectl scale`: how many replicas of a function run.

use clap::Args;
use hive_manifests::Resource;
use serde_json::json;

use crate::commands::lookup;
use crate::failure::Failure;
use crate::object;
use crate::selection;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl scale function/hello --replicas=3
  hivectl scale hello --replicas=0
  hivectl scale fn/hello --current-replicas=2 --replicas=3    only if it has 2
  hivectl scale fn/hello --release     leave the number to spec.autoscaling again")]
pub struct Scale {
    /// FUNCTION…, or function/NAME…
    #[arg(value_name = "FUNCTION", required = true)]
    words: Vec<String>,

    /// How many to run; with spec.autoscaling it stays that many until released
    #[arg(long, value_name = "N", required_unless_present = "release")]
    replicas: Option<u32>,

    /// Let spec.autoscaling say how many run
    #[arg(long, conflicts_with = "replicas")]
    release: bool,

    /// Change it only if it asks for this many now
    #[arg(long, value_name = "N")]
    current_replicas: Option<u32>,
}

pub async fn run(scale: Scale, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    for (resource, name) in targets(&scale.words)? {
        if !resource.has_scale() {
            return Err(Failure::usage(format!(
                "{} cannot be scaled; functions can",
                resource.plural()
            )));
        }
        let namespace = lookup::namespace_for(resource, session).await?;
        let namespace = namespace.as_deref();
        let live = match lookup::get(&cluster, resource, namespace, &name).await {
            Ok(live) => live,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let reference = object::reference(resource, &name);
        if live["spec"]["everyNode"] == true {
            failures.push(Failure::new(format_args!(
                "{reference} runs on every node (spec.everyNode): it has no number of replicas"
            )));
            continue;
        }
        if scale.release && !live["spec"]["autoscaling"].is_object() {
            failures.push(Failure::new(format_args!(
                "{reference} has no spec.autoscaling to be released to: say how many with --replicas"
            )));
            continue;
        }
        let current = object::wanted_replicas(&live);
        if let Some(expected) = scale.current_replicas.filter(|n| u64::from(*n) != current) {
            failures.push(Failure::new(format_args!(
                "{reference} asks for {current} replicas, not for {expected} as --current-replicas says; nothing was changed"
            )));
            continue;
        }
        let mut patch = json!({"spec": {"replicas": scale.replicas}});
        if scale.current_replicas.is_some() {
            patch["metadata"]["resourceVersion"] = object::resource_version(&live).into();
        }
        match cluster
            .merge_patch(resource, namespace, &name, &patch, false)
            .await
        {
            Ok(_) => {
                let done = if scale.release { "released" } else { "scaled" };
                session.world.line(format_args!("{reference} {done}"))?;
            }
            Err(error) => failures.push(error.into()),
        }
    }
    lookup::finish(failures)
}

/// `hello`, `fn/hello fn/world`, `function hello world`.
fn targets(words: &[String]) -> Result<Vec<(Resource, String)>, Failure> {
    match words {
        [name] if !name.contains('/') => Ok(vec![(Resource::Function, name.clone())]),
        words => Ok(selection::parse(words)?
            .into_iter()
            .flat_map(|selection| {
                let resource = selection.resource;
                selection
                    .names
                    .into_iter()
                    .map(move |name| (resource, name))
            })
            .collect()),
    }
}
