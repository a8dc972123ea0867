//! `hivectl rollout promote`: a version that is being tried goes on, though its pause is not over.

use clap::Args;
use serde_json::json;

use super::FunctionName;
use crate::failure::Failure;
use crate::session::Session;

/// Names the rollout and its step, so that it is heeded once.
const PROMOTE: &str = "hive.dev/promote";

#[derive(Debug, Args)]
pub struct Promote {
    #[command(flatten)]
    function: FunctionName,

    /// Go over with all copies, without the steps that are left
    #[arg(long)]
    full: bool,
}

pub async fn run(promote: Promote, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = promote.function.find(session).await?;
    subject.refuse_paused("it goes no further")?;
    let reference = subject.reference();
    let rollout = &subject.live["status"]["rollout"];
    let steps = &subject.live["spec"]["strategy"]["canary"]["steps"];
    let step = rollout["canary"]["step"].as_u64();
    let under_way = step.and_then(|step| steps.get(usize::try_from(step).ok()?));
    let (Some(step), Some(under_way)) = (step, under_way) else {
        return Err(Failure::new(format_args!(
            "no version of {reference} is being tried"
        )));
    };
    if !promote.full && under_way["pause"].is_null() {
        return Err(Failure::new(format_args!(
            "{reference} does not pause: its copies are starting"
        ))
        .hint("`--full` goes over with all copies, without the steps that are left"));
    }
    let upto = match promote.full {
        true => "full".to_owned(),
        false => step.to_string(),
    };
    let started = rollout["startTime"].as_str().unwrap_or_default();
    let asked = format!("{started}/{upto}");
    subject
        .patch(json!({ "metadata": { "annotations": { PROMOTE: asked } } }))
        .await?;
    let what = if promote.full { "fully " } else { "" };
    session
        .world
        .line(format_args!("{reference} {what}promoted"))?;
    Ok(())
}
