//! `/metrics`: what this controller does and has done, in Prometheus' text form.
//!
//! Written by hand: a few counters and what is known anyway need no registry. Labels come from fixed
//! sets only (verbs, kinds, status codes), so that nobody's requests can make this grow.

pub(super) mod functions;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hive_manifests::Resource;
use http::{HeaderValue, Method, header};

use super::Api;
use super::metering::Metered;
use super::path::Target;
use super::watch;
use crate::histogram::Histogram;
use crate::tunnels::live::Carried;

/// The unit of /proc's processor times: USER_HZ, which Linux keeps at this wherever Hive runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a request is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    verb: &'static str,
    resource: &'static str,
}

impl Series {
    /// Of a request as it came in. Which list is a watch is known from the answer.
    pub fn of(method: &Method, target: Option<&Target>) -> Self {
        let (resource, named) = match target {
            Some(Target::Objects(path)) => (path.resource.plural(), path.name.is_some()),
            Some(Target::Artifact(_)) => ("artifacts", true),
            Some(Target::Controllers(id)) => ("controllers", id.is_some()),
            Some(Target::NodeMetrics(name)) => ("nodes.metrics.k8s.io", name.is_some()),
            Some(Target::FunctionMetrics { name, .. }) => {
                ("functions.metrics.hive.dev", name.is_some())
            }
            Some(Target::Metered(asked)) => {
                let resource = match asked {
                    Metered::Functions { .. } => "functions.metering.hive.dev",
                    Metered::Namespaces(_) => "namespaces.metering.hive.dev",
                };
                (resource, asked.name().is_some())
            }
            _ => ("", true),
        };
        let verb = match *method {
            Method::GET | Method::HEAD if named => "GET",
            Method::GET | Method::HEAD => "LIST",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE if named => "DELETE",
            Method::DELETE => "DELETECOLLECTION",
            _ => "OTHER",
        };
        Self { verb, resource }
    }
}

#[derive(Default)]
struct Counted {
    codes: BTreeMap<u16, u64>,
    durations: Histogram,
}

/// Requests since the start.
#[derive(Default)]
pub(super) struct Requests {
    series: Mutex<BTreeMap<Series, Counted>>,
}

