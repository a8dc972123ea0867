//! Targets that speak HTTP/2: requests share connections, and trailers pass, as gRPC needs it.

use hive_proto::v1::enrolment_client::EnrolmentClient;
use hive_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use hive_proto::v1::{EnrolRequest, EnrolResponse};
use http::HeaderMap;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tonic::{Code, Status};

use super::*;

fn world() -> World {
    World::new(&[80], json!({ "targetProtocol": "H2C" }))
}

/// Says the number of the connection, the host and what it was told of trailers, and has some itself.
fn grpc() -> Target {
    let connections = AtomicUsize::new(0);
    Arc::new(move |stream: Stream| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let service = service_fn(move |request: Request<Incoming>| async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let te = request.headers()["te"].to_str().unwrap().to_owned();
            let sent = request.into_body().collect().await.unwrap();
            let sent = String::from_utf8(sent.to_bytes().into()).unwrap();
            let text = format!("{number} {host} {te} {sent}");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [
                Ok::<_, Infallible>(Frame::data(Bytes::from(text))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(stream::iter(frames));
            Ok::<_, Infallible>(Response::new(body))
        });
        let server = http2::Builder::new(TokioExecutor::new());
        let served = server.serve_connection(TokioIo::new(stream), service);
        served.map(drop).boxed()
    })
}

fn asked(world: &World) -> usize {
    world.node.asked.lock().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_and_trailers_pass() {
    let world = world();
    world.listen(80, grpc());
    let call = |body: &'static str| {
        let pieces = streaming(stream::iter([body.as_bytes()]));
        world.send(request(Method::POST, pieces))
    };
    // Both before there is a connection.
    let both = tokio::join!(call("one"), call("two"));
    for (answered, said) in [
        (both.0, "one"),
        (both.1, "two"),
        (call("three").await, "three"),
    ] {
        let answer = answered.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        let text = String::from_utf8(answer.to_bytes().into()).unwrap();
        assert_eq!(text, format!("0 photos.example trailers {said}"));
    }
    assert_eq!(asked(&world), 1);
    sleep(Duration::from_secs(300)).await;
    assert!(text(world.get().await).await.starts_with("1 "));
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_a_connection_bears_take_another() {
    let world = world();
    world.listen(80, grpc());
    let mut held = Vec::new();
    for _ in 0..150 {
        held.push(world.get().await.unwrap());
    }
    assert_eq!(asked(&world), 2);
    held.clear();
    world.get().await.unwrap();
    assert_eq!(asked(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_is_not_used_again() {
    let world = world();
    let breaks: Target = Arc::new(|stream: Stream| async move { drop(stream) }.boxed());
    world.listen(80, breaks);
    let lost = world.get().await;
    let Err(error) = lost else {
        panic!("nobody answered");
    };
    let is_lost = |error: &TunnelError| matches!(error, TunnelError::Lost { .. });
    assert!(
        is_lost(&error) || matches!(&error, TunnelError::Common(error) if is_lost(error)),
        "{error:?}"
    );
    world.listen(80, grpc());
    assert!(text(world.get().await).await.starts_with("0 "));
    // Nobody listens, and all who wait hear so.
    world.node.targets.lock().unwrap().clear();
    world.join();
    let (one, two) = tokio::join!(world.get(), world.get());
    for answered in [one, two] {
        let Err(TunnelError::Common(error)) = answered else {
            panic!("nobody listens: {answered:?}");
        };
        assert!(matches!(&*error, TunnelError::Unopened { .. }), "{error:?}");
    }
}

/// A service of gRPC; which one does not matter.
struct Desk;

#[tonic::async_trait]
impl Enrolment for Desk {
    async fn enrol(
        &self,
        request: tonic::Request<EnrolRequest>,
    ) -> Result<tonic::Response<EnrolResponse>, Status> {
        match &*request.into_inner().secret {
            "good" => Ok(tonic::Response::new(EnrolResponse {
                cluster: "home".into(),
                ..EnrolResponse::default()
            })),
            _ => Err(Status::permission_denied("no such token")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_grpc_come_back_with_their_status() {
    let world = world();
    let desk: Target = Arc::new(|stream: Stream| {
        let service = TowerToHyperService::new(EnrolmentServer::new(Desk));
        let server = http2::Builder::new(TokioExecutor::new());
        let served = server.serve_connection(TokioIo::new(stream), service);
        served.map(drop).boxed()
    });
    world.listen(80, desk);
    let proxy = world.proxy.clone();
    let carried = tower::service_fn(move |request: Request<tonic::body::Body>| {
        let proxy = proxy.clone();
        async move {
            let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            proxy.answer(&key(), request, None, None).await
        }
    });
    let origin = "http://photos.example".parse().unwrap();
    let mut client = EnrolmentClient::with_origin(carried, origin);
    let mut call = async |secret: &str| {
        let request = EnrolRequest {
            secret: secret.to_owned(),
            ..EnrolRequest::default()
        };
        let answer = client.enrol(request).await?;
        Ok::<_, Status>(answer.into_inner().cluster)
    };
    assert_eq!(call("good").await.unwrap(), "home");
    let refused = call("bad").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "no such token");
    assert_eq!(asked(&world), 1);
}
