//! Who asks, as Kubernetes names users: a name, groups, and where it matters a uid and extras.

use std::collections::BTreeMap;

/// Whoever is in it may do everything, whatever the roles say: a swarm can't be locked by a mistake
/// in its roles.
pub const MASTERS: &str = "system:masters";
/// Everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who showed nothing.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// All service accounts, and with `:<namespace>` behind it, those of a namespace.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The user that a service account is.
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the service account that a user is, if one.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of a service account.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        SERVICE_ACCOUNTS.into(),
        format!("{SERVICE_ACCOUNTS}:{namespace}"),
        AUTHENTICATED.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_are_known_by_their_users_name() {
        let name = service_account_name("a", "b");
        assert_eq!(service_account_of(&name), Some(("a", "b")));
        for other in [
            "a",
            "system:serviceaccount:",
            "system:serviceaccount:a",
            "system:serviceaccount:a:",
            "system:serviceaccount::b",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(service_account_of(other), None, "{other}");
        }
    }
}
