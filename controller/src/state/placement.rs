//! Which assignments each node has, and where they serve: so that a node's session, an ingress and a
//! download ask for their own alone, and nothing of an assignment but its text has to be kept parsed.
//!
//! Follows every change of an assignment, and is made anew from a snapshot.

use std::borrow::Cow;

use hive_manifests::Resource;
use imbl::OrdSet;
use serde::Deserialize;

use super::{Key, Object};

/// All nodes' assignments. Cloning is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Placement(OrdSet<(String, Key)>);

/// Of an assignment, what says who is sent where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub node: String,
    /// Where it was before, and is until it answers at its node.
    pub previous: Option<String>,
    pub function: String,
    /// The revision that it tries, if it does.
    pub tries: Option<String>,
    /// Its Ready condition is True.
    pub ready: bool,
}

impl Placed {
    /// `None` for what is no assignment, or names no node.
    pub fn of(object: &Object) -> Option<Self> {
        #[derive(Deserialize)]
        struct Assignment<'a> {
            #[serde(borrow)]
            spec: Spec<'a>,
            #[serde(default, borrow)]
            status: Status<'a>,
        }

        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec<'a> {
            #[serde(borrow)]
            node_name: Cow<'a, str>,
            #[serde(default, borrow)]
            previous: Option<Previous<'a>>,
            #[serde(default, borrow)]
            function_name: Cow<'a, str>,
            #[serde(default)]
            canary: bool,
            #[serde(default, borrow)]
            revision: Cow<'a, str>,
        }

        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Previous<'a> {
            #[serde(borrow)]
            node_name: Cow<'a, str>,
        }

        #[derive(Default, Deserialize)]
        struct Status<'a> {
            #[serde(default, borrow)]
            conditions: Vec<Condition<'a>>,
        }

        #[derive(Deserialize)]
        struct Condition<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            status: Cow<'a, str>,
        }

        if object.key().resource != Resource::Assignment {
            return None;
        }
        let read: Assignment = serde_json::from_slice(object.encoded()).ok()?;
        let mut conditions = read.status.conditions.iter();
        Some(Self {
            ready: conditions.any(|one| one.kind == "Ready" && one.status == "True"),
            node: read.spec.node_name.into_owned(),
            previous: read.spec.previous.map(|it| it.node_name.into_owned()),
            function: read.spec.function_name.into_owned(),
            tries: read.spec.canary.then(|| read.spec.revision.into_owned()),
        })
    }

    /// The node that answers requests for it, if one does.
    pub fn serves_on(&self) -> Option<&str> {
        match self.ready {
            true => Some(&self.node),
            false => self.previous.as_deref(),
        }
    }

    /// All nodes that it is on.
    pub fn nodes(self) -> impl Iterator<Item = String> {
        [Some(self.node), self.previous].into_iter().flatten()
    }
}

impl Placement {
    /// To be called with each change of an object.
    pub fn note(&mut self, key: &Key, before: Option<&Object>, after: Option<&Object>) {
        if key.resource != Resource::Assignment {
            return;
        }
        let nodes = |object: Option<&Object>| -> Vec<String> {
            let placed = object.and_then(Placed::of);
            placed.into_iter().flat_map(Placed::nodes).collect()
        };
        let (was, is) = (nodes(before), nodes(after));
        if was == is {
            return;
        }
        for node in was {
            self.0.remove(&(node, key.clone()));
        }
        for node in is {
            self.0.insert((node, key.clone()));
        }
    }

    /// Keys of a node's assignments, in order.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Key> {
        let first = (node.to_owned(), Key::new(Resource::Assignment, "", ""));
        self.0
            .range(first..)
            .take_while(move |(name, _)| name == node)
            .map(|(_, key)| key)
    }

    /// Nodes that have an assignment in a namespace; each once, in order.
    pub fn nodes_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        let mut last = None;
        self.0
            .iter()
            .filter(move |(_, key)| key.namespace == namespace)
            .map(|(node, _)| &**node)
            .filter(move |node| last.replace(*node) != Some(*node))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Command, State};
    use super::*;

    fn body(node: &str, ready: bool) -> serde_json::Value {
        let status = if ready { "True" } else { "False" };
        json!({
            "spec": { "nodeName": node, "functionName": "f" },
            "status": { "conditions": [{ "type": "Ready", "status": status }] },
        })
    }

    fn moving(node: &str, from: Option<&str>, ready: bool) -> serde_json::Value {
        let mut body = body(node, ready);
        if let Some(from) = from {
            body["spec"]["previous"] = json!({ "nodeName": from });
        }
        body
    }

    fn key(namespace: &str, name: &str) -> Key {
        Key::new(Resource::Assignment, namespace, name)
    }

    proptest! {
        /// Whatever was done, a node has what the objects say, also after a snapshot.
        #[test]
        fn it_says_what_the_objects_say(
            steps in prop::collection::vec(
                ("[ab]", "[a-c]", prop::option::of(("[xyz]", prop::option::of("[xyz]")))), 0..40,
            ),
        ) {
            let mut state = State::default();
            let mut expected = BTreeMap::new();
            for (namespace, name, nodes) in steps {
                let key = key(&namespace, &name);
                let command = match &nodes {
                    None => Command::Delete { key: key.clone(), expect: None, uid: None },
                    Some((node, from)) if expected.contains_key(&key) => Command::Replace {
                        key: key.clone(), body: moving(node, from.as_deref(), true).into(), expect: None,
                    },
                    Some((node, from)) => Command::Create {
                        key: key.clone(), body: moving(node, from.as_deref(), false).into(),
                    },
                };
                let _ = state.apply(command);
                match nodes {
                    Some((node, from)) => expected.insert(key, [Some(node), from]),
                    None => expected.remove(&key),
                };
            }
            let is_on = |nodes: &[Option<String>; 2], node: &str| nodes.iter().flatten().any(|it| it == node);
            for state in [&state, &State::from_image(state.image())] {
                for node in ["x", "y", "z"] {
                    let own: Vec<_> = state.assignments_on(node).map(|o| o.key().clone()).collect();
                    let wanted: Vec<_> = expected.iter().filter(|(_, n)| is_on(n, node)).map(|(k, _)| k.clone()).collect();
                    prop_assert_eq!(own, wanted);
                }
                let of_a: Vec<_> = state.nodes_with_assignments_in("a").collect();
                let wanted: std::collections::BTreeSet<_> =
                    expected.iter().filter(|(k, _)| k.namespace == "a").flat_map(|(_, n)| n).flatten().map(|n| n.as_str()).collect();
                prop_assert_eq!(of_a, wanted.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_read_is_what_routes_need() {
        let object = |body| Object::new(key("default", "f.0"), body, 1);
        let placed = Placed::of(&object(body("pi", true))).unwrap();
        assert_eq!(
            (&*placed.node, &*placed.function, placed.ready),
            ("pi", "f", true)
        );
        assert_eq!(placed.serves_on(), Some("pi"));
        let starts = Placed::of(&object(body("pi", false))).unwrap();
        assert_eq!((starts.ready, starts.serves_on()), (false, None));
        let comes = Placed::of(&object(moving("pi", Some("phone"), false))).unwrap();
        assert_eq!(comes.serves_on(), Some("phone"));
        let came = Placed::of(&object(moving("pi", Some("phone"), true))).unwrap();
        assert_eq!(came.serves_on(), Some("pi"));
        assert!(Placed::of(&object(json!({ "spec": { "nodeName": "pi" } }))).is_some());
        assert_eq!(Placed::of(&object(json!({ "spec": {} }))), None);
    }
}
