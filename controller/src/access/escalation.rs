//! Nobody gives away more than they have: what a write of a role, a binding or a token needs beyond
//! the right to write it. Pure.

use hive_manifests::{RBAC_GROUP, Resource};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::attributes::{Attributes, ResourceAttributes};
use super::index::{Index, role_key, rules_of};
use super::tokens::{SYSTEM_NAMESPACE, TOKEN_TYPE};
use super::user::{MASTERS, UserInfo};
use super::{rbac, rules};
use crate::state::{Key, State};

/// Why a write is refused that the roles allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The user would grant what they do not have.
    Grants(String),
    /// What a binding binds is settled when it is made.
    RoleRef,
    /// The role to be bound is not there, so nobody can say what it grants.
    NoRole(Key),
}

/// What somebody is about to store.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub key: &'a Key,
    /// What is stored now.
    pub before: Option<&'a Value>,
    pub body: &'a Value,
}

/// What speaks against a write, if anything.
pub fn check(
    index: &Index,
    state: &State,
    user: &UserInfo,
    write: Write<'_>,
) -> Result<(), Objection> {
    match write.key.resource {
        Resource::Role | Resource::ClusterRole => check_role(index, user, write),
        Resource::RoleBinding | Resource::ClusterRoleBinding => {
            check_binding(index, state, user, write)
        }
        Resource::Secret if write.key.namespace == SYSTEM_NAMESPACE => {
            check_token(index, user, write)
        }
        _ => Ok(()),
    }
}

fn check_role(index: &Index, user: &UserInfo, write: Write<'_>) -> Result<(), Objection> {
    let Write { key, before, body } = write;
    let unchanged = before.is_some_and(|before| {
        before["rules"] == body["rules"] && before["aggregationRule"] == body["aggregationRule"]
    });
    if unchanged || user.is_in(MASTERS) || may(index, user, "escalate", key) {
        return Ok(());
    }
    let wanted: Vec<PolicyRule> = serde_json::from_value(body["rules"].clone()).unwrap_or_default();
    // An aggregated role takes in whatever is labelled later.
    if body["aggregationRule"].is_object() && !rbac::is_master(index, user) {
        return Err(Objection::Grants(format!(
            "must have cluster-admin privileges to use an aggregationRule: {}",
            attempt(user)
        )));
    }
    check_rules(index, user, &key.namespace, &wanted)
}

fn check_binding(
    index: &Index,
    state: &State,
    user: &UserInfo,
    write: Write<'_>,
) -> Result<(), Objection> {
    let Write { key, before, body } = write;
    if let Some(before) = before {
        if before["roleRef"] != body["roleRef"] {
            return Err(Objection::RoleRef);
        }
        if before["subjects"] == body["subjects"] {
            return Ok(());
        }
    }
    let role = serde_json::from_value::<RoleRef>(body["roleRef"].clone())
        .ok()
        .and_then(|role| role_key(&role, &key.namespace));
    // Validated before; what can't be read grants nothing.
    let Some(role) = role else {
        return Ok(());
    };
    // A ClusterRole that is bound in a namespace may be allowed to be bound there.
    let asked = Key {
        namespace: key.namespace.clone(),
        ..role.clone()
    };
    if user.is_in(MASTERS) || may(index, user, "bind", &asked) {
        return Ok(());
    }
    let Some(wanted) = rules_of(state, &role) else {
        return Err(Objection::NoRole(role));
    };
    check_rules(index, user, &key.namespace, &wanted)
}

/// Tokens open the swarm's doors: to the API in any role, to nodes, and to controllers, which are
/// given the CA's key.
fn check_token(index: &Index, user: &UserInfo, write: Write<'_>) -> Result<(), Objection> {
    let is_token = |secret: &Value| secret["type"] == TOKEN_TYPE;
    if !(is_token(write.body) || write.before.is_some_and(is_token)) || rbac::is_master(index, user)
    {
        return Ok(());
    }
    Err(Objection::Grants(format!(
        "must have cluster-admin privileges to make or change tokens: {}",
        attempt(user)
    )))
}

fn check_rules(
    index: &Index,
    user: &UserInfo,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Result<(), Objection> {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let held = rbac::held(index, user, namespace);
    let missing = rules::uncovered(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.into_iter().map(rules::describe).collect();
    Err(Objection::Grants(format!(
        "{}:\n{}",
        attempt(user),
        missing.join("\n")
    )))
}

/// Kubernetes' words.
fn attempt(user: &UserInfo) -> String {
    format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held",
        user.name, user.groups
    )
}

/// Whether `user` may do this with a role by name.
fn may(index: &Index, user: &UserInfo, verb: &str, role: &Key) -> bool {
    let attributes = Attributes::Resource(ResourceAttributes {
        verb,
        group: RBAC_GROUP,
        resource: role.resource.plural(),
        namespace: Some(role.namespace.as_str()).filter(|namespace| !namespace.is_empty()),
        name: Some(&role.name),
        ..ResourceAttributes::default()
    });
    rbac::allowed(index, user, &attributes)
}
