//! Orders that are open: one Secret with an entry for each, written before the authority is asked for anything.
//!
//! It holds what the next leader needs to go on, and what every controller answers to the authority.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::objects::{self, EditError};
use crate::state::{Change, Key, State};
use crate::store::Replica;

const NAME: &str = "acme-orders";
const TYPE: &str = "hive.dev/acme-orders";

/// An order of a tunnel. It holds a private key, so nothing prints it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub namespace: String,
    pub tunnel: String,
    pub names: Vec<String>,
    /// Of the authority.
    pub directory: String,
    pub began: Timestamp,
    /// That of the certificate, in PEM. Kept from the beginning: what is made for a key that is lost is lost.
    pub key: String,
    /// Where the authority keeps it, once it was placed.
    #[serde(default)]
    pub url: Option<String>,
    /// What it looks for.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// What is answered for a name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub name: String,
    pub token: String,
    pub authorization: String,
}

pub fn concerns(change: &Change) -> bool {
    change.key == key()
}

fn key() -> Key {
    Key::new(Resource::Secret, SYSTEM_NAMESPACE, NAME)
}

/// By the uid of their tunnels. What cannot be read is as if it were not there: it is ordered anew.
pub fn read(state: &State) -> BTreeMap<String, Order> {
    let Some(secret) = state.get(&key()) else {
        return BTreeMap::new();
    };
    let secret = secret.to_value();
    let entries = secret["data"].as_object().into_iter().flatten();
    entries
        .filter_map(|(uid, entry)| Some((uid.clone(), decode(entry)?)))
        .collect()
}

fn decode(entry: &Value) -> Option<Order> {
    let bytes = BASE64.decode(entry.as_str()?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn encode(order: &Order) -> Value {
    let text = serde_json::to_vec(order).expect("it is plain data");
    json!(BASE64.encode(text))
}

/// Opens an order; false if there is one already, of whoever led before or leads at the same time.
pub async fn open(replica: &Replica, uid: &str, order: &Order) -> Result<bool, EditError> {
    let body = objects::fresh(&key(), json!({}), json!({ "type": TYPE, "data": {} }));
    objects::ensure(replica, key(), body).await?;
    let mut is_open = false;
    objects::edit(replica, &key(), |body| {
        is_open = decode(&body["data"][uid]).is_none();
        if is_open {
            body["data"][uid] = encode(order);
        }
        is_open
    })
    .await?;
    Ok(is_open)
}

/// Notes how far an order is; false if it is no longer there, or another.
pub async fn note(replica: &Replica, uid: &str, order: &Order) -> Result<bool, EditError> {
    let (key, mut is_there) = (key(), false);
    let edited = objects::edit(replica, &key, |body| {
        let known = decode(&body["data"][uid]);
        is_there = known.is_some_and(|known| known.key == order.key);
        if is_there {
            body["data"][uid] = encode(order);
        }
        is_there
    });
    match edited.await {
        Ok(()) => Ok(is_there),
        Err(EditError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Closes the order of a tunnel, if one is open.
pub async fn close(replica: &Replica, uid: &str) -> Result<(), EditError> {
    let key = key();
    let edited = objects::edit(replica, &key, |body| {
        let entries = body["data"].as_object_mut();
        entries.is_some_and(|entries| entries.remove(uid).is_some())
    });
    match edited.await {
        Ok(()) | Err(EditError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
