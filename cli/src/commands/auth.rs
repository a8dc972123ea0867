//! `hivectl auth`: who you are for the swarm, and what you may do.

use clap::{Args, Subcommand};
use hive_manifests::Resource;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Call;
use crate::failure::Failure;
use crate::selection;
use crate::session::Session;
use crate::suggest;
use crate::table;

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
  hivectl auth can-i get secrets -q && echo allowed
  hivectl auth can-i get /metrics
  hivectl auth can-i --list -n prod
  hivectl auth can-i list functions --as system:serviceaccount:default:deployer")]
    CanI(CanI),
    /// Say whom the swarm takes you for
    Whoami,
}

#[derive(Debug, Args)]
struct CanI {
    /// get, list, watch, create, update, patch, delete, deletecollection, ...
    #[arg(required_unless_present = "list")]
    verb: Option<String>,

    /// RESOURCE, RESOURCE/NAME, or a path such as /metrics
    #[arg(required_unless_present = "list")]
    resource: Option<String>,

    /// The part of the resource, such as scale or log
    #[arg(long, value_name = "PART")]
    subresource: Option<String>,

    /// List all that you may do in the namespace
    #[arg(long, conflicts_with_all = ["verb", "resource", "subresource", "all_namespaces", "quiet"])]
    list: bool,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "*",
];

pub async fn run(auth: Auth, session: &mut Session<'_>) -> Result<(), Failure> {
    match auth.command {
        Command::CanI(question) => can_i(question, session).await,
        Command::Whoami => whoami(session).await,
    }
}

async fn can_i(question: CanI, session: &mut Session<'_>) -> Result<(), Failure> {
    let (Some(verb), Some(about)) = (&question.verb, &question.resource) else {
        return list(session).await;
    };
    let asked = match about.starts_with('/') {
        true => (
            "nonResourceAttributes",
            json!({"verb": verb, "path": about}),
        ),
        false => {
            let attributes = attributes(verb, about, &question, session).await?;
            ("resourceAttributes", attributes)
        }
    };
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {asked.0: asked.1},
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

async fn attributes(
    verb: &str,
    about: &str,
    question: &CanI,
    session: &mut Session<'_>,
) -> Result<Value, Failure> {
    if !VERBS.contains(&verb) {
        return Err(Failure::usage(format!(
            "{verb:?} is not a verb of the API{}",
            suggest::did_you_mean(verb, VERBS)
        )));
    }
    let (word, name) = match about.split_once('/') {
        Some((word, name)) => (word, Some(name)),
        None => (about, None),
    };
    let mut attributes = json!({"verb": verb});
    if word == "*" {
        attributes["resource"] = "*".into();
        attributes["group"] = "*".into();
    } else if matches!(word, "users" | "groups") && verb == "impersonate" {
        attributes["resource"] = word.into();
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
    if let Some(subresource) = &question.subresource {
        attributes["subresource"] = subresource.as_str().into();
    }
    Ok(attributes)
}

/// All that may be done in the namespace, laid out as kubectl does.
async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": session.namespace().await?},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let cluster = session.cluster().await?;
    let answer = cluster
        .json(&Call::new(Method::POST, path).json(&review))
        .await?;
    let headers = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"];
    let rows = rows_of_rules(&answer["status"]);
    session.world.text(table::simple(&headers, rows, true))?;
    Ok(())
}

fn rows_of_rules(status: &Value) -> Vec<Vec<String>> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let listed = |items: &[String]| format!("[{}]", items.join(" "));
    let rules = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for rule in rules("resourceRules") {
        let groups = texts(&rule["apiGroups"]);
        for resource in texts(&rule["resources"]) {
            for group in &groups {
                let resource = match (group.as_str(), resource.split_once('/')) {
                    ("", _) => resource.clone(),
                    (group, Some((resource, part))) => format!("{resource}.{group}/{part}"),
                    (group, None) => format!("{resource}.{group}"),
                };
                rows.push(vec![
                    resource,
                    listed(&[]),
                    listed(&texts(&rule["resourceNames"])),
                    listed(&texts(&rule["verbs"])),
                ]);
            }
        }
    }
    for rule in rules("nonResourceRules") {
        for url in texts(&rule["nonResourceURLs"]) {
            rows.push(vec![
                String::new(),
                listed(&[url]),
                listed(&[]),
                listed(&texts(&rule["verbs"])),
            ]);
        }
    }
    rows.sort();
    rows.dedup();
    rows
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
    let mut rows = vec![
        vec![
            "Username".to_owned(),
            user["username"].as_str().unwrap_or_default().to_owned(),
        ],
        vec!["Groups".to_owned(), format!("[{}]", groups.join(" "))],
    ];
    if let Some(uid) = user["uid"].as_str() {
        rows.insert(1, vec!["UID".to_owned(), uid.to_owned()]);
    }
    session
        .world
        .text(table::simple(&["ATTRIBUTE", "VALUE"], rows, true))?;
    Ok(())
}
