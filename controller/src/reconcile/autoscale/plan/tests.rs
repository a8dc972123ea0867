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
    let rule =
        json!({ "minReplicas": 0, "maxReplicas": 10, "window": "60s", "scaleToZeroDelay": "2m" });
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
    let rule = json!({ "minReplicas": 0, "maxReplicas": 10, "target": { "queueTime": "50ms" } });
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
