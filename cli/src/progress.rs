//! How far a change of a function has come.
//!
//! Pure: a function's status flows in; whether its newest spec runs everywhere it should, or what
//! is still missing, flows out. That some older copy still answers is not enough.

use serde_json::Value;

use crate::object;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All copies run the newest spec.
    Done,
    /// What is still missing, in a few words.
    Waiting(String),
}

/// Reasons of the condition Available with which nothing is left to do.
const SETTLED: [&str; 2] = ["Ready", "ScaledToZero"];

pub fn of(function: &Value) -> Progress {
    if !object::is_observed(function) {
        return Progress::Waiting("the change has not been seen by the controllers yet".into());
    }
    let Some(available) = object::condition(function, "Available") else {
        return Progress::Waiting("nothing is known of it yet".into());
    };
    let text = |key: &str| available[key].as_str().unwrap_or_default();
    if text("status") == "True" && SETTLED.contains(&text("reason")) {
        return Progress::Done;
    }
    let ready = function["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let wanted = function["status"]["replicas"].as_u64().unwrap_or(0);
    Progress::Waiting(match text("message") {
        "" => format!("{ready} of {wanted} copies are ready"),
        message => message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
