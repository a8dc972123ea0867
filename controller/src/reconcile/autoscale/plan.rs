//! How many copies a function needs: a pure function of what it was asked for.
//!
//! As many as the busiest moment of the window asked for: so more come within a moment, fewer only after a
//! whole window in which fewer would have done, and a load that stays the same moves nothing.

use std::time::Duration;

use hive_manifests::FunctionSpec;
use hive_manifests::autoscaling::{Autoscaling, AutoscalingStatus};
use hive_manifests::function::FunctionStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::reconcile::events::Notice;

/// Moments in a window.
const MOMENTS: u32 = 10;

/// The shortest moment: reports come every second, and in one of three a late one does not look like a
/// pause and a rush.
const SHORTEST_MOMENT: Duration = Duration::from_secs(3);

/// What a copy may have to do beyond its share before another one comes: reports are no more exact, and
/// who tests with as many clients as a copy should have would see two.
const TOLERANCE: f64 = 1.1;

/// A function, as far as its number of copies is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub spec: &'a FunctionSpec,
    /// How many copies there should be now.
    pub wanted: u32,
    /// No copy is on its way to another version: then the last one may end.
    pub is_settled: bool,
    pub scaling: &'a Scaling,
}

/// What it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Requests under way at once in the busiest moment of the window.
    pub peak: f64,
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

/// The time over which requests are averaged.
pub fn moment(rule: &Autoscaling) -> Duration {
    (rule.window.0 / MOMENTS).max(SHORTEST_MOMENT)
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
    let asked = asked_for(subject.spec, demand);
    let before = rule.clamp(subject.wanted);
    let may_end = demand.known_for >= rule.idle_time() && subject.is_settled;
    let much = f64::from(before) * f64::from(subject.spec.target_concurrency()) * TOLERANCE;
    let replicas = match rule.clamp(asked) {
        more if more > before && (demand.peak > much || before == 0) => more,
        more if more > before => before,
        // Of what is not known there may have been a lot.
        _ if demand.known_for < rule.window.0 => before,
        0 if !may_end => before.min(1),
        fewer => fewer,
    };
    let is_limited = asked > rule.max_replicas;
    let limited = match is_limited {
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
            "as many copies run as the requests under way ask for".into(),
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
                "from {} to {}: {} under way at once, of which a copy should have {}",
                copies(subject.wanted),
                copies(replicas),
                requests(demand),
                subject.spec.target_concurrency(),
            ),
            source: "autoscaler".into(),
            count: 1,
        }
    });
    (scaling, notice)
}

/// Copies that would have enough to do, whatever their bounds.
fn asked_for(spec: &FunctionSpec, demand: &Demand) -> u32 {
    let share = f64::from(spec.target_concurrency());
    // A float beyond the range becomes its end.
    let copies = (demand.peak / share).ceil() as u32;
    copies.max(u32::from(demand.any))
}

