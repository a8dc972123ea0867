//! `hivectl rollout`: the versions of a function: how far the newest is, what they were, and back.

mod history;
mod hold;
mod promote;
mod restart;
mod retry;
mod revisions;
mod status;
mod undo;

use std::sync::Arc;

use clap::{Args, Subcommand};
use hive_manifests::Resource;
use serde_json::Value;

use crate::cluster::{Cluster, RequestError};
use crate::commands::lookup;
use crate::failure::Failure;
use crate::object;
use crate::selection;
use crate::session::Session;

#[derive(Debug, Args)]
pub struct Rollout {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report the progress of the newest change until it is done
    #[command(after_help = "Examples:
  hivectl rollout status function/hello
  hivectl rollout status hello --timeout=1m")]
    Status(status::Status),
    /// List the versions that are kept, or show one
    #[command(after_help = "Examples:
  hivectl rollout history function/hello
  hivectl rollout history hello --revision=3

Why there is a version is the annotation kubernetes.io/change-cause that the function had.")]
    History(history::History),
    /// Go back to an earlier version
    #[command(after_help = "Examples:
  hivectl rollout undo function/hello                     to the one before
  hivectl rollout undo hello --to-revision=3

Replicas, placement and the other fields that make no version stay as they are.")]
    Undo(undo::Undo),
    /// Hold changes back: no copy goes over to another version
    #[command(after_help = "Examples:
  hivectl rollout pause function/hello")]
    Pause(FunctionName),
    /// Let changes go on
    #[command(after_help = "Examples:
  hivectl rollout resume function/hello")]
    Resume(FunctionName),
    /// End the pause of a version that is being tried
    #[command(after_help = "Examples:
  hivectl rollout promote function/hello           to the next step
  hivectl rollout promote hello --full             to all copies")]
    Promote(promote::Promote),
    /// Roll out once more what was rolled back
    #[command(after_help = "Examples:
  hivectl rollout retry function/hello")]
    Retry(FunctionName),
    /// Start all copies anew, a few at a time
    #[command(after_help = "Examples:
  hivectl rollout restart function/hello
  hivectl rollout restart hello --pull             with what its image's tag leads to by now")]
    Restart(restart::Restart),
}

#[derive(Debug, Args)]
struct FunctionName {
    /// FUNCTION, or function/NAME
    #[arg(value_name = "FUNCTION", required = true)]
    words: Vec<String>,
}

/// A function that a command is about, as it is.
struct Subject {
    cluster: Arc<Cluster>,
    namespace: String,
    name: String,
    live: Value,
}

pub async fn run(rollout: Rollout, session: &mut Session<'_>) -> Result<(), Failure> {
    match rollout.command {
        Command::Status(status) => status::run(status, session).await,
        Command::History(history) => history::run(history, session).await,
        Command::Undo(undo) => undo::run(undo, session).await,
        Command::Pause(function) => hold::run(function, true, session).await,
        Command::Resume(function) => hold::run(function, false, session).await,
        Command::Promote(promote) => promote::run(promote, session).await,
        Command::Retry(function) => retry::run(function, session).await,
        Command::Restart(restart) => restart::run(restart, session).await,
    }
}

/// More often than that statuses do not change within the time of a request.
const ATTEMPTS: usize = 8;

impl FunctionName {
    async fn find(&self, session: &mut Session<'_>) -> Result<Subject, Failure> {
        let (resource, name) = selection::single(&self.words, Resource::Function)?;
        if resource != Resource::Function {
            return Err(Failure::usage(format!(
                "{} are not rolled out; functions are",
                resource.plural()
            )));
        }
        let cluster = session.cluster().await?;
        let namespace = session.namespace().await?;
        let live = lookup::get(&cluster, resource, Some(&namespace), &name).await?;
        Ok(Subject {
            cluster,
            namespace,
            name,
            live,
        })
    }
}

impl Subject {
    fn reference(&self) -> String {
        object::reference(Resource::Function, &self.name)
    }

    fn is_paused(&self) -> bool {
        self.live["spec"]["paused"] == true
    }

    /// Refuses what would only be held back.
    fn refuse_paused(&self, what: &str) -> Result<(), Failure> {
        match self.is_paused() {
            false => Ok(()),
            true => Err(
                Failure::new(format_args!("{} is paused: {what}", self.reference())).hint(
                    format_args!("`hivectl rollout resume function/{}` first", self.name),
                ),
            ),
        }
    }

    /// Changes the function if what people wrote of it is still as it was read. The swarm writes its
    /// status at any time, above all while versions come and go.
    async fn patch(&self, mut patch: Value) -> Result<Value, Failure> {
        let namespace = Some(&*self.namespace);
        let generation = &self.live["metadata"]["generation"];
        let mut version = object::resource_version(&self.live).to_owned();
        for _ in 0..ATTEMPTS {
            patch["metadata"]["resourceVersion"] = version.as_str().into();
            let written = self
                .cluster
                .merge_patch(Resource::Function, namespace, &self.name, &patch, false)
                .await;
            let conflict = match written {
                Err(RequestError::Status(status)) if status.code == 409 => status,
                other => return other.map_err(Failure::from),
            };
            let now = lookup::get(&self.cluster, Resource::Function, namespace, &self.name).await?;
            if now["metadata"]["generation"] != *generation {
                return Err(RequestError::Status(conflict).into());
            }
            version = object::resource_version(&now).to_owned();
        }
        Err(Failure::new(format_args!(
            "{} kept changing; try again",
            self.reference()
        )))
    }
}
