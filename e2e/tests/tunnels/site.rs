//! An HTTP service behind a tunnel, in this process, that can go away and come back.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

use crate::noise::Sum;
use crate::websocket::{self, ACCEPT};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Events that a client may be behind.
const EVENTS: usize = 16;

/// Ends when it is dropped, with its connections.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    port: u16,
    events: broadcast::Sender<String>,
    task: Option<JoinHandle<()>>,
}

impl Site {
    pub async fn start(name: &'static str, port: u16) -> Self {
        let mut site = Self {
            name,
            port,
            events: broadcast::Sender::new(EVENTS),
            task: None,
        };
        site.come_back().await;
        site
    }

    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.expect("nobody took its port");
        let (name, events) = (self.name, self.events.clone());
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let events = events.clone();
                let answering = service_fn(move |request| answer(request, name, events.clone()));
                let server = hyper::server::conn::http1::Builder::new();
                let serving = server.serve_connection(TokioIo::new(stream), answering);
                // Connections that break are clients' business.
                connections.spawn(async { drop(serving.with_upgrades().await) });
            }
        }));
    }

    /// Nobody listens any more, and what was open is broken off.
    pub async fn go_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Tells it to all who listen at `/events`; how many that are.
    pub fn publish(&self, event: &str) -> usize {
        self.events.send(event.to_owned()).unwrap_or(0)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    name: &str,
    events: broadcast::Sender<String>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/headers" => {
            let headers = request.headers().iter();
            let lines =
                headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
            text(lines.collect::<String>())
        }
        "/events" => {
            let mut response = Response::new(told(events.subscribe()));
            let kind = "text/event-stream".parse().unwrap();
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        "/upload" => match summed(request.into_body()).await {
            Ok(sum) => text(sum),
            Err(error) => {
                let mut response = text(error.to_string());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        },
        "/echo" => Response::new(request.into_body().boxed_unsync()),
        "/socket" => socket(request),
        _ => text(name.to_owned()),
    })
}

fn text(text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

/// Server-sent events, each as soon as it is published.
fn told(events: broadcast::Receiver<String>) -> Body {
    let stream = stream::unfold(events, |mut events| async move {
        let event = events.recv().await.ok()?;
        let frame = Frame::data(Bytes::from(format!("data: {event}\n\n")));
        Some((Ok::<_, hyper::Error>(frame), events))
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

async fn summed(mut body: Incoming) -> Result<String, hyper::Error> {
    let mut sum = Sum::default();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            sum.add(data);
        }
    }
    Ok(sum.text())
}

/// A WebSocket that says what it hears.
fn socket(request: Request<Incoming>) -> Response<Body> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        while let Ok(said) = websocket::receive(&mut stream).await {
            if websocket::send(&mut stream, &said, None).await.is_err() {
                return;
            }
        }
    });
    let mut response = text(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, ACCEPT),
    ] {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
