//! How much a node may say before it is written down: every replica keeps it, in memory and on
//! disk, and sends it to whoever watches. Pure.
//!
//! A node is a machine of somebody's that may be broken or taken over; its own agent stays far
//! below all of these.

mod metering;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hive_functions::{Reason, latency};
use hive_proto::v1::{
    AgentEvent, ErrorCount, FunctionUsage, Holdings, NodeInfo, Report, TunnelOpened, Usage,
};

use crate::holdings::{self, Artifacts};

pub use metering::used;

/// Bytes of what a machine says of itself in a word: names, versions, addresses.
const MAX_WORD_BYTES: usize = 256;

/// Bytes of a message for people; Kubernetes has the same for events.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Bytes of a request's id; agents take no longer ones for ids.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// W3C Trace Context has just so many hexadecimal digits.
const MAX_TRACE_ID_BYTES: usize = 32;

/// Bytes of a reason for machines.
const MAX_REASON_BYTES: usize = 64;

/// Labels that a node brings along.
const MAX_LABELS: usize = 64;

/// Events in one report; the agent sends no more.
const MAX_EVENTS: usize = 64;

/// Bytes of the name of a function or namespace: what the API lets pass at most.
const MAX_NAME_BYTES: usize = 253;

/// Classes of statuses: 1xx to 5xx.
pub const CLASSES: usize = 5;

/// What requests failed for where that is none of the known reasons.
pub const OTHER: &str = "Other";

/// What a reason becomes that is none.
const NO_REASON: &str = "Unspecified";

pub fn info(mut info: NodeInfo) -> NodeInfo {
    for word in [
        &mut info.agent_version,
        &mut info.os,
        &mut info.arch,
        &mut info.kernel,
        &mut info.target,
        &mut info.wasmtime_version,
        &mut info.local_address,
    ] {
        cut(word, MAX_WORD_BYTES);
    }
    info.labels
        .retain(|name, value| is_label_name(name) && is_label_part(value, true));
    while info.labels.len() > MAX_LABELS {
        info.labels.pop_last();
    }
    info
}

/// Of two statuses for one assignment the later counts: they would be written in turns for ever.
pub fn report(mut report: Report) -> Report {
    let mut last = BTreeMap::new();
    for mut status in report.assignments {
        status.reason = reason(status.reason);
        cut(&mut status.message, MAX_MESSAGE_BYTES);
        cut(&mut status.revision, MAX_WORD_BYTES);
        last.insert((status.namespace.clone(), status.name.clone()), status);
    }
    report.assignments = last.into_values().collect();
    report.events.truncate(MAX_EVENTS);
    for AgentEvent {
        reason: text,
        message,
        request_id,
        trace_id,
        ..
    } in &mut report.events
    {
        // One that was cut would be another's.
        if request_id.len() > MAX_REQUEST_ID_BYTES {
            request_id.clear();
        }
        if trace_id.len() > MAX_TRACE_ID_BYTES {
            trace_id.clear();
        }
        *text = reason(std::mem::take(text));
        cut(message, MAX_MESSAGE_BYTES);
    }
    report
}

/// Only of functions that can be, in words that are known: a newer agent may count what this
/// controller has no name for.
pub fn usage(mut usage: Usage) -> Usage {
    let can_be = |name: &str| (1..=MAX_NAME_BYTES).contains(&name.len());
    usage
        .functions
        .retain(|function| can_be(&function.namespace) && can_be(&function.function));
    for FunctionUsage {
        durations,
        errors_by_reason,
        responses,
        layout,
        ..
    } in &mut usage.functions
    {
        if *layout != latency::LAYOUT || durations.len() != latency::Buckets::default().len() {
            durations.clear();
        }
        responses.truncate(CLASSES);
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for ErrorCount { reason, count } in errors_by_reason.drain(..) {
            let known = Reason::ALL
                .into_iter()
                .find(|known| known.as_str() == reason);
            let sum = counts.entry(known.map_or(OTHER, |known| known.as_str()));
            let sum = sum.or_default();
            *sum = sum.saturating_add(count);
        }
        errors_by_reason.extend(counts.into_iter().map(|(reason, count)| ErrorCount {
            reason: reason.to_owned(),
            count,
        }));
    }
    usage
}

/// Of a node that holds more than it may tell, some.
pub fn holdings(told: Holdings) -> Artifacts {
    holdings::bounded(told.artifacts)
}

/// Why a node does not connect to the target of a tunnel.
pub fn refusal(mut refused: TunnelOpened) -> TunnelOpened {
    refused.reason = reason(refused.reason);
    cut(&mut refused.message, MAX_MESSAGE_BYTES);
    refused
}

/// Empty or CamelCase.
fn reason(text: String) -> String {
    let good = text.len() <= MAX_REASON_BYTES && text.bytes().all(|c| c.is_ascii_alphanumeric());
    if good { text } else { NO_REASON.to_owned() }
}

/// Shortens a text at a character's end, and shows that.
pub fn cut(text: &mut String, bytes: usize) {
    const MARK: &str = "…";
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - MARK.len()));
        text.push_str(MARK);
    }
}

/// `name` or `example.com/name`.
fn is_label_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = |prefix: &str| {
        prefix.len() <= 253
            && prefix
                .split('.')
                .all(|part| is_label_part(part, false) && !part.contains(['_', '.']))
    };
    prefix.is_none_or(is_prefix) && is_label_part(name, false)
}

