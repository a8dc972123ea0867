//! `hivectl rollout retry`: a version that was rolled back is rolled out once more.

use serde_json::json;

use super::FunctionName;
use crate::failure::Failure;
use crate::session::Session;

/// Names when it was rolled back, so that it is heeded once.
const RETRY: &str = "hive.dev/retry";

pub async fn run(function: FunctionName, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = function.find(session).await?;
    subject.refuse_paused("nothing would be rolled out")?;
    let reference = subject.reference();
    let rollout = &subject.live["status"]["rollout"];
    if rollout["phase"] != "RolledBack" {
        return Err(Failure::new(format_args!(
            "{reference} was not rolled back"
        )));
    }
    let patch = json!({ "metadata": { "annotations": { RETRY: rollout["phaseTime"] } } });
    subject.patch(patch).await?;
    session
        .world
        .line(format_args!("{reference} is rolled out once more"))?;
    Ok(())
}
