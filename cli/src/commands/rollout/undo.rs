//! `hivectl rollout undo`: an earlier version becomes the newest.

use clap::Args;
use hive_manifests::rollout::OUTSIDE_TEMPLATE;
use hive_manifests::{Function, FunctionSpec, FunctionStatus};
use serde_json::{Map, Value, from_value, json};

use super::FunctionName;
use super::revisions::{CHANGE_CAUSE, Revision};
use crate::failure::Failure;
use crate::session::Session;
use crate::threeway;

#[derive(Debug, Args)]
pub struct Undo {
    #[command(flatten)]
    function: FunctionName,

    /// The version to go back to; 0 is the one before the newest
    #[arg(long, default_value = "0", value_name = "NUMBER")]
    to_revision: i64,
}

pub async fn run(undo: Undo, session: &mut Session<'_>) -> Result<(), Failure> {
    let subject = undo.function.find(session).await?;
    subject.refuse_paused("it cannot go back")?;
    let revisions = subject.revisions().await?;
    let reference = subject.reference();
    let found = match undo.to_revision {
        0 => {
            let newest = subject.live["status"]["updateRevision"].as_str();
            let mut known = revisions
                .iter()
                .rev()
                .skip_while(|it| Some(it.name()) != newest)
                .peekable();
            // What was declared just now is no version yet: the newest one is before it.
            let is_declared = known.peek().is_some_and(|it| is_of(it, &subject.live));
            known.nth(usize::from(is_declared)).ok_or_else(|| {
                Failure::new(format_args!("{reference} has no version before this one")).hint(
                    format_args!(
                        "`hivectl rollout history function/{}` lists them",
                        subject.name
                    ),
                )
            })?
        }
        number => revisions
            .iter()
            .find(|it| it.number == number)
            .ok_or_else(|| subject.no_such(number, &revisions))?,
    };
    let spec = back(&subject.live["spec"], found.template());
    if threeway::is_empty(&spec) {
        session.world.line(format_args!(
            "{reference} skipped: it is as revision {} was",
            found.number
        ))?;
        return Ok(());
    }
    let cause = found.cause().map_or(Value::Null, Value::from);
    let patch = json!({
        "metadata": { "annotations": { CHANGE_CAUSE: cause } },
        "spec": spec,
    });
    subject.patch(patch).await?;
    session.world.line(format_args!(
        "{reference} rolled back to revision {}",
        found.number
    ))?;
    Ok(())
}

/// Whether a version is the one that a function declares.
fn is_of(revision: &Revision, function: &Value) -> bool {
    let parse = |spec: &Value| from_value::<FunctionSpec>(spec.clone());
    let (Ok(spec), Ok(template)) = (parse(&function["spec"]), parse(revision.template())) else {
        // What a newer release wrote is taken at its word.
        return true;
    };
    let mut declared = Function::new("", spec);
    declared.status = Some(FunctionStatus {
        artifact: from_value(function["status"]["artifact"].clone()).unwrap_or_default(),
        ..FunctionStatus::default()
    });
    // Until its image is here it is no version.
    declared.component().is_some_and(|artifact| {
        let spec = FunctionSpec {
            artifact,
            ..declared.spec
        };
        spec.template() == template.template()
    })
}

/// The merge patch from a spec to a version: what makes no version stays as it is.
fn back(live: &Value, template: &Value) -> Value {
    let empty = Map::new();
    let live = live.as_object().unwrap_or(&empty);
    let version: Value = live
        .iter()
        .filter(|(name, _)| !OUTSIDE_TEMPLATE.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Map<_, _>>()
        .into();
    // What it says now is taken away where the version did not say it.
    threeway::merge_patch(Some(&version), template, &version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_comes_back_whole_and_nothing_else() {
        let live = json!({
            "artifact": { "sha256": "new" }, "replicas": 5, "paused": true, "nodeSelector": { "a": "b" },
            "http": { "host": "x.example", "path": "/" }, "env": [{ "name": "A" }], "timeout": "1s",
            "restartedAt": "2026-01-01T00:00:00Z",
        });
        let template = json!({
            "artifact": { "sha256": "old" }, "http": { "path": "/" }, "timeout": "1s",
            "allowedHosts": ["*"],
        });
        let patch = back(&live, &template);
        assert_eq!(
            patch,
            json!({
                "artifact": { "sha256": "old" }, "http": { "host": null }, "env": null,
                "restartedAt": null, "allowedHosts": ["*"],
            })
        );
        let mut after = live;
        threeway::apply_merge_patch(&mut after, &patch);
        assert_eq!(after["replicas"], 5);
        assert_eq!(back(&after, &template), json!({}));
    }
}
