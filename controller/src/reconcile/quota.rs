//! The statuses of ResourceQuotas: what they limit, and how much of it is used.
//!
//! For people only. Quotas are enforced where commands are applied, from the usage that the state
//! itself keeps; this writes that down when it has changed.

use hive_manifests::Resource;
use hive_manifests::quota::is_counted;
use serde_json::{Map, Value, json};

use crate::objects::{self, EditError};
use crate::reconcile::Outlook;
use crate::state::{Change, Key, State, quota_limits};
use crate::store::Replica;

/// True for a change that can give something to do here.
pub fn concerns(change: &Change) -> bool {
    let is_update = change.before.is_some() && change.after.is_some();
    match change.key.resource {
        Resource::Function | Resource::ResourceQuota => true,
        // Of every node, functions may have a copy.
        Resource::Node => !is_update,
        resource => is_counted(resource) && !is_update,
    }
}

/// The statuses that say something else than is so. Pure.
pub fn plan(state: &State) -> Vec<(Key, Value)> {
    state
        .list(Resource::ResourceQuota, None)
        .filter_map(|quota| {
            let key = quota.key();
            let (mut hard, mut used) = (Map::new(), Map::new());
            for (name, measure, limit) in quota_limits(quota) {
                let now = state.used(&key.namespace, measure);
                hard.insert(name.clone(), measure.show(limit).into());
                used.insert(name, measure.show(now).into());
            }
            let status = json!({ "hard": hard, "used": used });
            (quota.to_value()["status"] != status).then(|| (key.clone(), status))
        })
        .collect()
}

/// One look.
pub async fn pass(replica: &Replica, state: &State) -> Outlook {
    let mut outlook = Outlook::Settled;
    for (key, status) in plan(state) {
        let written = objects::edit(replica, &key, |body| {
            let stale = body["status"] != status;
            body["status"] = status.clone();
            stale
        })
        .await;
        match written {
            Ok(()) | Err(EditError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(quota = %key, error = &error as &dyn std::error::Error, "cannot write status");
                outlook = Outlook::Again;
            }
        }
    }
    outlook
}
