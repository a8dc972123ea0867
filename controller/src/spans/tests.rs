#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hive_manifests::Resource;
use http_body_util::{BodyExt as _, Full};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use super::*;
use crate::gateway::BoxError;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn spans(sample_ratio: f64) -> (Spans, mpsc::Receiver<SpanData>) {
    let (queue, ended) = queue::queue();
    (Spans::with_queue(queue, sample_ratio), ended)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn response(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

fn whole(text: &'static str) -> Body {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    body.map_err(|never| match never {}).boxed_unsync()
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let mut all = span.attributes.iter();
    let found = all.find(|it| it.key.as_str() == name)?;
    Some(found.value.as_str().into_owned())
}

fn parent_sent(request: &Request<()>) -> &str {
    request.headers()["traceparent"].to_str().unwrap()
}

#[test]
fn the_span_of_a_request_is_a_child_of_its_caller_and_parent_of_what_follows() {
    let (spans, mut ended) = spans(0.0);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let mut request = request(
        "POST",
        "/api/carts/7?card=4111",
        &[
            ("host", "shop.org:8080"),
            ("traceparent", &parent),
            ("tracestate", "a=b"),
            ("x-request-id", "r-1"),
        ],
    );
    let function = Key::new(Resource::Function, "sales", "shop");
    let asked = Asked {
        function: Some(&function),
        route: Some("/api"),
        ..Asked::default()
    };
    let span = spans.begin(&mut request, asked);
    let mut answer = response(200, &[], whole("hello"));
    answer.extensions_mut().insert(AnsweredBy {
        node: "pi-1".into(),
        revision: Some(HeaderValue::from_static("shop-2")),
    });
    let answer = span.answered(answer);
    assert!(ended.try_recv().is_err(), "the answer was not read yet");
    drop(answer);

    let span = ended.try_recv().unwrap();
    assert_eq!(span.name, "POST /api");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(
        span.span_context.trace_id(),
        TraceId::from_hex(TRACE).unwrap()
    );
    assert_eq!(span.parent_span_id, SpanId::from_hex(PARENT).unwrap());
    assert_eq!(span.status, Status::Unset);
    for (name, expected) in [
        ("http.request.method", Some("POST")),
        ("http.response.status_code", Some("200")),
        ("http.route", Some("/api")),
        ("url.scheme", Some("http")),
        ("url.path", Some("/api/carts/7")),
        ("server.address", Some("shop.org")),
        ("faas.name", Some("shop")),
        ("hive.namespace", Some("sales")),
        ("hive.node", Some("pi-1")),
        ("hive.revision", Some("shop-2")),
        ("hive.request_id", Some("r-1")),
        ("error.type", None),
    ] {
        assert_eq!(attribute(&span, name).as_deref(), expected, "{name}");
    }
    let all = format!("{:?}", span.attributes);
    assert!(!all.contains("4111"), "{all}");
    let id = span.span_context.span_id();
    assert_eq!(parent_sent(&request), format!("00-{TRACE}-{id}-01"));
    assert_eq!(request.headers()["tracestate"], "a=b");
}

#[test]
fn the_caller_says_what_is_recorded_and_the_ratio_where_it_does_not() {
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    for (parent, ratio, is_recorded) in [
        (Some(&*sampled), 0.0, true),
        (Some(&*unsampled), 1.0, false),
        (Some("nonsense"), 1.0, true),
        (None, 1.0, true),
        (None, 0.0, false),
    ] {
        let (spans, mut ended) = spans(ratio);
        let headers: Vec<_> = parent.map(|it| ("traceparent", it)).into_iter().collect();
        let mut request = request("GET", "/", &headers);
        let span = spans.begin(&mut request, Asked::default());
        drop(span.answered(response(200, &[], whole(""))));
        assert_eq!(ended.try_recv().is_ok(), is_recorded, "{parent:?} {ratio}");
        // What comes after is recorded if this is.
        let flag = if is_recorded { "-01" } else { "-00" };
        assert!(parent_sent(&request).ends_with(flag));
        let goes_on = parent_sent(&request)[3..].starts_with(TRACE);
        assert_eq!(goes_on, parent.is_some_and(|it| it.contains(TRACE)));
    }
}

#[tokio::test]
async fn what_failed_says_why() {
    let cut = || {
        let broken = std::io::Error::other("reset");
        let frames = [
            Ok(hyper::body::Frame::data(Bytes::from_static(b"hel"))),
            Err(BoxError::from(broken)),
        ];
        http_body_util::StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
    };
    for (status, reason, body, expected, kind) in [
        (200, None, whole(""), Status::Unset, None),
        (404, Some("NoRoute"), whole(""), Status::Unset, None),
        (
            502,
            Some("Trap"),
            whole(""),
            Status::error("Trap"),
            Some("Trap"),
        ),
        (500, None, whole(""), Status::error(""), Some("500")),
        (
            200,
            None,
            cut(),
            Status::error("AnswerCut"),
            Some("AnswerCut"),
        ),
    ] {
        let (spans, mut ended) = spans(1.0);
        let mut request = request("GET", "/", &[]);
        let span = spans.begin(&mut request, Asked::default());
        let headers: Vec<_> = reason.map(|it| ("x-hive-reason", it)).into_iter().collect();
        let answer = span.answered(response(status, &headers, body));
        let _ = answer.into_body().collect().await;
        let span = ended.try_recv().unwrap();
        assert_eq!(span.status, expected, "{status} {reason:?}");
        assert_eq!(attribute(&span, "error.type").as_deref(), kind);
    }
    // A caller who went before there was an answer.
    let (spans, mut ended) = spans(1.0);
    drop(spans.begin(&mut request("GET", "/", &[]), Asked::default()));
    let span = ended.try_recv().unwrap();
    assert_eq!(attribute(&span, "http.response.status_code"), None);
}

#[test]
fn names_are_few_whatever_is_asked_for() {
    let function = Key::new(Resource::Function, "sales", "shop");
    let by_name = Asked {
        function: Some(&function),
        ..Asked::default()
    };
    let tunnel = Key::new(Resource::Tunnel, "sales", "till");
    let by_tunnel = Asked {
        tunnel: Some(&tunnel),
        ..Asked::default()
    };
    for (method, asked, expected) in [
        ("GET", by_name, "GET sales/shop"),
        ("GET", by_tunnel, "GET sales/till"),
        ("GET", Asked::default(), "GET"),
        ("BREW", Asked::default(), "HTTP"),
    ] {
        let (spans, mut ended) = spans(1.0);
        let path = format!("/{}", "x".repeat(2 * LONGEST_VALUE));
        drop(spans.begin(&mut request(method, &path, &[]), asked));
        let span = ended.try_recv().unwrap();
        assert_eq!(span.name, expected);
        let path = attribute(&span, "url.path").unwrap();
        assert_eq!(path.len(), LONGEST_VALUE);
        let original = attribute(&span, "http.request.method_original");
        assert_eq!(original.is_some(), method == "BREW");
        let names = ["faas.name", "hive.tunnel"].map(|name| attribute(&span, name));
        let said = [asked.function, asked.tunnel].map(|it| it.map(|key| key.name.clone()));
        assert_eq!(names, said);
    }
}
