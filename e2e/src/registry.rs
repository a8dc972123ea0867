//! A registry of images in this process: good, or as bad as a test wants it.
//!
//! It speaks the distribution protocol over HTTP on loopback: pushes by pieces, tokens, and blobs that
//! lie on another port. It notes what it was asked, and whether a secret came where none belongs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// What it gives for name and password.
const TOKEN: &str = "e2e-token";

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    tasks: [AbortHandle; 2],
}

#[derive(Debug, Default)]
struct Shared {
    /// Manifests by repository and by tag or digest.
    manifests: BTreeMap<(String, String), Bytes>,
    blobs: BTreeMap<String, Bytes>,
    uploads: BTreeMap<usize, Vec<u8>>,
    next_upload: usize,
    /// Name and password that are asked for, if any are.
    login: Option<(String, String)>,
    is_lying: bool,
    is_down: bool,
    /// Where blobs are sent on to.
    elsewhere: String,
    asked: Vec<String>,
    leaked: Vec<String>,
}

type Answer = Response<Full<Bytes>>;

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

impl Registry {
    pub async fn start() -> Self {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let (address, registry) = serve(shared.clone(), answer).await;
        let (elsewhere, blobs) = serve(shared.clone(), blob_elsewhere).await;
        lock(&shared).elsewhere = elsewhere.to_string();
        Self {
            address,
            shared,
            tasks: [registry, blobs],
        }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// From now on, name and password are wanted: by way of a token.
    pub fn want_login(&self, login: Option<(&str, &str)>) {
        lock(&self.shared).login =
            login.map(|(name, password)| (name.to_owned(), password.to_owned()));
    }

    /// From now on, blobs are other bytes than their digests say.
    pub fn lie(&self, is_lying: bool) {
        lock(&self.shared).is_lying = is_lying;
    }

    /// From now on, everything is answered with 503.
    pub fn fail(&self, is_down: bool) {
        lock(&self.shared).is_down = is_down;
    }

    /// An image of one layer, as another tool lays it out; its digest.
    pub fn put(
        &self,
        repository: &str,
        tag: &str,
        config: &str,
        layer: &str,
        bytes: &[u8],
    ) -> String {
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": config, "digest": digest(b"{}"), "size": 2 },
            "layers": [{ "mediaType": layer, "digest": digest(bytes), "size": bytes.len() }],
        });
        let blobs = [b"{}".as_slice(), bytes];
        self.put_manifest(repository, tag, &manifest, &blobs)
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        manifest: &Value,
        blobs: &[&[u8]],
    ) -> String {
        let mut shared = lock(&self.shared);
        for blob in blobs {
            shared
                .blobs
                .insert(digest(blob), Bytes::copy_from_slice(blob));
        }
        shared.keep(repository, tag, manifest.to_string().into())
    }

    /// What was asked since the last time: methods and paths.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).asked)
    }

    /// Requests that carried a secret to where it does not belong.
    pub fn leaked(&self) -> Vec<String> {
        lock(&self.shared).leaked.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn keep(&mut self, repository: &str, name: &str, manifest: Bytes) -> String {
        let digest = digest(&manifest);
        for name in [name, &digest] {
            let key = (repository.to_owned(), name.to_owned());
            self.manifests.insert(key, manifest.clone());
        }
        digest
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answers = fn(&mut Shared, &Request<()>, Bytes) -> Answer;

async fn serve(shared: Arc<Mutex<Shared>>, answers: Answers) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let shared = shared.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes());
                    let request = Request::from_parts(head, ());
                    let mut shared = lock(&shared);
                    shared
                        .asked
                        .push(format!("{} {}", request.method(), request.uri().path()));
                    Ok::<_, Infallible>(answers(&mut shared, &request, body.unwrap_or_default()))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // Who asks may hang up; that is no matter here.
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    (address, task.abort_handle())
}

fn status(status: u16) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

