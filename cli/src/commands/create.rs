//! `hivectl create`: service accounts, their tokens, roles and bindings, from flags.
//!
//! Everything else is declared in manifests and applied.

use clap::{Args, Subcommand, ValueEnum};
use hive_manifests::{RBAC_GROUP, Resource};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Call, path};
use crate::commands::token::Ttl;
use crate::failure::Failure;
use crate::object;
use crate::output::Format;
use crate::selection;
use crate::session::Session;

#[derive(Debug, Args)]
pub struct Create {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an account for a program
    #[command(visible_alias = "sa")]
    Serviceaccount(Named),
    /// Make a token that speaks for a service account, and print it
    #[command(after_help = "Examples:
  hivectl create token deployer
  hivectl create token deployer --duration 24h
  hivectl create token deployer --audience vault.example.com
  hivectl create token deployer --bound-object-kind Secret --bound-object-name session

A token ends with its time, its account, or what it is bound to; `hivectl token revoke TOKEN` ends it now.")]
    Token(Token),
    /// Make a role: what may be done in a namespace
    #[command(after_help = "Examples:
  hivectl create role reader --verb get,list,watch --resource functions,configmaps
  hivectl create role scaler --verb update,patch --resource functions/scale --resource-name hello")]
    Role(Role),
    /// Make a cluster role: what may be done where it is bound, or everywhere
    #[command(after_help = "Examples:
  hivectl create clusterrole reader --verb get,list,watch --resource nodes
  hivectl create clusterrole scraper --verb get --non-resource-url /metrics
  hivectl create clusterrole all --aggregation-rule team=web")]
    Clusterrole(ClusterRole),
    /// Give a role, or a cluster role, in a namespace
    #[command(after_help = "Examples:
  hivectl create rolebinding deployers --clusterrole edit --serviceaccount default:deployer
  hivectl create rolebinding readers --role reader --user jane --group team")]
    Rolebinding(RoleBinding),
    /// Give a cluster role everywhere
    #[command(after_help = "Examples:
  hivectl create clusterrolebinding readers --clusterrole view --group team")]
    Clusterrolebinding(ClusterRoleBinding),
}

#[derive(Debug, Args)]
struct Named {
    name: String,

    #[command(flatten)]
    how: How,
}

/// Whether it is done, and how it is shown.
#[derive(Debug, Args)]
struct How {
    /// Only show what would be made (client), or let the server judge it too (server)
    #[arg(long, value_enum, default_value = "none", value_name = "HOW")]
    dry_run: DryRun,

    /// Print the object: json, yaml, name, ...
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    None,
    Client,
    Server,
}

#[derive(Debug, Args)]
struct Token {
    /// The service account
    account: String,

    /// How long it is good for, such as 10m, 24h or 30d (the longest). [default: 1h]
    #[arg(long, value_name = "DURATION")]
    duration: Option<Ttl>,

    /// Who is to accept it; may be repeated. [default: the swarm's API]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,

    /// The kind of object that the token ends with
    #[arg(long, value_name = "KIND", requires = "bound_object_name")]
    bound_object_kind: Option<String>,

    /// The name of the object that the token ends with
    #[arg(long, value_name = "NAME", requires = "bound_object_kind")]
    bound_object_name: Option<String>,

    /// Print the whole answer: json or yaml
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct Role {
    name: String,

    /// What may be done, such as get,list
    #[arg(long, required = true, value_delimiter = ',', value_name = "VERB")]
    verb: Vec<String>,

    /// With what: functions, functions/scale, secrets
    #[arg(long, required = true, value_delimiter = ',', value_name = "RESOURCE")]
    resource: Vec<String>,

    /// With these objects only
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    resource_name: Vec<String>,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct ClusterRole {
    name: String,

    /// What may be done, such as get,list
    #[arg(long, value_delimiter = ',', value_name = "VERB")]
    verb: Vec<String>,

    /// With what: nodes, functions/scale, secrets
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "RESOURCE",
        requires = "verb"
    )]
    resource: Vec<String>,

