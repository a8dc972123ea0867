//! The roles and bindings that every swarm has: Kubernetes' own, for the kinds that there are here.
//!
//! Only says what should be; a reconciler makes it so and adds what a new release needs. Who
//! annotates one with `rbac.authorization.kubernetes.io/autoupdate: "false"` has the last word.

use hive_manifests::resource::GROUP;
use hive_manifests::{CERTIFICATES_GROUP, RBAC_GROUP, Resource};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::tokens::Role;
use super::user::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS, UNAUTHENTICATED};
use crate::state::Key;

pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// One object that every swarm has; metadata are put in by who creates it.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub key: Key,
    pub labels: Value,
    /// The fields beside apiVersion, kind and metadata.
    pub content: Value,
}

/// All of them, roles before what binds them.
pub fn wanted() -> Vec<Wanted> {
    let mut all = roles();
    all.extend(bindings());
    all
}

fn roles() -> Vec<Wanted> {
    vec![
        role(
            "cluster-admin",
            vec![rule(&["*"], &["*"], &["*"]), urls(&["*"], &["*"])],
        ),
        aggregated("admin", &["admin"], None),
        aggregated("edit", &["edit"], Some("admin")),
        aggregated("view", &["view"], Some("edit")),
        part("admin", to_admin()),
        part("edit", to_edit()),
        part("view", to_view()),
        role(
            "system:discovery",
            vec![urls(
                &["get"],
                &[
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                    "/healthz",
                    "/livez",
                    "/openapi",
                    "/openapi/*",
                    "/readyz",
                    "/version",
                    "/version/",
                ],
            )],
        ),
        role(
            "system:public-info-viewer",
            vec![urls(
                &["get"],
                &["/healthz", "/livez", "/readyz", "/version", "/version/"],
            )],
        ),
        role(
            "system:basic-user",
            vec![
                rule(
                    &["create"],
                    &[AUTHORIZATION],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                ),
                rule(&["create"], &[AUTHENTICATION], &["selfsubjectreviews"]),
            ],
        ),
        role(
            "system:monitoring",
            vec![urls(
                &["get"],
                &[
                    "/healthz",
                    "/healthz/*",
                    "/livez",
                    "/livez/*",
                    "/metrics",
                    "/metrics/functions",
                    "/readyz",
                    "/readyz/*",
                ],
            )],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule(&["create"], &[AUTHENTICATION], &["tokenreviews"]),
                rule(&["create"], &[AUTHORIZATION], &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![urls(
                &["get"],
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
            )],
        ),
        role(
            "hive:node-operator",
            vec![
                rule(
                    &["get", "list", "watch", "patch", "update", "delete"],
                    &[GROUP],
                    &["nodes"],
                ),
                rule(READ, &[GROUP], &["assignments", "functions", "tunnels"]),
                rule(READ, &[""], &["events"]),
                rule(&["get", "list"], &["metrics.k8s.io"], &["nodes"]),
            ],
        ),
    ]
}

fn bindings() -> Vec<Wanted> {
    let roles = |role: Role| format!("hive:{}", role.name());
    let (edit, view) = (roles(Role::Edit), roles(Role::View));
    vec![
        binding("cluster-admin", "cluster-admin", &[MASTERS]),
        binding(&roles(Role::Admin), "cluster-admin", &[&roles(Role::Admin)]),
        binding(&edit, "edit", &[&edit]),
        binding(&view, "view", &[&view]),
        binding("system:discovery", "system:discovery", &[AUTHENTICATED]),
        binding("system:basic-user", "system:basic-user", &[AUTHENTICATED]),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[AUTHENTICATED, UNAUTHENTICATED],
        ),
        binding(
            "system:monitoring",
            "system:monitoring",
            &["system:monitoring", &edit, &view],
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            &[SERVICE_ACCOUNTS],
        ),
    ]
}

/// Looks at everything but secrets and who may do what.
fn to_view() -> Vec<PolicyRule> {
    let mut rules = of_stored_kinds(
        READ,
        |kind| {
            let says_who = matches!(kind.group(), RBAC_GROUP | CERTIFICATES_GROUP);
            kind != Resource::Secret && !says_who
        },
        true,
    );
    rules.extend([
        rule(&["get"], &[GROUP], &["functions/log", "functions/proxy"]),
        rule(READ, &[GROUP], &["artifacts", "controllers"]),
        rule(&["get", "list"], &["metrics.k8s.io"], &["nodes"]),
        rule(&["get", "list"], &["metrics.hive.dev"], &["functions"]),
        rule(
            &["get", "list"],
            &["metering.hive.dev"],
            &["functions", "namespaces"],
        ),
    ]);
    rules
}