fn with(mut answer: Answer, name: header::HeaderName, value: &str) -> Answer {
    answer
        .headers_mut()
        .insert(name, value.parse().expect("a header"));
    answer
}

fn bytes(bytes: Bytes) -> Answer {
    Response::new(Full::new(bytes))
}

fn authorization(request: &Request<()>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()
}

/// The other port, where blobs lie: it must see no secrets.
fn blob_elsewhere(shared: &mut Shared, request: &Request<()>, _: Bytes) -> Answer {
    if authorization(request).is_some() {
        shared.leaked.push(request.uri().to_string());
    }
    let name = request.uri().path().trim_start_matches('/');
    match shared.blobs.get(name) {
        Some(blob) if shared.is_lying => {
            let mut other = blob.to_vec();
            other.iter_mut().for_each(|byte| *byte = !*byte);
            bytes(other.into())
        }
        Some(blob) => bytes(blob.clone()),
        None => status(404),
    }
}

fn answer(shared: &mut Shared, request: &Request<()>, body: Bytes) -> Answer {
    if shared.is_down {
        return status(503);
    }
    let path = request.uri().path();
    if path == "/token" {
        return token(shared, request);
    }
    let Some(path) = path.strip_prefix("/v2/") else {
        return status(404);
    };
    if shared.login.is_some() && authorization(request) != Some(&format!("Bearer {TOKEN}")) {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let realm = format!(
            "Bearer realm=\"http://{}/token\",service=\"e2e\"",
            host.unwrap_or_default()
        );
        return with(status(401), header::WWW_AUTHENTICATE, &realm);
    }
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return manifest(shared, request.method(), repository, name, body);
    }
    match path.split_once("/blobs/") {
        Some((_, name)) => match name.strip_prefix("uploads/") {
            Some(upload) => take_upload(shared, request, upload, body),
            None => blob(shared, request.method(), name),
        },
        None => status(404),
    }
}

fn token(shared: &Shared, request: &Request<()>) -> Answer {
    let wanted = shared.login.as_ref().map(|(name, password)| {
        let both = BASE64.encode(format!("{name}:{password}"));
        format!("Basic {both}")
    });
    match wanted.as_deref() == authorization(request) {
        true => bytes(json!({ "token": TOKEN }).to_string().into()),
        false => status(401),
    }
}

fn manifest(
    shared: &mut Shared,
    method: &Method,
    repository: &str,
    name: &str,
    body: Bytes,
) -> Answer {
    if *method == Method::PUT {
        shared.keep(repository, name, body);
        return status(201);
    }
    let key = (repository.to_owned(), name.to_owned());
    match shared.manifests.get(&key) {
        Some(manifest) => bytes(manifest.clone()),
        None => status(404),
    }
}

fn blob(shared: &Shared, method: &Method, name: &str) -> Answer {
    match shared.blobs.contains_key(name) {
        true if *method == Method::HEAD => status(200),
        true => {
            let location = format!("http://{}/{name}", shared.elsewhere);
            with(status(307), header::LOCATION, &location)
        }
        false => status(404),
    }
}

fn take_upload(shared: &mut Shared, request: &Request<()>, upload: &str, body: Bytes) -> Answer {
    let number: usize = match upload.parse() {
        Ok(number) => number,
        Err(_) => {
            shared.next_upload += 1;
            shared.next_upload
        }
    };
    let held = shared.uploads.entry(number).or_default();
    held.extend_from_slice(&body);
    if *request.method() != Method::PUT {
        let path = request.uri().path();
        let base = path.strip_suffix(upload).unwrap_or(path);
        return with(status(202), header::LOCATION, &format!("{base}{number}"));
    }
    let held = shared.uploads.remove(&number).unwrap_or_default();
    let name = digest(&held);
    let query = request
        .uri()
        .query()
        .unwrap_or_default()
        .replace("%3A", ":");
    if !query
        .split('&')
        .any(|pair| pair == format!("digest={name}"))
    {
        return status(400);
    }
    shared.blobs.insert(name, held.into());
    status(201)
}
