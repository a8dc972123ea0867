//! How many copies a function needs: a pure function of what it was asked for.
//!
//! As many as the busiest moment of the window asked for: so more come within a moment, fewer only after a
//! whole window in which fewer would have done, and a load that stays the same moves nothing.
//!
//! How long requests wait for their turn says that there are too few copies and not how many are missing, nor
//! how many less would do: by that more come step by step, and fewer too.

use std::time::Duration;

use hive_manifests::FunctionSpec;
use hive_manifests::autoscaling::{Autoscaling, AutoscalingStatus};
use hive_manifests::duration::GoDuration;
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
    let by_load = match rule.clamp(asked) {
        more if more > before && (demand.peak > much || before == 0) => more,
        more if more > before => before,
        // Of what is not known there may have been a lot.
        _ if demand.known_for < rule.window.0 => before,
        0 if !may_end => before.min(1),
        fewer => fewer,
    };
    let too_long = rule.target.queue_time.filter(|it| demand.wait > it.0);
    let replicas = match rule.target.queue_time {
        None => by_load,
        Some(target) => heeding_waits(subject, rule, target.0, demand, by_load, now),
    };
    let by_waits = too_long.map_or(0, |_| half_as_many_again(subject.ready));
    let is_limited = asked.max(by_waits) > rule.max_replicas;
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
            match too_long {
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
                match too_long.filter(|_| replicas > by_load) {
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

/// As many copies as requests ask for that should not wait longer than `target`; `by_load` is what they ask for by
/// their number.
fn heeding_waits(
    subject: &Subject<'_>,
    rule: &Autoscaling,
    target: Duration,
    demand: &Demand,
    by_load: u32,
    now: Timestamp,
) -> u32 {
    let before = rule.clamp(subject.wanted);
    let unchanged_for = unchanged_for(subject.scaling, now);
    if demand.wait > target {
        // What the last step has brought is seen when its copies answer, and a moment has passed.
        let more = match unchanged_for < moment(rule) {
            true => before,
            false => rule.clamp(half_as_many_again(subject.ready)),
        };
        return more.max(before).max(by_load);
    }
    if by_load >= before || !demand.any {
        return by_load;
    }
    if demand.longest_wait > target || unchanged_for < rule.window.0 {
        return before;
    }
    by_load.max(before - before.div_ceil(3))
}

fn half_as_many_again(copies: u32) -> u32 {
    copies.saturating_add(copies.div_ceil(2))
}

/// How long ago the number of copies changed last. A time to come is of a clock that was wrong: nothing waits
/// for it.
fn unchanged_for(scaling: &Scaling, now: Timestamp) -> Duration {
    let changed = scaling
        .found
        .as_ref()
        .and_then(|it| it.last_scale_time.as_ref());
    changed
        .and_then(|changed| now.duration_since(changed.0).try_into().ok())
        .unwrap_or(Duration::MAX)
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
            ..Demand::default()
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
            ready: 0,
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
            ready: 1,
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
            ready: 4,
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

    #[test]
    fn copies_come_and_go_step_by_step_by_how_long_requests_wait() {
        let rule =
            json!({ "minReplicas": 0, "maxReplicas": 10, "target": { "queueTime": "50ms" } });
        let spec = spec(rule, None);
        let cases = [
            // Waits of the last moment and of the worst, in ms; wanted, ready, unchanged for seconds, peak, after.
            (51, 51, 1, 1, None::<i64>, 1.0, 2),
            (50, 50, 1, 1, None, 1.0, 1),
            (51, 51, 2, 2, None, 1.0, 3),
            (51, 51, 3, 3, None, 1.0, 5),
            (51, 51, 5, 5, None, 1.0, 8),
            (51, 51, 8, 8, None, 1.0, 10),
            (51, 51, 10, 10, None, 1.0, 10),
            // Those that come do not answer yet, or have not done so for a moment.
            (51, 51, 3, 2, None, 1.0, 3),
            (51, 51, 5, 2, None, 1.0, 5),
            (51, 51, 3, 0, None, 1.0, 3),
            (51, 51, 2, 2, Some(5), 1.0, 2),
            (51, 51, 2, 2, Some(6), 1.0, 3),
            // By their number there are more to come.
            (51, 51, 2, 2, Some(5), 40.0, 6),
            (51, 51, 2, 2, None, 40.0, 6),
            (0, 0, 2, 2, None, 40.0, 6),
            // Fewer are tried once nobody has waited too long, and nothing has changed, for a window.
            (0, 51, 9, 9, None, 1.0, 9),
            (0, 50, 9, 9, Some(59), 1.0, 9),
            (0, 50, 9, 9, Some(60), 1.0, 6),
            (0, 0, 3, 3, Some(60), 1.0, 2),
            (0, 0, 2, 2, Some(60), 1.0, 1),
            (0, 0, 6, 6, Some(60), 35.0, 5),
            (0, 0, 1, 1, Some(60), 1.0, 1),
            // Whose clock was wrong stops nothing.
            (51, 51, 2, 2, Some(-9), 1.0, 3),
            // Nobody asks at all.
            (0, 0, 9, 9, Some(0), 0.0, 0),
        ];
        for case in cases {
            let (wait, longest, wanted, ready, unchanged, peak, after) = case;
            let now = Timestamp::from_second(1000).unwrap();
            let changed = |ago| Time(Timestamp::from_second(1000 - ago).unwrap());
            let scaling = Scaling {
                found: Some(AutoscalingStatus {
                    replicas: wanted,
                    last_scale_time: unchanged.map(changed),
                }),
                ..Scaling::default()
            };
            let subject = Subject {
                spec: &spec,
                wanted,
                ready,
                is_settled: true,
                scaling: &scaling,
            };
            let demand = Demand {
                wait: Duration::from_millis(wait),
                longest_wait: Duration::from_millis(longest),
                ..demand(peak, 600)
            };
            let change = plan(&subject, &demand, now).unwrap();
            assert_eq!(change.scaling.found.unwrap().replicas, after, "{case:?}");
        }
    }

    proptest! {
        /// Never beyond the bounds, never fewer by what is not known, and what was decided stays so.
        #[test]
        fn bounds_hold_and_a_decision_stands(
            least in 0u32..5, more in 0u32..10, before in 0u32..20,
            peak in prop_oneof![Just(0.0), 0.0f64..300.0, Just(f64::MAX)],
            known_for in 0u64..200, is_settled: bool,
            queue_time in prop_oneof![Just(None), Just(Some("50ms"))],
            ready in 0u32..20, wait in 0u64..100, longer in 0u64..100,
        ) {
            let most = (least + more).max(1);
            let target = json!({ "queueTime": queue_time });
            let rule = json!({ "minReplicas": least, "maxReplicas": most, "target": target });
            let spec = spec(rule, None);
            let demand = Demand {
                wait: Duration::from_millis(wait),
                longest_wait: Duration::from_millis(wait + longer),
                ..demand(peak, known_for)
            };
            let (scaling, now) = (Scaling::default(), Timestamp::UNIX_EPOCH);
            let wanted = spec.wanted_replicas(Some(before));
            let subject = Subject { spec: &spec, wanted, ready, is_settled, scaling: &scaling };
            let change = plan(&subject, &demand, now).unwrap();
            let after = change.scaling.found.as_ref().unwrap().replicas;
            prop_assert!((least..=most).contains(&after));
            prop_assert!(after >= wanted || known_for >= 60);
            prop_assert!(after >= wanted || queue_time.is_none() || wait <= 50);
            prop_assert!(after > 0 || (known_for >= 60 && is_settled) || wanted == 0);
            prop_assert!(after > 0 || !demand.any);
            prop_assert_eq!(change.notice.is_some(), after != wanted);
            let subject = Subject { wanted: after, scaling: &change.scaling, ..subject };
            prop_assert_eq!(plan(&subject, &demand, now), None);
        }
    }
}