fn is_label_part(text: &str, may_be_empty: bool) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |c: &u8| c.is_ascii_alphanumeric() || b"-_.".contains(c);
    (may_be_empty && text.is_empty())
        || (bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(inner))
}

/// So many at once, and one more for each period.
#[derive(Clone, Debug)]
pub struct Allowance {
    burst: u32,
    every: Duration,
    /// The moment at which all of the burst is there again.
    full_at: Instant,
}

impl Allowance {
    pub fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self {
            burst,
            every,
            full_at: now,
        }
    }

    /// Takes one, or says how long it is until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let after = self.full_at.max(now) + self.every;
        let until = (after - now).saturating_sub(self.every * self.burst);
        if until.is_zero() {
            self.full_at = after;
            Ok(())
        } else {
            Err(until)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_proto::v1::{AssignmentStatus, Phase};

    #[test]
    fn an_ordinary_machine_is_taken_as_it_is() {
        let ordinary = NodeInfo {
            os: "linux".into(),
            local_address: "192.168.1.2:8000".into(),
            labels: [
                ("disk".into(), "ssd".into()),
                ("example.com/room".into(), String::new()),
            ]
            .into(),
            ..Default::default()
        };
        assert_eq!(info(ordinary.clone()), ordinary);
    }

    #[test]
    fn what_is_no_label_and_what_is_too_much_is_left_out() {
        let mut labels: BTreeMap<String, String> =
            (0..100).map(|n| (format!("l{n}"), "x".into())).collect();
        for bad in ["", "-a", "a b", "a/b/c", "A_.com/x", &"x".repeat(64)] {
            labels.insert(bad.to_owned(), "x".into());
        }
        labels.insert("a".into(), "x".repeat(64));
        let bounded = info(NodeInfo {
            kernel: "ä".repeat(1000),
            labels,
            ..Default::default()
        });
        assert!(bounded.kernel.len() <= MAX_WORD_BYTES && bounded.kernel.ends_with('…'));
        assert_eq!(bounded.labels.len(), MAX_LABELS);
        assert!(bounded.labels.keys().all(|name| name.starts_with('l')));
    }

    #[test]
    fn usage_is_of_functions_that_can_be_in_words_that_are_known() {
        let count = |reason: &str, count| ErrorCount {
            reason: reason.into(),
            count,
        };
        let function = |name: &str, layout, buckets| FunctionUsage {
            namespace: "a".into(),
            function: name.into(),
            durations: vec![1; buckets],
            responses: vec![1; 100],
            errors_by_reason: vec![
                count("Trap", 2),
                count("TheMoon", 1),
                count("Trap", u64::MAX),
                count("TheSun", 1),
            ],
            layout,
            ..FunctionUsage::default()
        };
        let functions = vec![
            function("f", 1, 19),
            function("", 1, 19),
            function(&"x".repeat(254), 1, 19),
            function("of-another-layout", 2, 19),
            function("of-no-layout", 1, 5),
        ];
        let bounded = usage(Usage {
            functions,
            ..Usage::default()
        });
        let counted: Vec<(&str, usize)> = bounded
            .functions
            .iter()
            .map(|one| (&*one.function, one.durations.len()))
            .collect();
        assert_eq!(
            counted,
            [("f", 19), ("of-another-layout", 0), ("of-no-layout", 0)]
        );
        let first = &bounded.functions[0];
        assert_eq!(first.responses.len(), CLASSES);
        assert_eq!(
            first.errors_by_reason,
            [count(OTHER, 2), count("Trap", u64::MAX)]
        );
    }

    #[test]
    fn a_node_tells_so_many_artifacts_and_each_once() {
        let told = |artifacts| holdings(Holdings { artifacts });
        assert_eq!(*told(vec![7, 5, 7]), [5, 7]);
        assert_eq!(told((0..100_000).rev().collect()).len(), 512);
        assert!(told(Vec::new()).is_empty());
    }

    #[test]
    fn a_report_says_one_short_thing_of_each_assignment() {
        let status = |phase: Phase, reason: &str| AssignmentStatus {
            name: "hello.0".into(),
            phase: phase.into(),
            reason: reason.into(),
            message: "m".repeat(5000),
            ..Default::default()
        };
        let bounded = report(Report {
            assignments: vec![
                status(Phase::Failed, "Trapped"),
                status(Phase::Ready, "not a reason"),
            ],
            events: vec![AgentEvent::default(); 100],
            ..Default::default()
        });
        let [only] = &bounded.assignments[..] else {
            panic!("{bounded:?}");
        };
        assert_eq!((only.phase(), &*only.reason), (Phase::Ready, NO_REASON));
        assert_eq!(only.message.len(), MAX_MESSAGE_BYTES);
        assert_eq!(bounded.events.len(), MAX_EVENTS);
    }

    #[test]
    fn an_allowance_is_a_burst_and_then_one_a_period() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(3, second, start);
        for _ in 0..3 {
            assert_eq!(allowance.take(start), Ok(()));
        }
        assert_eq!(allowance.take(start), Err(second));
        assert_eq!(allowance.take(start + second), Ok(()));
        assert_eq!(allowance.take(start + second), Err(second));
        let later = start + second * 100;
        for _ in 0..3 {
            assert_eq!(allowance.take(later), Ok(()));
        }
        assert!(allowance.take(later).is_err());
    }
}
