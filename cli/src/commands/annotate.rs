//! `hivectl label` and `hivectl annotate`: set (`key=value`) and remove (`key-`).

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::commands::lookup::{Targets, finish};
use crate::failure::Failure;
use crate::object;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl label node pi zone=attic
  hivectl label node pi zone=cellar --overwrite
  hivectl label nodes --all zone-                remove it from all")]
pub struct Label {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl annotate function hello team=web
  hivectl annotate fn/hello team-")]
pub struct Annotate {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    targets: Targets,

    /// Replace values that are there already
    #[arg(long)]
    overwrite: bool,
}

pub async fn label(label: Label, session: &mut Session<'_>) -> Result<(), Failure> {
    change(label.change, "labels", "labeled", session).await
}

pub async fn annotate(annotate: Annotate, session: &mut Session<'_>) -> Result<(), Failure> {
    change(annotate.change, "annotations", "annotated", session).await
}

/// None removes the key.
type Wanted = BTreeMap<String, Option<String>>;

async fn change(
    mut change: Change,
    field: &str,
    done: &str,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let (words, wanted) = split(&change.targets.words)?;
    if wanted.is_empty() {
        return Err(Failure::usage(format!(
            "say which {field} to set (key=value) or to remove (key-)"
        )));
    }
    change.targets.words = words;
    let found = change.targets.find(session).await?;
    let cluster = session.cluster().await?;
    let mut failures = found.missing;
    for target in found.targets {
        let present = &target.object["metadata"][field];
        let patch = match patch(present, &wanted, change.overwrite) {
            Ok(patch) => patch,
            Err(message) => {
                failures.push(Failure::new(format_args!(
                    "{}: {message}",
                    target.reference()
                )));
                continue;
            }
        };
        if patch.is_empty() {
            session
                .world
                .line(format_args!("{} not {done}", target.reference()))?;
            continue;
        }
        // The resourceVersion keeps a value that somebody sets meanwhile from being lost unseen.
        let body = json!({"metadata": {
            field: patch,
            "resourceVersion": object::resource_version(&target.object),
        }});
        let result = cluster
            .merge_patch(
                target.resource,
                target.namespace.as_deref(),
                target.name(),
                &body,
                false,
            )
            .await;
        match result {
            Ok(_) => session
                .world
                .line(format_args!("{} {done}", target.reference()))?,
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    finish(failures)
}

/// Splits the words into those that name objects and those that say what to set.
fn split(words: &[String]) -> Result<(Vec<String>, Wanted), Failure> {
    let mut names = Vec::new();
    let mut wanted = Wanted::new();
    for word in words {
        // Names of objects may not end in a dash or hold an equals sign.
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                if !wanted.is_empty() {
                    return Err(Failure::usage(format!(
                        "{word:?}: names come before key=value and key-"
                    )));
                }
                names.push(word.clone());
                continue;
            }
        };
        if wanted.insert(key.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("{key:?} is given twice")));
        }
    }
    Ok((names, wanted))
}

fn patch(present: &Value, wanted: &Wanted, overwrite: bool) -> Result<Map<String, Value>, String> {
    let mut patch = Map::new();
    for (key, value) in wanted {
        match (present[key].as_str(), value) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) if !overwrite => {
                return Err(format!(
                    "{key} is {old:?} already; --overwrite replaces it by {new:?}"
                ));
            }
            (_, Some(new)) => {
                patch.insert(key.clone(), new.as_str().into());
            }
            (Some(_), None) => {
                patch.insert(key.clone(), Value::Null);
            }
            (None, None) => {}
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn names_and_values_are_told_apart() {
        let (names, wanted) = split(&words("node my-pi a=b c- d=")).unwrap();
        assert_eq!(names, ["node", "my-pi"]);
        assert_eq!(wanted["a"].as_deref(), Some("b"));
        assert_eq!(wanted["c"], None);
        assert_eq!(wanted["d"].as_deref(), Some(""));
        assert!(split(&words("node a=b pi")).is_err());
        assert!(split(&words("node a=b a-")).is_err());
    }

    #[test]
    fn a_value_is_not_replaced_unasked() {
        let present = json!({"a": "1", "b": "2"});
        let (_, wanted) = split(&words("x a=1 c=3 b- z-")).unwrap();
        assert_eq!(
            Value::Object(patch(&present, &wanted, false).unwrap()),
            json!({"b": null, "c": "3"})
        );
        let (_, wanted) = split(&words("x a=2")).unwrap();
        assert!(
            patch(&present, &wanted, false)
                .unwrap_err()
                .contains("--overwrite")
        );
        assert_eq!(
            Value::Object(patch(&present, &wanted, true).unwrap()),
            json!({"a": "2"})
        );
    }
}
