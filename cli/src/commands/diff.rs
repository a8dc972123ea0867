//! `hivectl diff`: what apply would change, as the server would store it.
//!
//! Exit code 0: nothing; 1: something; more: it could not be found out.

use clap::Args;
use hive_manifests::Resource;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::apply::submit::{Submission, submit};
use super::apply::{DryRun, prepare};
use crate::api_error;
use crate::arguments::FileArguments;
use crate::commands::lookup::finish;
use crate::failure::Failure;
use crate::object::LAST_APPLIED;
use crate::output;
use crate::selector::Selector;
use crate::session::Session;
use crate::table::harmless;

/// Lines shown around a change.
const CONTEXT: usize = 3;
/// There are differences.
const DIFFERENT: u8 = 1;
/// As kubectl: more than 1 is a failure.
const FAILED: u8 = 2;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 no differences, 1 differences, more than 1 a failure.

Examples:
  hivectl diff -f function.yaml
  hivectl diff -f manifests/ -R || echo 'would change'

Components named by path are uploaded, as with apply --dry-run=server; nothing else is changed."
)]
pub struct Diff {
    #[command(flatten)]
    files: FileArguments,

    /// Only objects of the manifests with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

pub async fn run(diff: Diff, session: &mut Session<'_>) -> Result<(), Failure> {
    match differences(diff, session).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Failure::silent(DIFFERENT)),
        Err(failure) => Err(failure.code(FAILED)),
    }
}

async fn differences(diff: Diff, session: &mut Session<'_>) -> Result<bool, Failure> {
    let selector = diff
        .selector
        .as_deref()
        .map(str::parse::<Selector>)
        .transpose()
        .map_err(Failure::usage)?;
    let prepared = prepare(&diff.files, selector.as_ref(), session).await?;
    let cluster = session.cluster().await?;
    let mut failures = Vec::new();
    let mut different = false;
    for item in &prepared {
        item.upload(&cluster, session).await?;
        match submit(&cluster, item, DryRun::Server).await {
            Ok(submission) => {
                let manifest = &item.manifest;
                let name = match &manifest.namespace {
                    Some(namespace) => format!("{namespace}/{}", manifest.reference()),
                    None => manifest.reference(),
                };
                let text = unified(
                    &name,
                    manifest.resource,
                    &submission,
                    session.world.out_colour,
                )?;
                different |= !text.is_empty();
                session.world.text(text)?;
            }
            Err(error) => failures.push(api_error::locate(error, &item.manifest)),
        }
    }
    finish(failures)?;
    Ok(different)
}

/// The difference between what is and what would be, or nothing.
fn unified(
    name: &str,
    resource: Resource,
    submission: &Submission,
    colour: bool,
) -> Result<String, Failure> {
    let mut before = submission.before.as_ref().map(comparable);
    let mut after = comparable(&submission.object);
    if resource == Resource::Secret {
        mask(before.as_mut(), &mut after);
    }
    let before = before
        .as_ref()
        .map(output::yaml)
        .transpose()?
        .unwrap_or_default();
    let after = output::yaml(&after)?;
    if before == after {
        return Ok(String::new());
    }
    let paint = |code: &str, line: &str| match colour {
        true => format!("\x1b[{code}m{line}\x1b[0m\n"),
        false => format!("{line}\n"),
    };
    let mut text = paint("1", &format!("--- live/{name}"));
    text.push_str(&paint("1", &format!("+++ manifest/{name}")));
    let diff = TextDiff::from_lines(&before, &after);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        text.push_str(&paint("36", &hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let line = harmless(change.value().trim_end_matches('\n'));
            text.push_str(&match change.tag() {
                ChangeTag::Delete => paint("31", &format!("-{line}")),
                ChangeTag::Insert => paint("32", &format!("+{line}")),
                ChangeTag::Equal => format!(" {line}\n"),
            });
        }
    }
    Ok(text)
}

/// The object without what changes with every write, whoever makes it.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for noise in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "resourceVersion",
            "uid",
        ] {
            metadata.remove(noise);
        }
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// Secrets differ without being shown.
fn mask(before: Option<&mut Value>, after: &mut Value) {
    let mut nothing = Value::Null;
    let before = before.unwrap_or(&mut nothing);
    let old = before["data"].clone();
    let new = after["data"].clone();
    let cover = |object: &mut Value, other: &Value, label: &str| {
        for (key, value) in object
            .get_mut("data")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            *value = match other.get(key) {
                Some(same) if same == value => "***".into(),
                Some(_) => format!("*** ({label})").into(),
                None => "***".into(),
            };
        }
    };
    cover(before, &new, "before");
    cover(after, &old, "after");
    if before
        .as_object()
        .is_some_and(|fields| fields.values().all(Value::is_null))
    {
        *before = Value::Null;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::super::apply::submit::Outcome;
    use super::*;

    fn diff(resource: Resource, before: Option<Value>, object: Value) -> String {
        let submission = Submission {
            outcome: Outcome::Configured,
            before,
            object,
        };
        unified("default/x", resource, &submission, false).unwrap()
    }

    #[test]
    fn only_what_matters_is_compared() {
        let live = json!({"metadata": {"name": "x", "resourceVersion": "1", "generation": 1},
                          "spec": {"replicas": 1}, "status": {"a": 1}});
        let mut next = live.clone();
        next["metadata"]["resourceVersion"] = "2".into();
        next["metadata"]["annotations"][LAST_APPLIED] = "{}".into();
        assert_eq!(
            diff(Resource::Function, Some(live.clone()), next.clone()),
            ""
        );
        next["spec"]["replicas"] = 3.into();
        let text = diff(Resource::Function, Some(live), next);
        assert!(
            text.starts_with("--- live/default/x\n+++ manifest/default/x\n@@ "),
            "{text}"
        );
        assert!(text.contains("-  replicas: 1\n+  replicas: 3\n"), "{text}");
    }

    #[test]
    fn secrets_stay_secret() {
        let secret =
            |value: &str| json!({"metadata": {"name": "x"}, "data": {"a": value, "b": "same"}});
        let text = diff(Resource::Secret, Some(secret("b2xk")), secret("bmV3"));
        assert!(!text.contains("b2xk") && !text.contains("bmV3"), "{text}");
        assert!(
            text.contains("(before)") && text.contains("(after)"),
            "{text}"
        );
        let created = diff(Resource::Secret, None, secret("bmV3"));
        assert!(
            created.contains("+") && !created.contains("bmV3"),
            "{created}"
        );
    }
}
