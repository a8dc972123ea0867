//! `hivectl top`: what nodes and functions use, as their agents reported last.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hive_manifests::duration::GoDuration;
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
    #[command(visible_aliases = ["function", "fn"], after_help = "Rates, times (to the last byte of the answer) and CPU are of the \
last minute, MEMORY is of now, HIGH the most that one instance had. COLD counts first requests of copies that were just loaded. With \
--totals counters run since the agents started.

Examples:
  hivectl top functions -A
  hivectl top functions --sort-by=p99
  hivectl top function hello --totals")]
    Functions(Functions),
}

#[derive(Debug, Args)]
struct Common {
    /// Only this one
    name: Option<String>,

    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
struct Nodes {
    #[command(flatten)]
    common: Common,

    /// The greatest first
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort_by: Option<NodeColumn>,
}

#[derive(Debug, Args)]
struct Functions {
    #[command(flatten)]
    common: Common,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// What there was since the agents started, in place of rates
    #[arg(long)]
    totals: bool,

    /// The greatest first
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort_by: Option<FunctionColumn>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NodeColumn {
    Cpu,
    Memory,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FunctionColumn {
    Requests,
    Errors,
    P99,
    Cpu,
    Memory,
}

/// A line of the table, and what it is sorted by where that is not its first cell.
struct Row {
    weight: u64,
    cells: Vec<String>,
}

pub async fn run(top: Top, session: &mut Session<'_>) -> Result<(), Failure> {
    match top.command {
        Command::Nodes(nodes) => top_nodes(nodes, session).await,
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

async fn top_nodes(nodes: Nodes, session: &mut Session<'_>) -> Result<(), Failure> {
    let Nodes { common, sort_by } = nodes;
    let metrics = metrics("/apis/metrics.k8s.io/v1beta1/nodes", &common, session).await?;
    let objects = session
        .cluster()
        .await?
        .list(Resource::Node, None, &[])
        .await?;
    let capacity = |name: &str, what: &str| -> Value {
        items(&objects)
            .into_iter()
            .find(|node| object::name(node) == name)
            .map(|node| node["status"]["allocatable"][what].clone())
            .unwrap_or_default()
    };
    let rows = items(&metrics)
        .into_iter()
        .map(|metric| {
            let name = object::name(metric);
            let cpu = millis(&metric["usage"]["cpu"]);
            let memory = bytes(&metric["usage"]["memory"]);
            let cells = vec![
                name.to_owned(),
                format!("{cpu}m"),
                percent(cpu, millis(&capacity(name, "cpu"))),
                format!("{}Mi", memory >> 20),
                percent(memory, bytes(&capacity(name, "memory"))),
            ];
            let weight = match sort_by {
                None => 0,
                Some(NodeColumn::Cpu) => cpu,
                Some(NodeColumn::Memory) => memory,
            };
            Row { weight, cells }
        })
        .collect();
    let headers = ["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%"];
    print(&headers, rows, &common, session)
}

async fn top_functions(functions: Functions, session: &mut Session<'_>) -> Result<(), Failure> {
    let Functions {
        common,
        all_namespaces,
        totals,
        sort_by,
    } = functions;
    let collection = match all_namespaces {
        true => format!("/apis/metrics.{GROUP}/v1/functions"),
        false => format!(
            "/apis/metrics.{GROUP}/v1/namespaces/{}/functions",
            session.namespace().await?
        ),
    };
    let metrics = metrics(&collection, &common, session).await?;
    let metrics = items(&metrics);
    // Controllers of the release before know no rates.
    let knows_rates = metrics
        .iter()
        .any(|metric| metric["requestsPerSecond"].is_number());
    let totals = totals || !knows_rates;
    let rows = metrics
        .into_iter()
        .map(|metric| {
            let mut cells = match totals {
                true => total_cells(metric),
                false => rate_cells(metric),
            };
            if all_namespaces {
                cells.insert(0, object::namespace(metric).unwrap_or_default().to_owned());
            }
            let weight = sort_by.map_or(0, |column| weight(metric, column, totals));
            Row { weight, cells }
        })
        .collect();
    let mut headers = match totals {
        true => TOTALS.to_vec(),
        false => RATES.to_vec(),
    };
    if all_namespaces {
        headers.insert(0, "NAMESPACE");
    }
    print(&headers, rows, &common, session)
}

const RATES: [&str; 10] = [
    "NAME", "NODES", "REQ/S", "ERR/S", "P50", "P99", "CPU", "MEMORY", "HIGH", "COLD",
];

fn rate_cells(metric: &Value) -> Vec<String> {
    vec![
        object::name(metric).to_owned(),
        count(metric, "nodes").to_string(),
        rate(number(metric, "requestsPerSecond")),
        rate(number(metric, "errorsPerSecond")),
        duration(metric, "p50").map_or_else(|| "-".to_owned(), short),
        duration(metric, "p99").map_or_else(|| "-".to_owned(), short),
        metric["cpu"].as_str().unwrap_or("0m").to_owned(),
        format!("{}Mi", bytes(&metric["memory"]) >> 20),
        format!("{}Mi", bytes(&metric["memoryHighWater"]) >> 20),
        count(metric, "coldStarts").to_string(),
    ]
}

const TOTALS: [&str; 7] = [
    "NAME",
    "NODES",
    "REQUESTS",
    "ERRORS",
    "IN-FLIGHT",
    "CPU(time)",
    "MEMORY",
];

fn total_cells(metric: &Value) -> Vec<String> {
    vec![
        object::name(metric).to_owned(),
        count(metric, "nodes").to_string(),
        count(metric, "requests").to_string(),
        count(metric, "errors").to_string(),
        count(metric, "inFlight").to_string(),
        format!("{:.1}s", number(metric, "cpuSeconds")),
        format!("{}Mi", bytes(&metric["memory"]) >> 20),
    ]
}

/// Of what the column shows.
fn weight(metric: &Value, column: FunctionColumn, totals: bool) -> u64 {
    let thousandths = |field| (number(metric, field) * 1000.0) as u64;
    match column {
        FunctionColumn::Requests if totals => count(metric, "requests"),
        FunctionColumn::Requests => thousandths("requestsPerSecond"),
        FunctionColumn::Errors if totals => count(metric, "errors"),
        FunctionColumn::Errors => thousandths("errorsPerSecond"),
        FunctionColumn::P99 => duration(metric, "p99").map_or(0, |p99| p99.as_micros() as u64),
        FunctionColumn::Cpu if totals => thousandths("cpuSeconds"),
        FunctionColumn::Cpu => millis(&metric["cpu"]),
        FunctionColumn::Memory => bytes(&metric["memory"]),
    }
}

fn print(
    headers: &[&str],
    mut rows: Vec<Row>,
    common: &Common,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    if rows.is_empty() {
        session.world.note("No metrics found.")?;
        return Ok(());
    }
    rows.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.cells.cmp(&b.cells)));
    let rows = rows.into_iter().map(|row| row.cells).collect();
    session
        .world
        .text(table::simple(headers, rows, !common.no_headers))?;
    Ok(())
}

fn count(metric: &Value, field: &str) -> u64 {
    metric[field].as_u64().unwrap_or(0)
}

fn number(metric: &Value, field: &str) -> f64 {
    metric[field].as_f64().unwrap_or(0.0)
}

fn duration(metric: &Value, field: &str) -> Option<Duration> {
    let text = metric[field].as_str()?;
    Some(text.parse::<GoDuration>().ok()?.0)
}

/// Two figures after the point where that says something.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{small:.2}"),
        large => format!("{large:.0}"),
    }
}

/// In one unit: a column of times is to be read at a glance.
fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{:.1}s", duration.as_secs_f64()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_short() {
        for (micros, expected) in [
            (870, "870us"),
            (1_240, "1.2ms"),
            (12_900, "12ms"),
            (245_000, "245ms"),
            (2_500_000, "2.5s"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)), expected);
        }
        for (per_second, expected) in [(0.0, "0"), (0.017, "0.02"), (1.5, "1.50"), (1234.4, "1234")]
        {
            assert_eq!(rate(per_second), expected);
        }
    }
}
