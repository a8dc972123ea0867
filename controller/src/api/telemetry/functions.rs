//! `/metrics/functions`: what functions did, as this controller heard it, in Prometheus' text form.
//!
//! Each controller tells of the nodes whose sessions it holds, so all are scraped and added up:
//! `sum without (instance) (rate(...))`. A path of its own, because there may be a thousand times as much
//! of it as of `/metrics`. Only functions that had a request are told, so their names bound how much it is.

use std::convert::Infallible;
use std::fmt::{Display, Write as _};

use axum::body::Body;
use axum::response::Response;
use futures::stream;
use hive_functions::latency::BOUNDS_MICROS;

use super::{Api, describe, text};
use crate::gateway::{FunctionName, FunctionUse};

/// Written at once: ten thousand functions have some twenty megabytes, of which none need more than this in
/// memory beside their counters.
const PIECE_BYTES: usize = 64 << 10;

/// Series of one name, with one for each function or more.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    write: fn(&mut Series, &FunctionUse),
}

const FAMILIES: [Family; 11] = [
    Family {
        name: "hive_function_requests_total",
        kind: "counter",
        help: "Requests, also those that failed or got no turn.",
        write: |series, used| series.one(used.total.requests),
    },
    Family {
        name: "hive_function_errors_total",
        kind: "counter",
        help: "Requests that Hive ended without the function's whole answer, by cause.",
        write: |series, used| {
            for (reason, count) in used.total.errors() {
                series.line("", &format!("reason=\"{reason}\""), count);
            }
        },
    },
    Family {
        name: "hive_function_responses_total",
        kind: "counter",
        help: "Answers of the functions themselves, by the class of their status.",
        write: |series, used| {
            for (class, count) in used.total.responses.iter().enumerate() {
                if *count > 0 {
                    series.line("", &format!("code=\"{}xx\"", class + 1), count);
                }
            }
        },
    },
    Family {
        name: "hive_function_request_duration_seconds",
        kind: "histogram",
        help: "From a request's arrival at its node to the last byte of the answer.",
        write: |series, used| {
            let mut sum = 0_u64;
            for (index, count) in used.total.durations.iter().enumerate() {
                sum = sum.saturating_add(*count);
                let bound = BOUNDS_MICROS.get(index).map(|micros| seconds(*micros));
                let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
                series.line("_bucket", &format!("le=\"{bound}\""), sum);
            }
            series.line("_sum", "", seconds(used.total.duration_micros));
            series.line("_count", "", sum);
        },
    },
    Family {
        name: "hive_function_cpu_seconds_total",
        kind: "counter",
        help: "Processor time used.",
        write: |series, used| series.one(seconds(used.total.cpu_micros)),
    },
    Family {
        name: "hive_function_cold_starts_total",
        kind: "counter",
        help: "Requests that were the first of a copy since it was loaded.",
        write: |series, used| series.one(used.total.cold_starts),
    },
    Family {
        name: "hive_function_received_bytes_total",
        kind: "counter",
        help: "Bytes of requests' bodies.",
        write: |series, used| series.one(used.total.bytes_in),
    },
    Family {
        name: "hive_function_sent_bytes_total",
        kind: "counter",
        help: "Bytes of answers' bodies.",
        write: |series, used| series.one(used.total.bytes_out),
    },
    Family {
        name: "hive_function_in_flight_requests",
        kind: "gauge",
        help: "Requests under way.",
        write: |series, used| series.one(used.now.in_flight),
    },
    Family {
        name: "hive_function_memory_bytes",
        kind: "gauge",
        help: "Memory of the instances that live now.",
        write: |series, used| series.one(used.now.memory_bytes),
    },
    Family {
        name: "hive_function_memory_high_water_bytes",
        kind: "gauge",
        help: "The most that one instance had since its agent started.",
        write: |series, used| series.one(used.now.high_water_bytes),
    },
];

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Lines of one family for one function. Its names are those of an object that there is: there is
/// nothing in them to escape.
struct Series<'a> {
    out: &'a mut String,
    family: &'a Family,
    function: &'a FunctionName,
}

