//! What people are told of a rollout: one sentence each. They carry times, not ages, which would change every second.

use std::time::Duration;

use hive_manifests::rollout::CanaryStatus;
use jiff::Timestamp;

/// Status, reason and message of the condition Progressing.
pub type Condition = (String, String, String);

pub fn condition(status: &str, reason: &str, message: String) -> Condition {
    (status.to_owned(), reason.to_owned(), message)
}

pub fn reaches(number: i64) -> Condition {
    let message = format!("revision {number} is reaching the copies");
    condition("True", "RollingUpdate", message)
}

/// How many requests a version gets that is being tried.
pub fn tried(number: i64, canary: &CanaryStatus) -> String {
    format!("revision {number} gets {}% of the requests", canary.weight)
}

pub fn trying(number: i64, canary: &CanaryStatus) -> Condition {
    let message = format!(
        "{}, step {}: its copies are starting",
        tried(number, canary),
        canary.step + 1
    );
    condition("True", "Canary", message)
}

pub fn pausing(number: i64, canary: &CanaryStatus, until: Option<Timestamp>) -> Condition {
    let step = canary.step + 1;
    let tried = tried(number, canary);
    match until {
        Some(until) => {
            let message = format!("{tried}, step {step}: a pause until {}", at(until));
            condition("True", "Canary", message)
        }
        None => {
            let message = format!("{tried}, step {step}: a pause until `hivectl rollout promote`");
            condition("Unknown", "CanaryPaused", message)
        }
    }
}

pub fn observed(number: i64, until: Timestamp) -> Condition {
    let (done, until) = (complete(number).2, at(until));
    let message = format!("{done}, whose answers are observed until {until}");
    condition("True", "Observing", message)
}

pub fn complete(number: i64) -> Condition {
    let message = format!("all copies run revision {number}");
    condition("True", "NewRevisionAvailable", message)
}

pub fn paused(number: i64) -> Condition {
    let message = format!("changes wait after revision {number}: spec.paused is set");
    condition("Unknown", "Paused", message)
}

pub fn exceeded(number: i64, deadline: Duration, missing: Option<&str>) -> Condition {
    let seconds = deadline.as_secs();
    let mut message = format!("no copy went over to revision {number} for {seconds} s");
    if let Some(missing) = missing {
        message = format!("{message}: {missing}");
    }
    condition("False", "ProgressDeadlineExceeded", message)
}

fn at(time: Timestamp) -> impl std::fmt::Display {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
