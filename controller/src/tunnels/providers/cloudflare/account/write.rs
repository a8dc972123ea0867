//! What is written of a tunnel at Cloudflare into the swarm's state: its finalizer, and the Secret with its token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use hive_manifests::tunnel::TUNNEL_TOKEN;
use serde_json::json;

use super::super::super::{Token, Trouble};
use super::{AccountError, FINALIZER, SERVICE, Subject, secret_name};
use crate::deletion;
use crate::objects;
use crate::state::{Command, Key, Rejection};
use crate::store::{ProposeError, Replica};

/// Takes the finalizer on or off; a Tunnel that waited for nothing else is gone then.
pub(super) async fn set_finalizer(
    replica: &Replica,
    key: &Key,
    uid: &str,
    wanted: bool,
) -> Result<(), AccountError> {
    let state = replica.state();
    let current = state.get(key).filter(|it| it.uid() == uid);
    let Some(current) = current else {
        return Ok(());
    };
    let mut body = current.to_value().into_owned();
    let before = deletion::finalizers(&body).contains(&FINALIZER);
    // To one that is being deleted none is added.
    if before == wanted || (wanted && current.is_being_deleted()) {
        return Ok(());
    }
    let mut finalizers: Vec<String> = deletion::finalizers(&body)
        .into_iter()
        .filter(|known| *known != FINALIZER)
        .map(str::to_owned)
        .collect();
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    body["metadata"]["finalizers"] = json!(finalizers);
    if finalizers.is_empty()
        && let Some(metadata) = body["metadata"].as_object_mut()
    {
        metadata.remove("finalizers");
    }
    let command = deletion::replacement(current, body);
    written(key, replica.propose(command).await.map(drop))
}

/// What somebody else changed at this moment is looked at again.
fn written(key: &Key, done: Result<(), ProposeError>) -> Result<(), AccountError> {
    match done {
        Ok(()) | Err(ProposeError::Rejected(Rejection::NotFound)) => Ok(()),
        Err(error) => Err(AccountError::Write {
            key: key.clone(),
            source: Box::new(error),
        }),
    }
}

/// Puts a tunnel's token where all controllers find it. It goes with the Tunnel.
pub(super) async fn keep_token(
    replica: &Replica,
    tunnel: &Key,
    subject: &Subject,
    token: &Token,
) -> Result<(), AccountError> {
    let uid = &subject.uid;
    let key = Key::new(Resource::Secret, &*tunnel.namespace, secret_name(tunnel));
    let data = json!({
        TUNNEL_TOKEN: BASE64.encode(token.expose()),
        SERVICE: BASE64.encode(&subject.wanted.service),
    });
    let state = replica.state();
    let failed = |error| AccountError::Write {
        key: key.clone(),
        source: Box::new(error),
    };
    let Some(current) = state.get(&key) else {
        let extra = json!({ "type": "Opaque", "data": data });
        let mut body = objects::fresh(&key, json!({}), extra);
        body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": Resource::Tunnel.api_version(),
            "kind": Resource::Tunnel.kind(),
            "name": tunnel.name,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
        let (made, body) = (key.clone(), body.into());
        let command = Command::Create { key: made, body };
        return replica.propose(command).await.map(drop).map_err(failed);
    };
    let mut body = current.to_value().into_owned();
    let owners = body["metadata"]["ownerReferences"].as_array();
    let is_own = owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid));
    if !is_own {
        let message = format!(
            "secret {} is somebody else's: delete it, the controllers keep the tunnel's token there",
            key.name
        );
        return Err(AccountError::Trouble(Trouble::new("SecretInUse", message)));
    }
    if body["data"] == data {
        return Ok(());
    }
    body["data"] = data;
    let command = Command::Replace {
        key: key.clone(),
        body: body.into(),
        expect: Some(current.revision()),
    };
    replica.propose(command).await.map(drop).map_err(failed)
}
