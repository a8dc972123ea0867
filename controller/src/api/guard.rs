//! What a user may not store although they may write objects of that kind: what would give them,
//! or others, more than they have.

use super::Api;
use super::admission::host_field;
use super::auth::{self, User};
use super::errors::{ApiError, Cause};
use super::metadata::invalid;
use crate::access::attributes::{Attributes, ResourceAttributes};
use crate::access::escalation::{self, Objection, Write};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::ingress::routes::SETTINGS;
use crate::state::State;

/// Refuses a write that would raise somebody's rights.
pub(super) async fn check(context: &Api, user: &User, write: Write<'_>) -> Result<(), ApiError> {
    check_domain(context, user, write).await?;
    let judge = |state: &State| {
        let index = context.access.of(state);
        escalation::check(&index, state, &user.info, write)
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
        Objection::Grants(why) => ApiError::forbidden(write.key, why),
        Objection::NoRole(role) => ApiError::not_found(&role),
        Objection::RoleRef => ApiError::Invalid {
            resource: write.key.resource,
            name: write.key.name.clone(),
            causes: vec![Cause {
                field: "roleRef".into(),
                reason: "FieldValueInvalid",
                message: "cannot change roleRef: delete the binding and make another".into(),
            }],
        },
    })
}

/// Refuses the swarm's own domain to whom may not set it: every namespace has its hosts below, and whoever answers there
/// looks like the swarm itself. Whoever may gives it to a namespace; what else is in that one may then claim it as well.
async fn check_domain(context: &Api, user: &User, write: Write<'_>) -> Result<(), ApiError> {
    let Write { key, before, body } = write;
    let routes = context.forwarder.routes();
    let Some(domain) = routes.takes_domain(key, before, body) else {
        return Ok(());
    };
    let asked = Attributes::Resource(ResourceAttributes {
        verb: "update",
        resource: "configmaps",
        namespace: Some(SYSTEM_NAMESPACE),
        name: Some(SETTINGS),
        ..ResourceAttributes::default()
    });
    if auth::authorize(context, user, &asked).await.is_ok() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: host {domain} is the swarm's own domain: choose another host, or ask somebody to claim it for \
         namespace {} who may update ConfigMap {SYSTEM_NAMESPACE}/{SETTINGS}",
        key.namespace
    );
    let field = host_field(body);
    Err(invalid(key, field, "FieldValueForbidden", message))
}
