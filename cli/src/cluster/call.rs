//! One request as a command asks for it: method, path, headers, body.
//!
//! It is made into an HTTP request anew for each server that is tried.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use kube::client::Body;
use serde_json::Value;

use super::Sent;

const AS_JSON: &str = "application/json";

/// What comes before the slash is the name under which commands own the fields that they change.
const USER_AGENT: &str = concat!("hivectl/", env!("CARGO_PKG_VERSION"));

/// One request, before it is known which server gets it.
pub struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    accept: &'a str,
    content_type: &'a str,
    body: Bytes,
    sent: Option<Sent>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
    pub(super) bounded: bool,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            accept: AS_JSON,
            content_type: AS_JSON,
            body: Bytes::new(),
            sent: None,
            headers: Vec::new(),
            bounded: true,
        }
    }

    pub fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn accept(mut self, accept: &'a str) -> Self {
        self.accept = accept;
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self
    }

    pub fn body(mut self, content_type: &'a str, body: Bytes) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    pub fn counted(mut self, sent: Sent) -> Self {
        self.sent = Some(sent);
        self
    }

    pub fn header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer may take as long as it takes: watches, logs, uploads.
    pub fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }

    pub(super) fn request(&self) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header(header::ACCEPT, self.accept)
            .header(header::USER_AGENT, USER_AGENT);
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, self.content_type);
        }
        if let Some(sent) = &self.sent {
            request = request.extension(sent.clone());
        }
        if let Some(headers) = request.headers_mut() {
            for (name, value) in &self.headers {
                // The first value replaces ours, further ones of the same name are added.
                let ours = self
                    .headers
                    .iter()
                    .find(|(first, _)| first == name)
                    .is_some_and(|(_, first)| std::ptr::eq(first, value));
                if ours {
                    headers.insert(name.clone(), value.clone());
                } else {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        request.body(Body::from(self.body.clone()))
    }

    /// Whether sending it twice is the same as sending it once.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}
