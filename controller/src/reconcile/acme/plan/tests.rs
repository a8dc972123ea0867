#![allow(clippy::unwrap_used)]
use super::*;

const AUTHORITY: &str = "https://ca.example/directory";

/// Minutes after the time at which all cases begin.
fn at(minutes: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    Timestamp::from_second(begin.as_second() + 60 * minutes).unwrap()
}

const DAY: i64 = 24 * 60;

fn agreed() -> Result<Settings, Why> {
    Ok(Settings {
        directory: AUTHORITY.into(),
        email: None,
        roots: String::new(),
    })
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn wanting(held: Held) -> Subject {
    Subject {
        generation: 2,
        names: set(&["photos.example.org"]),
        secret: "photos-acme".into(),
        held,
        taken: None,
        failed: None,
    }
}

/// Good from `from` to `until`, in minutes.
fn held(names: &[&str], from: i64, until: i64) -> Held {
    Held::Own(Certificate {
        names: set(names),
        not_before: at(from),
        not_after: at(until),
        directory: AUTHORITY.into(),
    })
}

fn order(names: &[&str], began: i64, directory: &str) -> Order {
    Order {
        namespace: "default".into(),
        tunnel: "photos".into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        directory: directory.into(),
        began: at(began),
        key: String::new(),
        url: None,
        answers: Vec::new(),
    }
}

fn failed(generation: i64, directory: &str, reason: &str, since: i64, next: i64) -> FailedOrder {
    FailedOrder {
        time: Time(at(since)),
        generation,
        directory: directory.into(),
        count: 1,
        next_time: Time(at(next)),
        reason: reason.into(),
        message: "ca.example says: no".into(),
    }
}

/// What is planned now: step, readiness, reason.
fn planned(
    subject: &Subject,
    settings: &Result<Settings, Why>,
    order: Option<&Order>,
) -> (Option<Step>, bool, String) {
    let planned = plan(subject, settings, order, None, at(0));
    (planned.step, planned.is_ready, planned.why.reason)
}

const OWN: &[&str] = &["photos.example.org"];

#[test]
fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let others = &["a.example.org"];
    let more = &["photos.example.org", "a.example.org"];
    let elsewhere = match held(OWN, 0, 90 * DAY) {
        Held::Own(certificate) => Held::Own(Certificate {
            directory: "https://staging.example/directory".into(),
            ..certificate
        }),
        held => held,
    };
    for (held, expected) in [
        (Held::Nothing, (Some(Step::Open), false, "Ordering")),
        (held(OWN, 0, 90 * DAY), (None, true, "Issued")),
        (held(more, 0, 90 * DAY), (None, true, "Issued")),
        (
            held(others, 0, 90 * DAY),
            (Some(Step::Open), false, "Ordering"),
        ),
        (
            held(OWN, -60 * DAY + 1, 30 * DAY + 1),
            (None, true, "Issued"),
        ),
        (
            held(OWN, -60 * DAY, 30 * DAY),
            (Some(Step::Open), true, "Renewing"),
        ),
        (
            held(OWN, -90 * DAY, 0),
            (Some(Step::Open), false, "Ordering"),
        ),
        (elsewhere, (Some(Step::Open), true, "Renewing")),
    ] {
        let subject = wanting(held);
        let (step, is_ready, reason) = expected;
        let expected = (step, is_ready, reason.to_owned());
        assert_eq!(
            planned(&subject, &agreed(), None),
            expected,
            "{:?}",
            subject.held
        );
    }
}

#[test]
fn a_fresh_certificate_is_looked_at_again_when_it_is_to_be_renewed() {
    let plan = plan(
        &wanting(held(OWN, 0, 90 * DAY)),
        &agreed(),
        None,
        None,
        at(0),
    );
    assert_eq!(plan.due, Some(at(60 * DAY)));
    assert_eq!(plan.status.renewal_time, Some(Time(at(60 * DAY))));
    assert_eq!(
        plan.why.message,
        "good for photos.example.org until 2027-02-20; renewed from 2027-01-21 on"
    );
}

