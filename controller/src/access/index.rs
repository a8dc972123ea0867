//! The roles and bindings of a state, arranged by whom they are about.
//!
//! Built when one of them changed and shared by every request until the next change; a lookup
//! parses nothing. What binds a role that is not there grants nothing.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use hive_manifests::Resource;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde::Deserialize;

use super::user::service_account_name;
use crate::state::{Key, Object, State};

/// What the store holds of roles and bindings alike. Both scopes have the same fields.
#[derive(Deserialize)]
struct RoleBody {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingBody {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

/// The rules of one role, as one binding gives them.
#[derive(Clone)]
pub struct Grant {
    pub rules: Arc<[PolicyRule]>,
    binding: Key,
    role: Key,
}

/// All that is granted to one user or one group.
#[derive(Default)]
pub struct Grants {
    /// By ClusterRoleBindings.
    pub cluster: Vec<Grant>,
    /// By RoleBindings, by namespace.
    pub namespaced: HashMap<String, Vec<Grant>>,
}

#[derive(Default)]
pub struct Index {
    revision: u64,
    pub(super) users: HashMap<String, Grants>,
    pub(super) groups: HashMap<String, Grants>,
}

/// The index of the newest roles and bindings that any request has seen.
#[derive(Clone, Default)]
pub struct SharedIndex(Arc<RwLock<Arc<Index>>>);

impl SharedIndex {
    pub fn of(&self, state: &State) -> Arc<Index> {
        let wanted = state.access_revision();
        let current = self.0.read().expect("no holder of the lock panics").clone();
        // A request that read the state a moment ago is judged by the newer rules.
        if current.revision >= wanted {
            return current;
        }
        let mut newest = self.0.write().expect("no holder of the lock panics");
        if newest.revision < wanted {
            *newest = Arc::new(Index::build(state));
        }
        newest.clone()
    }
}

impl Index {
    pub fn build(state: &State) -> Self {
        let mut roles: HashMap<Key, Arc<[PolicyRule]>> = HashMap::new();
        let mut index = Self {
            revision: state.access_revision(),
            ..Self::default()
        };
        for resource in [Resource::ClusterRoleBinding, Resource::RoleBinding] {
            for object in state.list(resource, None) {
                let Some(binding) = parse::<BindingBody>(object) else {
                    continue;
                };
                let namespace = &object.key().namespace;
                let Some(role) = role_key(&binding.role_ref, namespace) else {
                    continue;
                };
                if !roles.contains_key(&role) {
                    let Some(rules) = rules_of(state, &role) else {
                        continue;
                    };
                    roles.insert(role.clone(), rules.into());
                }
                let grant = Grant {
                    rules: roles[&role].clone(),
                    binding: object.key().clone(),
                    role,
                };
                for subject in binding.subjects.into_iter().flatten() {
                    index.add(&subject, namespace, grant.clone());
                }
            }
        }
        index
    }

    /// `namespace` is the binding's, empty for one of the cluster.
    fn add(&mut self, subject: &Subject, namespace: &str, grant: Grant) {
        let (map, name) = match subject.kind.as_str() {
            "User" => (&mut self.users, subject.name.clone()),
            "Group" => (&mut self.groups, subject.name.clone()),
            "ServiceAccount" => {
                let of = subject.namespace.as_deref().unwrap_or_default();
                let of = if of.is_empty() { namespace } else { of };
                (&mut self.users, service_account_name(of, &subject.name))
            }
            _ => return,
        };
        let grants = map.entry(name).or_default();
        match namespace {
            "" => grants.cluster.push(grant),
            namespace => grants
                .namespaced
                .entry(namespace.to_owned())
                .or_default()
                .push(grant),
        }
    }
}

impl Grant {
    /// Why something is allowed, as Kubernetes' audit log and reviews say it.
    pub fn reason(&self, to: &str) -> String {
        let binding = match self.binding.namespace.as_str() {
            "" => self.binding.name.clone(),
            namespace => format!("{}/{namespace}", self.binding.name),
        };
        format!(
            "RBAC: allowed by {} {binding:?} of {} {:?} to {to}",
            self.binding.resource.kind(),
            self.role.resource.kind(),
            self.role.name,
        )
    }
}

/// The role that a binding in `namespace` (empty: of the cluster) names.
pub fn role_key(role: &RoleRef, namespace: &str) -> Option<Key> {
    match role.kind.as_str() {
        "ClusterRole" => Some(Key::new(Resource::ClusterRole, "", &role.name)),
        "Role" if !namespace.is_empty() => Some(Key::new(Resource::Role, namespace, &role.name)),
        _ => None,
    }
}

/// The rules of a stored role.
pub fn rules_of(state: &State, role: &Key) -> Option<Vec<PolicyRule>> {
    Some(
        parse::<RoleBody>(state.get(role)?)?
            .rules
            .unwrap_or_default(),
    )
}

/// What can't be read grants nothing; it passed the validation of another version.
fn parse<T: serde::de::DeserializeOwned>(object: &Object) -> Option<T> {
    object
        .parse()
        .inspect_err(|error| tracing::warn!(object = %object.key(), %error, "ignored: unreadable"))
        .ok()
}
