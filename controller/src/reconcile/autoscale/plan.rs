//! What is to be said of how many copies a function needs: a pure function of what it was asked for.

use std::time::Duration;

use hive_manifests::FunctionSpec;
use hive_manifests::autoscaling::{Autoscaling, AutoscalingStatus};
use hive_manifests::duration::GoDuration;
use hive_manifests::function::FunctionStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::count::count;
use crate::reconcile::events::Notice;

/// A function, as far as its number of copies is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub spec: &'a FunctionSpec,
    /// How many copies there should be now.
    pub wanted: u32,
    /// How many answer. Only where it scales by how long requests wait.
    pub ready: u32,
    /// No copy is on its way to another version: then the last one may end.
    pub is_settled: bool,
    pub scaling: &'a Scaling,
}

/// What it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Requests under way at once in the busiest moment of the window.
    pub peak: f64,
    /// How long a request waited for its turn in the last moment, on average.
    pub wait: Duration,
    /// The same of that moment of the window in which they waited longest.
    pub longest_wait: Duration,
    /// Whether there was any request as long as counts for the last copy, or is one.
    pub any: bool,
    /// How long all that it was asked for is known.
    pub known_for: Duration,
}

/// What a function's status says of its scaling; nothing where it does not scale by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaling {
    pub found: Option<AutoscalingStatus>,
    /// Of the conditions ScalingActive and ScalingLimited: status, reason, message.
    pub active: Option<Told>,
    pub limited: Option<Told>,
}

pub type Told = (String, String, String);

impl Scaling {
    pub fn of(status: &FunctionStatus) -> Self {
        let told = |kind: &str| {
            let found = status.conditions.iter().find(|it| it.type_ == kind)?;
            Some((
                found.status.clone(),
                found.reason.clone(),
                found.message.clone(),
            ))
        };
        Self {
            found: status.autoscaling.clone(),
            active: told("ScalingActive"),
            limited: told("ScalingLimited"),
        }
    }
}

/// What is to be said of a function from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub scaling: Scaling,
    pub notice: Option<Notice>,
}

/// `None` while all stays as it is.
pub fn plan(subject: &Subject<'_>, demand: &Demand, now: Timestamp) -> Option<Change> {
    let (scaling, notice) = match (&subject.spec.autoscaling, subject.spec.replicas) {
        (None, _) => (Scaling::default(), None),
        (Some(rule), Some(held)) => (is_held(subject, rule, held, now), None),
        (Some(rule), None) => scaled(subject, rule, demand, now),
    };
    (scaling != *subject.scaling).then_some(Change { scaling, notice })
}

/// Somebody said how many. When they let go, it goes on from there.
fn is_held(subject: &Subject<'_>, rule: &Autoscaling, held: u32, now: Timestamp) -> Scaling {
    let message =
        format!("spec.replicas holds it at {held} until `hivectl scale --release` lets go");
    Scaling {
        found: Some(found(subject, rule.clamp(held), now)),
        active: Some(told("False", "ScalingDisabled", message)),
        limited: None,
    }
}

fn scaled(
    subject: &Subject<'_>,
    rule: &Autoscaling,
    demand: &Demand,
    now: Timestamp,
) -> (Scaling, Option<Notice>) {
    let count = count(subject, rule, demand, now);
    let replicas = count.replicas;
    let limited = match count.is_limited {
        true => told(
            "True",
            "TooManyReplicas",
            format!(
                "it is asked for more than {} copies, which is maxReplicas, should do",
                rule.max_replicas
            ),
        ),
        false => told(
            "False",
            "DesiredWithinRange",
            "as many copies run as are needed".into(),
        ),
    };
    let scaling = Scaling {
        found: Some(found(subject, replicas, now)),
        active: Some(told(
            "True",
            "ValidMetricFound",
            match count.too_long {
                None => "as many copies run as the requests under way ask for".into(),
                // How long exactly differs each second: that would be written each time.
                Some(target) => format!(
                    "requests wait for their turn longer than {target}, which is target.queueTime"
                ),
            },
        )),
        limited: Some(limited),
    };
    let notice = (replicas != subject.wanted).then(|| {
        let reason = match replicas > subject.wanted {
            true => "ScaledUp",
            false => "ScaledDown",
        };
        Notice {
            warning: false,
            reason: reason.into(),
            message: format!(
                "from {} to {}: {}",
                copies(subject.wanted),
                copies(replicas),
                match count.too_long.filter(|_| count.is_beyond_load) {
                    Some(target) => waits(demand, target),
                    None => format!(
                        "{} under way at once, of which a copy should have {}",
                        requests(demand),
                        subject.spec.target_concurrency(),
                    ),
                }
            ),
            source: "autoscaler".into(),
            count: 1,
        }
    });
    (scaling, notice)
}

fn found(subject: &Subject<'_>, replicas: u32, now: Timestamp) -> AutoscalingStatus {
    match &subject.scaling.found {
        Some(before) if before.replicas == replicas => before.clone(),
        before => AutoscalingStatus {
            replicas,
            // The first number is none, if it is what there was.
            last_scale_time: (before.is_some() || replicas != subject.wanted).then_some(Time(now)),
        },
    }
}

fn told(status: &str, reason: &str, message: String) -> Told {
    (status.to_owned(), reason.to_owned(), message)
}

fn copies(number: u32) -> String {
    match number {
        1 => "1 copy".into(),
        number => format!("{number} copies"),
    }
}

fn waits(demand: &Demand, target: GoDuration) -> String {
    // Upwards: it is more than the target.
    let wait = Duration::from_millis(demand.wait.as_micros().div_ceil(1000) as u64);
    format!(
        "requests wait for their turn {} on average, and should {target} at most",
        GoDuration(wait)
    )
}

fn requests(demand: &Demand) -> String {
    match demand.peak {
        peak if peak > 0.0 && peak < 1.5 => "1 request".into(),
        peak => format!("{peak:.0} requests"),
    }
}

#[cfg(test)]
mod tests;