    /// With these objects only
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        requires = "resource"
    )]
    resource_name: Vec<String>,

    /// With which paths that are no resources: /metrics, /healthz/*
    #[arg(
        long = "non-resource-url",
        value_delimiter = ',',
        value_name = "PATH",
        requires = "verb",
        conflicts_with = "resource"
    )]
    urls: Vec<String>,

    /// Made of the cluster roles with these labels
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "KEY=VALUE",
        conflicts_with = "verb",
        required_unless_present = "verb"
    )]
    aggregation_rule: Vec<String>,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct RoleBinding {
    name: String,

    /// The role of this namespace
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "clusterrole",
        required_unless_present = "clusterrole"
    )]
    role: Option<String>,

    /// The cluster role
    #[arg(long, value_name = "NAME")]
    clusterrole: Option<String>,

    #[command(flatten)]
    subjects: Subjects,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct ClusterRoleBinding {
    name: String,

    /// The cluster role
    #[arg(long, value_name = "NAME", required = true)]
    clusterrole: String,

    #[command(flatten)]
    subjects: Subjects,

    #[command(flatten)]
    how: How,
}

/// Whom it is given to.
#[derive(Debug, Args)]
struct Subjects {
    /// A user; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    user: Vec<String>,

    /// A group; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    group: Vec<String>,

    /// A service account; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE:NAME")]
    serviceaccount: Vec<String>,
}

pub async fn run(create: Create, session: &mut Session<'_>) -> Result<(), Failure> {
    match create.command {
        Command::Serviceaccount(account) => {
            let content = json!({});
            let kind = Resource::ServiceAccount;
            store(kind, &account.name, content, account.how, session).await
        }
        Command::Token(wanted) => token(wanted, session).await,
        Command::Role(role) => {
            let rules = rules(&role.verb, &role.resource, &role.resource_name)?;
            let content = json!({ "rules": rules });
            store(Resource::Role, &role.name, content, role.how, session).await
        }
        Command::Clusterrole(role) => {
            let content = cluster_role(&role)?;
            store(
                Resource::ClusterRole,
                &role.name,
                content,
                role.how,
                session,
            )
            .await
        }
        Command::Rolebinding(binding) => {
            let (kind, role) = match (&binding.role, &binding.clusterrole) {
                (Some(role), _) => (Resource::Role, role),
                (None, Some(role)) => (Resource::ClusterRole, role),
                (None, None) => return Err(Failure::usage("say --role or --clusterrole")),
            };
            let content = bound(kind, role, &binding.subjects)?;
            let kind = Resource::RoleBinding;
            store(kind, &binding.name, content, binding.how, session).await
        }
        Command::Clusterrolebinding(binding) => {
            let role = &binding.clusterrole;
            let content = bound(Resource::ClusterRole, role, &binding.subjects)?;
            let kind = Resource::ClusterRoleBinding;
            store(kind, &binding.name, content, binding.how, session).await
        }
    }
}

/// One rule for each API group, as kubectl writes it.
fn rules(verbs: &[String], resources: &[String], names: &[String]) -> Result<Vec<Value>, Failure> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for word in resources {
        let (group, resource) = spelled(word)?;
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, resources)) => resources.push(resource),
            None => groups.push((group, vec![resource])),
        }
    }
    Ok(groups
        .into_iter()
        .map(|(group, resources)| {
            let mut rule = json!({ "verbs": verbs, "apiGroups": [group], "resources": resources });
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
        .collect())
}

/// `fn/scale` is `functions/scale` of `hive.dev`. What is not stored is spelled out with its
/// group: `nodes.metrics.k8s.io`.
fn spelled(word: &str) -> Result<(String, String), Failure> {
    let (kind, subresource) = match word.split_once('/') {
        Some((kind, subresource)) => (kind, Some(subresource)),
        None => (word, None),
    };
    let (group, plural) = match (kind, selection::resource(kind)) {
        ("*", _) => ("*".to_owned(), "*".to_owned()),
        (_, Ok(resource)) => (resource.group().to_owned(), resource.plural().to_owned()),
        (kind, Err(unknown)) => match kind.split_once('.') {
            Some((plural, group)) => (group.to_owned(), plural.to_owned()),
            None => return Err(unknown),
        },
    };
    Ok(match subresource {
        Some(subresource) => (group, format!("{plural}/{subresource}")),
        None => (group, plural),
    })
}

fn cluster_role(role: &ClusterRole) -> Result<Value, Failure> {
    if !role.aggregation_rule.is_empty() {
        let mut labels = json!({});
        for pair in &role.aggregation_rule {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--aggregation-rule {pair:?} is not KEY=VALUE"))
            })?;
            labels[key] = value.into();
        }
        let selectors = json!([{ "matchLabels": labels }]);
        return Ok(
            json!({ "aggregationRule": { "clusterRoleSelectors": selectors }, "rules": [] }),
        );
    }
    if !role.urls.is_empty() {
        let rule = json!({ "verbs": role.verb, "nonResourceURLs": role.urls });
        return Ok(json!({ "rules": [rule] }));
    }
    if role.resource.is_empty() {
        return Err(Failure::usage("say --resource or --non-resource-url"));
    }
    let rules = rules(&role.verb, &role.resource, &role.resource_name)?;
    Ok(json!({ "rules": rules }))
}

