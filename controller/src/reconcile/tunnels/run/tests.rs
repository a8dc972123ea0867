#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;
use std::time::Duration;

use hive_manifests::Resource;
use hive_manifests::tunnel::TunnelTarget;
use serde_json::{Value, json};

use super::known::PERIOD;
use super::*;
use crate::fixture::{edit, nobody};
use crate::objects;
use crate::reconcile::tunnels::ask::Way;
use crate::reconcile::tunnels::probe::Answer;
use crate::state::{Command, Member};
use crate::tunnels::health::Evidence;

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(180);

fn key(name: &str) -> Key {
    Key::new(Resource::Tunnel, "default", name)
}

fn target() -> Value {
    json!([{ "node": "pi", "port": 3000 }])
}

/// A swarm whose only controller is reached nowhere, with the node `pi`.
fn swarm() -> State {
    let mut state = State::default();
    let member = Member {
        ingress: "127.0.0.1:1".into(),
        ..Member::default()
    };
    state.apply(Command::AdmitController { member }).unwrap();
    let key = objects::node_key("pi");
    let body = objects::fresh(&key, json!({}), json!({ "spec": {} })).into();
    state.apply(Command::Create { key, body }).unwrap();
    state
}

fn declare(state: &mut State, name: &str, spec: Value) {
    let (key, expect) = (key(name), None);
    let command = match state.get(&key) {
        None => {
            let body = objects::fresh(&key, json!({}), json!({ "spec": spec })).into();
            Command::Create { key, body }
        }
        Some(known) => {
            let mut body = known.body().clone();
            let generation = body["metadata"]["generation"].as_i64().unwrap();
            body["metadata"]["generation"] = json!(generation + 1);
            body["spec"] = spec;
            let body = body.into();
            Command::Replace { key, body, expect }
        }
    };
    state.apply(command).unwrap();
}

fn proofs(state: &State) -> Proofs {
    let tunnels = Tunnels::default();
    let doors = Doors::new(1, tunnels.clone(), nobody());
    Proofs::new(1, tunnels, doors, state)
}

fn subject(proofs: &Proofs, name: &str) -> Arc<Subject> {
    proofs.known[&key(name)].subject.clone()
}

fn under_way(proofs: &Proofs) -> usize {
    let turns = proofs.known.values();
    turns.filter(|it| it.turn == Turn::UnderWay).count()
}

