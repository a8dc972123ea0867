//! `hivectl drain`: keeps new work off a node, has its work moved, and waits until none is left.
//!
//! The node serves until others do. It only declares what should be (unschedulable, and a taint that nothing tolerates); the
//! controllers move the work. `uncordon` takes both back.

use std::time::Instant;

use clap::Args;
use hive_manifests::Resource;
use hive_manifests::duration::GoDuration;
use serde_json::{Value, json};

use super::cordon::{self, Nodes};
use crate::commands::lookup::{Target, finish};
use crate::failure::Failure;
use crate::object;
use crate::session::Session;
use crate::watch::{self, Objects, Scope};

/// The taint of a node that is being drained.
const DRAIN_TAINT: &str = "node.hive.dev/drain";
/// How often the taint is set when others change the node at the same time.
const ATTEMPTS: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl drain pi                 returns when nothing is assigned to it, and others answer
  hivectl drain pi --timeout=2m
  hivectl uncordon pi              takes it back")]
pub struct Drain {
    #[command(flatten)]
    nodes: Nodes,

    /// How long to wait for the work to leave; 0 as long as it takes
    #[arg(long, default_value = "0", value_name = "DURATION")]
    timeout: GoDuration,
}

pub fn is_drain_taint(taint: &Value) -> bool {
    taint["key"] == DRAIN_TAINT
}

pub async fn run(drain: Drain, session: &mut Session<'_>) -> Result<(), Failure> {
    let deadline = Some(drain.timeout.0)
        .filter(|timeout| !timeout.is_zero())
        .map(|timeout| Instant::now() + timeout);
    let (nodes, mut failures) = drain.nodes.find(session).await?;
    // All of them first: work must not move from one to the next.
    for node in &nodes {
        cordon::mark(node, session).await?;
        taint(node, session).await?;
    }
    for node in &nodes {
        if let Err(failure) = wait_empty(node, deadline, session).await {
            failures.push(failure);
        }
    }
    finish(failures)
}

async fn taint(node: &Target, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut attempt = 1;
    loop {
        let live = cluster.get(Resource::Node, None, node.name()).await?;
        let mut taints = live["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if taints.iter().any(is_drain_taint) {
            return Ok(());
        }
        taints.push(json!({"key": DRAIN_TAINT, "effect": "NoExecute"}));
        let patch = json!({
            "metadata": {"resourceVersion": object::resource_version(&live)},
            "spec": {"taints": taints},
        });
        match cluster
            .merge_patch(Resource::Node, None, node.name(), &patch, false)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn wait_empty(
    node: &Target,
    deadline: Option<Instant>,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let world = &mut *session.world;
    let on = |field: &str| Scope {
        resource: Resource::Assignment,
        namespace: None,
        label_selector: None,
        field_selector: Some(format!("{field}={}", node.name())),
    };
    let mut left: Vec<String> = Vec::new();
    let mut output = Ok(());
    let scope = on("spec.nodeName");
    let moved = watch::until(&cluster, &scope, deadline, |assignments| {
        let now = functions_of(assignments);
        for function in left.iter().filter(|function| !now.contains(function)) {
            output = world.line(format_args!("function {function} moved away"));
        }
        left = now;
        (left.is_empty() || output.is_err()).then_some(())
    })
    .await?;
    output?;
    // It serves on until its copies answer elsewhere.
    let ended = match moved {
        None => None,
        Some(()) => {
            let scope = on("spec.previous.nodeName");
            let ended = watch::until(&cluster, &scope, deadline, |it| {
                left = functions_of(it);
                left.is_empty().then_some(())
            });
            match ended.await {
                // A controller of the release before knows no such field, and lets go at once.
                Err(error) if error.is_bad_request() => Some(()),
                ended => ended?,
            }
        }
    };
    match ended {
        Some(()) => {
            world.line(format_args!("{} drained", node.reference()))?;
            Ok(())
        }
        None => Err(Failure::new(format_args!(
            "timed out draining {}: still there: {}",
            node.reference(),
            left.join(", ")
        ))
        .hint("they leave when another node can take them: see `hivectl get nodes` and `hivectl events`")),
    }
}

fn functions_of(assignments: &Objects) -> Vec<String> {
    let name = |assignment: &Value| {
        let namespace = object::namespace(assignment).unwrap_or_default();
        let function = assignment["spec"]["functionName"].as_str();
        format!("{namespace}/{}", function.unwrap_or_default())
    };
    assignments.values().map(name).collect()
}