fn bound(kind: Resource, role: &str, subjects: &Subjects) -> Result<Value, Failure> {
    let named =
        |kind: &str, name: &String| json!({ "apiGroup": RBAC_GROUP, "kind": kind, "name": name });
    let mut all: Vec<Value> = Vec::new();
    all.extend(subjects.user.iter().map(|name| named("User", name)));
    all.extend(subjects.group.iter().map(|name| named("Group", name)));
    for account in &subjects.serviceaccount {
        let (namespace, name) = account.split_once(':').ok_or_else(|| {
            Failure::usage(format!(
                "--serviceaccount {account:?} is not NAMESPACE:NAME"
            ))
        })?;
        all.push(json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }));
    }
    Ok(json!({
        "roleRef": { "apiGroup": RBAC_GROUP, "kind": kind.kind(), "name": role },
        "subjects": all,
    }))
}

async fn store(
    resource: Resource,
    name: &str,
    content: Value,
    how: How,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let namespace = match resource.namespaced() {
        true => Some(session.namespace().await?),
        false => None,
    };
    let mut made = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind(),
        "metadata": { "name": name },
    });
    if let Some(namespace) = &namespace {
        made["metadata"]["namespace"] = namespace.as_str().into();
    }
    if let (Value::Object(made), Value::Object(content)) = (&mut made, content) {
        made.extend(content);
    }
    if how.dry_run != DryRun::Client {
        let dry_run = how.dry_run == DryRun::Server;
        let cluster = session.cluster().await?;
        made = cluster
            .create(resource, namespace.as_deref(), &made, dry_run)
            .await?;
    }
    match how.output {
        Some(form) => session.world.text(form.render(&made, true)?)?,
        None => {
            let suffix = match how.dry_run {
                DryRun::None => "",
                DryRun::Client => " (dry run)",
                DryRun::Server => " (server dry run)",
            };
            let reference = object::reference(resource, name);
            session
                .world
                .line(format_args!("{reference} created{suffix}"))?;
        }
    }
    Ok(())
}

async fn token(wanted: Token, session: &mut Session<'_>) -> Result<(), Failure> {
    let namespace = session.namespace().await?;
    let mut spec = json!({});
    if !wanted.audience.is_empty() {
        spec["audiences"] = json!(wanted.audience);
    }
    if let Some(duration) = wanted.duration {
        spec["expirationSeconds"] = duration.seconds().into();
    }
    if let (Some(kind), Some(name)) = (&wanted.bound_object_kind, &wanted.bound_object_name) {
        spec["boundObjectRef"] = json!({ "apiVersion": "v1", "kind": kind, "name": name });
    }
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    });
    let account = path::object(Resource::ServiceAccount, Some(&namespace), &wanted.account);
    let path = format!("{account}/token");
    let cluster = session.cluster().await?;
    let answer = cluster
        .json(&Call::new(Method::POST, &path).json(&request))
        .await?;
    match wanted.output {
        Some(form) => session.world.text(form.render(&answer, true)?)?,
        None => {
            let token = answer["status"]["token"].as_str().unwrap_or_default();
            session.world.line(token)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resources_are_spelled_out_with_their_group() {
        for (word, group, resource) in [
            ("fn", "hive.dev", "functions"),
            ("functions/scale", "hive.dev", "functions/scale"),
            ("secret", "", "secrets"),
            ("nodes.metrics.k8s.io", "metrics.k8s.io", "nodes"),
            ("artifacts.hive.dev", "hive.dev", "artifacts"),
            ("*", "*", "*"),
        ] {
            let expected = (group.to_owned(), resource.to_owned());
            assert_eq!(spelled(word).unwrap(), expected, "{word}");
        }
        assert!(spelled("pods").is_err());
    }

    #[test]
    fn a_role_has_one_rule_for_each_group() {
        let words = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
        let rules = rules(&words("get,list"), &words("fn,nodes,cm"), &words("a")).unwrap();
        assert_eq!(
            json!(rules),
            json!([
                { "verbs": ["get", "list"], "apiGroups": ["hive.dev"],
                  "resources": ["functions", "nodes"], "resourceNames": ["a"] },
                { "verbs": ["get", "list"], "apiGroups": [""],
                  "resources": ["configmaps"], "resourceNames": ["a"] },
            ])
        );
    }
}
