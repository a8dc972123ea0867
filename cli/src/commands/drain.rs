//! `hivectl drain`: keeps new work off a node, has its work moved, and waits until none is left.
//!
//! The node serves until others do. It only declares what should be (unschedulable, and a taint); the
//! controllers move the work, and end no copy that is the last to serve unless that is forced. `uncordon` takes both back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;
use hive_manifests::duration::GoDuration;
use hive_manifests::placement::{DRAIN_TAINT, drain_taint, tolerated};
use hive_manifests::{FunctionSpec, Resource};
use serde_json::{Value, json};

use super::cordon::{self, Nodes};
use crate::cluster::Cluster;
use crate::commands::lookup::{Target, finish};
use crate::failure::Failure;
use crate::object;
use crate::session::Session;
use crate::watch::{self, Objects, Scope};

/// How often the taint is set when others change the node at the same time.
const ATTEMPTS: usize = 5;

/// While copies stay, it is looked why as often: a move takes less, as a rule.
const LOOK: Duration = Duration::from_secs(2);
/// The look at what is still there when the time is over.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Why no node takes a copy, as a function's condition has it.
const UNSCHEDULABLE: &str = "Unschedulable";

/// The field of an assignment that names its node.
const ASSIGNED: &str = "spec.nodeName";

#[derive(Debug, Args)]
#[command(
    after_help = "A copy that no other node can take goes on serving while it is the only one, and is waited for.

Examples:
  hivectl drain pi                 returns when nothing is assigned to it, and others answer
  hivectl drain pi --timeout=2m
  hivectl drain pi --force         also ends copies that no other node can take
  hivectl uncordon pi              takes it back"
)]
pub struct Drain {
    #[command(flatten)]
    nodes: Nodes,

    /// How long to wait for the work to leave; 0 as long as it takes
    #[arg(long, default_value = "0", value_name = "DURATION")]
    timeout: GoDuration,

    /// End copies that no other node can take, also the only one of a function
    #[arg(long)]
    force: bool,
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
    let mut there = Vec::new();
    for node in &nodes {
        // What leaves at once is told of, too.
        there.push(copies_on(node, deadline, session).await?);
        cordon::mark(node, session).await?;
        taint(node, drain.force, session).await?;
    }
    for (node, there) in nodes.iter().zip(there) {
        if let Err(failure) = wait_empty(node, there, drain.force, deadline, session).await {
            failures.push(failure);
        }
    }
    finish(failures)
}

