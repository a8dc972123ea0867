//! How long requests wait for their turn, as nodes tell it: over a real link, to a node that answers as it is told.

use std::time::Instant;

use bytes::Bytes;
use hive_controller::ingress::{self, Forwarder};
use hive_controller::state::Key;
use hive_controller::traffic::{Loads, Told};
use hive_controller::tunnels::Tunnels;
use hive_manifests::Resource;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::agents::Swarm;
use crate::batches::{Answered, Node};

#[tokio::test]
async fn an_ingress_adds_up_what_nodes_say_of_waiting_and_tells_no_caller() {
    let swarm = Swarm::start().await;
    let node = Node::with_function(&swarm, "pi", "busy").await;
    let (routes, loads) = (
        ingress::follow_routes(&swarm.server.replica, swarm.server.stop.clone()),
        Loads::default(),
    );
    let (invoker, tunnels) = (swarm.invoker.clone(), Tunnels::default());
    let forwarder = Forwarder::new(routes, invoker, tunnels, loads.clone(), None);
    let function = Key::new(Resource::Function, "default", "busy");
    let answers: [Answered; 3] = [
        (200, &[("x-hive-waited-us", "30000")], "late"),
        (200, &[], "at once"),
        (
            503,
            &[
                ("x-hive-waited-us", "5000000"),
                ("x-hive-reason", "QueueTimeout"),
            ],
            "",
        ),
    ];
    for answer in answers {
        *node.answer.lock().unwrap() = answer;
        let body = Full::new(Bytes::new()).map_err(|never| match never {});
        let request = Request::get("/")
            .header("host", "busy.default")
            // What a caller says of it is not passed on.
            .header("x-hive-waited-us", "9000000")
            .body(body.boxed_unsync())
            .unwrap();
        let response = forwarder.by_name(&function, request).await;
        assert_eq!(response.status(), answer.0);
        assert!(!response.headers().contains_key("x-hive-waited-us"));
        let (head, _) = node.asked.lock().unwrap().pop().unwrap();
        assert!(!head.headers().contains_key("x-hive-waited-us"));
    }
    let (counted, _) = loads.since(&Told::default(), false, Instant::now());
    assert_eq!(counted.len(), 1);
    assert_eq!((counted[0].requests, counted[0].waited_us), (2, 5_030_000));
}
