#![allow(clippy::unwrap_used)]
use hive_manifests::Resource;
use hive_manifests::schedule::ActiveCall;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().unwrap()
}

fn key() -> Key {
    Key::new(Resource::Function, "default", "hello")
}

/// Each hour, with a minute's deadline.
fn hourly() -> Schedule {
    Schedule {
        name: "hourly".into(),
        schedule: "0 * * * *".into(),
        time_zone: "UTC".into(),
        starting_deadline_seconds: 60,
        path: "/".into(),
        suspend: false,
    }
}

fn status(since: &str, active: Option<(&str, Option<&str>)>) -> ScheduleStatus {
    ScheduleStatus {
        name: "hourly".into(),
        observed: "0 * * * * UTC".into(),
        since: Time(at(since)),
        last_schedule_time: None,
        last_successful_time: None,
        active: active.map(|(time, started)| ActiveCall {
            time: Time(at(time)),
            start_time: started.map(|at_| Time(at(at_))),
        }),
    }
}

fn planned(schedule: Schedule, status: Option<ScheduleStatus>, calling: bool, now: &str) -> Plan {
    let function = Scheduled::made(key(), vec![schedule], status.into_iter().collect());
    plan(std::iter::once(&function), |_, _| calling, at(now))
}

/// What is done, as `Word time`, and the next time to look.
fn told(plan: &Plan) -> (Vec<String>, Option<String>) {
    let clock = |time: &Timestamp| time.strftime("%H:%M:%S").to_string();
    let steps = plan.steps.iter().map(|step| match step {
        Step::Observe { observed, .. } => format!("observe {observed}"),
        Step::Begin(call) => format!("begin {}", clock(&call.time)),
        Step::Resume(call) => format!("resume {}", clock(&call.time)),
        Step::Skip { time, why, .. } => format!("skip {} {why:?}", clock(time)),
        Step::Lose { time, .. } => format!("lose {}", clock(time)),
        Step::Forget { name, .. } => format!("forget {name}"),
    });
    (steps.collect(), plan.next.as_ref().map(clock))
}

#[test]
fn each_state_has_its_step() {
    let done = |since: &str| Some(status(since, None));
    let active = |time: &str, started| Some(status(time, Some((time, started))));
    // What is known, whether it is called here, the time; what is done, when to look again.
    let cases = [
        (None, false, "10:00:00", "observe 0 * * * * UTC", ""),
        (done("09:30:00"), false, "09:59:59", "", "10:00:00"),
        (done("09:30:00"), false, "10:00:00", "begin 10:00:00", ""),
        (done("09:30:00"), false, "10:00:59", "begin 10:00:00", ""),
        (done("10:00:00"), false, "10:00:30", "", "11:00:00"),
        // Too late; and of several the last.
        (
            done("09:30:00"),
            false,
            "10:01:01",
            "skip 10:01:01 Missed",
            "",
        ),
        (done("04:30:00"), false, "10:00:10", "begin 10:00:00", ""),
        // Under way here, elsewhere, nowhere.
        (
            active("10:00:00", Some("10:00:00")),
            true,
            "10:30:00",
            "",
            "11:00:00",
        ),
        (
            active("10:00:00", Some("10:00:00")),
            true,
            "11:00:00",
            "skip 11:00:00 StillRunning",
            "",
        ),
        (
            active("10:00:00", Some("10:00:00")),
            false,
            "10:00:59",
            "",
            "10:01:00",
        ),
        (
            active("10:00:00", Some("10:00:00")),
            false,
            "10:01:00",
            "lose 10:00:00",
            "",
        ),
        (
            active("10:00:00", None),
            false,
            "10:00:30",
            "resume 10:00:00",
            "11:00:00",
        ),
        (active("10:00:00", None), true, "10:00:30", "", "11:00:00"),
        (
            active("10:00:00", None),
            false,
            "10:01:01",
            "skip 10:00:00 Missed",
            "",
        ),
    ];
    for (known, calling, now, does, next) in cases {
        let plan = planned(hourly(), known.clone(), calling, now);
        let (steps, at) = told(&plan);
        assert_eq!(steps.join(", "), does, "{known:?} at {now}");
        assert_eq!(at.unwrap_or_default(), next, "{known:?} at {now}");
    }
}

