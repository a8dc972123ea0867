//! `hivectl top`: what nodes and functions use, as their agents reported last.

use clap::{Args, Subcommand, ValueEnum};
use hive_manifests::quantity::{Bytes, MilliCpu};
use hive_manifests::{GROUP, Resource};
use serde_json::Value;

use crate::cluster::{Call, path};
use crate::failure::Failure;
use crate::object;
use crate::output::items;
use crate::session::Session;
use crate::table;

#[derive(Debug, Args)]
pub struct Top {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Processor and memory of nodes
    #[command(visible_aliases = ["node", "no"], after_help = "Examples:
  hivectl top nodes
  hivectl top nodes --sort-by=memory
  hivectl top node pi")]
    Nodes(Nodes),
    /// Requests, errors, processor time and memory of functions, on all nodes together
    #[command(visible_aliases = ["function", "fn"], after_help = "Counters run since the agents started.

Examples:
  hivectl top functions -A
  hivectl top function hello")]
    Functions(Functions),
}

#[derive(Debug, Args)]
struct Common {
    /// Only this one
    name: Option<String>,

    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// The greatest first
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort_by: Option<SortBy>,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
struct Nodes {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Functions {
    #[command(flatten)]
    common: Common,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

pub async fn run(top: Top, session: &mut Session<'_>) -> Result<(), Failure> {
    match top.command {
        Command::Nodes(nodes) => top_nodes(nodes.common, session).await,
        Command::Functions(functions) => top_functions(functions, session).await,
    }
}

/// Asks for metrics: one of them by name, or a list.
async fn metrics(
    collection: &str,
    common: &Common,
    session: &mut Session<'_>,
) -> Result<Value, Failure> {
    let mut path = collection.to_owned();
    if let Some(name) = &common.name {
        path.push('/');
        path.push_str(&url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>());
    }
    let path = path::with_query(
        &path,
        common
            .selector
            .as_deref()
            .map(|selector| ("labelSelector", selector)),
    );
    Ok(session.cluster().await?.json(&Call::get(&path)).await?)
}

async fn top_nodes(common: Common, session: &mut Session<'_>) -> Result<(), Failure> {
    let metrics = metrics("/apis/metrics.k8s.io/v1beta1/nodes", &common, session).await?;
    let nodes = session
        .cluster()
        .await?
        .list(Resource::Node, None, &[])
        .await?;
    let capacity = |name: &str, what: &str| -> Value {
        items(&nodes)
            .into_iter()
            .find(|node| object::name(node) == name)
            .map(|node| node["status"]["allocatable"][what].clone())
            .unwrap_or_default()
    };
    let mut rows: Vec<(u64, u64, Vec<String>)> = items(&metrics)
        .into_iter()
        .map(|metric| {
            let name = object::name(metric);
            let cpu = millis(&metric["usage"]["cpu"]);
            let memory = bytes(&metric["usage"]["memory"]);
            let row = vec![
                name.to_owned(),
                format!("{cpu}m"),
                percent(cpu, millis(&capacity(name, "cpu"))),
                format!("{}Mi", memory >> 20),
                percent(memory, bytes(&capacity(name, "memory"))),
            ];
            (cpu, memory, row)
        })
        .collect();
    sort(&mut rows, common.sort_by);
    let headers = ["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%"];
    print(&headers, rows, &common, session)
}

async fn top_functions(functions: Functions, session: &mut Session<'_>) -> Result<(), Failure> {
    let common = functions.common;
    let collection = match functions.all_namespaces {
        true => format!("/apis/metrics.{GROUP}/v1/functions"),
        false => format!(
            "/apis/metrics.{GROUP}/v1/namespaces/{}/functions",
            session.namespace().await?
        ),
    };
    let metrics = metrics(&collection, &common, session).await?;
    let mut rows: Vec<(u64, u64, Vec<String>)> = items(&metrics)
        .into_iter()
        .map(|metric| {
            let count = |field: &str| metric[field].as_u64().unwrap_or(0);
            let seconds = metric["cpuSeconds"].as_f64().unwrap_or(0.0);
            let memory = bytes(&metric["memory"]);
            let mut row = vec![
                object::name(metric).to_owned(),
                count("nodes").to_string(),
                count("requests").to_string(),
                count("errors").to_string(),
                count("inFlight").to_string(),
                format!("{seconds:.1}s"),
                format!("{}Mi", memory >> 20),
            ];
            if functions.all_namespaces {
                row.insert(0, object::namespace(metric).unwrap_or_default().to_owned());
            }
            ((seconds * 1000.0) as u64, memory, row)
        })
        .collect();
    sort(&mut rows, common.sort_by);
    let mut headers = vec![
        "NAME",
        "NODES",
        "REQUESTS",
        "ERRORS",
        "IN-FLIGHT",
        "CPU(time)",
        "MEMORY",
    ];
    if functions.all_namespaces {
        headers.insert(0, "NAMESPACE");
    }
    print(&headers, rows, &common, session)
}

fn sort(rows: &mut [(u64, u64, Vec<String>)], by: Option<SortBy>) {
    match by {
        Some(SortBy::Cpu) => rows.sort_by_key(|(cpu, _, _)| std::cmp::Reverse(*cpu)),
        Some(SortBy::Memory) => rows.sort_by_key(|(_, memory, _)| std::cmp::Reverse(*memory)),
        None => rows.sort_by(|a, b| a.2.cmp(&b.2)),
    }
}

fn print(
    headers: &[&str],
    rows: Vec<(u64, u64, Vec<String>)>,
    common: &Common,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    if rows.is_empty() {
        session.world.note("No metrics found.")?;
        return Ok(());
    }
    let rows = rows.into_iter().map(|(_, _, row)| row).collect();
    session
        .world
        .text(table::simple(headers, rows, !common.no_headers))?;
    Ok(())
}

fn millis(quantity: &Value) -> u64 {
    quantity
        .as_str()
        .and_then(|text| text.parse::<MilliCpu>().ok())
        .map_or(0, |cpu| cpu.0)
}

fn bytes(quantity: &Value) -> u64 {
    quantity
        .as_str()
        .and_then(|text| text.parse::<Bytes>().ok())
        .map_or(0, |bytes| bytes.0)
}

fn percent(used: u64, of: u64) -> String {
    match of {
        0 => "<unknown>".into(),
        of => format!("{}%", used.saturating_mul(100) / of),
    }
}
