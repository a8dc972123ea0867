#![allow(clippy::unwrap_used)]
mod doors;
mod rounds;
mod sentences;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hive_manifests::tunnel::Provider;

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
