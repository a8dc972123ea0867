//! `hivectl rollout status`: follow a change of a function until it runs everywhere.

use std::time::Instant;

use clap::Args;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;

use super::{FunctionName, Subject};
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::session::Session;
use crate::watch::{self, Scope};

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    function: FunctionName,

    /// How long to follow; 0 as long as it takes
    #[arg(long, default_value = "0", value_name = "DURATION")]
    timeout: GoDuration,

    /// Report once, don't follow
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          default_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    watch: bool,
}

pub async fn run(status: Status, session: &mut Session<'_>) -> Result<(), Failure> {
    let Subject {
        cluster,
        namespace,
        name,
        live,
    } = status.function.find(session).await?;
    if !status.watch {
        let progress = progress::of(&live);
        session.world.line(say(&name, &progress))?;
        return failed(&name, &progress);
    }
    let deadline = Some(status.timeout.0)
        .filter(|timeout| !timeout.is_zero())
        .map(|timeout| Instant::now() + timeout);
    let scope = Scope::one(Resource::Function, Some(&namespace), &name);
    let mut said = String::new();
    let world = &mut *session.world;
    let mut output = Ok(());
    let end = watch::until(&cluster, &scope, deadline, |objects| {
        let Some(function) = objects.values().next() else {
            return Some(None);
        };
        let progress = progress::of(function);
        let text = say(&name, &progress);
        if text != said {
            output = world.line(&text);
            said = text;
        }
        let is_over = !matches!(progress, Progress::Waiting(_)) || output.is_err();
        is_over.then_some(Some(progress))
    })
    .await?;
    output?;
    match end {
        Some(Some(progress)) => failed(&name, &progress),
        Some(None) => Err(Failure::new(format_args!("function {name:?} was deleted"))),
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
        Progress::Failed(why) => format!("function {name:?} failed: {why}"),
    }
}

fn failed(name: &str, progress: &Progress) -> Result<(), Failure> {
    let Progress::Failed(_) = progress else {
        return Ok(());
    };
    let failure = Failure::new(format_args!(
        "the newest version of function {name:?} does not run"
    ));
    Err(failure.hint(format_args!(
        "`hivectl describe function/{name}` tells more; `hivectl rollout undo function/{name}` goes back for good"
    )))
}
