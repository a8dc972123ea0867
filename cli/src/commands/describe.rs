//! `hivectl describe`: an object with what belongs to it, for people to read.

mod text;
mod tunnel;

use clap::Args;
use hive_manifests::Resource;
use serde_json::Value;

use super::events;
use crate::cluster::Cluster;
use crate::commands::lookup::{Targets, finish};
use crate::failure::Failure;
use crate::object;
use crate::selection;
use crate::session::Session;
use text::Description;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl describe function hello
  hivectl describe node/pi
  hivectl describe tunnel photos
  hivectl describe functions -l app=shop
  hivectl describe nodes                         all of them")]
pub struct Describe {
    /// RESOURCE [NAME…], or RESOURCE/NAME…
    #[arg(value_name = "RESOURCE", required = true)]
    words: Vec<String>,

    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

pub async fn run(describe: Describe, session: &mut Session<'_>) -> Result<(), Failure> {
    let unnamed = selection::parse(&describe.words)?
        .iter()
        .all(|selection| selection.names.is_empty());
    let targets = Targets {
        words: describe.words,
        all: unnamed && describe.selector.is_none(),
        selector: describe.selector,
        all_namespaces: describe.all_namespaces,
    };
    let found = targets.find(session).await?;
    let cluster = session.cluster().await?;
    if found.targets.is_empty() && found.missing.is_empty() {
        session.world.note("No resources found.")?;
    }
    for (index, target) in found.targets.iter().enumerate() {
        if index > 0 {
            session.world.text("\n\n")?;
        }
        let text = one(&cluster, target.resource, &target.object).await?;
        session.world.text(text)?;
    }
    finish(found.missing)
}

async fn one(cluster: &Cluster, resource: Resource, object: &Value) -> Result<String, Failure> {
    let mut description = Description::default();
    description.metadata(object);
    match resource {
        Resource::Function => function(cluster, object, &mut description).await?,
        Resource::Node => node(cluster, object, &mut description).await?,
        Resource::Secret => secret(object, &mut description),
        Resource::Tunnel => tunnel::describe(object, &mut description),
        _ => description.rest(object),
    }
    let events = match resource {
        Resource::Event => String::new(),
        _ => events::about(cluster, resource, object).await?,
    };
    Ok(format!("{}{events}", description.text()))
}

async fn function(
    cluster: &Cluster,
    function: &Value,
    description: &mut Description,
) -> Result<(), Failure> {
    let (spec, status) = (&function["spec"], &function["status"]);
    description.line("Status", &headline(function));
    description.field("URL", &status["url"]);
    for (label, value) in [
        ("Artifact", &spec["artifact"]["sha256"]),
        ("Image", &spec["artifact"]["oci"]),
        ("Pulled", &status["artifact"]["reference"]),
    ] {
        if !value.is_null() {
            description.field(label, value);
        }
    }
    let ready = format!(
        "{} wanted, {} ready",
        match spec["everyNode"] == true {
            true => "one on every node".to_owned(),
            false => object::wanted_replicas(function).to_string(),
        },
        status["readyReplicas"].as_u64().unwrap_or(0)
    );
    description.line("Replicas", &ready);
    if let Some(autoscaling) = autoscaling(function) {
        description.line("Autoscaling", &autoscaling);
    }
    if let Some(rollout) = rollout(status) {
        description.line("Rollout", &rollout);
    }
    for (label, field) in [
        ("Strategy", "strategy"),
        ("Min Ready Seconds", "minReadySeconds"),
        ("Restarted", "restartedAt"),
        ("Timeout", "timeout"),
        ("Concurrency", "concurrency"),
        ("Queue Timeout", "queueTimeout"),
        ("Instances", "instances"),
        ("Resources", "resources"),
        ("Limits", "limits"),
        ("HTTP", "http"),
        ("Node Selector", "nodeSelector"),
        ("Tolerations", "tolerations"),
        ("Allowed Hosts", "allowedHosts"),
        ("Egress", "egress"),
        ("Key Value", "keyValue"),
        ("Scratch", "scratch"),
    ] {
        if !spec[field].is_null() {
            description.field(label, &spec[field]);
        }
    }
    description.environment(&spec["env"]);
    description.conditions(function);
    let schedules = schedules(spec, status);
    if !schedules.is_empty() {
        let headers = [
            "Name",
            "Schedule",
            "Time Zone",
            "Last Call",
            "Last Success",
            "Under Way",
        ];
        description.table("Schedules", &headers, schedules);
    }
    description.table(
        "Compiled",
        &["Target", "Size", "Wasmtime", "SHA-256"],
        status["artifacts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|artifact| {
                let size = artifact["size"].as_u64().unwrap_or(0);
                vec![
                    text::plain(&artifact["target"]),
                    crate::artifact::size_text(size),
                    text::plain(&artifact["wasmtimeVersion"]),
                    text::plain(&artifact["sha256"]),
                ]
            })
            .collect(),
    );
    let assignments = cluster
        .list(Resource::Assignment, object::namespace(function), &[])
        .await?;
    description.table(
        "Assignments",
        &["Name", "Node", "Generation", "Status", "Message"],
        assignments["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|assignment| assignment["spec"]["functionName"] == object::name(function))
            .map(|assignment| {
                vec![
                    object::name(assignment).to_owned(),
                    text::plain(&assignment["spec"]["nodeName"]),
                    text::plain(&assignment["spec"]["functionGeneration"]),
                    text::plain(&assignment["status"]["phase"]),
                    text::plain(&assignment["status"]["message"]),
                ]
            })
            .collect(),
    );
    Ok(())
}

/// What was declared, and what became of it.
fn schedules(spec: &Value, status: &Value) -> Vec<Vec<String>> {
    let told = status["schedules"].as_array();
    let declared = spec["schedules"].as_array().into_iter().flatten();
    declared
        .map(|schedule| {
            let mut told = told.into_iter().flatten();
            let status = told.find(|status| status["name"] == schedule["name"]);
            let status = status.unwrap_or(&Value::Null);
            let suspended = if schedule["suspend"] == true {
                " (suspended)"
            } else {
                ""
            };
            vec![
                text::plain(&schedule["name"]),
                format!("{}{suspended}", text::plain(&schedule["schedule"])),
                text::plain(&schedule["timeZone"]),
                text::plain(&status["lastScheduleTime"]),
                text::plain(&status["lastSuccessfulTime"]),
                text::plain(&status["active"]["time"]),
            ]
        })
        .collect()
}

/// Whether a function or a tunnel is ready, and why it is not, in one sentence.
fn headline(described: &Value) -> String {
    let Some(ready) = object::condition(described, "Ready") else {
        return "Not ready: the controllers have not looked at it yet".into();
    };
    let (reason, message) = (
        text::plain(&ready["reason"]),
        text::plain(&ready["message"]),
    );
    if !object::is_observed(described) {
        return "Not ready: the controllers have not looked at its newest change yet".into();
    }
    match (ready["status"] == "True", &*reason) {
        (true, _) => format!("Ready: {message}"),
        // It goes as it was told to, and what all copies ran goes on serving.
        (false, "Canary" | "CanaryPaused") => format!("Trying a new version: {message}"),
        (false, _) => format!("Not ready ({reason}): {message}"),
    }
}

/// By what a function scales, in one sentence.
fn autoscaling(function: &Value) -> Option<String> {
    let rule = &function["spec"]["autoscaling"];
    let (least, most) = (rule["minReplicas"].as_u64()?, rule["maxReplicas"].as_u64()?);
    // That it is limited says more than that it scales.
    let telling = match object::has_condition(function, "ScalingLimited", "True") {
        true => "ScalingLimited",
        false => "ScalingActive",
    };
    let told = object::condition(function, telling).and_then(|it| it["message"].as_str());
    Some(match told {
        Some(told) => format!("{least} to {most} copies: {told}"),
        None => format!("{least} to {most} copies"),
    })
}

/// How far the newest version is, in one sentence.
fn rollout(status: &Value) -> Option<String> {
    let conditions = status["conditions"].as_array()?;
    let progressing = conditions.iter().find(|it| it["type"] == "Progressing")?;
    let mut sentence = progressing["message"].as_str()?.to_owned();
    let rollout = &status["rollout"];
    let is_everywhere = rollout["phase"] == "Complete" || rollout["phase"] == "Observing";
    if rollout["canary"].is_null() && !is_everywhere {
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        sentence.push_str(&format!(
            ": {} of {} copies run the newest spec",
            count("updatedReplicas"),
            count("replicas"),
        ));
    }
    Some(sentence)
}

async fn node(
    cluster: &Cluster,
    node: &Value,
    description: &mut Description,
) -> Result<(), Failure> {
    let (spec, status) = (&node["spec"], &node["status"]);
    description.field("Key", &spec["key"]);
    description.line(
        "Unschedulable",
        if spec["unschedulable"] == true {
            "true"
        } else {
            "false"
        },
    );
    let taints: Vec<String> = spec["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|taint| {
            let value = taint["value"]
                .as_str()
                .map(|value| format!("={value}"))
                .unwrap_or_default();
            format!(
                "{}{value}:{}",
                text::plain(&taint["key"]),
                text::plain(&taint["effect"])
            )
        })
        .collect();
    description.list("Taints", &taints);
    description.conditions(node);
    for (label, field) in [
        ("Local Address", "localAddress"),
        ("Capacity", "capacity"),
        ("Allocatable", "allocatable"),
        ("System Info", "nodeInfo"),
    ] {
        description.field(label, &status[field]);
    }
    let selector = format!("spec.nodeName={}", object::name(node));
    let assignments = cluster
        .list(Resource::Assignment, None, &[("fieldSelector", &selector)])
        .await?;
    description.table(
        "Assignments",
        &["Namespace", "Function", "Status", "Message"],
        assignments["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|assignment| {
                vec![
                    object::namespace(assignment).unwrap_or_default().to_owned(),
                    text::plain(&assignment["spec"]["functionName"]),
                    text::plain(&assignment["status"]["phase"]),
                    text::plain(&assignment["status"]["message"]),
                ]
            })
            .collect(),
    );
    Ok(())
}