#[tokio::test]
async fn so_many_are_tried_at_once_and_the_next_when_one_ends() {
    let mut state = swarm();
    for number in 0..40 {
        declare(
            &mut state,
            &format!("t{number}"),
            json!({ "targets": target() }),
        );
    }
    let mut proofs = proofs(&state);
    let now = Instant::now();
    proofs.follow(&state, now);
    proofs.begin_due(now);
    assert_eq!(under_way(&proofs), AT_ONCE);
    let tried = |proofs: &Proofs| {
        proofs
            .known
            .values()
            .filter(|it| it.tried.is_some())
            .count()
    };
    let wakes = proofs.tunnels.health.wakes();
    let all = async {
        while tried(&proofs) < 40 {
            wakes.notified().await;
            proofs.take_ended(now);
            proofs.begin_due(now);
            assert!(under_way(&proofs) <= AT_ONCE);
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
    // Each is due again when its time has come.
    proofs.begin_due(now + PERIOD / 2);
    assert_eq!(under_way(&proofs), 0);
    let Outlook::In(next) = proofs.outlook(now) else {
        panic!("something is due");
    };
    assert!(next >= PERIOD.mul_f64(0.9) && next <= PERIOD.mul_f64(1.1));
    // A new one goes before them all.
    declare(&mut state, "z", json!({ "targets": target() }));
    let later = now + 2 * PERIOD;
    proofs.follow(&state, later);
    proofs.begin_due(later);
    assert_eq!(under_way(&proofs), AT_ONCE);
    assert_eq!(proofs.known[&key("z")].turn, Turn::UnderWay);
}

#[test]
fn no_address_is_told_that_is_somebody_else_s() {
    let mut state = swarm();
    let port = json!({ "protocol": "TCP", "port": 2222, "targets": target() });
    declare(&mut state, "a", port.clone());
    declare(&mut state, "b", port);
    // By its name one of the hosts is for another namespace.
    let routes = json!([{ "host": "x.other.localhost" }, { "host": "own.org" }]);
    let http = json!({ "http": { "routes": routes }, "targets": target() });
    declare(&mut state, "c", http);
    let mut proofs = proofs(&state);
    proofs.follow(&state, Instant::now());
    let told = |name: &str| subject(&proofs, name).addresses.clone();
    assert_eq!(told("a"), ["127.0.0.1:2222"]);
    assert!(told("b").is_empty());
    let own = told("c");
    assert!(own.len() == 1 && own[0].contains("own.org"), "{own:?}");
}

#[test]
fn what_is_in_the_way_is_found_in_the_state() {
    let mut state = swarm();
    declare(
        &mut state,
        "a",
        json!({ "protocol": "TCP", "port": 2222, "targets": target() }),
    );
    declare(
        &mut state,
        "b",
        json!({ "protocol": "TCP", "port": 2222, "targets": target() }),
    );
    declare(
        &mut state,
        "c",
        json!({ "protocol": "TCP", "port": 1, "targets": target() }),
    );
    declare(&mut state, "f", json!({ "function": "hello" }));
    let mut proofs = proofs(&state);
    proofs.follow(&state, Instant::now());
    let reason = |proofs: &Proofs, name: &str| {
        let obstacle = subject(proofs, name).obstacle.clone();
        obstacle.map(|why| why.reason).unwrap_or_default()
    };
    let found = ["a", "b", "c", "f"].map(|name| reason(&proofs, name));
    assert_eq!(found, ["", "PortConflict", "PortInUse", "FunctionNotFound"]);
    assert_eq!(proofs.known[&key("b")].turn, Turn::Never);
    assert!(proofs.known[&key("b")].is_news);

    // What is in the way is gone: now it is worth a try.
    let function = Key::new(Resource::Function, "default", "hello");
    let condition = json!([
        { "type": "Ready", "status": "False", "message": "the swarm has no nodes yet" },
        { "type": "Available", "status": "False" },
    ]);
    let extra = json!({ "spec": {}, "status": { "conditions": condition } });
    let mut body = objects::fresh(&function, json!({}), extra);
    let command = |body: &Value, expect| Command::Replace {
        key: function.clone(),
        body: body.clone().into(),
        expect,
    };
    let create = Command::Create {
        key: function.clone(),
        body: body.clone().into(),
    };
    state.apply(create).unwrap();
    proofs.follow(&state, Instant::now());
    let why = subject(&proofs, "f").obstacle.clone().unwrap();
    assert_eq!(why.reason, "FunctionNotReady");
    assert!(
        why.message.contains("the swarm has no nodes yet"),
        "{}",
        why.message
    );
    body["status"]["conditions"][1]["status"] = json!("True");
    state.apply(command(&body, None)).unwrap();
    let now = Instant::now();
    proofs.follow(&state, now);
    assert_eq!(reason(&proofs, "f"), "");
    assert_eq!(proofs.known[&key("f")].turn, Turn::At(now));
}

/// A certificate that is ordered.
#[test]
fn what_is_in_the_way_of_a_certificate_is_in_the_way_of_its_tunnel() {
    let mut state = swarm();
    let http = json!({ "host": "a.example.org" });
    let spec = json!({ "http": http, "tls": { "acme": true }, "targets": target() });
    declare(&mut state, "a", spec);
    // As long as nobody could come in, a certificate is of no use.
    let mut doorless = proofs(&state);
    doorless.follow(&state, Instant::now());
    let why = subject(&doorless, "a").obstacle.clone().unwrap();
    assert_eq!(why.reason, "NoTlsPort");
    let member = Member {
        ingress: "127.0.0.1:1".into(),
        ingress_tls: Some("127.0.0.1:2".into()),
        ..Member::default()
    };
    let moved = Command::MoveController { id: 1, member };
    state.apply(moved).unwrap();
    let mut proofs = proofs(&state);
    let refused = "a.example.org is no name that resolves";
    let says_why = format!("its certificate is not there yet: {refused}");
    for (condition, expected) in [
        (None, "its certificate is not there yet"),
        (Some(("False", refused)), &*says_why),
        // Its Secret was deleted just now.
        (
            Some(("True", "good for a year")),
            "its certificate is not there yet",
        ),
    ] {
        if let Some((status, message)) = condition {
            let condition = |kind: &str, status: &str, message: &str| {
                json!({
                    "type": kind, "status": status, "reason": "Said", "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            };
            let conditions = json!([
                condition("Ready", "False", "another"),
                condition("CertificateReady", status, message),
            ]);
            edit(&mut state, &key("a"), |body| {
                body["status"]["conditions"] = conditions;
            });
        }
        proofs.follow(&state, Instant::now());
        let why = subject(&proofs, "a").obstacle.clone().unwrap();
        let found = (&*why.reason, &*why.message);
        assert_eq!(found, ("CertificateNotFound", expected));
    }
}

/// As if a try of what `subject` was had ended.
fn ended(subject: &Arc<Subject>) -> Ended {
    let door: SocketAddr = "127.0.0.1:1".parse().unwrap();
    Ended {
        key: key("a"),
        at: Timestamp::now(),
        subject: subject.clone(),
        observation: Observation {
            public: Ok(vec![door]),
            controllers: [(1, vec![door])].into(),
            answers: [(door, Answer::Closed)].into(),
            doors: BTreeMap::new(),
        },
    }
}

#[test]
fn what_is_new_is_tried_at_once_and_what_comes_and_goes_soon() {
    let mut state = swarm();
    declare(&mut state, "a", json!({ "targets": target() }));
    let mut proofs = proofs(&state);
    let now = Instant::now();
    proofs.follow(&state, now);
    let begun = subject(&proofs, "a");
    let mut known = proofs.known.remove(&key("a")).unwrap();
    assert_eq!(known.turn, Turn::At(now));
    assert!(!known.is_news);

    known.turn = Turn::UnderWay;
    known.take(ended(&begun), now);
    assert!(matches!(known.turn, Turn::At(at) if at > now + PERIOD / 2));
    assert!(known.is_news && known.tried.is_some());

    // Its target is another: what was found is true still, and soon found anew.
    let mut other = Subject::clone(&begun);
    other.targets[0].reason = "Refused".into();
    known.is_news = false;
    known.follow(other.clone(), now);
    assert_eq!(known.turn, Turn::At(now + SHORT));
    assert!(known.tried.is_some());
    known.turn = Turn::UnderWay;
    known.take(ended(&begun), now);
    assert_eq!(known.turn, Turn::At(now + SHORT));
    assert!(known.is_news);

    // It is declared otherwise: what was found says nothing of that.
    other.generation += 1;
    other.ask.way = Way::Tcp;
    known.follow(other.clone(), now);
    assert_eq!(known.turn, Turn::At(now));
    assert!(known.tried.is_none() && !known.is_news);
    known.turn = Turn::UnderWay;
    known.take(ended(&begun), now);
    assert_eq!(known.turn, Turn::At(now));
    assert!(known.tried.is_none());

    // Nothing is tried that is in vain, and a try under way then is for nothing.
    known.turn = Turn::UnderWay;
    other.obstacle = Some(Why::new("PortConflict", "an older one has it"));
    let begun = known.subject.clone();
    known.follow(other, now);
    known.take(ended(&begun), now);
    assert_eq!(known.turn, Turn::Never);
    assert!(known.tried.is_none() && known.is_news);
}

#[test]
fn subjects_are_made_anew_for_what_matters_to_them() {
    let mut state = swarm();
    declare(&mut state, "a", json!({ "targets": target() }));
    let mut proofs = proofs(&state);
    let now = Instant::now();
    let reason = |proofs: &mut Proofs, state: &State| {
        proofs.follow(state, now);
        subject(proofs, "a").targets[0].reason.clone()
    };
    assert_eq!(reason(&mut proofs, &state), "NodeNotLinked");
    let node = objects::node_key("pi");
    let delete = Command::Delete {
        key: node.clone(),
        expect: None,
        uid: None,
    };
    state.apply(delete).unwrap();
    assert_eq!(reason(&mut proofs, &state), "NodeNotFound");
    assert_eq!(proofs.known[&key("a")].turn, Turn::Never);
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let extra = json!({ "spec": {}, "status": { "conditions": ready } });
    let body = objects::fresh(&node, json!({}), extra).into();
    state.apply(Command::Create { key: node, body }).unwrap();
    assert_eq!(reason(&mut proofs, &state), "Unknown");
    assert_eq!(proofs.known[&key("a")].turn, Turn::At(now));

    // What the targets do is heard without any change of the state.
    let target = serde_json::from_value::<TunnelTarget>(target()[0].clone()).unwrap();
    let (tunnel, by) = (key("a"), Evidence::Connection);
    proofs.tunnels.take(&Table::of(&state));
    let health = proofs.tunnels.health.clone();
    health.answered(&tunnel, &target, by, Duration::ZERO);
    assert_eq!(reason(&mut proofs, &state), "");
    health.failed(&tunnel, &target, by, "Refused", "nobody listens".into());
    assert_eq!(reason(&mut proofs, &state), "Refused");
}

/// A service that crashes all the time is not tried, and written of, all the time.
#[test]
fn targets_that_come_and_go_are_tried_in_measure() {
    let mut state = swarm();
    declare(&mut state, "a", json!({ "targets": target() }));
    let mut proofs = proofs(&state);
    let start = Instant::now();
    proofs.follow(&state, start);
    let mut known = proofs.known.remove(&key("a")).unwrap();
    let mut tries = Vec::new();
    for second in 0..100 {
        let now = start + Duration::from_secs(second);
        let mut subject = Subject::clone(&known.subject);
        subject.targets[0].healthy = u64::is_multiple_of(second, 2);
        known.follow(subject, now);
        if matches!(known.turn, Turn::At(at) if at <= now) {
            let begun = known.begin(now);
            known.take(ended(&begun), now);
            tries.push(second);
        }
    }
    let expected = [0, 2, 4, 6, 8, 10, 20, 30, 40, 50, 60, 70, 80, 90];
    assert_eq!(tries, expected);
}
