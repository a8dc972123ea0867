//! Emptying namespaces that are being deleted, then deleting them.

use hive_manifests::Resource;

use crate::reconcile::Outlook;
use crate::state::{Command, Key, Rejection, State};
use crate::store::{ProposeError, Replica};

/// What is left to delete, each namespace after all that is in it. Pure.
pub fn plan(state: &State) -> Vec<(Key, u64)> {
    let mut steps = Vec::new();
    for namespace in state.list(Resource::Namespace, None) {
        if !namespace.is_being_deleted() {
            continue;
        }
        let name = &namespace.key().name;
        let contents: Vec<_> = Resource::ALL
            .into_iter()
            .filter(|resource| resource.namespaced())
            .flat_map(|resource| state.list(resource, Some(name)))
            .map(|object| (object.key().clone(), object.revision()))
            .collect();
        if contents.is_empty() {
            steps.push((namespace.key().clone(), namespace.revision()));
        }
        steps.extend(contents);
    }
    steps
}

/// One look.
pub async fn pass(replica: &Replica, state: &State) -> Outlook {
    for (key, revision) in plan(state) {
        let command = Command::Delete {
            key: key.clone(),
            expect: Some(revision),
            uid: None,
        };
        match replica.propose(command).await {
            Ok(_)
            | Err(ProposeError::Rejected(Rejection::Conflict { .. } | Rejection::NotFound)) => {}
            Err(error) => {
                tracing::warn!(object = %key, %error, "cannot empty namespace");
                return Outlook::Again;
            }
        }
    }
    Outlook::Settled
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::objects;
    use serde_json::json;

    fn put(state: &mut State, key: Key, deleting: bool) {
        let mut body = objects::fresh(&key, json!({}), json!({}));
        if deleting {
            body["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }

    #[test]
    fn a_namespace_goes_when_it_is_empty() {
        let mut state = State::default();
        put(&mut state, Key::new(Resource::Namespace, "", "old"), true);
        put(&mut state, Key::new(Resource::Namespace, "", "kept"), false);
        put(&mut state, Key::new(Resource::Secret, "old", "s"), false);
        put(&mut state, Key::new(Resource::Secret, "kept", "s"), false);
        let names = |state: &State| {
            plan(state)
                .iter()
                .map(|(key, _)| key.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&state), ["secrets/old/s"]);
        let key = Key::new(Resource::Secret, "old", "s");
        state
            .apply(Command::Delete {
                key,
                expect: None,
                uid: None,
            })
            .unwrap();
        assert_eq!(names(&state), ["namespaces/old"]);
    }
}