/// Only how long the values are: a description is read over shoulders.
fn secret(secret: &Value, description: &mut Description) {
    description.field("Type", &secret["type"]);
    description.table(
        "Data",
        &["Key", "Size"],
        secret["data"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let encoded = value.as_str().unwrap_or_default().trim_end_matches('=');
                vec![key.clone(), format!("{} bytes", encoded.len() * 3 / 4)]
            })
            .collect(),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_headline_says_why_a_function_is_not_ready() {
        let mut function = json!({ "metadata": { "generation": 2 } });
        assert!(headline(&function).starts_with("Not ready: the controllers"));
        function["status"] = json!({ "observedGeneration": 2, "conditions": [
            { "type": "Ready", "status": "False", "reason": "NodeLost", "message": "node b is gone" },
        ] });
        assert_eq!(headline(&function), "Not ready (NodeLost): node b is gone");
        let ready = &mut function["status"]["conditions"][0];
        ready["reason"] = json!("CanaryPaused");
        ready["message"] = json!("revision 2 gets 20% of the requests");
        assert_eq!(
            headline(&function),
            "Trying a new version: revision 2 gets 20% of the requests"
        );
        function["status"]["conditions"][0]["status"] = json!("True");
        function["status"]["conditions"][0]["message"] = json!("all copies are ready");
        assert_eq!(headline(&function), "Ready: all copies are ready");
        function["metadata"]["generation"] = json!(3);
        assert!(headline(&function).contains("newest change"));
    }
}
