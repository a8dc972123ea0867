//! `hivectl rollout restart`: a new version that differs in nothing but when it was asked for.

use jiff::Timestamp;
use serde_json::json;

use super::FunctionName;
use crate::failure::Failure;
use crate::session::Session;

pub async fn run(function: FunctionName, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = function.find(session).await?;
    subject.refuse_paused("nothing would start anew")?;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    subject
        .patch(json!({ "spec": { "restartedAt": now } }))
        .await?;
    session
        .world
        .line(format_args!("{} restarted", subject.reference()))?;
    Ok(())
}
