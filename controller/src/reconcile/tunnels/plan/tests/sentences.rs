//! What is said of what was seen at the doors.

use super::*;

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