#[test]
fn an_open_order_is_gone_on_with_if_it_is_what_is_wanted() {
    let fresh = held(OWN, 0, 90 * DAY);
    let cases: [(Held, &[&str], i64, &str, Step); 5] = [
        (Held::Nothing, OWN, -5, AUTHORITY, Step::Resume),
        (
            Held::Nothing,
            &["other.example.org"],
            -5,
            AUTHORITY,
            Step::Close,
        ),
        (Held::Nothing, OWN, -DAY, AUTHORITY, Step::Close),
        (Held::Nothing, OWN, -5, "https://other.example", Step::Close),
        // Its leader was lost after it kept the certificate.
        (fresh, OWN, -5, AUTHORITY, Step::Close),
    ];
    for (held, names, began, directory, expected) in cases {
        let order = order(names, began, directory);
        let plan = plan(&wanting(held), &agreed(), Some(&order), None, at(0));
        assert_eq!(plan.step, Some(expected), "{names:?} {began} {directory}");
    }
}

#[test]
fn what_is_in_the_way_is_said_and_no_authority_asked() {
    let refused = || Err(Why::new("TermsNotAgreed", "agree first"));
    let own = || wanting(Held::Nothing);
    let taken = Subject {
        taken: Some("somebody has it".into()),
        ..own()
    };
    let local = Subject {
        names: set(&["photos.default.localhost"]),
        ..own()
    };
    let near = Ok(Settings {
        directory: "https://127.0.0.1:14000/dir".into(),
        email: None,
        roots: String::new(),
    });
    for (subject, settings, expected) in [
        (own(), refused(), "TermsNotAgreed"),
        (wanting(Held::Foreign), agreed(), "SecretTaken"),
        (taken, agreed(), "HostTaken"),
        (local.clone(), agreed(), "LocalName"),
    ] {
        let found = planned(&subject, &settings, None);
        assert_eq!(found, (None, false, expected.to_owned()));
        // Nothing is answered for it any more.
        let open = order(OWN, -5, AUTHORITY);
        let found = planned(&subject, &settings, Some(&open));
        assert_eq!(found.0, Some(Step::Close), "{expected}");
    }
    // An authority of tests finds such a name.
    assert_eq!(planned(&local, &near, None).0, Some(Step::Open));
    // What is good stays so.
    let old = wanting(held(OWN, -60 * DAY, 30 * DAY));
    let found = planned(&old, &refused(), None);
    assert_eq!(found, (None, true, "RenewalFailed".to_owned()));
}

#[test]
fn what_failed_waits_for_its_time() {
    let (other, refused) = ("https://other.example", "OrderFailed");
    for (failed, expected) in [
        (failed(2, AUTHORITY, refused, -5, 10), None),
        (failed(2, AUTHORITY, refused, -15, 0), Some(Step::Open)),
        // The tunnel was changed since: not within a minute.
        (failed(1, AUTHORITY, refused, -1, 14), Some(Step::Open)),
        (failed(1, AUTHORITY, refused, 0, 15), None),
        // That does not help against a limit.
        (failed(1, AUTHORITY, LIMITED, -5, 10), None),
        // Another authority knows nothing of it.
        (failed(2, other, LIMITED, -5, 10), Some(Step::Open)),
    ] {
        let subject = Subject {
            failed: Some(failed.clone()),
            ..wanting(Held::Nothing)
        };
        let plan = plan(&subject, &agreed(), None, None, at(0));
        assert_eq!(plan.step, expected, "{failed:?}");
        // It says so until something comes of the next try.
        assert_eq!(plan.why.reason, failed.reason);
        assert!(plan.why.message.starts_with("ca.example says: no; "));
        assert_eq!(plan.status.failed, Some(failed));
        assert_eq!(plan.due.is_some(), expected.is_none());
    }
}

#[test]
fn a_clock_that_was_ahead_puts_no_try_off_for_longer_than_an_authority_may() {
    const YEAR: i64 = 365 * DAY;
    const WEEK: i64 = 7 * DAY;
    for (generation, since, next, expected) in [
        (2, -5, WEEK, (-5, WEEK)),
        (2, -5, WEEK + 1, (-5, WEEK)),
        (2, YEAR, YEAR + 15, (0, WEEK)),
        // The tunnel was changed since.
        (1, YEAR, YEAR + 15, (0, WEEK)),
    ] {
        let failed = failed(generation, AUTHORITY, "OrderFailed", since, next);
        let mut subject = Subject {
            failed: Some(failed),
            ..wanting(Held::Nothing)
        };
        let planned = plan(&subject, &agreed(), None, None, at(0));
        let noted = planned.status.failed.clone().unwrap();
        let (since, next) = expected;
        assert_eq!((noted.time.0, noted.next_time.0), (at(since), at(next)));
        assert_eq!(planned.step, None);

        // It is what counts from then on.
        subject.failed = Some(noted.clone());
        for (minute, expected) in [(1, noted.clone()), (WEEK, noted)] {
            let planned = plan(&subject, &agreed(), None, None, at(minute));
            assert_eq!(planned.status.failed, Some(expected));
            let is_due = minute == WEEK || generation == 1;
            assert_eq!(planned.step, is_due.then_some(Step::Open), "{minute}");
        }
    }
}

