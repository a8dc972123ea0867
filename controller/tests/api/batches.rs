//! A function called with a batch of records: over a real link, to a node that answers as it is told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hive_controller::ingress::{self, Forwarder};
use hive_controller::state::Key;
use hive_controller::traffic::Loads;
use hive_controller::tunnels::Tunnels;
use hive_manifests::Resource;
use hive_proto::batch::{BatchError, BatchOutcome, CONTENT_TYPE, Record};
use hive_proto::invoke;
use hive_proto::link::{Link, Purpose};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::agents::Swarm;

pub(crate) type Answered = (u16, &'static [(&'static str, &'static str)], &'static str);

/// What the node was sent, and what it answers next.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) answer: Mutex<Answered>,
    pub(crate) asked: Mutex<Vec<(Request<()>, Bytes)>>,
}

impl Node {
    /// The node `name` of a swarm, with the only copy of a function made for it.
    pub(crate) async fn with_function(swarm: &Swarm, name: &str, function: &str) -> Arc<Self> {
        let link = swarm.link(swarm.node(name).await).await;
        swarm.is_linked(name).await;
        let node = Arc::new(Self::default());
        tokio::spawn(node.clone().serve(link));
        let spec = json!({ "spec": { "artifact": { "sha256": "11".repeat(32) } } });
        swarm
            .create(Resource::Function, "default", function, spec)
            .await;
        swarm.assign(function, name, 0x11).await;
        swarm.is_ready(function).await;
        node
    }

    async fn serve(self: Arc<Self>, link: Link) {
        while let Ok((purpose, stream)) = link.accept().await {
            assert_eq!(purpose, Purpose::Invoke);
            let node = self.clone();
            let service = service_fn(move |request| {
                let node = node.clone();
                async move { Ok::<_, Infallible>(node.taken(request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }

    async fn taken(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let asked = (Request::from_parts(head, ()), body);
        self.asked.lock().unwrap().push(asked);
        let (status, headers, body) = *self.answer.lock().unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(body.into()).unwrap()
    }
}

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        source: "/test".to_owned(),
        kind: "test".to_owned(),
        time: None,
        content_type: Some("application/json".to_owned()),
        data: format!("{{\"is\":\"{id}\"}}").into(),
    }
}

#[tokio::test]
async fn records_reach_a_copy_and_those_that_failed_are_named() {
    let swarm = Swarm::start().await;
    let node = Node::with_function(&swarm, "pi", "taker").await;
    let replica = &swarm.server.replica;
    let routes = ingress::follow_routes(replica, swarm.server.stop.clone());
    let (invoker, tunnels) = (swarm.invoker.clone(), Tunnels::default());
    let forwarder = Forwarder::new(routes, invoker, tunnels, Loads::default(), None);
    let function = Key::new(Resource::Function, "default", "taker");
    let records = [record("a"), record("b"), record("c")];
    let batch = |answer: Answered| {
        *node.answer.lock().unwrap() = answer;
        forwarder.batch(&function, "/records?x=1", &records)
    };

    let taken = batch((200, &[], "")).await.unwrap();
    assert_eq!(taken, BatchOutcome::Taken { again: vec![] });
    let (head, body) = node.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (head.method().as_str(), head.uri().to_string()),
        ("POST", "/records?x=1".to_owned())
    );
    assert_eq!(head.headers()["content-type"], CONTENT_TYPE);
    assert_eq!(head.headers()[invoke::FUNCTION], "taker");
    let events: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(events[1]["id"], "b");
    assert_eq!(events[1]["data"], json!({ "is": "b" }));

    let some = r#"{"batchItemFailures":[{"itemIdentifier":"c"},{"itemIdentifier":"a"}]}"#;
    let again = batch((200, &[], some)).await.unwrap();
    assert_eq!(again, BatchOutcome::Taken { again: vec![0, 2] });

    let busy = batch((
        503,
        &[("x-hive-retry", "1"), ("x-hive-reason", "Overloaded")],
        "",
    ))
    .await;
    assert_eq!(busy, Ok(BatchOutcome::NotRun));
    let trapped = batch((502, &[("x-hive-reason", "Trap")], "")).await;
    let why = "answered 502 Bad Gateway (Trap)".to_owned();
    assert_eq!(trapped, Ok(BatchOutcome::Failed(why)));

    let same = [record("a"), record("a")];
    let refused = forwarder.batch(&function, "/", &same).await;
    assert_eq!(refused, Err(BatchError::SameId("a".to_owned())));
    let nobody = Key::new(Resource::Function, "default", "nobody");
    let none = forwarder.batch(&nobody, "/", &records).await;
    assert_eq!(none, Ok(BatchOutcome::NotRun));
}
