//! `hivectl create`: what manifests declare, if it isn't there; and small objects from flags.

mod access;
mod contents;
mod files;
mod token;
mod user;

use clap::{Args, Subcommand};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::arguments::FileArguments;
use crate::commands::apply::DryRun;
use crate::failure::Failure;
use crate::object;
use crate::output::Format;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  hivectl create -f function.yaml                fails if it exists; `hivectl apply` changes it then
  hivectl create namespace shop
  hivectl create secret generic login --from-literal password=..."
)]
pub struct Create {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    files: FileArguments,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a namespace
    #[command(visible_alias = "ns")]
    Namespace(Named),
    /// Make a config map from files and values
    #[command(
        visible_alias = "cm",
        after_help = "Examples:
  hivectl create configmap settings --from-literal mode=fast --from-literal color=blue
  hivectl create configmap pages --from-file index.html --from-file css=style.css
  hivectl create configmap settings --from-env-file settings.env"
    )]
    Configmap(contents::ConfigMap),
    /// Make a secret from files and values
    Secret(contents::Secret),
    /// Make a certificate for a person, and print a kubeconfig with it
    #[command(after_help = "Examples:
  hivectl create user ada --group hive:edit --out ada.kubeconfig
  hivectl create user ada@example.org --group makers --duration 8h > ada.kubeconfig
  hivectl create rolebinding makers --clusterrole edit --group makers -n web

The key is made here and is in the kubeconfig only. Where you may not approve the request yourself, this
waits until somebody does with `hivectl certificate approve`.")]
    User(user::User),
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
    Token(token::Token),
    /// Make a role: what may be done in a namespace
    #[command(after_help = "Examples:
  hivectl create role reader --verb get,list,watch --resource functions,configmaps
  hivectl create role scaler --verb update,patch --resource functions/scale --resource-name hello")]
    Role(access::Role),
    /// Make a cluster role: what may be done where it is bound, or everywhere
    #[command(after_help = "Examples:
  hivectl create clusterrole reader --verb get,list,watch --resource nodes
  hivectl create clusterrole scraper --verb get --non-resource-url /metrics
  hivectl create clusterrole all --aggregation-rule team=web")]
    Clusterrole(access::ClusterRole),
    /// Give a role, or a cluster role, in a namespace
    #[command(after_help = "Examples:
  hivectl create rolebinding deployers --clusterrole edit --serviceaccount default:deployer
  hivectl create rolebinding readers --role reader --user jane --group team")]
    Rolebinding(access::RoleBinding),
    /// Give a cluster role everywhere
    #[command(after_help = "Examples:
  hivectl create clusterrolebinding readers --clusterrole view --group team")]
    Clusterrolebinding(access::ClusterRoleBinding),
}

#[derive(Debug, Args)]
struct Named {
    name: String,

    #[command(flatten)]
    how: How,
}

/// Whether it is done, and how it is shown.
#[derive(Debug, Args)]
pub struct How {
    /// Only show what would be made (client), or let the server judge it too (server)
    #[arg(long, value_enum, default_value = "none", value_name = "HOW")]
    pub dry_run: DryRun,

    /// Print the object: json, yaml, name, ...
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<Format>,
}

pub async fn run(create: Create, session: &mut Session<'_>) -> Result<(), Failure> {
    let Some(command) = create.command else {
        return files::run(&create.files, &create.how, session).await;
    };
    let (resource, name, content, how) = match command {
        Command::Token(wanted) => return token::run(wanted, session).await,
        Command::User(wanted) => return user::run(wanted, session).await,
        Command::Namespace(named) => (Resource::Namespace, named.name, json!({}), named.how),
        Command::Serviceaccount(named) => {
            (Resource::ServiceAccount, named.name, json!({}), named.how)
        }
        Command::Configmap(map) => {
            let content = map.content()?;
            (Resource::ConfigMap, map.name, content, map.how)
        }
        Command::Secret(secret) => {
            let content = secret.content()?;
            let (name, how) = secret.into_named();
            (Resource::Secret, name, content, how)
        }
        Command::Role(role) => {
            let content = role.content()?;
            (Resource::Role, role.name, content, role.how)
        }
        Command::Clusterrole(role) => {
            let content = role.content()?;
            (Resource::ClusterRole, role.name, content, role.how)
        }
        Command::Rolebinding(binding) => {
            let content = binding.content()?;
            (Resource::RoleBinding, binding.name, content, binding.how)
        }
        Command::Clusterrolebinding(binding) => {
            let content = binding.content()?;
            let kind = Resource::ClusterRoleBinding;
            (kind, binding.name, content, binding.how)
        }
    };
    store(resource, &name, content, how, session).await
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
            let reference = object::reference(resource, name);
            let suffix = how.dry_run.suffix();
            session
                .world
                .line(format_args!("{reference} created{suffix}"))?;
        }
    }
    Ok(())
}
