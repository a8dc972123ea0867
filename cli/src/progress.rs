//! How far a change of a function, or of a tunnel, has come.
//!
//! Pure: an object's status flows in; whether its newest spec runs everywhere it should, or what
//! is still missing, flows out. That some older copy still answers is not enough.

use serde_json::Value;

use crate::object;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All copies run the newest spec; the tunnel was reached as it is now.
    Done,
    /// What is still missing, in a few words.
    Waiting(String),
    /// The newest spec has reached no further copy for too long: why, in a few words.
    Failed(String),
}

/// Reasons of the condition Available with which nothing is left to do.
const SETTLED: [&str; 2] = ["Ready", "ScaledToZero"];

const UNSEEN: &str = "the change has not been seen by the controllers yet";

pub fn of(function: &Value) -> Progress {
    if !object::is_observed(function) {
        return Progress::Waiting(UNSEEN.into());
    }
    let Some(available) = object::condition(function, "Available") else {
        return Progress::Waiting("nothing is known of it yet".into());
    };
    let text = |key: &str| available[key].as_str().unwrap_or_default();
    let rollout = &function["status"]["rollout"];
    // What is said of the spec before this one is not said of this one.
    let is_of_newest =
        rollout["observedGeneration"].as_i64() >= function["metadata"]["generation"].as_i64();
    // The conditions follow the rollout: a version that was well is not done when it was taken back.
    let goes_back =
        is_of_newest && rollout["phase"] == "RolledBack" && function["spec"]["paused"] != true;
    if text("status") == "True" && SETTLED.contains(&text("reason")) && !goes_back {
        let settles =
            rollout["phase"] == "Progressing" && !function["spec"]["minReadySeconds"].is_null();
        return match settles {
            false => Progress::Done,
            true => Progress::Waiting("the new copies have to answer for minReadySeconds".into()),
        };
    }
    if is_of_newest
        && let Some(progressing) = object::condition(function, "Progressing")
        && progressing["status"] == "False"
    {
        let why = progressing["message"].as_str().unwrap_or_default();
        return Progress::Failed(why.to_owned());
    }
    if goes_back {
        return Progress::Waiting("it goes back to the version before".into());
    }
    let ready = function["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let wanted = function["status"]["replicas"].as_u64().unwrap_or(0);
    Progress::Waiting(match text("message") {
        "" => format!("{ready} of {wanted} copies are ready"),
        message => message.to_owned(),
    })
}

/// Nothing of a tunnel is final while it is not reached: nodes come, ports become free.
pub fn of_tunnel(tunnel: &Value) -> Progress {
    if !object::is_observed(tunnel) {
        return Progress::Waiting(UNSEEN.into());
    }
    if object::has_condition(tunnel, "Ready", "True") {
        return Progress::Done;
    }
    let ready = object::condition(tunnel, "Ready").filter(|ready| ready["status"] != "True");
    Progress::Waiting(match ready {
        None => "nobody has tried to reach it yet".into(),
        Some(ready) => {
            let text = |key: &str| ready[key].as_str().unwrap_or_default();
            format!("{} ({})", text("message"), text("reason"))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tunnel_is_done_when_it_was_reached_as_it_is_now() {
        let mut tunnel = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": [
            {"type": "Ready", "status": "True", "reason": "Proven", "message": "it was reached"}]}});
        assert_eq!(of_tunnel(&tunnel), Progress::Waiting(UNSEEN.into()));
        tunnel["status"]["observedGeneration"] = json!(2);
        assert_eq!(of_tunnel(&tunnel), Progress::Done);
        // Said of the spec before this one.
        tunnel["status"]["conditions"][0]["observedGeneration"] = json!(1);
        let untried = Progress::Waiting("nobody has tried to reach it yet".into());
        assert_eq!(of_tunnel(&tunnel), untried);
        tunnel["status"]["conditions"] = json!([{"type": "Ready", "status": "False",
            "reason": "TargetDown", "message": "127.0.0.1:3000 refuses connections on pi"}]);
        assert_eq!(
            of_tunnel(&tunnel),
            Progress::Waiting("127.0.0.1:3000 refuses connections on pi (TargetDown)".into())
        );
    }

    #[test]
    fn old_copies_that_answer_are_not_a_finished_change() {
        let mut function = json!({
            "metadata": {"generation": 2},
            "status": {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "conditions": [
                {"type": "Available", "status": "True", "reason": "Ready", "message": "all copies are ready"}]}
        });
        assert!(matches!(of(&function), Progress::Waiting(text) if text.contains("not been seen")));
        function["status"]["observedGeneration"] = json!(2);
        assert_eq!(of(&function), Progress::Done);
        function["status"]["conditions"][0]["reason"] = json!("RollingUpdate");
        function["status"]["conditions"][0]["message"] =
            json!("1 of 2 copies run the newest version");
        assert_eq!(
            of(&function),
            Progress::Waiting("1 of 2 copies run the newest version".into())
        );
    }

    #[test]
    fn a_change_that_is_stuck_has_failed_until_there_is_another() {
        let mut function = json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": 2,
                "rollout": {"phase": "Progressing", "observedGeneration": 2},
                "conditions": [
                    {"type": "Available", "status": "True", "reason": "Failing", "message": "it traps"},
                    {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no copy"}]
            }
        });
        assert_eq!(of(&function), Progress::Failed("no copy".into()));
        function["metadata"]["generation"] = json!(3);
        function["status"]["observedGeneration"] = json!(3);
        assert_eq!(of(&function), Progress::Waiting("it traps".into()));
    }

    #[test]
    fn a_version_that_is_taken_back_was_not_rolled_out() {
        let ready = json!({"type": "Available", "status": "True", "reason": "Ready", "message": "all copies are ready"});
        let mut function = json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": 2,
                "rollout": {"phase": "RolledBack", "observedGeneration": 2},
                "conditions": [ready, {"type": "Progressing", "status": "True", "reason": "Observing", "message": ""}]
            }
        });
        assert!(matches!(of(&function), Progress::Waiting(why) if why.contains("goes back")));
        function["status"]["conditions"][1] = json!(
            {"type": "Progressing", "status": "False", "reason": "RolledBack", "message": "it failed"});
        assert_eq!(of(&function), Progress::Failed("it failed".into()));
        // The next version.
        function["metadata"]["generation"] = json!(3);
        function["status"]["observedGeneration"] = json!(3);
        assert_eq!(of(&function), Progress::Done);
    }

    #[test]
    fn a_change_is_done_when_its_copies_have_answered_long_enough() {
        let mut function = json!({
            "metadata": {"generation": 1},
            "spec": {"minReadySeconds": 30},
            "status": {
                "observedGeneration": 1,
                "rollout": {"phase": "Progressing", "observedGeneration": 1},
                "conditions": [{"type": "Available", "status": "True", "reason": "Ready"}]
            }
        });
        assert!(matches!(of(&function), Progress::Waiting(_)));
        function["status"]["rollout"]["phase"] = json!("Complete");
        assert_eq!(of(&function), Progress::Done);
    }
}
