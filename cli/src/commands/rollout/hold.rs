//! `hivectl rollout pause` and `resume`.

use serde_json::{Value, json};

use super::FunctionName;
use crate::failure::Failure;
use crate::session::Session;

pub async fn run(
    function: FunctionName,
    pause: bool,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let subject = function.find(session).await?;
    let reference = subject.reference();
    if subject.is_paused() == pause {
        let is = if pause { "already" } else { "not" };
        return Err(Failure::new(format_args!("{reference} is {is} paused")));
    }
    // Absent is the default.
    let paused = if pause { json!(true) } else { Value::Null };
    subject
        .patch(json!({ "spec": { "paused": paused } }))
        .await?;
    let done = if pause { "paused" } else { "resumed" };
    session.world.line(format_args!("{reference} {done}"))?;
    Ok(())
}
