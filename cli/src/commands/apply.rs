//! `hivectl apply`: make the swarm as the manifests say.
//!
//! Everything is read, checked and hashed first; then artifacts are uploaded and objects sent one
//! by one, each by a three-way merge with what is there.

pub mod desired;
mod prune;
pub mod server_side;
pub mod submit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use serde_json::Value;

use crate::api_error;
use crate::arguments::FileArguments;
use crate::artifact::{self, Artifact};
use crate::cluster::Cluster;
use crate::commands::lookup::finish;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::object;
use crate::output::{self, Format};
use crate::progress::{self, Progress};
use crate::selector::Selector;
use crate::session::Session;
use crate::watch::{self, Scope};

use submit::{Outcome, Submission};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl apply -f function.yaml
  hivectl apply -f manifests/ -R                 a directory and those inside it
  generate | hivectl apply -f -                  from standard input
  hivectl apply -f function.yaml --wait          return when it runs
  hivectl apply -f function.yaml --dry-run=server
  hivectl apply -f manifests/ --prune -l app=shop
  hivectl apply -f function.yaml --server-side   own only what the manifest says, field by field

A component named by spec.artifact.path (relative to the manifest) is uploaded first, by its
digest, unless the controllers have it; --dry-run=server uploads too, so that the controllers can
check it. Fields that the manifests don't mention keep the values they have; fields that were in
the manifest applied last and no longer are, are removed.")]
pub struct Apply {
    #[command(flatten)]
    files: FileArguments,

    /// Change nothing: "client" only compares, "server" lets the server check it
    #[arg(long, value_enum, default_value = "none", value_name = "WHERE")]
    dry_run: DryRun,

    /// Let the server merge: it knows who owns which field, and refuses to change what others own
    #[arg(long)]
    server_side: bool,

    /// Take fields from their owners instead of failing
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,

    /// The name under which this apply owns fields
    #[arg(
        long,
        value_name = "NAME",
        default_value = "hivectl",
        requires = "server_side"
    )]
    field_manager: String,

    /// Delete what was applied before, matches -l and is no longer in the manifests
    #[arg(long, requires = "selector", conflicts_with = "server_side")]
    prune: bool,

    /// Only objects of the manifests with these labels; with --prune also those to delete
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Return when the functions applied are available
    #[arg(long)]
    wait: bool,

    /// How long --wait waits
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    timeout: GoDuration,

    /// Print the objects as json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    None,
    Client,
    Server,
}

/// A manifest, ready to be sent.
pub struct Prepared {
    pub manifest: Manifest,
    artifact: Option<Artifact>,
}

/// Reads the manifests, checks all of them and hashes their artifacts. Sends nothing.
pub async fn prepare(
    files: &FileArguments,
    selector: Option<&Selector>,
    session: &mut Session<'_>,
) -> Result<Vec<Prepared>, Failure> {
    let manifests = manifest::load(files, session).await?;
    manifest::require_names(&manifests)?;
    with_artifacts(manifests, selector)
}

/// The same, of objects that may leave it to the server to name them.
pub async fn prepare_unnamed(
    files: &FileArguments,
    session: &mut Session<'_>,
) -> Result<Vec<Prepared>, Failure> {
    with_artifacts(manifest::load(files, session).await?, None)
}

