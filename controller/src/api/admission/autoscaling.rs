//! Autoscaling as it comes into a Function: not before all controllers know it, and without the number of
//! copies that only defaults had put there.

use hive_manifests::Resource;
use serde_json::Value;

use super::super::errors::ApiError;
use crate::state::{Key, State, level};

/// To be called before the defaults.
pub(super) fn admit(state: &State, key: &Key, body: &mut Value) -> Result<(), ApiError> {
    if key.resource != Resource::Function || !body["spec"]["autoscaling"].is_object() {
        return Ok(());
    }
    // Quotas count by it, and all controllers must count alike.
    if state.level() < level::REVISIONS {
        return Err(ApiError::Unavailable(
            "spec.autoscaling is heeded once all controllers run a version that knows of it: \
             `hivectl get controllers` shows what they run"
                .into(),
        ));
    }
    let Some(stored) = state.get(key) else {
        return Ok(());
    };
    // Who adds it to a manifest without a number does not mean to hold the one copy there was by default.
    let before = &stored.body()["spec"];
    if before["autoscaling"].is_null()
        && before["replicas"] == 1
        && body["spec"]["replicas"] == 1
        && let Some(spec) = body["spec"].as_object_mut()
    {
        spec.remove("replicas");
    }
    Ok(())
}
