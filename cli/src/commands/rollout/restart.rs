//! `hivectl rollout restart`: a new version that differs in nothing but when it was asked for, and in what its
//! image's tag leads to by now.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::FunctionName;
use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    function: FunctionName,
    /// Look up the tag of the function's image again, and roll out what it leads to by now
    #[arg(long)]
    pull: bool,
}

pub async fn run(restart: Restart, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = restart.function.find(session).await?;
    subject.refuse_paused("nothing would start anew")?;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut spec = json!({ "restartedAt": now });
    if restart.pull {
        let artifact = &subject.live["spec"]["artifact"];
        if !artifact["oci"].is_string() || artifact["sha256"].is_string() {
            return Err(Failure::usage(format!(
                "{} names its component by digest: no tag of its could have moved; leave --pull out",
                subject.reference()
            )));
        }
        spec["artifact"] = json!({ "pullAt": now });
    }
    subject.patch(json!({ "spec": spec })).await?;
    session
        .world
        .line(format_args!("{} restarted", subject.reference()))?;
    Ok(())
}