impl Requests {
    fn series(&self) -> MutexGuard<'_, BTreeMap<Series, Counted>> {
        self.series.lock().expect("nothing panics while it counts")
    }

    pub fn count(&self, mut series: Series, response: &Response, took: Duration) {
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_watch = content_type.is_some_and(|value| value == watch::CONTENT_TYPE);
        if is_watch {
            series.verb = "WATCH";
        }
        let mut all = self.series();
        let counted = all.entry(series).or_default();
        *counted.codes.entry(response.status().as_u16()).or_default() += 1;
        // A watch lasts as long as its client likes.
        if !is_watch {
            counted.durations.observe(took);
        }
    }

    fn write(&self, out: &mut String) {
        let all = self.series();
        describe(
            out,
            "apiserver_request_total",
            "counter",
            "Requests answered.",
        );
        for (Series { verb, resource }, counted) in &*all {
            for (code, count) in &counted.codes {
                let _ = writeln!(
                    out,
                    "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}"
                );
            }
        }
        let name = "apiserver_request_duration_seconds";
        describe(
            out,
            name,
            "histogram",
            "From a request's head to its answer's.",
        );
        for (Series { verb, resource }, counted) in &*all {
            let labels = format!("verb=\"{verb}\",resource=\"{resource}\"");
            counted.durations.write(out, name, &labels);
        }
    }
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    describe(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

pub(super) fn serve(context: &Api) -> Response {
    let mut out = String::new();
    context.requests.write(&mut out);
    context.permits.write(&mut out);
    stored(context, &mut out);
    raft(context, &mut out);
    nodes(context, &mut out);
    tunnels(context, &mut out);
    spans(context, &mut out);
    process(&mut out);
    text(Body::from(out))
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

fn stored(context: &Api, out: &mut String) {
    let state = context.replica.state();
    let name = "apiserver_storage_objects";
    describe(out, name, "gauge", "Objects stored, by kind.");
    for resource in Resource::ALL {
        let count = state.list(resource, None).count();
        let _ = writeln!(out, "{name}{{resource=\"{resource}\"}} {count}");
    }
    let (changes, bytes) = state.remembered();
    let help = "Changes remembered for watches and lists of the past.";
    single(out, "hive_history_changes", "gauge", help, changes);
    let help = "Memory that only these changes take.";
    single(out, "hive_history_bytes", "gauge", help, bytes);
    let help = "Revision of the last change.";
    single(out, "hive_revision", "gauge", help, state.revision());
}

fn raft(context: &Api, out: &mut String) {
    let health = context.replica.health();
    let own = context.replica.id();
    let leads = u8::from(health.leader == Some(own));
    for (name, help, value) in [
        ("hive_raft_term", "Term of Raft.", health.term),
        (
            "hive_raft_is_leader",
            "1 on the controller that leads.",
            leads.into(),
        ),
        (
            "hive_raft_has_leader",
            "1 where a leader is known.",
            u8::from(health.leader.is_some()).into(),
        ),
        (
            "hive_raft_last_log_index",
            "Last entry of the log.",
            health.last_log,
        ),
        (
            "hive_raft_committed_index",
            "Last entry known to be committed.",
            health.committed,
        ),
        (
            "hive_raft_applied_index",
            "Last entry applied.",
            health.applied,
        ),
        (
            "hive_raft_voters",
            "Controllers that vote.",
            health.voters.len() as u64,
        ),
    ] {
        single(out, name, "gauge", help, value);
    }
    let name = "hive_raft_log_sync_duration_seconds";
    describe(out, name, "histogram", "How long a sync of the log took.");
    context.replica.log_syncs().write(out, name, "");
    let name = "hive_encryption_files";
    let help = "Segments of the log, and the newest snapshot, by the key that seals them.";
    describe(out, name, "gauge", help);
    for (key, count) in context.replica.seals_in_use() {
        let key = key.map_or_else(|| "none".to_owned(), |key| key.to_string());
        let _ = writeln!(out, "{name}{{key=\"{key}\"}} {count}");
    }
}

fn nodes(context: &Api, out: &mut String) {
    let linked = context.nodes.links().present().borrow().len();
    let help = "Nodes that hold a link to this controller.";
    single(out, "hive_linked_nodes", "gauge", help, linked);
    let name = "hive_function_usages_dropped_total";
    let help = "Times that a node told of a function for which there was no room.";
    let dropped = context.nodes.function_usages_dropped();
    single(out, name, "counter", help, dropped);
}

/// Of each that there is: their names are no more than people declare.
fn tunnels(context: &Api, out: &mut String) {
    let all: Vec<(String, Carried)> = context
        .tunnels
        .all()
        .iter()
        .map(|live| {
            let tunnel = live.tunnel();
            let key = &tunnel.key;
            let labels = format!("namespace=\"{}\",tunnel=\"{}\"", key.namespace, key.name);
            (labels, live.metered())
        })
        .collect();
    let name = "hive_tunnel_connections";
    let help = "Connections and requests under way.";
    describe(out, name, "gauge", help);
    for (labels, Carried { connections, .. }) in &all {
        let _ = writeln!(out, "{name}{{{labels}}} {connections}");
    }
    let name = "hive_tunnel_bytes_total";
    let help = "Bytes carried in to targets and out to clients.";
    describe(out, name, "counter", help);
    for (labels, metered) in &all {
        for (direction, bytes) in [("in", metered.in_bytes), ("out", metered.out_bytes)] {
            let _ = writeln!(out, "{name}{{{labels},direction=\"{direction}\"}} {bytes}");
        }
    }
    let name = "hive_tunnel_errors_total";
    let help =
        "Connections that a target did not take, or that did not go on to their end, by cause.";
    describe(out, name, "counter", help);
    for (labels, metered) in &all {
        for (reason, count) in &metered.failures {
            let _ = writeln!(out, "{name}{{{labels},reason=\"{reason}\"}} {count}");
        }
    }
    let name = "hive_ingress_tls_refused_total";
    let help =
        "Connections at the ingress for TLS that got no further than their handshake, by cause.";
    describe(out, name, "counter", help);
    for (reason, count) in context.tunnels.names.refused() {
        let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
    }
}

/// Where somebody collects them.
fn spans(context: &Api, out: &mut String) {
    let Some(counts) = context.forwarder.span_counts() else {
        return;
    };
    let name = "hive_spans_exported_total";
    let help = "Spans of requests that the collector took.";
    single(out, name, "counter", help, counts.exported());
    let name = "hive_spans_dropped_total";
    let help = "Spans of requests that found no place in the queue, or that the collector refused.";
    single(out, name, "counter", help, counts.dropped());
}

/// What the system says of this process; nothing where there is no /proc.
fn process(out: &mut String) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    // Counted from behind the name, which may hold spaces.
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => return,
    };
    let field = |index: usize| -> u64 {
        fields
            .get(index)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let cpu = (field(11) + field(12)) as f64 / TICKS_PER_SECOND;
    let help = "Processor time used.";
    single(out, "process_cpu_seconds_total", "counter", help, cpu);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kilobytes: u64| kilobytes * 1024);
    let help = "Memory in use.";
    single(
        out,
        "process_resident_memory_bytes",
        "gauge",
        help,
        resident,
    );
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let help = "Files and sockets open.";
        single(out, "process_open_fds", "gauge", help, open.count());
    }
}