fn with_artifacts(
    manifests: Vec<Manifest>,
    selector: Option<&Selector>,
) -> Result<Vec<Prepared>, Failure> {
    let mut failures = Vec::new();
    let mut prepared = Vec::new();
    for manifest in manifests {
        if selector.is_some_and(|selector| !selector.matches(&manifest.document.value)) {
            continue;
        }
        match artifact::of(&manifest) {
            Ok(artifact) => prepared.push(Prepared { manifest, artifact }),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.is_empty() {
        true => Ok(prepared),
        false => Err(Failure::several(failures).hint("nothing was sent")),
    }
}

impl Prepared {
    /// The object to be stored: complete, its artifact named by digest.
    pub fn desired(&self) -> Value {
        desired::of(&self.manifest, self.sha256())
    }

    /// What the manifest says and no more: for a server that merges.
    pub fn declared(&self) -> Value {
        desired::declared(&self.manifest, self.sha256())
    }

    fn sha256(&self) -> Option<&str> {
        self.artifact
            .as_ref()
            .map(|artifact| artifact.sha256.as_str())
    }

    pub async fn upload(
        &self,
        cluster: &Cluster,
        session: &mut Session<'_>,
    ) -> Result<(), Failure> {
        match &self.artifact {
            Some(artifact) => artifact::upload(artifact, cluster, session).await,
            None => Ok(()),
        }
    }
}

pub async fn run(apply: Apply, session: &mut Session<'_>) -> Result<(), Failure> {
    if apply.server_side && apply.dry_run == DryRun::Client {
        return Err(Failure::usage(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    let selector = apply
        .selector
        .as_deref()
        .map(str::parse::<Selector>)
        .transpose()
        .map_err(Failure::usage)?;
    let prepared = prepare(&apply.files, selector.as_ref(), session).await?;
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    let mut applied = Vec::new();
    for item in &prepared {
        match apply_one(item, &apply, &cluster, session).await {
            Ok(object) => applied.push(object),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(format) = &apply.output {
        let value = match applied.len() {
            1 => applied[0].clone(),
            _ => output::list(applied.clone()),
        };
        let value = output::without_managed_fields(value);
        session.world.text(format.render(&value, true)?)?;
    }
    // With one object missing it isn't known what is no longer wanted.
    if failures.is_empty()
        && apply.prune
        && let Some(selector) = &apply.selector
    {
        prune::run(&prepared, selector, apply.dry_run, &cluster, session).await?;
    }
    finish(failures)?;
    if apply.wait && apply.dry_run == DryRun::None {
        wait_available(&applied, apply.timeout.0, &cluster, session).await?;
    }
    Ok(())
}

async fn apply_one(
    item: &Prepared,
    apply: &Apply,
    cluster: &Arc<Cluster>,
    session: &mut Session<'_>,
) -> Result<Value, Failure> {
    if apply.dry_run != DryRun::Client {
        item.upload(cluster, session).await?;
    }
    let submitted = match apply.server_side {
        true => server_side::submit(cluster, item, apply).await,
        false => submit::submit(cluster, item, apply.dry_run).await,
    };
    let Submission {
        outcome, object, ..
    } = submitted.map_err(|error| {
        let is_owned = apply.server_side && server_side::is_conflict_of_owners(&error);
        let failure = api_error::locate(error, &item.manifest);
        match is_owned {
            true => failure.hint(
                "other managers own these fields: leave them out of the manifest, write the value that they \
                 have, or take them with --force-conflicts",
            ),
            false => failure,
        }
    })?;
    if apply.output.is_none() {
        let done = match outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::ServerSideApplied => "serverside-applied",
        };
        session.world.line(format_args!(
            "{} {done}{}",
            item.manifest.reference(),
            apply.dry_run.suffix()
        ))?;
    }
    Ok(object)
}

impl DryRun {
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

async fn wait_available(
    applied: &[Value],
    timeout: Duration,
    cluster: &Cluster,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    for object in applied {
        if object::resource(object) != Some(Resource::Function) {
            continue;
        }
        let name = object::name(object);
        let scope = Scope::one(Resource::Function, object::namespace(object), name);
        let generation = object["metadata"]["generation"].as_i64();
        let mut last = object.clone();
        let available = watch::until(cluster, &scope, Some(deadline), |objects| {
            last = objects.values().next()?.clone();
            let current = last["metadata"]["generation"].as_i64() >= generation;
            let is_over = !matches!(progress::of(&last), Progress::Waiting(_));
            (current && is_over).then_some(())
        })
        .await?;
        let progress = progress::of(&last);
        if available.is_none() || progress != Progress::Done {
            let mut failure = match progress {
                Progress::Failed(_) => Failure::new(format_args!(
                    "the newest version of functions/{name} does not run"
                )),
                _ => Failure::new(format_args!(
                    "timed out waiting for functions/{name} to become available"
                )),
            };
            if let Progress::Waiting(why) | Progress::Failed(why) = progress {
                failure = failure.hint(why);
            }
            return Err(failure.hint(format_args!(
                "`hivectl describe function/{name}` tells more"
            )));
        }
        let url = last["status"]["url"].as_str();
        session.world.line(format_args!(
            "function.hive.dev/{name} available{}",
            url.map(|url| format!(" at {url}")).unwrap_or_default()
        ))?;
    }
    Ok(())
}
