//! A client of the API: what it asks, hears and watches.

use axum::body::Body;
use bytes::Bytes;
use hive_controller::https::ClientChain;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{Server, in_time};

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// Fails unless this is a Status with that code and reason, whose message holds `message`.
    #[track_caller]
    pub fn fails(&self, status: u16, reason: &str, message: &str) -> Value {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["code"], status, "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        let found = body["message"].as_str().unwrap();
        assert!(
            found.contains(message),
            "{found:?} does not say {message:?}"
        );
        body
    }
}

pub struct Call<'a> {
    server: &'a Server,
    token: Option<String>,
    builder: http::request::Builder,
    body: Body,
}

impl<'a> Call<'a> {
    /// Of an admin.
    pub(super) fn new(server: &'a Server, method: &str, path: &str) -> Self {
        Self {
            server,
            token: Some(server.admin.clone()),
            builder: Request::builder().method(method).uri(path),
            body: Body::empty(),
        }
    }

    pub fn bearing(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn anonymous(mut self) -> Self {
        self.token = None;
        self
    }

    /// As a client that showed this certificate in the handshake, and sends no token.
    pub fn showing(mut self, shown: &ClientChain) -> Self {
        self.token = None;
        self.builder = self.builder.extension(shown.clone());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn respond(self) -> http::Response<Body> {
        let mut builder = self.builder;
        if let Some(token) = self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        let request = builder.body(self.body).unwrap();
        let answered = self.server.router.clone().oneshot(request);
        in_time(answered).await.unwrap()
    }

    pub async fn send(self) -> Answer {
        let (parts, body) = self.respond().await.into_parts();
        let body = in_time(body.collect()).await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub async fn watch(self) -> Watcher {
        let response = self.respond().await;
        assert_eq!(response.status(), 200);
        Watcher {
            body: response.into_body(),
            read: String::new(),
        }
    }
}

/// The client's side of a watch, or of a followed log.
pub struct Watcher {
    body: Body,
    read: String,
}

impl Watcher {
    /// The next line; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let line = line.to_owned();
                self.read = rest.to_owned();
                return Some(line);
            }
            let frame = in_time(self.body.frame()).await;
            let data = frame?.unwrap().into_data().unwrap();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event; `None` at the end.
    pub async fn event(&mut self) -> Option<Value> {
        let line = self.line().await?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next event as `ADDED name`.
    pub async fn next(&mut self) -> String {
        match self.event().await {
            None => "end".to_owned(),
            Some(event) => format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap_or("-")
            ),
        }
    }
}
