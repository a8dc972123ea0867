//! Where lines of a function may be: on the nodes that it is assigned to, and for a while on those that
//! it left. Pure.

use std::collections::BTreeSet;

use hive_manifests::Resource;

use crate::state::{Change, Key, Object, Placed, State};

/// Nodes that are asked beside those that the function is assigned to: those that it left last. More
/// than a person drains in the quarter of an hour for which agents keep such logs.
const FORMER_NODES: usize = 16;

/// The nodes to which a function is assigned.
pub(super) fn nodes_of(state: &State, function: &Key) -> BTreeSet<String> {
    state
        .list(Resource::Assignment, Some(&function.namespace))
        .filter_map(|assignment| node(assignment, function))
        .collect()
}

/// The nodes that a function left, as far as the history of changes goes back.
pub(super) fn former_nodes_of(state: &State, function: &Key) -> BTreeSet<String> {
    let now = nodes_of(state, function);
    let Ok(changes) = state.changes_since(state.remembers_after()) else {
        return BTreeSet::new();
    };
    let mut left: Vec<String> = changes
        .filter_map(|change| left_by(change, function))
        .filter(|node| !now.contains(node))
        .collect();
    left.reverse();
    let mut newest = BTreeSet::new();
    for node in left {
        if newest.len() == FORMER_NODES {
            break;
        }
        newest.insert(node);
    }
    newest
}

/// The node that a function has one copy less on after a change.
fn left_by(change: &Change, function: &Key) -> Option<String> {
    let before = node(change.before.as_deref()?, function)?;
    let after = change.after.as_deref();
    let after = after.and_then(|assignment| node(assignment, function));
    (after.as_ref() != Some(&before)).then_some(before)
}

/// Where an assignment is, if it is one of that function.
fn node(assignment: &Object, function: &Key) -> Option<String> {
    let key = assignment.key();
    // Assignments are called `<function>.<slot>`. Most are others': those need not be read.
    let may_be = key.resource == Resource::Assignment
        && key.namespace == function.namespace
        && key.name.starts_with(&function.name);
    if !may_be {
        return None;
    }
    let placed = Placed::of(assignment)?;
    (placed.function == function.name).then_some(placed.node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::objects;
    use crate::state::Command;

    fn key(name: &str) -> Key {
        Key::new(Resource::Assignment, "default", name)
    }

    #[test]
    fn nodes_that_a_function_left_are_remembered() {
        let mut state = State::default();
        let create = |name: &str, function: &str, node: &str| Command::Create {
            key: key(name),
            body: objects::fresh(
                &key(name),
                json!({}),
                json!({ "spec": { "functionName": function, "nodeName": node } }),
            )
            .into(),
        };
        for (name, function, node) in [
            ("hello.0", "hello", "pi"),
            ("hello.1", "hello", "phone"),
            ("hello.there.0", "hello.there", "laptop"),
        ] {
            state.apply(create(name, function, node)).unwrap();
        }
        let hello = Key::new(Resource::Function, "default", "hello");
        let named = |nodes: BTreeSet<String>| nodes.into_iter().collect::<Vec<_>>();
        assert_eq!(named(nodes_of(&state, &hello)), ["phone", "pi"]);
        assert!(former_nodes_of(&state, &hello).is_empty());

        let mut moved = state.get(&key("hello.0")).unwrap().body().clone();
        moved["spec"]["nodeName"] = json!("attic");
        state
            .apply(Command::Replace {
                key: key("hello.0"),
                body: moved.into(),
                expect: None,
            })
            .unwrap();
        assert_eq!(named(nodes_of(&state, &hello)), ["attic", "phone"]);
        assert_eq!(named(former_nodes_of(&state, &hello)), ["pi"]);
    }

    #[test]
    fn only_those_that_it_left_last_are_asked() {
        let mut state = State::default();
        for n in 0..FORMER_NODES + 3 {
            let body =
                json!({ "spec": { "functionName": "hello", "nodeName": format!("n{n:02}") } });
            let create = Command::Create {
                key: key("hello.0"),
                body: objects::fresh(&key("hello.0"), json!({}), body).into(),
            };
            state.apply(create).unwrap();
            state
                .apply(Command::Delete {
                    key: key("hello.0"),
                    uid: None,
                    expect: None,
                })
                .unwrap();
        }
        let hello = Key::new(Resource::Function, "default", "hello");
        let former = former_nodes_of(&state, &hello);
        assert_eq!(former.len(), FORMER_NODES);
        assert_eq!(former.first().unwrap(), "n03");
    }
}
