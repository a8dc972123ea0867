//! What several tests of this crate begin with.

mod alone;

use serde_json::{Value, json};

use crate::objects;
use crate::state::{Command, Key, Member, State, level};
pub use alone::{Alone, nobody};

impl Alone {
    /// It leads a swarm of one, whose controllers have agreed on what this program knows.
    pub async fn start(member: Member) -> Self {
        let alone = Self::leaderless().await;
        alone.replica.bootstrap(member).await.unwrap();
        let raised = Command::RaiseLevel { to: level::OWN };
        alone.replica.propose(raised).await.unwrap();
        alone
    }
}

/// Writes an object of that content as it would be made now, whether it is there already or not.
pub fn declare(state: &mut State, key: Key, content: Value) {
    let body = objects::fresh(&key, json!({}), content);
    put(state, key, &body);
}

/// An object of that content, made when that year began.
pub fn made_in(year: u16, key: &Key, content: Value) -> Value {
    let mut body = objects::fresh(key, json!({}), content);
    body["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
    body
}

/// Writes an object, whether it is there already or not.
pub fn put(state: &mut State, key: Key, body: &Value) {
    let body = body.into();
    let command = match state.get(&key) {
        None => Command::Create { key, body },
        Some(_) => Command::Replace {
            key,
            body,
            expect: None,
        },
    };
    state.apply(command).unwrap();
}

/// Changes an object that is there.
pub fn edit(state: &mut State, key: &Key, change: impl FnOnce(&mut Value)) {
    let mut body = state.get(key).unwrap().body().clone();
    change(&mut body);
    put(state, key.clone(), &body);
}
