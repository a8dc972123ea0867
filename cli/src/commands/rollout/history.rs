//! `hivectl rollout history`: what a function was.

use clap::Args;

use super::FunctionName;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;
use crate::table;

#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    function: FunctionName,

    /// Show this version in full
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
}

pub async fn run(history: History, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = history.function.find(session).await?;
    let revisions = subject.revisions().await?;
    let reference = subject.reference();
    if let Some(number) = history.revision {
        let Some(found) = revisions.iter().find(|it| it.number == number) else {
            return Err(subject.no_such(number, &revisions));
        };
        session
            .world
            .line(format_args!("{reference} with revision #{number}"))?;
        session.world.text(output::yaml(found.template())?)?;
        return Ok(());
    }
    session.world.line(&reference)?;
    let rows = revisions
        .iter()
        .map(|revision| {
            let cause = revision.cause().unwrap_or("<none>");
            vec![revision.number.to_string(), table::harmless(cause)]
        })
        .collect();
    session
        .world
        .text(table::simple(&["REVISION", "CHANGE-CAUSE"], rows, true))?;
    Ok(())
}
