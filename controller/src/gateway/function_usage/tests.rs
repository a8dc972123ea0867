#![allow(clippy::unwrap_used)]

use hive_proto::v1::ErrorCount;
use proptest::prelude::*;

use super::counters::Gauges;
use super::*;
use crate::gateway::bounds::OTHER;

fn function(name: &str, requests: u64) -> FunctionUsage {
    FunctionUsage {
        namespace: "a".into(),
        function: name.into(),
        requests,
        in_flight: 1,
        memory_bytes: 10,
        high_water_bytes: requests,
        ..FunctionUsage::default()
    }
}

fn usage(partial: bool, functions: &[(&str, u64)]) -> Usage {
    let functions = functions.iter().map(|(name, n)| function(name, *n));
    Usage {
        partial,
        functions: functions.collect(),
        ..Usage::default()
    }
}

fn teller<'a>(node: &'a str, session: &'a str, moved: bool) -> Teller<'a> {
    Teller {
        node,
        session,
        moved,
    }
}

fn name(function: &str) -> FunctionName {
    ("a".to_owned(), function.to_owned())
}

#[test]
fn what_is_counted_twice_or_not_at_all_is_neither() {
    let now = Instant::now();
    let mut usages = FunctionUsages::new(now);
    let mut take = |teller: Teller, partial, functions: &[(&str, u64)]| {
        usages.take(teller, usage(partial, functions), now, |_| true);
        let heard = usages.functions(now, |_| true);
        let of = |function| {
            let found = heard.get(&name(function));
            found.map_or((0, 0), |one| (one.total.requests, one.told.requests))
        };
        (of("f"), of("g"))
    };
    // Its agent is new: all that it counted is news.
    let first = teller("n", "1", false);
    assert_eq!(take(first, false, &[("f", 3)]), ((3, 3), (0, 0)));
    assert_eq!(take(first, true, &[("g", 2)]), ((3, 3), (2, 2)));
    assert_eq!(take(first, true, &[("f", 7)]), ((7, 7), (2, 2)));
    // The same again, as agents of the release before tell it.
    assert_eq!(take(first, false, &[("f", 8), ("g", 2)]), ((8, 8), (2, 2)));
    // The session was elsewhere for a while: what came meanwhile was told there.
    let moved = teller("n", "2", true);
    assert_eq!(
        take(moved, false, &[("f", 90), ("g", 2)]),
        ((8, 90), (2, 2))
    );
    assert_eq!(take(moved, true, &[("f", 91)]), ((9, 91), (2, 2)));
    // The agent began anew.
    let anew = teller("n", "3", false);
    assert_eq!(take(anew, false, &[("f", 1)]), ((10, 1), (2, 0)));
    // A function came back after its counters had been dropped.
    assert_eq!(take(anew, true, &[("f", 5), ("g", 4)]), ((14, 5), (6, 4)));
    assert_eq!(take(anew, true, &[("g", 1)]), ((14, 5), (7, 1)));
    let other = teller("m", "4", false);
    assert_eq!(take(other, false, &[("f", 6)]), ((20, 11), (7, 1)));
}

#[test]
fn a_session_that_ended_takes_what_is_now_with_it_and_leaves_what_was() {
    let now = Instant::now();
    let mut usages = FunctionUsages::new(now);
    let (one, next) = (teller("n", "1", false), teller("n", "2", true));
    usages.take(one, usage(false, &[("f", 3)]), now, |_| true);
    usages.take(next, usage(false, &[("f", 3)]), now, |_| true);
    usages.forget("n", "1");
    assert_eq!(usages.nodes(now).count(), 1, "there is a newer session");
    usages.forget("n", "2");
    assert_eq!(usages.nodes(now).count(), 0);
    let heard = usages.functions(now, |_| true);
    let heard = heard.get(&name("f")).unwrap();
    assert_eq!((heard.total.requests, heard.now), (3, Gauges::default()));
    assert!(usages.functions(now, |_| false).is_empty());
    assert!(usages.functions(now, |_| true).is_empty(), "forgotten");
}

#[test]
fn rates_are_of_the_last_minute() {
    let began = Instant::now();
    let mut usages = FunctionUsages::new(began);
    let at = |intervals: f64| began + USAGE_INTERVAL.mul_f64(intervals);
    let one = teller("n", "1", false);
    for (interval, requests) in [(0.5, 100), (1.5, 200), (2.5, 300), (6.5, 310)] {
        let told = usage(interval > 1.0, &[("f", requests)]);
        usages.take(one, told, at(interval), |_| true);
    }
    let mut recent = |intervals| {
        let heard = usages.functions(at(intervals), |_| true);
        let heard = heard.get(&name("f")).unwrap();
        (heard.recent.requests, heard.recent_for)
    };
    assert_eq!(recent(6.5), (110, USAGE_INTERVAL.mul_f64(4.5)));
    assert_eq!(recent(7.0), (10, WINDOW));
    assert_eq!(recent(20.0), (0, WINDOW));
}

