//! The commands, one file each; here they are only listed and started.

mod annotate;
mod api_resources;
mod apply;
mod auth;
mod backup;
mod certificate;
mod cluster_info;
mod completion;
mod config;
mod controller;
mod cordon;
mod create;
mod delete;
mod describe;
mod diff;
mod drain;
mod edit;
mod events;
mod explain;
mod expose;
mod get;
mod get_token;
mod invoke;
mod login;
mod logs;
mod lookup;
mod push;
mod rollout;
mod scale;
mod token;
mod top;
mod usage;
mod version;
mod wait;

use clap::Subcommand;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the swarm as the manifests say
    Apply(apply::Apply),
    /// Show one or many objects
    Get(get::Get),
    /// Show an object with what belongs to it: conditions, assignments, events
    Describe(describe::Describe),
    /// Delete objects by manifest, by name or by label
    Delete(delete::Delete),
    /// Show what apply would change
    Diff(diff::Diff),
    /// Change an object in your editor
    Edit(edit::Edit),
    /// Print what a function writes
    Logs(logs::Logs),
    /// Put a component into a registry of images
    Push(push::PushArguments),
    /// Send a request to a function and print the answer
    Invoke(invoke::Invoke),
    /// Give a service on a node, or a function, an address at the controllers
    Expose(expose::Expose),
    /// Say how many replicas of a function run
    Scale(scale::Scale),
    /// Wait until objects have a condition, a value, or are gone
    Wait(wait::Wait),
    /// Follow a change of a function until it runs everywhere
    Rollout(rollout::Rollout),
    /// Show what nodes or functions use
    Top(top::Top),
    /// Show what functions and namespaces used so far, as one would bill it
    Usage(usage::Usage),
    /// Show what happened
    Events(events::Events),
    /// Keep new work off a node
    Cordon(cordon::Cordon),
    /// Let a node take new work again
    Uncordon(cordon::Uncordon),
    /// Keep new work off a node and move its work elsewhere
    Drain(drain::Drain),
    /// Set or remove labels
    Label(annotate::Label),
    /// Set or remove annotations
    Annotate(annotate::Annotate),
    /// Say what a manifest may contain
    Explain(explain::Explain),
    /// Make a service account, its token, a role or a binding from flags
    Create(create::Create),
    /// Make, list and revoke tokens for nodes, controllers and people
    Token(token::Token),
    /// Show, replace and remove the swarm's controllers
    #[command(visible_alias = "controllers")]
    Controller(controller::Controller),
    /// Take a backup of the swarm while it serves, or verify one
    Backup(backup::Backup),
    /// Approve, deny and revoke the certificates of people
    Certificate(certificate::Certificate),
    /// Sign in at the OpenID issuer that the swarm trusts
    Login(login::Login),
    /// Print a token of the issuer: what kubectl and hivectl ask after `login`
    GetToken(get_token::GetToken),
    /// Ask what you may do
    Auth(auth::Auth),
    /// List the resources that the server has
    ApiResources(api_resources::ApiResources),
    /// List the versions of the API that the server has
    ApiVersions,
    /// Show where the controllers are and whether they are ready
    ClusterInfo,
    /// Show and change the kubeconfig
    Config(config::Config),
    /// Print a completion script for your shell
    Completion(completion::Completion),
    /// Show the versions of hivectl and of the server
    Version(version::Version),
}

pub async fn run(command: Command, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        Command::Apply(apply) => apply::run(apply, session).await,
        Command::Get(get) => get::run(get, session).await,
        Command::Describe(describe) => describe::run(describe, session).await,
        Command::Delete(delete) => delete::run(delete, session).await,
        Command::Diff(diff) => diff::run(diff, session).await,
        Command::Edit(edit) => edit::run(edit, session).await,
        Command::Logs(logs) => logs::run(logs, session).await,
        Command::Push(push) => push::run(push, session).await,
        Command::Invoke(invoke) => invoke::run(invoke, session).await,
        Command::Expose(expose) => expose::run(expose, session).await,
        Command::Scale(scale) => scale::run(scale, session).await,
        Command::Wait(wait) => wait::run(wait, session).await,
        Command::Rollout(rollout) => rollout::run(rollout, session).await,
        Command::Top(top) => top::run(top, session).await,
        Command::Usage(usage) => usage::run(usage, session).await,
        Command::Events(events) => events::run(events, session).await,
        Command::Cordon(cordon) => cordon::cordon(cordon, session).await,
        Command::Uncordon(uncordon) => cordon::uncordon(uncordon, session).await,
        Command::Drain(drain) => drain::run(drain, session).await,
        Command::Label(label) => annotate::label(label, session).await,
        Command::Annotate(annotate) => annotate::annotate(annotate, session).await,
        Command::Explain(explain) => explain::run(explain, session),
        Command::Create(create) => create::run(create, session).await,
        Command::Token(token) => token::run(token, session).await,
        Command::Controller(controller) => controller::run(controller, session).await,
        Command::Backup(backup) => backup::run(backup, session).await,
        Command::Certificate(certificate) => certificate::run(certificate, session).await,
        Command::Login(login) => login::run(login, session).await,
        Command::GetToken(get) => get_token::run(get, session).await,
        Command::Auth(auth) => auth::run(auth, session).await,
        Command::ApiResources(resources) => api_resources::resources(resources, session).await,
        Command::ApiVersions => api_resources::versions(session).await,
        Command::ClusterInfo => cluster_info::run(session).await,
        Command::Config(config) => config::run(config, session),
        Command::Completion(completion) => completion::run(completion, session),
        Command::Version(version) => version::run(version, session).await,
    }
}
