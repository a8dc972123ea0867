//! What a user may not store although they may write objects of that kind: what would give them,
//! or others, more than they have.

use serde_json::Value;

use super::Api;
use super::auth::User;
use super::errors::{ApiError, Cause};
use crate::access::escalation::{self, Objection};
use crate::state::{Key, State};

/// Refuses a write that would raise somebody's rights. `before` is what is stored now.
pub(super) async fn check(
    context: &Api,
    user: &User,
    key: &Key,
    before: Option<&Value>,
    body: &Value,
) -> Result<(), ApiError> {
    let judge = |state: &State| {
        let index = context.access.of(state);
        escalation::check(&index, state, &user.info, key, before, body)
    };
    let mut state = context.replica.state();
    let mut verdict = judge(&state);
    // A role that was made on another controller an instant ago is not known here yet.
    if matches!(verdict, Err(Objection::Grants(_) | Objection::NoRole(_))) {
        let known = state.access_revision();
        state = context.newest().await?;
        if state.access_revision() != known {
            verdict = judge(&state);
        }
    }
    verdict.map_err(|objection| match objection {
        Objection::Grants(why) => ApiError::forbidden(key, why),
        Objection::NoRole(role) => ApiError::not_found(&role),
        Objection::RoleRef => ApiError::Invalid {
            resource: key.resource,
            name: key.name.clone(),
            causes: vec![Cause {
                field: "roleRef".into(),
                reason: "FieldValueInvalid",
                message: "cannot change roleRef: delete the binding and make another".into(),
            }],
        },
    })
}
