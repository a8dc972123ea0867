//! `hivectl config`: show and change the kubeconfig.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use kube::config::{Context, Kubeconfig, NamedContext};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::kubeconfig;
use crate::output::Format;
use crate::session::Session;
use crate::table;

#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the kubeconfig, without its secrets
    #[command(after_help = "Examples:
  hivectl config view
  hivectl config view --without-users > swarm.kubeconfig      for people who have a login, see `hivectl login`")]
    View(View),
    /// Print the name of the context in use
    CurrentContext,
    /// List the contexts
    GetContexts(GetContexts),
    /// Choose the context that commands use
    #[command(visible_alias = "use")]
    UseContext(UseContext),
    /// Change a context, or make one
    #[command(after_help = "Examples:
  hivectl config set-context --current --namespace=prod
  hivectl config set-context ci --cluster=home --user=ci")]
    SetContext(SetContext),
}

#[derive(Debug, Args)]
struct View {
    /// json or yaml
    #[arg(short, long, value_name = "FORM", default_value = "yaml")]
    output: Format,

    /// A whole kubeconfig for the cluster in use, with nobody's credentials in it: it can be handed around
    #[arg(long)]
    without_users: bool,
}

#[derive(Debug, Args)]
struct GetContexts {
    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
struct UseContext {
    name: String,
}

#[derive(Debug, Args)]
struct SetContext {
    /// The context to change or make
    #[arg(required_unless_present = "current", conflicts_with = "current")]
    name: Option<String>,

    /// Change the context in use
    #[arg(long)]
    current: bool,

    /// Its user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub fn run(config: Config, session: &mut Session<'_>) -> Result<(), Failure> {
    let (paths, merged) = session.kubeconfig()?;
    match config.command {
        Command::View(view) => {
            let shown = match view.without_users {
                true => without_users(&merged, session)?,
                false => kubeconfig::redact(&merged).map_err(unshowable)?,
            };
            session.world.text(view.output.render(&shown, true)?)?;
            Ok(())
        }
        Command::CurrentContext => {
            let wanted = session.globals.context.as_deref();
            let name = &kubeconfig::context(&merged, wanted)?.name;
            session.world.line(name)?;
            Ok(())
        }
        Command::GetContexts(get) => {
            let rows = merged
                .contexts
                .iter()
                .map(|named| row(&merged, named))
                .collect();
            let headers = ["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"];
            session
                .world
                .text(table::simple(&headers, rows, !get.no_headers))?;
            Ok(())
        }
        Command::UseContext(UseContext { name }) => {
            kubeconfig::context(&merged, Some(&name))?;
            // As kubectl: the first file that names a current context decides, so that one is changed.
            change(
                &paths,
                |file| file.current_context.is_some(),
                |file| {
                    file.current_context = Some(name.clone());
                },
            )?;
            session
                .world
                .line(format_args!("Switched to context {name:?}."))?;
            Ok(())
        }
        Command::SetContext(set) => set_context(set, &paths, &merged, session),
    }
}

fn unshowable(error: serde_json::Error) -> Failure {
    Failure::new(format_args!("cannot show it: {error}"))
}

/// The cluster of the context in use, and a context for whoever comes.
fn without_users(merged: &Kubeconfig, session: &Session<'_>) -> Result<Value, Failure> {
    let context = kubeconfig::context(merged, session.globals.context.as_deref())?;
    let context = context.context.clone().unwrap_or_default();
    let name = session
        .globals
        .cluster
        .as_deref()
        .unwrap_or(&context.cluster);
    let mut cluster = kubeconfig::cluster(merged, name)?.clone();
    // It is to be of use on another machine: what a file holds goes along.
    if let Some(path) = cluster.certificate_authority.take() {
        let pem = std::fs::read(&path)
            .map_err(|error| Failure::new(format_args!("cannot read {path}: {error}")))?;
        cluster.certificate_authority_data = Some(BASE64.encode(pem));
    }
    let namespace = session.globals.namespace.clone().or(context.namespace);
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{ "name": name, "cluster": serde_json::to_value(cluster).map_err(unshowable)? }],
        "contexts": [{ "name": name, "context": match namespace {
            Some(namespace) => json!({ "cluster": name, "user": "", "namespace": namespace }),
            None => json!({ "cluster": name, "user": "" }),
        } }],
        "users": [],
    }))
}

fn row(kubeconfig: &Kubeconfig, named: &NamedContext) -> Vec<String> {
    let context = named.context.clone().unwrap_or_default();
    let current = kubeconfig.current_context.as_deref() == Some(named.name.as_str());
    vec![
        if current { "*" } else { "" }.into(),
        named.name.clone(),
        context.cluster,
        context.user.unwrap_or_default(),
        context.namespace.unwrap_or_default(),
    ]
}

fn set_context(
    set: SetContext,
    paths: &[PathBuf],
    merged: &Kubeconfig,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let name = match set.name {
        Some(name) => name,
        None => kubeconfig::context(merged, None)?.name.clone(),
    };
    let cluster = session.globals.cluster.clone();
    let namespace = session.globals.namespace.clone();
    if cluster.is_none() && namespace.is_none() && set.user.is_none() {
        return Err(Failure::usage(
            "say what to set: --namespace, --cluster or --user",
        ));
    }
    if let Some(cluster) = &cluster {
        kubeconfig::cluster(merged, cluster)?;
    }
    let known = merged.contexts.iter().any(|named| named.name == name);
    if !known && cluster.is_none() {
        return Err(Failure::usage(format!(
            "a new context needs a --cluster; there is no context {name:?} yet"
        )));
    }
    change(
        paths,
        |file| file.contexts.iter().any(|named| named.name == name),
        |file| {
            let position = file.contexts.iter().position(|named| named.name == name);
            let position = position.unwrap_or_else(|| {
                file.contexts.push(NamedContext {
                    name: name.clone(),
                    ..NamedContext::default()
                });
                file.contexts.len() - 1
            });
            let context = file.contexts[position]
                .context
                .get_or_insert_with(Context::default);
            if let Some(cluster) = cluster {
                context.cluster = cluster;
            }
            if namespace.is_some() {
                context.namespace = namespace;
            }
            if set.user.is_some() {
                context.user = set.user;
            }
        },
    )?;
    session.world.line(format_args!(
        "Context {name:?} {}.",
        if known { "modified" } else { "created" }
    ))?;
    Ok(())
}

/// Changes the first file for which `concerned` holds, or the first of all.
fn change(
    paths: &[PathBuf],
    concerned: impl Fn(&Kubeconfig) -> bool,
    edit: impl FnOnce(&mut Kubeconfig),
) -> Result<(), Failure> {
    let mut chosen = None;
    for path in paths {
        let file = kubeconfig::read_unresolved(path)?;
        if chosen.is_none() || concerned(&file) {
            let found = concerned(&file);
            chosen = Some((path, file));
            if found {
                break;
            }
        }
    }
    let Some((path, mut file)) = chosen else {
        return Err(Failure::new("there is no kubeconfig to change"));
    };
    edit(&mut file);
    kubeconfig::write(path, &file)?;
    Ok(())
}
