//! Autoscaling as it comes into a Function: without the number of copies that only defaults had put there.

use hive_manifests::Resource;
use serde_json::Value;

use crate::state::{Key, State};

/// To be called before the defaults.
pub(super) fn admit(state: &State, key: &Key, body: &mut Value) {
    if key.resource != Resource::Function || !body["spec"]["autoscaling"].is_object() {
        return;
    }
    let Some(stored) = state.get(key) else {
        return;
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
}
