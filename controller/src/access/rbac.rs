//! Who may do what: role-based access control as Kubernetes has it, as one pure function.
//!
//! A user may do what a rule of a role allows that is bound to them or to one of their groups, in
//! the binding's namespace or everywhere. There is nothing that forbids, with one exception that
//! Kubernetes has not: what is bound for the whole cluster stays outside the system's namespace (see
//! [`is_shielded`]).

use std::collections::HashMap;

use hive_manifests::Resource;
use hive_manifests::resource::GROUP;
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::attributes::{Attributes, ResourceAttributes};
use super::index::{Grant, Grants, Index};
use super::rules;
use super::tokens::SYSTEM_NAMESPACE;
use super::user::{MASTERS, UserInfo};

/// Whether something is allowed, and why or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

/// Said where only the shield is in the way.
const SHIELDED: &str = "what a ClusterRoleBinding grants does not change hive-system nor reach its \
                        secrets, unless it grants everything; bind a role in hive-system itself";

/// Why something is allowed. Made into words only where somebody asks.
enum Permit<'a> {
    Master,
    Grant(&'a Grant, Subject<'a>),
    /// Who deploys functions somewhere uploads their components.
    Deploys,
}

#[derive(Clone, Copy)]
enum Subject<'a> {
    User(&'a str),
    Group(&'a str),
}

/// Whether `user` may, with the reason in words.
pub fn decide(index: &Index, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
    match permit(index, user, attributes) {
        Some(permit) => Decision {
            allowed: true,
            reason: permit.reason(),
        },
        None => Decision {
            allowed: false,
            reason: denial(index, user, attributes).to_owned(),
        },
    }
}

/// Whether `user` may: on the path of every request.
pub fn allowed(index: &Index, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    permit(index, user, attributes).is_some()
}

/// What there is to say about a refusal beyond that nothing allows it; mostly nothing.
pub fn denial(index: &Index, user: &UserInfo, attributes: &Attributes<'_>) -> &'static str {
    let would_be = is_shielded(attributes)
        && of_user(index, user).any(|(_, grants)| {
            grants
                .cluster
                .iter()
                .flat_map(|grant| &*grant.rules)
                .any(|rule| rules::allows(rule, attributes))
        });
    if would_be { SHIELDED } else { "" }
}

/// Whether `user` may do everything everywhere.
pub fn is_master(index: &Index, user: &UserInfo) -> bool {
    user.is_in(MASTERS)
        || of_user(index, user).any(|(_, grants)| {
            grants
                .cluster
                .iter()
                .flat_map(|grant| &*grant.rules)
                .any(rules::is_everything)
        })
}

/// All rules that hold for `user` in a namespace; without one, in the whole cluster.
pub fn rules_for<'a>(
    index: &'a Index,
    user: &'a UserInfo,
    namespace: Option<&str>,
) -> Vec<&'a PolicyRule> {
    of_user(index, user)
        .flat_map(|(_, grants)| {
            let here = namespace.and_then(|namespace| grants.namespaced.get(namespace));
            grants.cluster.iter().chain(here.into_iter().flatten())
        })
        .flat_map(|grant| &*grant.rules)
        .collect()
}

/// The rules that `user` may hand on in a namespace: the shield holds here too.
pub fn held<'a>(
    index: &'a Index,
    user: &'a UserInfo,
    namespace: Option<&str>,
) -> Vec<&'a PolicyRule> {
    if namespace != Some(SYSTEM_NAMESPACE) {
        return rules_for(index, user, namespace);
    }
    of_user(index, user)
        .flat_map(|(_, grants)| {
            let everywhere = grants.cluster.iter().flat_map(|grant| &*grant.rules);
            let here = grants
                .namespaced
                .get(SYSTEM_NAMESPACE)
                .into_iter()
                .flatten();
            everywhere
                .filter(|rule| rules::is_everything(rule))
                .chain(here.flat_map(|grant| &*grant.rules))
        })
        .collect()
}

