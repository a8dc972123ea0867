//! What controllers tell of their own doors, beside what was seen there.

use hive_proto::v1::TunnelRefusal;

use super::*;

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