#[test]
fn what_was_missed_on_purpose_is_not_made_up_for() {
    let suspended = Schedule {
        suspend: true,
        ..hourly()
    };
    let plan = planned(
        suspended.clone(),
        Some(status("09:00:00", None)),
        false,
        "10:00:00",
    );
    assert_eq!(told(&plan).0, ["observe 0 * * * * UTC suspended"]);
    let mut known = status("09:00:00", None);
    known.observed = observed(&suspended);
    let plan = planned(suspended, Some(known.clone()), false, "10:00:00");
    assert_eq!(told(&plan), (vec![], None));
    // It counts from when it is no longer suspended.
    let plan = planned(hourly(), Some(known), false, "10:00:05");
    assert_eq!(told(&plan).0, ["observe 0 * * * * UTC"]);
}

#[test]
fn a_schedule_that_is_gone_is_forgotten_when_its_call_has_ended() {
    let function = Scheduled::made(key(), vec![], vec![status("09:00:00", None)]);
    for (calling, does) in [(true, vec![]), (false, vec!["forget hourly"])] {
        let plan = plan(std::iter::once(&function), |_, _| calling, at("10:00:00"));
        assert_eq!(told(&plan).0, does);
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Seconds(i64),
    /// The call of this leader ends, or no copy takes it.
    Ends,
    NotTaken,
    /// Another controller leads from here on, or none does for a while.
    LeaderLost,
    NobodyLeads(i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1i64..2400).prop_map(Happens::Seconds),
        3 => Just(Happens::Ends),
        1 => Just(Happens::NotTaken),
        1 => Just(Happens::LeaderLost),
        1 => (1i64..20_000).prop_map(Happens::NobodyLeads),
    ]
}

proptest! {
    /// However leaders come and go and calls end: no time is begun twice, times only go on, one that was
    /// sent is never sent again, and a leader that is there and free begins each time.
    #[test]
    fn each_time_is_begun_once(happening in prop::collection::vec(happens(), 1..200)) {
        let mut now = at("00:00:30");
        let mut known = status("00:00:00", None);
        let mut function = Scheduled::made(key(), vec![hourly()], Vec::new());
        let mut calling = false;
        let (mut begun, mut sent) = (Vec::new(), Vec::new());
        for one in happening {
            match one {
                Happens::Seconds(seconds) | Happens::NobodyLeads(seconds) => {
                    now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
                    if matches!(one, Happens::NobodyLeads(_)) {
                        calling = false;
                    }
                }
                Happens::Ends if calling => {
                    known.active = None;
                    calling = false;
                }
                Happens::NotTaken if calling => {
                    let active = known.active.as_mut().unwrap();
                    active.start_time = None;
                    // Nothing ran: it may be sent again.
                    sent.retain(|time| *time != active.time.0);
                    calling = false;
                }
                Happens::Ends | Happens::NotTaken => {}
                Happens::LeaderLost => calling = false,
            }
            // Looks until there is nothing more to do.
            for look in 0.. {
                prop_assert!(look < 4, "it settles");
                function.statuses = vec![known.clone()];
                let plan = plan(std::iter::once(&function), |_, _| calling, now);
                if plan.steps.is_empty() {
                    prop_assert!(calling || plan.next.is_some_and(|next| next > now));
                    break;
                }
                for step in plan.steps {
                    match step {
                        Step::Begin(call) => {
                            prop_assert!(known.active.is_none() && !calling);
                            prop_assert!(begun.last().is_none_or(|last| *last < call.time));
                            prop_assert!(call.time <= now && now <= call.until);
                            begun.push(call.time);
                            sent.push(call.time);
                            known.since = Time(call.time);
                            known.active = Some(ActiveCall {
                                time: Time(call.time),
                                start_time: Some(Time(now)),
                            });
                            calling = true;
                        }
                        Step::Resume(call) => {
                            prop_assert!(!sent.contains(&call.time), "sent twice");
                            sent.push(call.time);
                            known.active.as_mut().unwrap().start_time = Some(Time(now));
                            calling = true;
                        }
                        Step::Skip { time, .. } => {
                            let active = known.active.as_ref();
                            if active.is_some_and(|one| one.time.0 == time && one.start_time.is_none()) {
                                known.active = None;
                            }
                            known.since = Time(known.since.0.max(time));
                        }
                        Step::Lose { .. } => known.active = None,
                        Step::Observe { .. } | Step::Forget { .. } => prop_assert!(false, "{step:?}"),
                    }
                }
            }
        }
    }
}
