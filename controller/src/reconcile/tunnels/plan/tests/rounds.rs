//! What a status says over several tries.

use hive_manifests::tunnel::TunnelStatus;
use proptest::prelude::*;

use super::*;

#[test]
fn a_status_tells_what_was_seen_when_something_was_new() {
    let subject = subject(http(HOST), well());
    let mut tried: Option<Tried> = None;
    let mut status = Value::Null;
    let mut round = |second, answer: Answer| {
        let seen = both(answer.clone(), answer);
        let now = Tried::new(&subject, seen, at(second), tried.as_ref());
        let step = plan(&subject, Some(&now), &status, at(second));
        tried = Some(now);
        let Step::Write {
            status: next,
            notice,
        } = step
        else {
            return format!("{step:?}");
        };
        status = next;
        let probe = &status["probe"];
        let time = |time: &Value| {
            time.as_str()
                .map_or(-1, |at| at.parse::<Timestamp>().unwrap().as_second())
        };
        let since = &status["conditions"][0]["lastTransitionTime"];
        format!(
            "{} since {}, tried {} reached {} in {} failed {} {}, {}",
            status["conditions"][0]["reason"].as_str().unwrap(),
            time(since),
            time(&probe["lastTime"]),
            time(&probe["lastSuccess"]),
            probe["latencyMs"],
            time(&probe["lastFailure"]["time"]),
            probe["lastFailure"]["reason"],
            notice.map_or_else(
                || "no event".to_owned(),
                |it| format!("warning: {}", it.warning)
            ),
        )
    };
    assert_eq!(
        round(0, reached(20)),
        "Proven since 0, tried 0 reached 0 in 20 failed -1 null, warning: false"
    );
    assert_eq!(round(30, reached(35)), "Nothing");
    // One lost packet is no news, two in a row are.
    assert_eq!(round(60, Answer::Closed), "TryAgain");
    assert_eq!(round(62, reached(20)), "Nothing");
    assert_eq!(round(90, Answer::Closed), "TryAgain");
    assert_eq!(
        round(92, Answer::Closed),
        "NoAnswer since 92, tried 92 reached 62 in 20 failed 92 \"NoAnswer\", warning: true"
    );
    assert_eq!(round(120, Answer::Closed), "Nothing");
    // Another reason is news, and no event: it was not Ready before.
    assert_eq!(
        round(150, Answer::Stranger),
        "Misdirected since 92, tried 150 reached 62 in 20 failed 150 \"Misdirected\", no event"
    );
    assert_eq!(
        round(180, reached(300)),
        "Proven since 180, tried 180 reached 180 in 300 failed 150 \"Misdirected\", warning: false"
    );
    // How fast it is, is worth a write once in an hour.
    assert_eq!(round(210, reached(9)), "Nothing");
    assert_eq!(
        round(3780, reached(9)),
        "Proven since 180, tried 3780 reached 3780 in 9 failed 150 \"Misdirected\", no event"
    );
    assert_eq!(round(9000, reached(18)), "Nothing");
    assert_eq!(
        round(9030, reached(21)),
        "Proven since 180, tried 9030 reached 9030 in 21 failed 150 \"Misdirected\", no event"
    );
}

#[test]
fn a_status_is_of_the_spec_that_was_tried() {
    let mut subject = subject(http(HOST), well());
    let tried = Tried::new(&subject, both(reached(1), reached(1)), at(0), None);
    let status = after(&subject, &tried, &Value::Null);
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["addresses"][0], "http://photos.example.org/");
    subject.generation = 4;
    let tried = Tried::new(&subject, both(refused(), refused()), at(1), None);
    assert_eq!(after(&subject, &tried, &status), status);
    let tried = Tried::new(&subject, both(refused(), refused()), at(2), Some(&tried));
    let status = after(&subject, &tried, &status);
    assert_eq!(status["observedGeneration"], 4);
    assert!(told(&status).starts_with("False Unreachable"));
    // As the type writes it, so that nothing is said in two ways.
    let typed = serde_json::from_value::<TunnelStatus>(status.clone());
    assert_eq!(json!(typed.unwrap()), status);
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(refused()),
        Just(Answer::Closed),
        Just(Answer::Stranger),
        Just(Answer::Untrusted(Why::new(
            "CertificateExpired",
            "it is old"
        ))),
        Just(Answer::Silent),
        Just(says("TargetDown")),
        (1..200_u64).prop_map(reached),
    ]
}

fn any_targets() -> impl Strategy<Value = Vec<TargetStatus>> {
    let one = prop_oneof![
        Just(""),
        Just("Refused"),
        Just("NodeNotFound"),
        Just("Unknown")
    ];
    let one = one.prop_map(|reason| target("pi", reason, reason));
    prop::collection::vec(one, 0..3)
}

proptest! {
    /// Whatever was seen before and is seen now: what is planned says all, and is not planned again.
    #[test]
    fn what_is_said_is_not_said_again(
        rounds in prop::collection::vec((any_answer(), any_answer(), any_targets(), any::<bool>(), 1..9000_i64), 1..12),
        is_http in any::<bool>(),
    ) {
        let (mut status, mut tried, mut second) = (Value::Null, None, 0);
        for (one, two, targets, in_vain, later) in rounds {
            second += later;
            let mut subject = subject(if is_http { http(HOST) } else { Way::Tcp }, targets);
            subject.obstacle = in_vain.then(|| Why::new("PortConflict", "an older one has it"));
            let now = Tried::new(&subject, both(one, two), at(second), tried.as_ref());
            if let Step::Write { status: next, .. } = plan(&subject, Some(&now), &status, at(second)) {
                prop_assert_ne!(&next, &status);
                status = next;
                prop_assert_eq!(plan(&subject, Some(&now), &status, at(second)), Step::Nothing);
            }
            tried = Some(now);
        }
    }

    /// A swarm in which nothing happens commits nothing, for whole days.
    #[test]
    fn an_idle_swarm_commits_nothing(latencies in prop::collection::vec(20..=40_u64, 1..200), gap in 27..2000_i64) {
        let subject = subject(http(HOST), well());
        let first = Tried::new(&subject, both(reached(20), reached(40)), at(0), None);
        let status = after(&subject, &first, &Value::Null);
        let mut before = first;
        for (round, latency) in (1..).zip(latencies) {
            let seen = both(reached(latency), reached(40));
            let now = Tried::new(&subject, seen, at(round * gap), Some(&before));
            prop_assert_eq!(plan(&subject, Some(&now), &status, now.at), Step::Nothing);
            before = now;
        }
    }
}
