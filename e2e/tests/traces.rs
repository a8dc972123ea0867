//! Spans of requests at a collector: who is whose parent, what they say, and what happens when nobody
//! collects them.
#![allow(clippy::unwrap_used)]

use hive_e2e::collector::{Collected, Collector};
use hive_e2e::swarm::host;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::{self, Answer};
use hive_e2e::{Steps, Swarm, guests};
use http::{Request, StatusCode};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Ended;
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector wants to know of its clients, as the environment has it.
const HEADERS: &str = "authorization=Bearer%20e2e-secret";

#[tokio::test(flavor = "multi_thread")]
async fn requests_become_spans_and_no_request_waits_for_a_collector() {
    let mut collector = Collector::start().await;
    let mut swarm = Swarm::builder()
        .controllers(1)
        .agents(1)
        .run_flag("--otlp-endpoint", &collector.endpoint())
        .start()
        .await;
    swarm.deploy("probe", &guests::probe(), json!({})).await;
    let mut steps = Steps::new();

    steps
        .run(
            "a span is child of the caller's and parent of what follows",
            async {
                let parent = format!("00-{TRACE}-{CALLER}-01");
                let answer = ask(&swarm, "/echo?secret=1", &[("traceparent", &parent)]).await;
                let found = span(&collector, &answer).await;
                let span = &found.span;
                assert_eq!(hex(&span.trace_id), TRACE);
                assert_eq!(hex(&span.parent_span_id), CALLER);
                let sent = answer.header("echo-traceparent");
                assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&span.span_id)));
                assert_eq!(span.name, "GET /");
                assert_eq!(span.kind, SpanKind::Server as i32);
                assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
                let address = host("probe");
                for (name, expected) in [
                    ("http.request.method", "GET"),
                    ("http.route", "/"),
                    ("http.response.status_code", "200"),
                    ("url.path", "/echo"),
                    ("server.address", &*address),
                    ("faas.name", "probe"),
                    ("hive.namespace", "default"),
                    ("hive.node", "node-1"),
                ] {
                    assert_eq!(found.attribute(name), expected, "{name}");
                }
                for (name, expected) in [("service.name", "hive"), ("hive.cluster", "e2e")] {
                    assert_eq!(found.resource(name), expected, "{name}");
                }
            },
        )
        .await;
    steps
        .run(
            "a request without a trace begins one, and the log has it",
            async {
                let answer = ask(&swarm, "/log?lines=1&text=begun", &[]).await;
                let found = span(&collector, &answer).await;
                assert!(found.span.parent_span_id.is_empty());
                let trace = hex(&found.span.trace_id);
                let log = swarm.ctl(&["logs", "probe", "--request-id", &trace]).await;
                assert!(log.ok().starts_with("begun"), "{log}");
            },
        )
        .await;
    steps
        .run("what fails says why", async {
            let answer = ask(&swarm, "/trap", &[]).await;
            let found = span(&collector, &answer).await;
            let status = found.span.status.clone().unwrap();
            assert_eq!(status.code, Ended::Error as i32);
            assert_eq!(status.message, "Trap");
            assert_eq!(found.attribute("http.response.status_code"), "502");
            assert_eq!(found.attribute("error.type"), "Trap");
        })
        .await;
    steps
        .run("what comes by hivectl has a span of the same kind", async {
            let before = collector.spans().len();
            let said = swarm
                .ctl(&["invoke", "probe", "--path=/status?code=201"])
                .await;
            said.ok();
            until("its span is told", PATIENCE, async || {
                let spans = collector.spans().split_off(before);
                let is_it = |it: &Collected| {
                    it.span.name == "GET default/probe"
                        && it.attribute("http.response.status_code") == "201"
                };
                holds(spans.iter().any(is_it), format!("{spans:?}"))
            })
            .await;
        })
        .await;
    steps
        .run("a caller whose trace is not recorded gets no span", async {
            let unrecorded = format!("00-{TRACE}-{CALLER}-00");
            let answer = ask(&swarm, "/echo", &[("traceparent", &unrecorded)]).await;
            let sent = answer.header("echo-traceparent");
            assert!(sent.starts_with(&format!("00-{TRACE}-")), "{sent}");
            assert!(sent.ends_with("-00"), "{sent}");
            // Told after it, so that it would have come.
            let next = ask(&swarm, "/echo", &[]).await;
            span(&collector, &next).await;
            let id = answer.header("x-request-id");
            let is_it = |it: &Collected| it.attribute("hive.request_id") == id;
            assert!(!collector.spans().iter().any(is_it));
        })
        .await;
    steps
        .run(
            "while the collector is away requests are answered, and told when it is back",
            async {
                collector.go_away().await;
                let mut answers = Vec::new();
                for _ in 0..20 {
                    answers.push(ask(&swarm, "/echo", &[]).await);
                }
                until("the log says so", PATIENCE, async || {
                    let log = swarm.controllers[0].member.log();
                    holds(log.contains("the collector does not take spans"), log)
                })
                .await;
                answers.push(ask(&swarm, "/echo", &[]).await);
                collector.come_back().await;
                for answer in &answers {
                    assert_eq!(answer.status, 200);
                    span(&collector, answer).await;
                }
                assert_eq!(metric(&swarm, "hive_spans_dropped_total").await, 0);
                let log = swarm.controllers[0].member.log();
                let warnings = log.matches("the collector does not take spans").count();
                assert_eq!(warnings, 1, "{log}");
            },
        )
        .await;
    steps
        .run(
            "what the collector refuses is counted, and not sent again",
            async {
                collector.refuse(Some(StatusCode::BAD_REQUEST));
                let refused = ask(&swarm, "/echo", &[]).await;
                until("it is counted", PATIENCE, async || {
                    let dropped = metric(&swarm, "hive_spans_dropped_total").await;
                    holds(dropped == 1, dropped)
                })
                .await;
                let asked = collector.asked();
                collector.refuse(None);
                let taken = ask(&swarm, "/echo", &[]).await;
                span(&collector, &taken).await;
                assert_eq!(collector.asked(), asked + 1);
                let id = refused.header("x-request-id");
                let is_it = |it: &Collected| it.attribute("hive.request_id") == id;
                assert!(!collector.spans().iter().any(is_it));
                until("what it took is counted", PATIENCE, async || {
                    let exported = metric(&swarm, "hive_spans_exported_total").await;
                    let taken = collector.spans().len() as u64;
                    holds(exported == taken, format!("{exported} of {taken}"))
                })
                .await;
            },
        )
        .await;
    steps
        .run("a controller that stops tells what it has", async {
            let last = ask(&swarm, "/echo", &[]).await;
            swarm.controllers[0].member.stop().await;
            let id = last.header("x-request-id");
            let is_it = |it: &Collected| it.attribute("hive.request_id") == id;
            assert!(collector.spans().iter().any(is_it));
        })
        .await;
    steps
        .run(
            "a collector hears the headers that it wants, and no log does",
            async {
                let member = &mut swarm.controllers[0].member;
                member.variable("OTEL_EXPORTER_OTLP_HEADERS", HEADERS);
                member.start();
                swarm.controller_ready(0).await;
                swarm.function_ready("probe").await;
                let answer = ask(&swarm, "/echo", &[]).await;
                span(&collector, &answer).await;
                assert_eq!(collector.headers()["authorization"], "Bearer e2e-secret");
                let log = swarm.controllers[0].member.log();
                assert!(!log.contains("e2e-secret"), "{log}");
            },
        )
        .await;
    steps.finish();
}

async fn ask(swarm: &Swarm, path: &str, headers: &[(&str, &str)]) -> Answer {
    let address = swarm.controllers[0].ingress_address();
    let answer = web::get_with(&address, &host("probe"), path, headers).await;
    answer.unwrap()
}

/// Waits for the span of the request that was answered so.
async fn span(collector: &Collector, answer: &Answer) -> Collected {
    let id = answer.header("x-request-id");
    assert!(!id.is_empty());
    until("the request's span is told", PATIENCE, async || {
        let mut spans = collector.spans().into_iter();
        let found = spans.find(|it| it.attribute("hive.request_id") == id);
        found.ok_or_else(|| format!("none of {} is of {id}", collector.spans().len()))
    })
    .await
}

async fn metric(swarm: &Swarm, name: &str) -> u64 {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let text = swarm.client_of(0).await.request_text(request).await;
    let text = text.unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {text}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
