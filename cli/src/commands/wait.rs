//! `hivectl wait`: until objects have a condition or a value, exist, or are gone.

use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use hive_manifests::duration::GoDuration;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::commands::lookup::{self, Targets, finish};
use crate::failure::Failure;
use crate::jsonpath::{Template, scalar_text};
use crate::object;
use crate::selection;
use crate::session::Session;
use crate::suggest;
use crate::watch::{self, Scope};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl wait --for=condition=Available function/hello
  hivectl wait --for=condition=Ready=Unknown node/pi --timeout=5m
  hivectl wait --for=jsonpath='{.status.readyReplicas}'=3 fn/hello
  hivectl wait --for=delete function -l app=shop
  hivectl wait --for=create node/pi")]
pub struct Wait {
    #[command(flatten)]
    targets: Targets,

    /// condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], delete or create
    #[arg(long = "for", value_name = "WHAT")]
    goal: Goal,

    /// How long to wait for all of them; 0 looks once
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: GoDuration,
}

/// What is waited for.
#[derive(Clone, Debug)]
enum Goal {
    Condition {
        kind: String,
        status: String,
    },
    JsonPath {
        path: Template,
        value: Option<String>,
    },
    Delete,
    Create,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(condition) = text.strip_prefix("condition=") {
            let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
            if kind.is_empty() {
                return Err(
                    "condition= needs the condition's type, such as condition=Ready".into(),
                );
            }
            return Ok(Self::Condition {
                kind: kind.into(),
                status: status.into(),
            });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let (path, value) = match rest.rfind('}') {
                // A value follows the brace; a filter inside may hold an equals sign of its own.
                Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
                None => match rest.split_once('=') {
                    Some((path, value)) => (path, Some(value)),
                    None => (rest, None),
                },
            };
            return Ok(Self::JsonPath {
                path: path
                    .parse()
                    .map_err(|error| crate::failure::chain(&error))?,
                value: value.map(str::to_owned),
            });
        }
        match text {
            "delete" => Ok(Self::Delete),
            "create" => Ok(Self::Create),
            _ => Err(format!(
                "{text:?} is nothing to wait for{}; write condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], delete or create",
                suggest::did_you_mean(text, ["delete", "create", "condition=", "jsonpath="])
            )),
        }
    }
}

impl Goal {
    fn is_met(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Delete, object) => object.is_none(),
            (Self::Create, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition { kind, status }, Some(object)) => {
                object::has_condition(object, kind, status)
            }
            (Self::JsonPath { path, value }, Some(object)) => {
                let found = path.select(object);
                match value {
                    None => !found.is_empty(),
                    Some(value) => found.iter().any(|found| scalar_text(found) == *value),
                }
            }
        }
    }
}

pub async fn run(wait: Wait, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let deadline = Instant::now() + wait.timeout.0;
    let mut failures = Vec::new();
    let scopes = scopes(&wait, session, &mut failures).await?;
    if scopes.is_empty() && failures.is_empty() {
        if matches!(wait.goal, Goal::Delete) {
            return Ok(());
        }
        return Err(Failure::new("no matching resources found"));
    }
    for (scope, name) in scopes {
        match wait_for(&wait.goal, &scope, &name, deadline, &cluster).await? {
            Ok(()) => session.world.line(format_args!(
                "{} condition met",
                object::reference(scope.resource, &name)
            ))?,
            Err(failure) => failures.push(failure),
        }
    }
    finish(failures)
}

/// One scope for each object waited for.
async fn scopes(
    wait: &Wait,
    session: &mut Session<'_>,
    failures: &mut Vec<Failure>,
) -> Result<Vec<(Scope, String)>, Failure> {
    let selections = selection::parse(&wait.targets.words)?;
    let named = selections
        .iter()
        .all(|selection| !selection.names.is_empty());
    // What does not exist may yet come, or be gone as wished: it is not looked up first.
    if named && matches!(wait.goal, Goal::Create | Goal::Delete) {
        let mut scopes = Vec::new();
        for selection in selections {
            let namespace = lookup::namespace_for(selection.resource, session).await?;
            for name in selection.names {
                scopes.push((
                    Scope::one(selection.resource, namespace.as_deref(), &name),
                    name,
                ));
            }
        }
        return Ok(scopes);
    }
    let found = wait.targets.find(session).await?;
    failures.extend(found.missing);
    Ok(found
        .targets
        .into_iter()
        .map(|target| {
            let name = target.name().to_owned();
            (
                Scope::one(target.resource, target.namespace.as_deref(), &name),
                name,
            )
        })
        .collect())
}

