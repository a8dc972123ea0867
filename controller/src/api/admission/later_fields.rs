//! Fields that came after the first release: a controller of a release before refuses objects that have them,
//! so none is taken before all controllers know it.

use hive_manifests::Resource;
use serde_json::Value;

use super::super::errors::ApiError;
use crate::state::{Key, State, level};

/// The kind, the field as a JSON pointer, and the level from which on all controllers know it.
const FIELDS: [(Resource, &str, u32); 14] = [
    // Quotas count by it as well, and all controllers must count alike.
    (Resource::Function, "/spec/autoscaling", level::REVISIONS),
    (
        Resource::Function,
        "/spec/autoscaling/target/queueTime",
        level::METERING,
    ),
    (Resource::Function, "/spec/scratch", level::METERING),
    (Resource::Function, "/spec/artifact/pullAt", level::METERING),
    (
        Resource::Function,
        "/spec/strategy/rollingUpdate/rollback",
        level::METERING,
    ),
    (Resource::Function, "/spec/instances", level::METERING),
    (Resource::Tunnel, "/spec/tls", level::TUNNEL_FIELDS),
    // Those of protocol TLS have it.
    (Resource::Tunnel, "/spec/serverNames", level::TUNNEL_FIELDS),
    (
        Resource::Tunnel,
        "/spec/targetProtocol",
        level::TUNNEL_FIELDS,
    ),
    (Resource::Tunnel, "/spec/access", level::TUNNEL_FIELDS),
    (
        Resource::Tunnel,
        "/spec/healthCheck/payload",
        level::TUNNEL_FIELDS,
    ),
    (Resource::Tunnel, "/spec/provider", level::TUNNEL_FIELDS),
    (Resource::Tunnel, "/spec/cloudflare", level::TUNNEL_FIELDS),
    (Resource::Tunnel, "/spec/tor", level::TUNNEL_FIELDS),
];

/// Values that a field did not have before, likewise.
const VALUES: [(Resource, &str, &str, u32); 1] = [(
    Resource::Tunnel,
    "/spec/protocol",
    "UDP",
    level::TUNNEL_FIELDS,
)];

/// Refuses what some controller could not read yet.
pub(super) fn check(state: &State, key: &Key, body: &Value) -> Result<(), ApiError> {
    let is_unknown = |(kind, field, known_from): &&(Resource, &str, u32)| {
        *kind == key.resource
            && state.level() < *known_from
            && body.pointer(field).is_some_and(|value| !value.is_null())
    };
    let is_new = |(kind, field, value, known_from): &&(Resource, &str, &str, u32)| {
        *kind == key.resource
            && state.level() < *known_from
            && body.pointer(field).is_some_and(|it| it == *value)
    };
    let field = FIELDS
        .iter()
        .find(is_unknown)
        .map(|(_, field, _)| dotted(field));
    let value = VALUES.iter().find(is_new);
    let value = value.map(|(_, field, value, _)| format!("{} {value}", dotted(field)));
    let Some(what) = field.or(value) else {
        return Ok(());
    };
    Err(ApiError::Unavailable(format!(
        "{what} is heeded once all controllers run a version that knows of it: \
         `hivectl get controllers` shows what they run"
    )))
}

fn dotted(pointer: &str) -> String {
    pointer[1..].replace('/', ".")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::openapi_schema;
    use serde_json::json;

    use super::*;
    use crate::state::Command;

    #[test]
    fn a_field_is_taken_once_all_controllers_know_it() {
        for (kind, field, known_from) in FIELDS {
            let key = Key::new(kind, "default", "hello");
            let mut schema = openapi_schema(kind);
            let mut body = json!({});
            let mut place = &mut body;
            for step in field[1..].split('/') {
                schema = &schema["properties"][step];
                assert!(schema.is_object(), "{field}");
                place = &mut place[step];
            }
            *place = json!({});
            let mut state = State::default();
            for level in [known_from - 1, known_from] {
                state.apply(Command::RaiseLevel { to: level }).unwrap();
                let refused = check(&state, &key, &body).err();
                assert_eq!(refused.is_some(), level < known_from, "{field} at {level}");
                assert!(check(&state, &key, &json!({ "spec": {} })).is_ok());
            }
        }
    }

    #[test]
    fn a_value_is_taken_once_all_controllers_know_it() {
        for (kind, field, value, known_from) in VALUES {
            let key = Key::new(kind, "default", "hello");
            let (spec, field) = field[1..].split_once('/').unwrap();
            let body = json!({ spec: { field: value } });
            let other = json!({ spec: { field: "of before" } });
            let mut state = State::default();
            for level in [known_from - 1, known_from] {
                state.apply(Command::RaiseLevel { to: level }).unwrap();
                let refused = check(&state, &key, &body).err();
                assert_eq!(refused.is_some(), level < known_from, "{value} at {level}");
                assert!(check(&state, &key, &other).is_ok());
            }
        }
    }
}
