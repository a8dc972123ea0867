//! `hivectl rollout status`: follow a change of a function until it runs everywhere.

use std::time::Instant;

use clap::{Args, Subcommand};
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;

use crate::commands::lookup;
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::selection;
use crate::session::Session;
use crate::watch::{self, Scope};

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
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// FUNCTION, or function/NAME
    #[arg(value_name = "FUNCTION", required = true)]
    words: Vec<String>,

    /// How long to follow; 0 as long as it takes
    #[arg(long, default_value = "0", value_name = "DURATION")]
    timeout: GoDuration,

    /// Report once, don't follow
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          default_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    watch: bool,
}

pub async fn run(rollout: Rollout, session: &mut Session<'_>) -> Result<(), Failure> {
    let Command::Status(status) = rollout.command;
    let (resource, name) = selection::single(&status.words, Resource::Function)?;
    if resource != Resource::Function {
        return Err(Failure::usage(format!(
            "{} are not rolled out; functions are",
            resource.plural()
        )));
    }
    let cluster = session.cluster().await?;
    let namespace = session.namespace().await?;
    let live = lookup::get(&cluster, resource, Some(&namespace), &name).await?;
    if !status.watch {
        session.world.line(say(&name, &progress::of(&live)))?;
        return Ok(());
    }
    let deadline = Some(status.timeout.0)
        .filter(|timeout| !timeout.is_zero())
        .map(|timeout| Instant::now() + timeout);
    let scope = Scope::one(resource, Some(&namespace), &name);
    let mut said = String::new();
    let world = &mut *session.world;
    let mut output = Ok(());
    let end = watch::until(&cluster, &scope, deadline, |objects| {
        let Some(function) = objects.values().next() else {
            return Some(false);
        };
        let progress = progress::of(function);
        let text = say(&name, &progress);
        if text != said {
            output = world.line(&text);
            said = text;
        }
        (progress == Progress::Done || output.is_err()).then_some(true)
    })
    .await?;
    output?;
    match end {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(format_args!("function {name:?} was deleted"))),
        None => Err(Failure::new(format_args!(
            "timed out waiting for the rollout of function {name:?}"
        ))
        .hint(format_args!(
            "`hivectl describe function/{name}` tells more"
        ))),
    }
}

fn say(name: &str, progress: &Progress) -> String {
    match progress {
        Progress::Done => format!("function {name:?} successfully rolled out"),
        Progress::Waiting(why) => {
            format!("Waiting for function {name:?} rollout to finish: {why}...")
        }
    }
}
