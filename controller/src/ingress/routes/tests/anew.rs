//! A table that follows is the one that is made anew, whatever happens.

use proptest::prelude::*;

use super::*;
use crate::fixture::{self, made_in};

/// What may happen in a swarm of few names, so that they meet.
#[derive(Clone, Debug)]
enum Happening {
    /// Function, host (its own, or one of two), path, when it was made.
    Function(u8, u8, u8, u8),
    NoFunction(u8),
    /// Tunnel, host, which function it leads to if it does or that it passes the host through, when it was made.
    Tunnel(u8, u8, u8, u8),
    NoTunnel(u8),
    /// Slot, function, node, whether it is ready.
    Assignment(u8, u8, u8, bool),
    NoAssignment(u8),
    Domain(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0u8..4, 0u8..3, 0u8..4, 0u8..3)
            .prop_map(|(f, host, path, made)| Happening::Function(f, host, path, made)),
        1 => (0u8..4).prop_map(Happening::NoFunction),
        2 => (0u8..3, 0u8..3, 0u8..6, 0u8..3)
            .prop_map(|(t, host, f, made)| Happening::Tunnel(t, host, f, made)),
        1 => (0u8..3).prop_map(Happening::NoTunnel),
        4 => (0u8..6, 0u8..4, 0u8..3, any::<bool>())
            .prop_map(|(slot, f, node, ready)| Happening::Assignment(slot, f, node, ready)),
        1 => (0u8..6).prop_map(Happening::NoAssignment),
        1 => (0u8..2).prop_map(Happening::Domain),
    ]
}

fn set(state: &mut State, key: Key, extra: Value, made: u8) {
    let body = made_in(2020 + u16::from(made), &key, extra);
    fixture::put(state, key, &body);
}

fn delete(state: &mut State, key: Key) {
    if state.get(&key).is_some() {
        let command = Command::Delete {
            key,
            uid: None,
            expect: None,
        };
        state.apply(command).unwrap();
    }
}

fn happen(state: &mut State, what: Happening) {
    // Of one swarm with two namespaces.
    let key = |resource, namespace: u8, name: String| {
        let namespace = ["default", "other"][usize::from(namespace % 2)];
        Key::new(resource, namespace, name)
    };
    let function = |f: u8| key(Resource::Function, f / 2, format!("f{f}"));
    let tunnel = |t: u8| key(Resource::Tunnel, t, format!("t{t}"));
    let slot = |slot: u8| key(Resource::Assignment, slot, format!("s{slot}"));
    match what {
        Happening::Function(f, host, path, made) => {
            let path = ["/", "/a", "/a/", "/a/b"][usize::from(path)];
            let http = match host {
                0 if made == 2 => json!({ "routes": [
                    { "path": path, "methods": ["GET"] }, { "path": "/", "host": "H1.org" },
                ] }),
                0 => json!({ "path": path }),
                host => json!({ "path": path, "host": format!("H{host}.org") }),
            };
            let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
            set(state, function(f), json!({ "spec": spec }), made);
        }
        Happening::NoFunction(f) => delete(state, function(f)),
        Happening::Tunnel(t, host, f, made) => {
            let http = (host > 0).then(|| json!({ "host": format!("h{host}.org") }));
            let targets = json!([{ "node": "n0", "port": f }]);
            let names = [format!("H{host}.org")];
            let spec = match f {
                0..4 => json!({ "http": http, "function": format!("f{f}") }),
                4 => json!({ "http": http, "targets": targets }),
                _ => json!({ "protocol": "TLS", "serverNames": names, "targets": targets }),
            };
            set(state, tunnel(t), json!({ "spec": spec }), made);
        }
        Happening::NoTunnel(t) => delete(state, tunnel(t)),
        Happening::Assignment(name, f, node, ready) => {
            let ready = if ready { "True" } else { "False" };
            let body = json!({
                "spec": { "functionName": format!("f{f}"), "nodeName": format!("n{node}") },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            });
            set(state, slot(name), body, 0);
        }
        Happening::NoAssignment(name) => delete(state, slot(name)),
        Happening::Domain(domain) => {
            let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
            let data = json!({ "data": { "domain": format!("d{domain}") } });
            set(state, key, data, 0);
        }
    }
}

proptest! {
    /// Whatever changes between two looks, the table that follows is the one that is made anew.
    #[test]
    fn a_table_that_follows_is_the_one_made_anew(
        looks in prop::collection::vec(prop::collection::vec(happening(), 0..6), 0..12),
    ) {
        let mut state = State::default();
        let mut follower = Follower::of(&state);
        for happenings in looks {
            let before = follower.routes();
            for happening in happenings {
                happen(&mut state, happening);
            }
            let any = follower.follow(&state);
            let routes = follower.routes();
            prop_assert_eq!(&routes, &Routes::of(&state));
            prop_assert!(any || routes == before);
        }
    }
}
