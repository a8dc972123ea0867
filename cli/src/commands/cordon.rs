//! `hivectl cordon` and `hivectl uncordon`: whether a node takes new work.

use clap::Args;
use hive_manifests::Resource;
use serde_json::{Value, json};

use super::drain;
use crate::commands::lookup::{Target, Targets, finish};
use crate::failure::Failure;
use crate::object;
use crate::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl cordon pi
  hivectl cordon -l zone=attic")]
pub struct Cordon {
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
#[command(after_help = "Also ends a drain: the node takes work again.

Examples:
  hivectl uncordon pi")]
pub struct Uncordon {
    #[command(flatten)]
    nodes: Nodes,
}

/// Nodes by name or label.
#[derive(Debug, Args)]
pub struct Nodes {
    /// The nodes
    #[arg(value_name = "NODE")]
    names: Vec<String>,

    /// Nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

impl Nodes {
    /// The nodes and a failure for each that doesn't exist.
    pub async fn find(
        self,
        session: &mut Session<'_>,
    ) -> Result<(Vec<Target>, Vec<Failure>), Failure> {
        let mut words = vec![Resource::Node.plural().to_owned()];
        for name in self.names {
            // `cordon node/pi` means what it says.
            let bare = name
                .strip_prefix("node/")
                .or_else(|| name.strip_prefix("nodes/"))
                .unwrap_or(&name);
            words.push(bare.to_owned());
        }
        let found = Targets {
            words,
            selector: self.selector,
            all: false,
            all_namespaces: false,
        }
        .find(session)
        .await?;
        Ok((found.targets, found.missing))
    }
}

pub async fn cordon(cordon: Cordon, session: &mut Session<'_>) -> Result<(), Failure> {
    let (nodes, mut failures) = cordon.nodes.find(session).await?;
    for node in nodes {
        if let Err(failure) = mark(&node, session).await {
            failures.push(failure);
        }
    }
    finish(failures)
}

/// Marks one node unschedulable and says so.
pub async fn mark(node: &Target, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let done = if node.object["spec"]["unschedulable"] == true {
        "already cordoned"
    } else {
        let patch = json!({"spec": {"unschedulable": true}});
        cluster
            .merge_patch(Resource::Node, None, node.name(), &patch, false)
            .await?;
        "cordoned"
    };
    session
        .world
        .line(format_args!("{} {done}", node.reference()))?;
    Ok(())
}

pub async fn uncordon(uncordon: Uncordon, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let (nodes, mut failures) = uncordon.nodes.find(session).await?;
    for node in nodes {
        let spec = &node.object["spec"];
        let taints: Vec<Value> = spec["taints"].as_array().cloned().unwrap_or_default();
        let kept: Vec<Value> = taints
            .iter()
            .filter(|taint| !drain::is_drain_taint(taint))
            .cloned()
            .collect();
        if spec["unschedulable"] != true && kept.len() == taints.len() {
            session
                .world
                .line(format_args!("{} already uncordoned", node.reference()))?;
            continue;
        }
        // The list of taints is replaced whole: the resourceVersion guards those of others.
        let patch = json!({
            "metadata": {"resourceVersion": object::resource_version(&node.object)},
            "spec": {"unschedulable": null, "taints": if kept.is_empty() { Value::Null } else { kept.into() }},
        });
        match cluster
            .merge_patch(Resource::Node, None, node.name(), &patch, false)
            .await
        {
            Ok(_) => session
                .world
                .line(format_args!("{} uncordoned", node.reference()))?,
            Err(error) => failures.push(error.into()),
        }
    }
    finish(failures)
}