async fn wait_for(
    goal: &Goal,
    scope: &Scope,
    name: &str,
    deadline: Instant,
    cluster: &Cluster,
) -> Result<Result<(), Failure>, Failure> {
    let mut seen = false;
    let mut last = Value::Null;
    let met = watch::until(cluster, scope, Some(deadline), |objects| {
        let object = objects.values().next();
        seen |= object.is_some();
        last = object.cloned().unwrap_or_default();
        let vanished = seen && object.is_none() && !matches!(goal, Goal::Delete);
        match (goal.is_met(object), vanished) {
            (true, _) => Some(true),
            // It was deleted while being waited for: it will not come to be.
            (false, true) => Some(false),
            (false, false) => None,
        }
    })
    .await?;
    let reference = format!("{}/{name}", scope.resource.plural());
    match met {
        Some(true) => Ok(Ok(())),
        Some(false) => Ok(Err(Failure::new(format_args!(
            "{reference} was deleted while being waited for"
        )))),
        None => {
            let failure = Failure::new(format_args!(
                "timed out waiting for the condition on {reference}"
            ));
            Ok(Err(explain(failure, goal, &last)))
        }
    }
}

/// Says what is instead of what was waited for.
fn explain(failure: Failure, goal: &Goal, last: &Value) -> Failure {
    match goal {
        Goal::Condition { kind, .. } => {
            let known = object::conditions(last)
                .iter()
                .filter_map(|condition| condition["type"].as_str());
            let misspelt = object::condition(last, kind).is_none();
            let near = suggest::nearest(kind, known).filter(|_| misspelt);
            let failure = match object::conditions_text(last).as_str() {
                "" => failure.hint("it has no conditions"),
                text => failure.hint(format_args!("its conditions are: {text}")),
            };
            match near {
                Some(near) => failure.hint(format_args!("did you mean condition={near}?")),
                None => failure,
            }
        }
        Goal::JsonPath { path, .. } => {
            let found: Vec<String> = path.select(last).into_iter().map(scalar_text).collect();
            match found.is_empty() {
                true => failure.hint("the path selects nothing in it"),
                false => failure.hint(format_args!("the value is {}", found.join(" "))),
            }
        }
        Goal::Delete => {
            let finalizers = &last["metadata"]["finalizers"];
            match finalizers.is_null() {
                true => failure,
                false => failure.hint(format_args!("its finalizers are {finalizers}")),
            }
        }
        Goal::Create => failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn goals() {
        let function = json!({"status": {"readyReplicas": 3, "conditions": [
            {"type": "Available", "status": "True"}, {"type": "Compiled", "status": "Unknown"}]}});
        let table = [
            ("condition=available", true),
            ("condition=Available=False", false),
            ("condition=Compiled=unknown", true),
            ("jsonpath={.status.readyReplicas}=3", true),
            ("jsonpath=.status.readyReplicas=2", false),
            ("jsonpath={.status.url}", false),
            (
                "jsonpath={.status.conditions[?(@.type==\"Available\")].status}=True",
                true,
            ),
            ("delete", false),
            ("create", true),
        ];
        for (text, expected) in table {
            let goal: Goal = text.parse().unwrap();
            assert_eq!(goal.is_met(Some(&function)), expected, "{text}");
        }
        let delete: Goal = "delete".parse().unwrap();
        assert!(delete.is_met(None));
        assert!(
            "deleted"
                .parse::<Goal>()
                .unwrap_err()
                .contains("did you mean \"delete\"")
        );
    }
}
