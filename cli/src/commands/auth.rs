//! `hivectl auth`: who you are for the swarm, and what you may do.

use clap::{Args, Subcommand};
use hive_manifests::Resource;
use http::Method;
use serde_json::json;

use crate::cluster::Call;
use crate::failure::Failure;
use crate::selection;
use crate::session::Session;
use crate::suggest;

#[derive(Debug, Args)]
pub struct Auth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether you may do something: prints yes or no
    #[command(after_help = "Exit code: 0 yes, 1 no.

Examples:
  hivectl auth can-i create functions
  hivectl auth can-i delete function/hello -n prod
  hivectl auth can-i get secrets -q && echo allowed")]
    CanI(CanI),
    /// Say whom the swarm takes you for
    Whoami,
}

#[derive(Debug, Args)]
struct CanI {
    /// get, list, watch, create, update, patch, delete, deletecollection
    verb: String,

    /// RESOURCE, or RESOURCE/NAME
    resource: String,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

const VERBS: [&str; 9] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "*",
];

pub async fn run(auth: Auth, session: &mut Session<'_>) -> Result<(), Failure> {
    match auth.command {
        Command::CanI(question) => can_i(question, session).await,
        Command::Whoami => whoami(session).await,
    }
}

async fn can_i(question: CanI, session: &mut Session<'_>) -> Result<(), Failure> {
    if !VERBS.contains(&question.verb.as_str()) {
        return Err(Failure::usage(format!(
            "{:?} is not a verb of the API{}",
            question.verb,
            suggest::did_you_mean(&question.verb, VERBS)
        )));
    }
    let (word, name) = match question.resource.split_once('/') {
        Some((word, name)) => (word, Some(name)),
        None => (question.resource.as_str(), None),
    };
    let mut attributes = json!({"verb": question.verb});
    if word == "*" {
        attributes["resource"] = "*".into();
        attributes["group"] = "*".into();
    } else {
        let resource: Resource = selection::resource(word)?;
        attributes["resource"] = resource.plural().into();
        attributes["group"] = resource.group().into();
        if resource.namespaced() && !question.all_namespaces {
            attributes["namespace"] = session.namespace().await?.into();
        }
    }
    if let Some(name) = name {
        attributes["name"] = name.into();
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let cluster = session.cluster().await?;
    let answer = cluster
        .json(&Call::new(Method::POST, path).json(&review))
        .await?;
    let allowed = answer["status"]["allowed"] == true;
    if !question.quiet {
        let reason = answer["status"]["reason"].as_str().unwrap_or_default();
        session.world.line(match (allowed, reason) {
            (true, _) => "yes".to_owned(),
            (false, "") => "no".to_owned(),
            (false, reason) => format!("no - {reason}"),
        })?;
    }
    match allowed {
        true => Ok(()),
        false => Err(Failure::silent(1)),
    }
}

async fn whoami(session: &mut Session<'_>) -> Result<(), Failure> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let cluster = session.cluster().await?;
    let answer = cluster
        .json(&Call::new(Method::POST, path).json(&review))
        .await?;
    let user = &answer["status"]["userInfo"];
    let groups: Vec<&str> = user["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|group| group.as_str())
        .collect();
    let rows = vec![
        vec![
            "Username".to_owned(),
            user["username"].as_str().unwrap_or_default().to_owned(),
        ],
        vec!["Groups".to_owned(), format!("[{}]", groups.join(" "))],
    ];
    session
        .world
        .text(crate::table::simple(&["ATTRIBUTE", "VALUE"], rows, true))?;
    Ok(())
}