#[test]
fn an_authority_that_wants_to_be_left_alone_is_asked_for_no_tunnel() {
    let open = order(OWN, -5, AUTHORITY);
    let due = |subject: &Subject, order, paused: Option<i64>, now| {
        plan(subject, &agreed(), order, paused.map(at), at(now))
    };
    let never = wanting(Held::Nothing);
    let failing = |next| Subject {
        failed: Some(failed(2, AUTHORITY, "OrderFailed", -5, next)),
        ..never.clone()
    };
    let busy = "ca.example wants to be left alone by this swarm, and is asked again at 2026-11-22 12:30 UTC";
    let again = |at: &str| format!("ca.example says: no; it is tried again at 2026-11-22 {at} UTC");
    for (subject, order, reason, message, expected) in [
        (&never, None, BUSY, busy.to_owned(), 30),
        (&never, Some(&open), BUSY, busy.to_owned(), 30),
        (&failing(10), None, "OrderFailed", again("12:30"), 30),
        (&failing(-1), Some(&open), "OrderFailed", again("12:30"), 30),
        (&failing(60), None, "OrderFailed", again("13:00"), 60),
    ] {
        let planned = due(subject, order, Some(30), 0);
        assert_eq!(planned.step, None, "{message}");
        assert_eq!(planned.why, Why::new(reason, message));
        assert_eq!(planned.due, Some(at(expected)));
        // Nobody failed for it.
        assert_eq!(planned.status.failed, subject.failed);
        // It ends.
        assert!(due(subject, order, None, 60).step.is_some());
    }
    // What is good stays so.
    let fresh = wanting(held(OWN, 0, 90 * DAY));
    assert_eq!(due(&fresh, None, Some(30), 0).why.reason, "Issued");
    let old = wanting(held(OWN, -60 * DAY, 30 * DAY));
    let planned = due(&old, None, Some(30), 0);
    assert!(planned.is_ready && planned.step.is_none());
    assert_eq!(planned.why.reason, "RenewalFailed");
    assert!(planned.why.message.ends_with(busy));
    // What is for nothing is closed: nobody is asked for that.
    let refused = Err(Why::new("TermsNotAgreed", "agree first"));
    let planned = plan(&never, &refused, Some(&open), Some(at(30)), at(0));
    assert_eq!(planned.step, Some(Step::Close));
}

#[test]
fn waits_double_up_to_an_end_and_an_authority_may_want_longer_ones() {
    let next = |trouble: Trouble, before: Option<u64>, jitter| {
        let before = before.map(Duration::from_secs);
        let next = trouble.next(before, None, jitter, at(0));
        next.as_second() - at(0).as_second()
    };
    for (trouble, before, expected) in [
        (Trouble::Name, None, 30),
        (Trouble::Name, Some(30), 60),
        (Trouble::Name, Some(86_400), 300),
        (Trouble::Passing, None, 60),
        (Trouble::Passing, Some(60), 120),
        (Trouble::Passing, Some(3600), 3600),
        (Trouble::Final, None, 900),
        (Trouble::Final, Some(900), 1800),
        (Trouble::Final, Some(86_400), 86_400),
        // The name led nowhere, for however long.
        (Trouble::Final, Some(300), 900),
    ] {
        assert_eq!(
            next(trouble, before, 0.0),
            expected,
            "{trouble:?} {before:?}"
        );
        assert_eq!(next(trouble, before, 1.0), expected + expected / 10);
    }
    let asked = |pause| Trouble::Final.next(None, Some(pause), 0.0, at(0));
    assert_eq!(asked(at(DAY)), at(DAY));
    assert_eq!(asked(at(1)), at(15));
}