fn permit<'a>(
    index: &'a Index,
    user: &'a UserInfo,
    attributes: &Attributes<'_>,
) -> Option<Permit<'a>> {
    if user.is_in(MASTERS) {
        return Some(Permit::Master);
    }
    let shielded = is_shielded(attributes);
    let namespace = match attributes {
        Attributes::Resource(asked) => asked.namespace,
        Attributes::Path { .. } => None,
    };
    for (subject, grants) in of_user(index, user) {
        let everywhere = grants.cluster.iter().find(|grant| {
            grant.rules.iter().any(|rule| {
                (!shielded || rules::is_everything(rule)) && rules::allows(rule, attributes)
            })
        });
        let here = || {
            let bound = grants.namespaced.get(namespace?)?;
            bound.iter().find(|grant| {
                grant
                    .rules
                    .iter()
                    .any(|rule| rules::allows(rule, attributes))
            })
        };
        if let Some(grant) = everywhere.or_else(here) {
            return Some(Permit::Grant(grant, subject));
        }
    }
    let Attributes::Resource(asked) = attributes else {
        return None;
    };
    (is_upload(asked) && deploys_somewhere(index, user)).then_some(Permit::Deploys)
}

/// What the roles that are bound for the whole cluster do not reach, unless they allow everything.
///
/// The system's namespace holds the swarm's settings and the hashes of its tokens: who could write
/// there could make themselves an administrator. Kubernetes leaves that to care in writing
/// bindings; here `edit` for the whole cluster is an ordinary thing to give.
fn is_shielded(attributes: &Attributes<'_>) -> bool {
    let Attributes::Resource(asked) = attributes else {
        return false;
    };
    let secrets = asked.is_about("", "secrets");
    match asked.namespace {
        Some(SYSTEM_NAMESPACE) => secrets || !asked.is_read(),
        Some(_) => false,
        // All namespaces include the system's.
        None => {
            secrets
                || asked.verb == "deletecollection"
                    && Resource::by_plural(asked.group, asked.resource)
                        .is_none_or(Resource::namespaced)
        }
    }
}

/// Artifacts lie in no namespace, and a component grants nothing by itself: who may deploy a
/// function anywhere may bring its component along.
fn is_upload(asked: &ResourceAttributes<'_>) -> bool {
    asked.is_about(GROUP, "artifacts")
        && asked.subresource.is_none()
        && matches!(asked.verb, "create" | "get")
}

fn deploys_somewhere(index: &Index, user: &UserInfo) -> bool {
    let deploys = |grant: &Grant| {
        ["create", "update", "patch"].iter().any(|verb| {
            let attributes = Attributes::Resource(ResourceAttributes {
                verb,
                group: GROUP,
                resource: Resource::Function.plural(),
                ..ResourceAttributes::default()
            });
            grant
                .rules
                .iter()
                .any(|rule| rules::allows(rule, &attributes))
        })
    };
    of_user(index, user).any(|(_, grants)| grants.namespaced.values().flatten().any(deploys))
}

/// What is granted to a user by name and by groups.
fn of_user<'a>(
    index: &'a Index,
    user: &'a UserInfo,
) -> impl Iterator<Item = (Subject<'a>, &'a Grants)> {
    let look = |map: &'a HashMap<String, Grants>, name: &str| map.get(name);
    look(&index.users, &user.name)
        .map(|grants| (Subject::User(&user.name), grants))
        .into_iter()
        .chain(user.groups.iter().filter_map(move |group| {
            look(&index.groups, group).map(|grants| (Subject::Group(group), grants))
        }))
}

impl Permit<'_> {
    fn reason(&self) -> String {
        match self {
            Self::Master => format!("member of group {MASTERS:?}"),
            Self::Deploys => "may deploy functions in a namespace".into(),
            Self::Grant(grant, Subject::User(name)) => grant.reason(&format!("User {name:?}")),
            Self::Grant(grant, Subject::Group(name)) => grant.reason(&format!("Group {name:?}")),
        }
    }
}