async fn taint(node: &Target, force: bool, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let wanted = json!(drain_taint(force));
    let mut attempt = 1;
    loop {
        let live = cluster.get(Resource::Node, None, node.name()).await?;
        let mut taints = live["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if taints.contains(&wanted) {
            return Ok(());
        }
        taints.retain(|taint| !is_drain_taint(taint));
        taints.push(wanted.clone());
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

/// Names a copy, or a function: namespace and name.
type Name = (String, String);

/// Copies with their functions.
type Copies = BTreeMap<Name, Name>;

fn on(node: &Target, field: &str) -> Scope {
    Scope {
        resource: Resource::Assignment,
        namespace: None,
        label_selector: None,
        field_selector: Some(format!("{field}={}", node.name())),
    }
}

/// Those there are now.
async fn copies_on(
    node: &Target,
    deadline: Option<Instant>,
    session: &mut Session<'_>,
) -> Result<Copies, Failure> {
    let (cluster, scope) = (session.cluster().await?, on(node, ASSIGNED));
    let now = watch::until(&cluster, &scope, deadline, |it| Some(copies(it)));
    Ok(now.await?.unwrap_or_default())
}

async fn wait_empty(
    node: &Target,
    mut before: Copies,
    force: bool,
    deadline: Option<Instant>,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    before.extend(copies_on(node, deadline, session).await?);
    // Functions that stay because they tolerate it, and why others do for now.
    let (mut stay, mut told) = (BTreeSet::new(), BTreeMap::new());
    for function in before.values() {
        if !stay.contains(function) && tolerates(&cluster, function, force).await? {
            let shown = shown(function);
            session.world.line(format_args!(
                "function {shown} stays: it tolerates the drain"
            ))?;
            stay.insert(function.clone());
        }
    }
    before.retain(|_, function| !stay.contains(function));
    let mut left = before.clone();
    // It serves on until its copies answer elsewhere: where it was before comes last.
    for field in [ASSIGNED, "spec.previous.nodeName"] {
        loop {
            let began = Instant::now();
            // What is there then is asked for all the same: what came before may have taken all the time.
            let is_last = deadline.is_some_and(|deadline| deadline <= began);
            let until = match deadline {
                Some(deadline) if !is_last => deadline.min(began + LOOK),
                _ => began + LAST_LOOK,
            };
            let scope = on(node, field);
            let (world, mut output) = (&mut *session.world, Ok(()));
            let ended = watch::until(&cluster, &scope, Some(until), |it| {
                let mut now = copies(it);
                now.retain(|_, function| !stay.contains(function));
                let gone = left.keys().filter(|copy| !now.contains_key(*copy));
                for copy in gone.filter(|_| field == ASSIGNED) {
                    output = world.line(format_args!("copy {} leaves", shown(copy)));
                }
                before.extend(now.clone());
                left = now;
                (left.is_empty() || is_last || output.is_err()).then_some(())
            })
            .await;
            output?;
            match ended {
                Ok(Some(())) if left.is_empty() => break,
                // A controller of the release before knows no such field, and lets go at once.
                Err(error) if error.is_bad_request() && field != ASSIGNED => break,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let functions: BTreeSet<&Name> = left.values().collect();
            if is_last {
                let functions: Vec<String> = functions.into_iter().map(shown).collect();
                let what = match functions.is_empty() {
                    true => "what is still there is not known, as no controller says so".to_owned(),
                    false => format!("still there: {}", functions.join(", ")),
                };
                return Err(Failure::new(format_args!(
                    "timed out draining {}: {what}",
                    node.reference()
                ))
                .hint("they leave when another node can take them: see `hivectl get nodes` and `hivectl events`; --force ends them"));
            }
            for function in functions {
                let why = why(&cluster, function).await?;
                if let Some(why) = why.filter(|why| told.get(function) != Some(why)) {
                    session.world.line(format_args!("{why}"))?;
                    told.insert(function.clone(), why);
                }
            }
        }
    }
    let summary = summary(&cluster, before.keys()).await?;
    session
        .world
        .line(format_args!("{} drained{summary}", node.reference()))?;
    Ok(())
}

/// Whether a function's copies stay on a node that is drained.
async fn tolerates(cluster: &Cluster, function: &Name, force: bool) -> Result<bool, Failure> {
    let Some(function) = get(cluster, Resource::Function, function).await? else {
        return Ok(false);
    };
    // What this build cannot read is waited for.
    let spec = serde_json::from_value::<FunctionSpec>(function["spec"].clone());
    Ok(spec.is_ok_and(|spec| tolerated(&spec.tolerations, &drain_taint(force))))
}

/// Why a function's copies do not come forward, in one sentence, if its condition says so.
async fn why(cluster: &Cluster, name: &Name) -> Result<Option<String>, Failure> {
    let Some(function) = get(cluster, Resource::Function, name).await? else {
        return Ok(None);
    };
    let Some(ready) = object::condition(&function, "Ready") else {
        return Ok(None);
    };
    let text = |field: &str| ready[field].as_str().unwrap_or_default();
    let (function, message) = (shown(name), text("message"));
    Ok(match (text("status"), text("reason")) {
        ("False", UNSCHEDULABLE) => Some(format!("no node can take {function}: {message}")),
        ("False", _) => Some(format!("function {function}: {message}")),
        _ => None,
    })
}

/// What became of the copies that were there.
async fn summary(
    cluster: &Cluster,
    copies: impl Iterator<Item = &Name>,
) -> Result<String, Failure> {
    let (mut moved, mut ended) = (0, 0);
    for copy in copies {
        match get(cluster, Resource::Assignment, copy).await? {
            Some(_) => moved += 1,
            None => ended += 1,
        }
    }
    let counted = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 copy {what}")),
        _ => Some(format!("{count} copies {what}")),
    };
    let parts = [counted(moved, "moved"), counted(ended, "ended")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok(match parts.is_empty() {
        true => ": nothing was there to move".to_owned(),
        false => format!(": {}", parts.join(", ")),
    })
}

async fn get(
    cluster: &Cluster,
    resource: Resource,
    (namespace, name): &Name,
) -> Result<Option<Value>, Failure> {
    match cluster.get(resource, Some(namespace), name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn shown((namespace, name): &Name) -> String {
    format!("{namespace}/{name}")
}

fn copies(assignments: &Objects) -> Copies {
    let function = |assignment: &Value| {
        let function = assignment["spec"]["functionName"].as_str();
        function.unwrap_or_default().to_owned()
    };
    assignments
        .iter()
        .map(|(name, assignment)| (name.clone(), (name.0.clone(), function(assignment))))
        .collect()
}
