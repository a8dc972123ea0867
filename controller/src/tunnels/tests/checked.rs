//! What checks find out.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::tunnels::health::TargetHealth;

impl World {
    /// What is known of the only target of a tunnel, once something is.
    async fn health(&self, name: &str, healthy: bool) -> TargetHealth {
        let one = || self.tunnels.health.snapshot(&key(name)).remove(0);
        let what = format!("{name} to be found well: {healthy}");
        until(&what, || one().healthy == Some(healthy)).await;
        one()
    }

    /// Declares a tunnel whose targets are asked all the time.
    fn watched(&mut self, name: &str, target: Value, mut check: Value, more: Value) {
        check["interval"] = json!("20ms");
        let mut more = more;
        more["healthCheck"] = check;
        let is_new = self.tunnels.get(&key(name)).is_none();
        let live = self.declare(name, json!([target]), more);
        if is_new {
            self.tunnels.watch(live);
        }
    }

    fn web(&mut self, port: u16, path: &str) {
        let http = json!({ "protocol": "HTTP", "port": null });
        self.watched("web", target(port), json!({ "path": path }), http);
    }
}

/// Answers a path that is a number with that status, if it is asked for the tunnel's host.
async fn web() -> u16 {
    let listener = listen().await;
    let port = port(&listener);
    let answer = |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["host"], "web.default.localhost");
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        let answer = Response::builder().status(status);
        answer.body(Full::new(Bytes::from_static(b"hello")))
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(serving);
        }
    });
    port
}

#[tokio::test]
async fn a_target_is_well_that_takes_a_connection() {
    let mut world = World::new();
    let service = echoing("").await;
    world.watched("ssh", target(service), json!({}), json!({}));
    let well = world.health("ssh", true).await;
    assert!(well.latency.is_some());
    let [nobody] = free_ports();
    world.watched("ssh", target(nobody), json!({}), json!({}));
    let unwell = world.health("ssh", false).await;
    assert_eq!(unwell.reason, "Refused");
    assert!(unwell.message.contains("127.0.0.1"), "{}", unwell.message);
    assert_eq!(unwell.latency, None);
}

#[tokio::test]
async fn a_target_is_well_that_answers_its_path() {
    let mut world = World::new();
    let (web, silent) = (web().await, echoing("no http\r\n\r\n").await);
    world.web(web, "/204");
    world.health("web", true).await;
    world.web(web, "/500");
    let unwell = world.health("web", false).await;
    assert_eq!(unwell.reason, "BadStatus");
    assert!(unwell.message.contains("GET /500"), "{}", unwell.message);
    world.web(web, "/302");
    world.health("web", true).await;
    world.web(silent, "/204");
    let unwell = world.health("web", false).await;
    assert_eq!(unwell.reason, "NoHttp");
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_well_again() {
    let mut world = World::new();
    let service = echoing("").await;
    let links = world.tunnels.opener.links().clone();
    world.watched("ssh", on("phone", service), json!({}), json!({}));
    // Until it is there, nothing is said of its targets.
    let link = fake_agent::join(&links, "phone");
    world.health("ssh", true).await;
    link.close("lost");
    let reason = || world.tunnels.health.snapshot(&key("ssh")).remove(0).reason;
    until("a node to be missed", || reason() == "NodeNotLinked").await;
    fake_agent::join(&links, "phone");
    world.health("ssh", true).await;
}