#[test]
fn neither_a_node_nor_all_together_make_it_grow_without_end() {
    let now = Instant::now();
    let mut usages = FunctionUsages::new(now);
    let many: Vec<String> = (0..2 * MAX_OF_A_NODE).map(|n| format!("f{n}")).collect();
    let one = teller("n", "1", false);
    for chunk in many.chunks(100) {
        let functions: Vec<_> = chunk.iter().map(|name| (&**name, 1)).collect();
        usages.take(one, usage(true, &functions), now, |_| true);
    }
    assert_eq!(usages.functions(now, |_| true).len(), MAX_OF_A_NODE);
    for node in 0..30 {
        let functions: Vec<_> = (0..1000).map(|n| format!("{node}-{n}")).collect();
        let functions: Vec<_> = functions.iter().map(|name| (&**name, 1)).collect();
        let node = format!("node-{node}");
        usages.take(
            teller(&node, "1", false),
            usage(false, &functions),
            now,
            |_| true,
        );
    }
    assert_eq!(usages.functions.len(), MAX_FUNCTIONS);
    assert!(usages.dropped() > 0);
    // What there is no more makes room.
    let now = now + USAGE_INTERVAL;
    let none = usage(false, &[("new", 1)]);
    usages.take(teller("last", "1", false), none, now, |(_, function)| {
        function == "new"
    });
    assert_eq!(usages.functions.len(), 1);
}

#[test]
fn errors_of_agents_that_know_no_reasons_are_counted_too() {
    let counters = Counters::of(&FunctionUsage {
        errors: 5,
        errors_by_reason: vec![ErrorCount {
            reason: "Trap".into(),
            count: 3,
        }],
        ..FunctionUsage::default()
    });
    let errors: Vec<_> = counters.errors().collect();
    assert_eq!(errors, [("Trap", 3), (OTHER, 2)]);
    assert_eq!(Counters::of(&counters.message()), counters);
}

#[derive(Clone, Debug)]
enum Deed {
    Serve(usize, u64),
    Tell(usize),
    Restart(usize),
    Move(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = 0..3_usize;
    prop_oneof![
        3 => (node.clone(), 1..100_u64).prop_map(|(node, n)| Deed::Serve(node, n)),
        3 => node.clone().prop_map(Deed::Tell),
        1 => node.clone().prop_map(Deed::Restart),
        1 => node.prop_map(Deed::Move),
    ]
}

proptest! {
    /// Two controllers, three nodes that restart and move at will: what the controllers say together
    /// never falls, and is all that was told and not counted while nobody listened.
    #[test]
    fn controllers_together_count_each_request_once(deeds in prop::collection::vec(deed(), 1..60)) {
        let now = Instant::now();
        let mut controllers = [FunctionUsages::new(now), FunctionUsages::new(now)];
        // Counter, what of it was told, controller, session, whether the agent had one before.
        let mut nodes = [(0_u64, 0_u64, 0_usize, 0_u32, false); 3];
        // A session's first words are what it begins from.
        let mut begun = [false; 3];
        let (mut sessions, mut expected, mut before) = (3, 0, 0);
        for deed in deeds {
            match deed {
                Deed::Serve(node, n) => nodes[node].0 += n,
                Deed::Tell(node) => {
                    let (counter, told, controller, session, moved) = &mut nodes[node];
                    let (name, session) = (node.to_string(), session.to_string());
                    let partial = begun[node];
                    if partial || !*moved {
                        expected += *counter - *told;
                    }
                    *told = *counter;
                    begun[node] = true;
                    let told = usage(partial, &[("f", *counter)]);
                    controllers[*controller].take(teller(&name, &session, *moved), told, now, |_| true);
                }
                Deed::Restart(node) => {
                    sessions += 1;
                    nodes[node] = (0, 0, nodes[node].2, sessions, false);
                    begun[node] = false;
                }
                // An agent that never told anything has held no session.
                Deed::Move(node) if begun[node] => {
                    sessions += 1;
                    let (counter, told, controller, ..) = nodes[node];
                    nodes[node] = (counter, told, 1 - controller, sessions, true);
                    begun[node] = false;
                }
                Deed::Move(_) => {}
            }
            let sum: u64 = controllers
                .iter_mut()
                .filter_map(|one| Some(one.functions(now, |_| true).get(&name("f"))?.total.requests))
                .sum();
            prop_assert_eq!(sum, expected);
            prop_assert!(sum >= before);
            before = sum;
        }
    }
}