impl Series<'_> {
    fn one(&mut self, value: impl Display) {
        self.line("", "", value);
    }

    fn line(&mut self, suffix: &str, label: &str, value: impl Display) {
        let Family { name, .. } = self.family;
        let (namespace, function) = self.function;
        let comma = if label.is_empty() { "" } else { "," };
        let _ = writeln!(
            self.out,
            "{name}{suffix}{{namespace=\"{namespace}\",function=\"{function}\"{comma}{label}}} {value}"
        );
    }
}

/// The text, piece by piece.
struct Pieces {
    functions: Vec<(FunctionName, FunctionUse)>,
    family: usize,
    /// Of the functions, for that family.
    next: usize,
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut out = String::new();
        while out.len() < PIECE_BYTES
            && let Some(family) = FAMILIES.get(self.family)
        {
            if self.next == 0 {
                describe(&mut out, family.name, family.kind, family.help);
            }
            match self.functions.get(self.next) {
                Some((function, used)) => {
                    let mut series = Series {
                        out: &mut out,
                        family,
                        function,
                    };
                    (family.write)(&mut series, used);
                    self.next += 1;
                }
                None => (self.family, self.next) = (self.family + 1, 0),
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

pub(in crate::api) fn serve(context: &Api) -> Response {
    let pieces = Pieces {
        functions: context.nodes.own_function_use().into_iter().collect(),
        family: 0,
        next: 0,
    };
    text(Body::from_stream(stream::iter(
        pieces.map(Ok::<_, Infallible>),
    )))
}

#[cfg(test)]
mod tests {
    use hive_proto::v1::{ErrorCount, FunctionUsage};

    use super::*;
    use crate::gateway::Counters;

    fn used() -> FunctionUse {
        let mut durations = vec![0; 19];
        (durations[0], durations[2], durations[18]) = (5, 3, 1);
        FunctionUse {
            total: Counters::of(&FunctionUsage {
                requests: 9,
                errors: 2,
                cpu_micros: 1_500_000,
                duration_micros: 250_000,
                durations,
                responses: vec![0, 7, 0, 0, 1],
                errors_by_reason: vec![ErrorCount {
                    reason: "Trap".into(),
                    count: 2,
                }],
                ..FunctionUsage::default()
            }),
            ..FunctionUse::default()
        }
    }

    fn text(functions: usize) -> Vec<String> {
        let name = |n| ("default".to_owned(), format!("hello-{n}"));
        let pieces = Pieces {
            functions: (0..functions).map(|n| (name(n), used())).collect(),
            family: 0,
            next: 0,
        };
        pieces.collect()
    }

    #[test]
    fn a_function_is_told_in_prometheus_words() {
        let text = text(1).concat();
        let labels = "namespace=\"default\",function=\"hello-0\"";
        for line in [
            format!("hive_function_requests_total{{{labels}}} 9"),
            format!("hive_function_errors_total{{{labels},reason=\"Trap\"}} 2"),
            format!("hive_function_responses_total{{{labels},code=\"2xx\"}} 7"),
            format!("hive_function_responses_total{{{labels},code=\"5xx\"}} 1"),
            format!("hive_function_request_duration_seconds_bucket{{{labels},le=\"0.00025\"}} 5"),
            format!("hive_function_request_duration_seconds_bucket{{{labels},le=\"0.001\"}} 8"),
            format!("hive_function_request_duration_seconds_bucket{{{labels},le=\"300\"}} 8"),
            format!("hive_function_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 9"),
            format!("hive_function_request_duration_seconds_sum{{{labels}}} 0.25"),
            format!("hive_function_request_duration_seconds_count{{{labels}}} 9"),
            format!("hive_function_cpu_seconds_total{{{labels}}} 1.5"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("3xx"), "{text}");
    }

    #[test]
    fn many_functions_come_in_pieces_with_each_family_together() {
        let pieces = text(300);
        assert!(pieces.len() > 3);
        assert!(pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
        let text = pieces.concat();
        let mut described = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => described.extend(rest.split(' ').next()),
                None if line.starts_with('#') => {}
                None => {
                    let family = described.last().copied().unwrap_or_default();
                    assert!(line.starts_with(family), "{line} below {family}");
                }
            }
        }
        assert_eq!(described.len(), FAMILIES.len());
        let requests = "hive_function_requests_total{";
        assert_eq!(text.matches(requests).count(), 300);
    }
}
