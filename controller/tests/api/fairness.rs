//! Many requests at once: who is answered, and who is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use hive_controller::access::tokens::Role;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::harness::{CONFIG_MAPS, DEADLINE, Server};

/// A user with hundreds of requests under way at all times does not keep another from being
/// answered each time; what is too much of the first is refused with a hint when to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_user_does_not_starve_a_quiet_one() {
    let server = Server::start().await;
    for n in 0..50 {
        server.config_map(&format!("m{n}"), json!({})).await;
    }
    let noisy = server.token(Role::View, None).await;
    let quiet = server.token(Role::Edit, None).await;
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..400)
        .map(|_| {
            let (router, stop) = (server.router(), stop.clone());
            let (refused, answered) = (refused.clone(), answered.clone());
            let bearer = format!("Bearer {noisy}");
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::get(CONFIG_MAPS)
                        .header("authorization", &bearer)
                        .body(Body::empty())
                        .unwrap();
                    let response = router.clone().oneshot(request).await.unwrap();
                    let status = response.status();
                    if status == StatusCode::TOO_MANY_REQUESTS {
                        assert_eq!(response.headers()["retry-after"], "1");
                        refused.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(status, 200);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    response.into_body().collect().await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let began = Instant::now();
    while refused.load(Ordering::Relaxed) == 0 || answered.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < DEADLINE, "the noise came up");
        tokio::task::yield_now().await;
    }
    for n in 0..30 {
        let path = format!("{CONFIG_MAPS}/q{n}");
        let body = json!({ "metadata": { "name": format!("q{n}") } });
        let made = server.request("POST", CONFIG_MAPS).bearing(&quiet);
        assert_eq!(made.json(&body).send().await.status, 201);
        let read = server.request("GET", &path).bearing(&quiet).send().await;
        assert_eq!(read.status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(
        text.contains("apiserver_flowcontrol_current_executing_seats{priority_level=\"people\"} 0"),
        "{text}"
    );
}
