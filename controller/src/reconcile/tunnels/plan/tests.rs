#![allow(clippy::unwrap_used)]
mod rounds;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hive_manifests::tunnel::Provider;
use hive_proto::v1::TunnelRefusal;

use super::*;
use crate::reconcile::tunnels::ask::{Advertised, Greeting, Question, Way};
use crate::reconcile::tunnels::probe::Answer;
use crate::reconcile::tunnels::trust::Trust;

const HOST: &str = "photos.example.org";
const ONE: &str = "203.0.113.7:80";
const TWO: &str = "203.0.113.8:80";
/// Of a load balancer, or of a stranger.
const ELSEWHERE: &str = "198.51.100.4:80";

fn door(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn http(host: &str) -> Way {
    Way::Http(Question {
        host: host.to_owned(),
        method: Some("GET"),
        path: "/".into(),
        patience: Duration::from_secs(5),
        https: None,
    })
}

/// The same by https, with a certificate for a while.
fn https() -> Way {
    match http(HOST) {
        Way::Http(question) => Way::Http(Question {
            https: Some(Trust {
                authorities: Vec::new(),
                expires: Some(at(2_000_000_000)),
            }),
            ..question
        }),
        way => way,
    }
}

fn tls() -> Way {
    Way::Tls(Greeting {
        name: HOST.to_owned(),
        patience: Duration::from_secs(5),
    })
}

/// Of one whose service is known to answer that.
fn udp(datagram: Option<&[u8]>) -> Way {
    Way::Udp {
        datagram: datagram.map(<[u8]>::to_vec),
        patience: Duration::from_secs(5),
    }
}

/// Of a tunnel whose only route takes POST.
fn hook() -> Way {
    match http(HOST) {
        Way::Http(question) => Way::Http(Question {
            method: None,
            ..question
        }),
        way => way,
    }
}

/// Of connections that a provider brings.
fn onion() -> Way {
    Way::Brought {
        by: Provider::Tor,
        question: None,
    }
}

fn target(node: &str, reason: &str, message: &str) -> TargetStatus {
    TargetStatus {
        node: node.to_owned(),
        address: "127.0.0.1:3000".into(),
        healthy: reason.is_empty(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn well() -> Vec<TargetStatus> {
    vec![target("pi", "", "")]
}

/// With two controllers.
fn subject(way: Way, targets: Vec<TargetStatus>) -> Subject {
    let controllers = [(1, ONE), (2, TWO)].map(|(id, at)| Advertised {
        id,
        host: door(at).ip().to_string(),
        port: 80,
    });
    Subject {
        uid: "uid".into(),
        generation: 3,
        addresses: vec![format!("http://{HOST}/")],
        ask: Ask {
            way,
            controllers: controllers.into(),
            guarded: false,
        },
        obstacle: None,
        closed: None,
        targets,
    }
}

fn reached(milliseconds: u64) -> Answer {
    Answer::Reached(Duration::from_millis(milliseconds))
}

fn refused() -> Answer {
    Answer::Unreachable("the connection was refused".into())
}

fn says(reason: &str) -> Answer {
    Answer::Refused(Why::new(reason, "so it says"))
}

/// Where the name leads, and what came of each door.
fn seen(public: &[&str], answers: &[(&str, Answer)]) -> Observation {
    let controllers = [(1, vec![door(ONE)]), (2, vec![door(TWO)])];
    Observation {
        public: Ok(public.iter().map(|it| door(it)).collect()),
        controllers: controllers.into(),
        answers: answers
            .iter()
            .map(|(at, answer)| (door(at), answer.clone()))
            .collect(),
        doors: BTreeMap::new(),
    }
}

fn both(one: Answer, two: Answer) -> Observation {
    seen(&[ONE, TWO], &[(ONE, one), (TWO, two)])
}

/// Of the status, as kubectl shows it.
fn told(status: &Value) -> String {
    let ready = &status["conditions"][0];
    let text = |field: &str| ready[field].as_str().unwrap_or_default();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

/// What a tunnel that was new says, once that is believed.
fn first(subject: &Subject, observation: Observation) -> String {
    let mut tried = Tried::new(subject, observation.clone(), at(0), None);
    let mut step = plan(subject, Some(&tried), &Value::Null, at(0));
    if step == Step::TryAgain {
        tried = Tried::new(subject, observation, at(2), Some(&tried));
        step = plan(subject, Some(&tried), &Value::Null, at(2));
    }
    let Step::Write { status, notice } = step else {
        panic!("{step:?}");
    };
    let notice = notice.expect("it was neither Ready nor not");
    assert_eq!(notice.warning, !told(&status).starts_with("True"));
    told(&status)
}

#[test]
fn an_address_that_controllers_share_is_told_once() {
    let mut subject = subject(Way::Tcp, well());
    subject.ask.controllers[1].host = subject.ask.controllers[0].host.clone();
    let mut observation = seen(&[], &[(ONE, refused())]);
    observation.controllers.insert(2, vec![door(ONE)]);
    assert_eq!(
        first(&subject, observation),
        "False Unreachable: controller 1 at 203.0.113.7:80 is not reached (the connection was refused): let firewalls \
         pass the port"
    );
}

#[test]
fn every_reason_has_its_sentence() {
    let http = || http(HOST);
    let down = |reason: &str| vec![target("pi", reason, "why it is so")];
    let three = || {
        let refused = |node| target(node, "Refused", "nobody listens");
        vec![
            refused("a"),
            refused("b"),
            target("c", "NodeNotLinked", "it is off"),
        ]
    };
    let through = "a request to photos.example.org came through";
    let lead = "let the DNS record of photos.example.org lead to 203.0.113.7, 203.0.113.8";
    let cases: Vec<(Way, Vec<TargetStatus>, Observation, String)> = vec![
        (http(), well(), both(reached(9), reached(7)), format!("True Proven: {through}")),
        // One of several addresses is enough for a client that tries all.
        (
            http(),
            well(),
            both(reached(9), refused()),
            format!("True Proven: {through}; controller 2 at 203.0.113.8:80 is not reached (the connection was refused)"),
        ),
        // A load balancer, behind which one controller is missing.
        (
            http(),
            well(),
            seen(&[ELSEWHERE], &[(ELSEWHERE, reached(9)), (ONE, says("NodeNotLinked")), (TWO, reached(9))]),
            format!("True Proven: {through}; controller 1 at 203.0.113.7:80 answers NodeNotLinked"),
        ),
        (
            http(),
            well(),
            Observation { public: Err("no such name".into()), ..both(reached(9), reached(9)) },
            "False NotResolved: photos.example.org is no name that resolves (no such name): make a DNS record of it that \
             leads to 203.0.113.7, 203.0.113.8".into(),
        ),
        (
            http(),
            well(),
            seen(&[ELSEWHERE], &[(ELSEWHERE, refused()), (ONE, reached(9)), (TWO, reached(9))]),
            format!(
                "False Unreachable: photos.example.org leads to 198.51.100.4:80, which is not reached (the connection was \
                 refused): {lead}, and let firewalls pass it; controller 1 at 203.0.113.7:80, asked directly, leads to the target"
            ),
        ),
        (
            http(),
            well(),
            seen(&[ELSEWHERE], &[(ELSEWHERE, Answer::Stranger), (ONE, refused()), (TWO, refused())]),
            format!(
                "False Misdirected: photos.example.org leads to 198.51.100.4:80, where somebody answers who asked no \
                 controller of this swarm: {lead}, or let what stands there pass on all headers"
            ),
        ),
        (
            http(),
            well(),
            seen(&[ELSEWHERE], &[(ELSEWHERE, Answer::Closed)]),
            format!("False NoAnswer: photos.example.org leads to 198.51.100.4:80, which ends connections without an answer: {lead}"),
        ),
        (http(), well(), seen(&[], &[]), format!("False Unreachable: photos.example.org leads nowhere: {lead}")),
        (
            http(),
            well(),
            both(refused(), Answer::Silent),
            "False TargetSilent: GET / was not answered within 5s: name a path that answers sooner in \
             spec.healthCheck.path, or give it longer with spec.healthCheck.timeout".into(),
        ),
        // A controller says why, and the targets say it better.
        (http(), well(), both(says("NoRoute"), refused()), "False NoRoute: the controller at 203.0.113.7:80 answers: so it says".into()),
        (http(), down("Refused"), both(says("TargetDown"), refused()), "False TargetDown: why it is so".into()),
        (http(), down("Timeout"), both(Answer::Silent, refused()), "False TargetDown: why it is so".into()),
        (http(), down("NodeNotFound"), both(says("x"), says("x")), "False NodeNotFound: why it is so".into()),
        (http(), down("NodeNotLinked"), both(says("x"), says("x")), "False NodeNotLinked: why it is so".into()),
        (http(), down("NotAllowed"), both(says("x"), says("x")), "False NotAllowed: why it is so".into()),
        (http(), down("AgentTooOld"), both(says("x"), says("x")), "False AgentTooOld: why it is so".into()),
        (http(), three(), both(says("x"), says("x")), "False TargetDown: none of 3 targets answers; the first: nobody listens".into()),
        // What was not asked yet may well answer.
        (http(), down("Unknown"), both(says("NoRoute"), refused()), "False NoRoute: the controller at 203.0.113.7:80 answers: so it says".into()),
        // Only the ingress was heard.
        (hook(), well(), both(reached(9), reached(9)), format!("True Proven: {through}")),
        (hook(), down("Refused"), both(reached(9), reached(9)), "False TargetDown: why it is so".into()),
        // The target answered, whatever else is thought of it.
        (http(), down("BadStatus"), both(reached(9), reached(9)), format!("True Proven: {through}")),
        (
            https(),
            well(),
            both(reached(9), reached(9)),
            format!("True Proven: a request to {HOST} came through; its certificate is good until 2033-05-18T03:33:20Z"),
        ),
        (
            https(),
            well(),
            both(Answer::Untrusted(Why::new("CertificateExpired", "it is old")), refused()),
            format!("False CertificateExpired: {HOST} leads to {ONE}, where it is old"),
        ),
        (tls(), well(), both(reached(9), reached(9)), format!("True Proven: who has {HOST} was reached")),
        (tls(), down("Timeout"), both(Answer::Closed, refused()), "False TargetDown: why it is so".into()),
        (
            tls(),
            well(),
            both(Answer::Silent, refused()),
            "False TargetSilent: the target takes connections, and did not answer TLS within 5s: look at the service there"
                .into(),
        ),
        (Way::Tcp, well(), both(reached(9), reached(9)), "True Proven: a connection opens and stays".into()),
        (
            Way::Tcp,
            well(),
            both(refused(), reached(9)),
            "True Proven: a connection opens and stays; controller 1 at 203.0.113.7:80 is not reached (the connection was refused)".into(),
        ),
        (
            Way::Tcp,
            well(),
            both(refused(), refused()),
            "False Unreachable: controller 1 at 203.0.113.7:80 is not reached (the connection was refused); controller 2 at \
             203.0.113.8:80 is not reached (the connection was refused): let firewalls pass the port".into(),
        ),
        (
            Way::Tcp,
            well(),
            both(refused(), Answer::Closed),
            "False Closed: connections to 203.0.113.8:80 are ended at once: by the target, which may want \
             spec.proxyProtocol otherwise, or since there are spec.maxConnections of them".into(),
        ),
        // A connection opens before a target was found.
        (Way::Tcp, down("Timeout"), both(reached(9), reached(9)), "False TargetDown: why it is so".into()),
        (Way::Tcp, down("NodeNotLinked"), both(Answer::Closed, refused()), "False NodeNotLinked: why it is so".into()),
        (Way::Tcp, down("Unknown"), both(reached(9), reached(9)), "True Proven: a connection opens and stays".into()),
        (
            udp(None),
            well(),
            both(Answer::Untried, Answer::Untried),
            "True Unprovable: nothing says that datagrams do not arrive; to prove that they do, give \
             spec.healthCheck.payload something that the target answers".into(),
        ),
        (udp(None), down("Refused"), both(Answer::Untried, Answer::Untried), "False TargetDown: why it is so".into()),
        // This controller cannot open the port.
        (
            udp(None),
            well(),
            both(refused(), refused()),
            "False Unreachable: controller 1 at 203.0.113.7:80 is not reached (the connection was refused); controller 2 at \
             203.0.113.8:80 is not reached (the connection was refused): let firewalls pass the port for UDP".into(),
        ),
        (
            udp(Some(b"ping")),
            well(),
            both(reached(9), Answer::Silent),
            "True Proven: a datagram is answered; controller 2 at 203.0.113.8:80 does not answer in time".into(),
        ),
        (
            udp(Some(b"ping")),
            well(),
            both(Answer::Silent, Answer::Silent),
            "False Unreachable: controller 1 at 203.0.113.7:80 does not answer in time; controller 2 at 203.0.113.8:80 does \
             not answer in time: let firewalls pass the port for UDP".into(),
        ),
        (udp(Some(b"ping")), down("Timeout"), both(Answer::Silent, Answer::Silent), "False TargetDown: why it is so".into()),
        // What nobody else can try is as good as its targets.
        (onion(), well(), both(reached(9), reached(9)), "True Proven: Tor brings connections, and a target takes them".into()),
        (onion(), down("Refused"), both(reached(9), reached(9)), "False TargetDown: why it is so".into()),
        (onion(), down("Unknown"), both(reached(9), reached(9)), "False TargetUnknown: no target was asked yet".into()),
    ];
    for (way, targets, observation, expected) in cases {
        let subject = subject(way, targets);
        assert_eq!(
            first(&subject, observation.clone()),
            expected,
            "{observation:?}"
        );
    }
}

#[test]
fn a_name_under_localhost_leads_others_elsewhere() {
    let subject = subject(http("photos.default.localhost"), well());
    let through = "True Proven: a request to photos.default.localhost came through";
    let mut seen = seen(
        &["127.0.0.1:80"],
        &[
            ("127.0.0.1:80", reached(1)),
            (ONE, reached(1)),
            (TWO, reached(1)),
        ],
    );
    let note = " (from other machines it does not: set spec.http.host, or the domain of the swarm)";
    assert_eq!(first(&subject, seen.clone()), format!("{through}{note}"));
    for doors in seen.controllers.values_mut() {
        *doors = vec![door("127.0.0.1:80")];
    }
    assert_eq!(first(&subject, seen), through);
}

#[test]
fn who_answers_where_a_controller_does_not_listen_is_somebody_else() {
    let mut subject = subject(Way::Tcp, well());
    subject.closed = Some((1, "the port is taken".into()));
    let found = first(&subject, both(reached(1), reached(1)));
    let expected = "True Proven: a connection opens and stays; controller 1 at 203.0.113.7:80 does not listen (the port is taken)";
    assert_eq!(found, expected);
    // On one machine another controller has the port.
    let mut shared = both(reached(1), reached(1));
    shared.controllers = BTreeMap::from([(1, vec![door(ONE)]), (2, vec![door(ONE)])]);
    assert_eq!(
        first(&subject, shared),
        "True Proven: a connection opens and stays"
    );
}

/// With an open port, to which somebody came in the meantime or not.
fn open(came: bool) -> Door {
    Door {
        open: Ok(()),
        came,
        refusals: Vec::new(),
    }
}

#[test]
fn a_connection_counts_where_a_controller_may_have_taken_it() {
    let shut = || Door::shut("it is taken");
    let through = "True Proven: a connection opens and stays";
    let one_shut = "controller 1 at 203.0.113.7:80 does not listen (it is taken)";
    let two_shut = "controller 2 at 203.0.113.8:80 does not listen (it is taken)";
    let remedy = "end what has the port there, or choose another spec.port";
    let half = format!("{through}; {one_shut}");
    let neither = format!("False NotListening: {one_shut}; {two_shut}: {remedy}");
    let shared = format!("False NotListening: {one_shut}: {remedy}");
    let strangers = "False Misdirected: at 203.0.113.7:80 somebody else answers; at 203.0.113.8:80 somebody else \
                     answers: nothing came to a controller; let what stands in front of the controllers lead the port \
                     to them, or choose another spec.port";
    // What each of two controllers says, and whether they share an address.
    for (one, two, is_shared, expected) in [
        (Some(open(true)), Some(open(true)), false, through),
        (None, None, false, through),
        (Some(shut()), Some(shut()), false, &*neither),
        (Some(shut()), Some(open(true)), false, &*half),
        (Some(shut()), None, false, &*half),
        // One of them has the port of both.
        (Some(shut()), Some(open(true)), true, through),
        (Some(shut()), None, true, through),
        (Some(shut()), Some(shut()), true, &*shared),
        (Some(open(false)), Some(open(false)), false, strangers),
        // A router may lead to one of them only.
        (Some(open(false)), Some(open(true)), false, through),
        (Some(open(false)), None, false, through),
    ] {
        let mut subject = subject(Way::Tcp, well());
        let mut observation = both(reached(1), reached(1));
        if is_shared {
            subject.ask.controllers[1].host = subject.ask.controllers[0].host.clone();
            observation.controllers.insert(2, vec![door(ONE)]);
            observation.answers.remove(&door(TWO));
        }
        let doors = [(1, one), (2, two)];
        let doors = doors.into_iter().filter_map(|(id, told)| Some((id, told?)));
        observation.doors = doors.collect();
        let case = format!("{:?} {is_shared}", observation.doors);
        assert_eq!(first(&subject, observation), expected, "{case}");
    }
}

/// What a client at one controller finds out is so at all of them.
#[test]
fn what_targets_refuse_elsewhere_they_refuse() {
    let refused = Door {
        refusals: vec![TunnelRefusal {
            node: "pi".into(),
            address: "127.0.0.1:3000".into(),
            reason: "Refused".into(),
        }],
        ..open(false)
    };
    let down = "False TargetDown: nothing listens at 127.0.0.1:3000 as node pi sees it: start the service there, or \
                correct spec.targets[0]";
    let mut observation = both(Answer::Untried, Answer::Untried);
    observation.doors.insert(2, refused.clone());
    let subject = subject(udp(None), well());
    assert_eq!(first(&subject, observation.clone()), down);
    let tried = Tried::new(&subject, observation.clone(), at(0), None);
    let tried = Tried::new(&subject, observation, at(1), Some(&tried));
    let status = after(&subject, &tried, &Value::Null);
    assert_eq!(status["targets"][0]["reason"], "Refused");

    // Where there is a question, the leader asks it too.
    let mut observation = both(reached(1), reached(1));
    observation.doors.insert(2, refused);
    let asking = self::subject(udp(Some(b"ping")), well());
    let answered = "True Proven: a datagram is answered";
    assert_eq!(first(&asking, observation), answered);
}

#[test]
fn what_is_in_vain_is_not_tried_and_says_why() {
    let mut subject = subject(http(HOST), well());
    subject.obstacle = Some(Why::new("RouteConflict", "an older one answers"));
    let tried = Tried::new(&subject, both(reached(1), reached(1)), at(0), None);
    // Also what was Ready a moment ago: there is nothing to wait for.
    for before in [
        Value::Null,
        after(&self::subject(http(HOST), well()), &tried, &Value::Null),
    ] {
        let Step::Write { status, notice } = plan(&subject, None, &before, at(1)) else {
            panic!("it is news");
        };
        assert_eq!(told(&status), "False RouteConflict: an older one answers");
        assert_eq!(status["probe"], before["probe"]);
        assert!(notice.unwrap().warning);
        assert_eq!(plan(&subject, Some(&tried), &status, at(2)), Step::Nothing);
    }
}

/// What is said after a try, where that is news.
fn after(subject: &Subject, tried: &Tried, told: &Value) -> Value {
    match plan(subject, Some(tried), told, tried.at) {
        Step::Write { status, .. } => status,
        Step::Nothing | Step::TryAgain => told.clone(),
    }
}

#[test]
fn what_cannot_be_proven_is_no_success_and_no_news() {
    let subject = subject(udp(None), well());
    let untried = || both(Answer::Untried, Answer::Untried);
    let tried = Tried::new(&subject, untried(), at(0), None);
    let step = plan(&subject, Some(&tried), &Value::Null, at(0));
    let Step::Write { status, .. } = step else {
        panic!("{step:?}");
    };
    assert_eq!(status["conditions"][0]["reason"], "Unprovable");
    assert_eq!(status["probe"]["lastSuccess"], Value::Null);
    assert_eq!(status["probe"]["latencyMs"], Value::Null);
    let later = at(100_000);
    let tried = Tried::new(&subject, untried(), later, Some(&tried));
    let step = plan(&subject, Some(&tried), &status, later);
    assert_eq!(step, Step::Nothing);
}
