//! Requests over real sockets, to servers that say what they saw.

#![allow(clippy::unwrap_used)]

mod exchanges;
mod refusals;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{connect::Connector, *};
use crate::{EgressLimits, logs::LogRecord};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Names that stand for other addresses each time, the last one for ever.
#[derive(Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn of<const N: usize>(names: [(&str, &[&[&str]]); N]) -> Arc<Self> {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let names = names.map(|(name, turns)| {
            let turns = turns.iter().map(|texts| addresses(texts)).collect();
            (name.to_owned(), turns)
        });
        Arc::new(Self(Mutex::new(names.into())))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let found = match names.get_mut(name) {
            Some(turns) if turns.len() > 1 => Ok(turns.remove(0)),
            Some(turns) => Ok(turns[0].clone()),
            None => Err(io::Error::other("no such name")),
        };
        Box::pin(async { found })
    }
}

/// One function's way out, and what was said about it.
struct Function {
    client: Arc<Client>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Function {
    fn of(outbound: &Arc<Outbound>, allowed: &[&str], limits: EgressLimits) -> Self {
        Self {
            client: outbound.client(AllowedHosts::parse(allowed).unwrap(), limits),
            lines: Arc::default(),
        }
    }

    fn allowing(allowed: &[&str]) -> Self {
        Self::of(&outbound(Names::of([])), allowed, EgressLimits::default())
    }

    /// Of one request's guest.
    fn egress(&self) -> Egress {
        let lines = self.lines.clone();
        let sink: crate::LogSink =
            Arc::new(move |record: LogRecord| lines.lock().unwrap().push(record.text));
        Egress::new(
            self.client.clone(),
            RequestLog::new(sink, "hello".into(), None),
        )
    }

    async fn send(&self, request: http::Request<WasiBody>) -> Answer {
        self.send_with(request, RequestOptions::default()).await
    }

    async fn send_with(&self, request: http::Request<WasiBody>, options: RequestOptions) -> Answer {
        let done = Box::new(async { Ok(()) });
        let sending = self.egress().send_request(request, Some(options), done);
        Box::into_pin(sending).await.map(|(answer, _)| answer)
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(get(uri)).await
    }

    /// Gets, and reads to the end.
    async fn text(&self, uri: &str) -> String {
        let body = self.get(uri).await.unwrap().into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

type Answer = Result<http::Response<WasiBody>, Error>;

/// As WASI makes it.
fn get(uri: &str) -> http::Request<WasiBody> {
    let uri: http::Uri = uri.parse().unwrap();
    let host = uri.authority().unwrap().to_string();
    http::Request::get(uri)
        .header("host", host)
        .body(WasiBody::default())
        .unwrap()
}

fn outbound(resolver: Arc<dyn Resolve>) -> Arc<Outbound> {
    Outbound::with(Connector::new(resolver), 1000, FOR_EVER)
}

fn limits(max_connections: u32) -> EgressLimits {
    EgressLimits {
        max_connections,
        connect: Duration::from_secs(20),
        ..EgressLimits::default()
    }
}

/// Answers every request with the number of its connection, until told to close.
struct Server {
    address: SocketAddr,
    /// The heads that arrived.
    heads: mpsc::UnboundedReceiver<String>,
    /// Connections that ended.
    ended: mpsc::UnboundedReceiver<u32>,
}

impl Server {
    async fn start() -> Self {
        Self::speaking(
            |stream| async { Some(stream) },
            |number| format!("{number}"),
        )
        .await
    }

    async fn speaking<S, F>(
        handshake: impl Fn(TcpStream) -> F + Send + 'static,
        body: impl Fn(u32) -> String + Clone + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, heads_seen) = mpsc::unbounded_channel();
        let (ended, ended_seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, ended, body) = (heads.clone(), ended.clone(), body.clone());
                let stream = handshake(stream);
                tokio::spawn(async move {
                    if let Some(stream) = stream.await {
                        converse(stream, &heads, &body(number)).await;
                    }
                    let _ = ended.send(number);
                });
            }
        });
        Self {
            address,
            heads: heads_seen,
            ended: ended_seen,
        }
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Paths: `/close` ends the connection after its answer, `/silent` is never answered, `/stuck`
/// only begun.
async fn converse<S>(mut stream: S, heads: &mpsc::UnboundedSender<String>, body: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let _ = heads.send(head);
        let (length, sent) = match path.as_str() {
            "/silent" => {
                let _ = stream.read(&mut [0]).await;
                return;
            }
            "/stuck" => (body.len() + 1, body),
            _ => (body.len(), body),
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{sent}");
        if stream.write_all(answer.as_bytes()).await.is_err() || path == "/close" {
            return;
        }
    }
}
