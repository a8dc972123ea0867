//! Writes what is known of a tunnel's certificate into its status: what is there already is not written again.

use std::time::SystemTime;

use hive_manifests::tunnel::FailedOrder;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::Planned;
use crate::objects::{self, EditError, timestamp};
use crate::reconcile::tunnels::CERTIFICATE_READY;
use crate::state::Key;
use crate::store::Replica;

/// What was planned for a tunnel; false if it could not be written. `None` of one that wants no certificate any
/// more.
pub async fn tell(replica: &Replica, key: &Key, uid: &str, planned: Option<&Planned>) -> bool {
    let written = objects::edit(replica, key, |body| {
        if body["metadata"]["uid"] != *uid {
            return false;
        }
        let before = body["status"].clone();
        match planned {
            Some(planned) => say(&mut body["status"], planned),
            None => unsay(&mut body["status"]),
        }
        body["status"] != before
    });
    match written.await {
        Ok(()) | Err(EditError::NotFound(_)) => true,
        Err(error) => {
            tracing::warn!(tunnel = %key, error = &error as &dyn std::error::Error, "cannot write status");
            false
        }
    }
}

fn say(status: &mut Value, planned: &Planned) {
    let value = if planned.is_ready { "True" } else { "False" };
    let (reason, message) = (&planned.why.reason, &planned.why.message);
    let now = SystemTime::now();
    objects::set_condition(status, CERTIFICATE_READY, value, reason, message, now);
    status["certificate"] = json!(planned.status);
}

fn unsay(status: &mut Value) {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("certificate");
    }
    let conditions = status.get_mut("conditions");
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != CERTIFICATE_READY);
    }
}

/// Notes that a try came to nothing.
pub async fn note_failure(
    replica: &Replica,
    key: &Key,
    uid: &str,
    failed: &FailedOrder,
) -> Result<(), EditError> {
    let edited = objects::edit(replica, key, |body| {
        let is_it = body["metadata"]["uid"] == *uid;
        if is_it {
            body["status"]["certificate"]["failed"] = json!(failed);
        }
        is_it
    });
    match edited.await {
        Err(EditError::NotFound(_)) => Ok(()),
        edited => edited,
    }
}

/// Times are written in whole seconds.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    timestamp(at.into()).parse().unwrap_or(at)
}