/// Changes what runs in namespaces, with secrets and service accounts; not its own limits, nor who
/// may do what, nor what the scheduler decides, nor what functions were.
fn to_edit() -> Vec<PolicyRule> {
    let mut rules = of_stored_kinds(
        WRITE,
        |kind| {
            let is_given = matches!(
                kind,
                Resource::ResourceQuota
                    | Resource::LimitRange
                    | Resource::ControllerRevision
                    | Resource::Assignment
            );
            kind.namespaced() && !is_given && kind.group() != RBAC_GROUP
        },
        false,
    );
    rules.extend([
        rule(READ, &[""], &["secrets"]),
        rule(&["patch", "update"], &[GROUP], &["functions/scale"]),
        rule(&["create"], &[GROUP], &["functions/proxy"]),
        // The scheduler makes another.
        rule(&["delete", "deletecollection"], &[GROUP], &["assignments"]),
        rule(&["create"], &[GROUP], &["artifacts"]),
        rule(&["create"], &[""], &["serviceaccounts/token"]),
        rule(&["impersonate"], &[""], &["serviceaccounts"]),
    ]);
    rules
}

/// Says who may do what in a namespace.
fn to_admin() -> Vec<PolicyRule> {
    let mut roles = READ.to_vec();
    roles.extend(WRITE);
    vec![
        rule(&roles, &[RBAC_GROUP], &["rolebindings", "roles"]),
        rule(
            &["create"],
            &[AUTHORIZATION],
            &["localsubjectaccessreviews"],
        ),
    ]
}

/// One rule a group for the kinds that the store has: a new kind is in the roles from its first day.
fn of_stored_kinds(
    verbs: &[&str],
    select: impl Fn(Resource) -> bool,
    subresources: bool,
) -> Vec<PolicyRule> {
    let mut groups: Vec<&str> = Vec::new();
    for kind in Resource::ALL {
        if !groups.contains(&kind.group()) {
            groups.push(kind.group());
        }
    }
    let mut rules = Vec::new();
    for group in groups {
        let mut resources = Vec::new();
        for kind in Resource::ALL {
            if kind.group() != group || !select(kind) {
                continue;
            }
            resources.push(kind.plural().to_owned());
            if subresources && kind.has_status() {
                resources.push(format!("{}/status", kind.plural()));
            }
            if subresources && kind.has_scale() {
                resources.push(format!("{}/scale", kind.plural()));
            }
        }
        if !resources.is_empty() {
            let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
            rules.push(rule(verbs, &[group], &resources));
        }
    }
    rules
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: texts(verbs),
        api_groups: Some(texts(groups)),
        resources: Some(texts(resources)),
        ..PolicyRule::default()
    }
}

fn urls(verbs: &[&str], urls: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: texts(verbs),
        non_resource_urls: Some(texts(urls)),
        ..PolicyRule::default()
    }
}

fn role(name: &str, rules: Vec<PolicyRule>) -> Wanted {
    Wanted {
        key: Key::new(Resource::ClusterRole, "", name),
        labels: json!({ BOOTSTRAPPING: "rbac-defaults" }),
        content: json!({ "rules": rules }),
    }
}

/// What `name` consists of: other releases and their users add parts of their own.
fn part(name: &str, rules: Vec<PolicyRule>) -> Wanted {
    let mut part = role(&format!("system:aggregate-to-{name}"), rules);
    part.labels[format!("{AGGREGATE}{name}")] = "true".into();
    part
}

fn aggregated(name: &str, from: &[&str], into: Option<&str>) -> Wanted {
    let mut role = role(name, Vec::new());
    let selectors: Vec<Value> = from
        .iter()
        .map(|from| json!({ "matchLabels": { format!("{AGGREGATE}{from}"): "true" } }))
        .collect();
    // No rules: they are put together from the parts.
    role.content = json!({ "aggregationRule": { "clusterRoleSelectors": selectors } });
    if let Some(into) = into {
        role.labels[format!("{AGGREGATE}{into}")] = "true".into();
    }
    role
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Wanted {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| json!({ "apiGroup": RBAC_GROUP, "kind": "Group", "name": group }))
        .collect();
    Wanted {
        key: Key::new(Resource::ClusterRoleBinding, "", name),
        labels: json!({ BOOTSTRAPPING: "rbac-defaults" }),
        content: json!({
            "roleRef": { "apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role },
            "subjects": subjects,
        }),
    }
}