fn found(subject: &Subject<'_>, replicas: u32, now: Timestamp) -> AutoscalingStatus {
    match &subject.scaling.found {
        Some(before) if before.replicas == replicas => before.clone(),
        before => AutoscalingStatus {
            replicas,
            // The first number is no change.
            last_scale_time: before.as_ref().map(|_| Time(now)),
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

fn requests(demand: &Demand) -> String {
    match demand.peak {
        peak if peak > 0.0 && peak < 1.5 => "1 request".into(),
        peak => format!("{peak:.0} requests"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(rule: Value, replicas: Option<u32>) -> FunctionSpec {
        let spec = json!({
            "artifact": { "sha256": "ab" }, "concurrency": 10, "autoscaling": rule, "replicas": replicas,
        });
        serde_json::from_value(spec).unwrap()
    }

    fn demand(peak: f64, known_for: u64) -> Demand {
        Demand {
            peak,
            any: peak > 0.0,
            known_for: Duration::from_secs(known_for),
        }
    }

    fn next(spec: &FunctionSpec, wanted: u32, demand: &Demand) -> u32 {
        let scaling = Scaling {
            found: Some(AutoscalingStatus {
                replicas: wanted,
                last_scale_time: None,
            }),
            ..Scaling::default()
        };
        let subject = Subject {
            spec,
            wanted,
            is_settled: true,
            scaling: &scaling,
        };
        let change = plan(&subject, demand, Timestamp::UNIX_EPOCH).unwrap();
        change.scaling.found.unwrap().replicas
    }

    #[test]
    fn copies_follow_what_they_are_asked_for() {
        // Of ten at once a copy should have seven.
        let rule = json!({ "minReplicas": 0, "maxReplicas": 10, "window": "60s", "scaleToZeroDelay": "2m" });
        let cases = [
            // Peak, for how long all is known, copies before, and after.
            (7.0, 60, 1, 1),
            (7.7, 60, 1, 1),
            (7.8, 60, 1, 2),
            (7.8, 0, 1, 2),
            (700.0, 60, 1, 10),
            (0.01, 1, 0, 1),
            (7.0, 59, 4, 4),
            (7.0, 60, 4, 1),
            (0.0, 59, 4, 4),
            (0.0, 60, 4, 1),
            (0.0, 119, 1, 1),
            (0.0, 120, 1, 0),
            (0.0, 120, 4, 0),
            (0.0, 0, 0, 0),
        ];
        for (peak, known_for, before, after) in cases {
            let found = next(&spec(rule.clone(), None), before, &demand(peak, known_for));
            assert_eq!(
                found, after,
                "{peak} known for {known_for} s with {before} copies"
            );
        }
    }

    #[test]
    fn the_last_copy_stays_while_there_was_a_request_or_a_version_is_on_its_way() {
        let spec = spec(json!({ "minReplicas": 0 }), None);
        let asked = Demand {
            any: true,
            ..demand(0.0, 600)
        };
        assert_eq!(next(&spec, 1, &asked), 1);
        let scaling = Scaling::default();
        let rolling = Subject {
            spec: &spec,
            wanted: 1,
            is_settled: false,
            scaling: &scaling,
        };
        let change = plan(&rolling, &demand(0.0, 600), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(change.scaling.found.unwrap().replicas, 1);
        assert_eq!(change.notice, None);
    }

    #[test]
    fn a_held_function_goes_on_from_where_it_was_held() {
        let (rule, now) = (json!({}), Timestamp::UNIX_EPOCH);
        let held = spec(rule.clone(), Some(4));
        let nothing = Scaling::default();
        let subject = Subject {
            spec: &held,
            wanted: 4,
            is_settled: true,
            scaling: &nothing,
        };
        let change = plan(&subject, &demand(500.0, 600), now).unwrap();
        let (status, reason, message) = change.scaling.active.clone().unwrap();
        assert_eq!((&*status, &*reason), ("False", "ScalingDisabled"));
        assert!(message.contains("holds it at 4"), "{message}");
        let released = spec(rule, None);
        let subject = Subject {
            spec: &released,
            wanted: released.wanted_replicas(change.scaling.found.as_ref().map(|it| it.replicas)),
            scaling: &change.scaling,
            ..subject
        };
        assert_eq!(subject.wanted, 4);
        let change = plan(&subject, &demand(0.0, 0), now).unwrap();
        assert_eq!(change.scaling.found.as_ref().unwrap().replicas, 4);
        // And one that no longer scales by itself says nothing of it.
        let fixed = FunctionSpec {
            autoscaling: None,
            replicas: Some(4),
            ..released.clone()
        };
        let subject = Subject {
            spec: &fixed,
            scaling: &change.scaling,
            ..subject
        };
        let change = plan(&subject, &demand(0.0, 0), now).unwrap();
        assert_eq!(change.scaling, Scaling::default());
    }

    proptest! {
        /// Never beyond the bounds, never fewer by what is not known, and what was decided stays so.
        #[test]
        fn bounds_hold_and_a_decision_stands(
            least in 0u32..5, more in 0u32..10, before in 0u32..20,
            peak in prop_oneof![Just(0.0), 0.0f64..300.0, Just(f64::MAX)],
            known_for in 0u64..200, is_settled: bool,
        ) {
            let most = (least + more).max(1);
            let spec = spec(json!({ "minReplicas": least, "maxReplicas": most }), None);
            let demand = demand(peak, known_for);
            let (scaling, now) = (Scaling::default(), Timestamp::UNIX_EPOCH);
            let wanted = spec.wanted_replicas(Some(before));
            let subject = Subject { spec: &spec, wanted, is_settled, scaling: &scaling };
            let change = plan(&subject, &demand, now).unwrap();
            let after = change.scaling.found.as_ref().unwrap().replicas;
            prop_assert!((least..=most).contains(&after));
            prop_assert!(after >= wanted || known_for >= 60);
            prop_assert!(after > 0 || (known_for >= 60 && is_settled) || wanted == 0);
            prop_assert!(after > 0 || !demand.any);
            prop_assert_eq!(change.notice.is_some(), after != wanted);
            let subject = Subject { wanted: after, scaling: &change.scaling, ..subject };
            prop_assert_eq!(plan(&subject, &demand, now), None);
        }
    }
}
