//! Tries to reach a tunnel from outside, and tells what came of it. It judges nothing; every wait has an end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{Either, join, join_all, select};
use hive_proto::invoke::REASON;
use http::header::{ACCEPT, CACHE_CONTROL, HOST, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Why;
use super::ask::{Advertised, Ask, Greeting, Question, Way};
use super::doors::Door;
use super::trust::{self, Trust};
use crate::gateway::bounds::cut;
use crate::ingress::PROBE;
use crate::objects;

/// As resolvers wait, who ask a second server after it.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);

/// Twice as long as TCP waits before it says again what was lost.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// A controller that cannot carry a connection ends it within this time, unless its target is slow to refuse.
const STAY: Duration = Duration::from_secs(1);

/// Sent while an answer is waited for: each may get lost on any of four ways.
const DATAGRAMS: u32 = 3;

/// Addresses of one name that are tried: a client tries no more either before its user gives up.
const MAX_ADDRESSES: usize = 8;

/// Bytes that are read of a controller's own words.
const MAX_WORDS: usize = 1024;

/// What an ingress answers that knows the path, for another method.
const NO_METHOD: &str = "NoMethod";

/// Bytes of a reason: it is one word.
const MAX_REASON: usize = 64;

/// What came of one try.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Where a client of the tunnel ends up, or why it does not find out.
    pub public: Result<Vec<SocketAddr>, String>,
    /// By controller; empty where its name does not resolve.
    pub controllers: BTreeMap<u64, Vec<SocketAddr>>,
    /// Of each of these.
    pub answers: BTreeMap<SocketAddr, Answer>,
    /// What controllers say of the tunnel's port; of all that said anything.
    pub doors: BTreeMap<u64, Door>,
}

impl Observation {
    /// Finds out who answered by what the controllers say of their ports: somebody else where none of those that share an
    /// address listens, and everywhere if no client came to any. Of what is not known nothing is said.
    pub fn identify(&mut self) {
        let Self {
            controllers,
            answers,
            doors,
            ..
        } = self;
        for (at, answer) in answers.iter_mut() {
            let here = controllers.iter().filter(|(_, all)| all.contains(at));
            let shut = here.map(|(id, _)| doors.get(id)?.open.as_ref().err());
            let shut: Option<Vec<&String>> = shut.collect();
            if let Some([why, ..]) = shut.as_deref() {
                *answer = Answer::Shut((*why).clone());
            }
        }
        let all_told = controllers.keys().all(|id| doors.contains_key(id));
        if doors.is_empty() || !all_told || doors.values().any(|door| door.came) {
            return;
        }
        for answer in answers.values_mut() {
            if matches!(answer, Answer::Reached(_) | Answer::Closed) {
                *answer = Answer::Stranger;
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// No connection came about.
    Unreachable(String),
    /// The controllers there do not listen: whoever answered was somebody else.
    Shut(String),
    /// A connection was ended without an answer.
    Closed,
    /// Who answered is no controller of this swarm.
    Stranger,
    /// Who answered shows no certificate that is good for the host.
    Untrusted(Why),
    /// A connection was there, and no answer came in time.
    Silent,
    /// Nothing is known that could be tried without harm.
    Untried,
    /// A controller answered for the target.
    Refused(Why),
    /// The target was reached, after that long.
    Reached(Duration),
}

/// Takes as long as the slowest of all that is tried, which is all tried at once.
pub async fn probe(ask: &Ask) -> Observation {
    let controllers = ask.controllers.iter().map(|controller| async move {
        let found = resolve(&controller.host).await.unwrap_or_default();
        let found = found.into_iter();
        let found = found.map(|ip| SocketAddr::new(ip, controller.port));
        (controller.id, found.collect::<Vec<_>>())
    });
    let named = async {
        match ask.way.name() {
            Some(name) => Some(resolve(name).await),
            None => None,
        }
    };
    let (controllers, named) = join(join_all(controllers), named).await;
    let controllers: BTreeMap<u64, Vec<SocketAddr>> = controllers.into_iter().collect();
    let public = match named {
        Some(found) => found.map(|ips| public(&ips, &ask.controllers)),
        None => Ok(controllers.values().flatten().copied().collect()),
    };
    let doors: BTreeSet<SocketAddr> = public
        .iter()
        .flatten()
        .chain(controllers.values().flatten())
        .copied()
        .collect();
    let answers = doors.into_iter().map(|door| async move {
        let began = Instant::now();
        let answer = knock(door, &ask.way).await;
        (door, let_off(ask, answer, began.elapsed()))
    });
    Observation {
        public,
        controllers,
        answers: join_all(answers).await.into_iter().collect(),
        doors: BTreeMap::new(),
    }
}

/// Whoever guards a port ends the connection of who may not use it, and was there all the same.
fn let_off(ask: &Ask, answer: Answer, took: Duration) -> Answer {
    match (&ask.way, answer) {
        (Way::Tcp | Way::Tls(_), Answer::Closed) if ask.guarded => Answer::Reached(took),
        (_, answer) => answer,
    }
}

/// A client comes with the port of the address that it was told. Where controllers have different ones, as on one
/// machine, each is as good.
fn public(ips: &[IpAddr], controllers: &[Advertised]) -> Vec<SocketAddr> {
    let ports: BTreeSet<u16> = controllers.iter().map(|it| it.port).collect();
    let doors = ips
        .iter()
        .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
    doors.take(MAX_ADDRESSES).collect()
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    if is_local(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    match timeout(RESOLVE_PATIENCE, lookup_host((host, 0))).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
            Ok(found.into_iter().take(MAX_ADDRESSES).collect())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "no name server answered within {RESOLVE_PATIENCE:?}"
        )),
    }
}

/// Names that lead to the machine itself everywhere, without any DNS (RFC 6761).
pub fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

async fn knock(door: SocketAddr, way: &Way) -> Answer {
    let began = Instant::now();
    if let Way::Udp { datagram, patience } = way {
        return match datagram {
            Some(datagram) => echo(door, datagram, *patience).await,
            None => Answer::Untried,
        };
    }
    let stream = match timeout(CONNECT_PATIENCE, TcpStream::connect(door)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Answer::Unreachable(in_words(&error)),
        Err(_) => return Answer::Unreachable(format!("no answer within {CONNECT_PATIENCE:?}")),
    };
    match way {
        Way::Tcp | Way::Udp { .. } | Way::Brought { question: None, .. } => {
            stays(stream, began.elapsed()).await
        }
        Way::Tls(greeting) => greets(stream, greeting, began).await,
        Way::Http(question)
        | Way::Brought {
            question: Some(question),
            ..
        } => {
            let nonce = objects::fresh_uid();
            let answer = match request(question, door.port(), &nonce) {
                Ok(request) => match &question.https {
                    Some(trust) => {
                        match secured(stream, trust, &question.host, question.patience).await {
                            Ok(stream) => {
                                exchange(stream, request, &nonce, question.patience, began).await
                            }
                            Err(answer) => answer,
                        }
                    }
                    None => exchange(stream, request, &nonce, question.patience, began).await,
                },
                Err(error) => Answer::Unreachable(format!("it cannot be asked for: {error}")),
            };
            match answer {
                Answer::Refused(why) if question.method.is_none() && why.reason == NO_METHOD => {
                    Answer::Reached(began.elapsed())
                }
                answer => answer,
            }
        }
    }
}

/// Sends a datagram, some times as any may get lost, and hears whether anything comes back from there.
async fn echo(door: SocketAddr, datagram: &[u8], patience: Duration) -> Answer {
    let own: IpAddr = match door {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = async {
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(door).await?;
        Ok::<_, io::Error>(socket)
    };
    let socket = match connected.await {
        Ok(socket) => socket,
        Err(error) => return Answer::Unreachable(in_words(&error)),
    };
    for _ in 0..DATAGRAMS {
        let began = Instant::now();
        let exchange = async {
            socket.send(datagram).await?;
            socket.recv(&mut [0]).await
        };
        match timeout(patience / DATAGRAMS, exchange).await {
            Ok(Ok(_)) => return Answer::Reached(began.elapsed()),
            Ok(Err(error)) => return Answer::Unreachable(in_words(&error)),
            Err(_) => {}
        }
    }
    Answer::Silent
}

/// The same in the same case: what the system adds differs from one machine to the next.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no way leads there".to_owned()
        }
        kind => kind.to_string(),
    }
}

/// TLS on a connection, or what came of it.
async fn secured(
    stream: TcpStream,
    trust: &Trust,
    host: &str,
    patience: Duration,
) -> Result<TlsStream<TcpStream>, Answer> {
    match shake(stream, trust, host, patience).await? {
        Ok(stream) => Ok(stream),
        Err(error) => Err(trust::failed(&error)),
    }
}

/// Whoever answers in TLS is the target: no controller has a certificate for what it passes through.
async fn greets(stream: TcpStream, greeting: &Greeting, began: Instant) -> Answer {
    let Greeting { name, patience } = greeting;
    let failed = match shake(stream, &Trust::default(), name, *patience).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => trust::passed(&error),
        Err(answer) => Some(answer),
    };
    failed.unwrap_or_else(|| Answer::Reached(began.elapsed()))
}

async fn shake(
    stream: TcpStream,
    trust: &Trust,
    host: &str,
    patience: Duration,
) -> Result<io::Result<TlsStream<TcpStream>>, Answer> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Answer::Unreachable(format!("it cannot be asked for: {error}")))?;
    let connector = TlsConnector::from(trust.config());
    let shaken = timeout(patience, connector.connect(name, stream)).await;
    shaken.map_err(|_| Answer::Silent)
}

/// What talks first is there; so is what listens.
async fn stays(mut stream: TcpStream, latency: Duration) -> Answer {
    match timeout(STAY, stream.read(&mut [0])).await {
        Err(_) | Ok(Ok(1..)) => Answer::Reached(latency),
        Ok(Ok(0) | Err(_)) => Answer::Closed,
    }
}

fn request(question: &Question, port: u16, nonce: &str) -> http::Result<Request<Empty<Bytes>>> {
    let usual = if question.https.is_some() { 443 } else { 80 };
    let host = match port {
        port if port == usual => question.host.clone(),
        port => format!("{}:{port}", question.host),
    };
    Request::builder()
        .method(question.method.unwrap_or("GET"))
        .uri(&question.path)
        .header(HOST, host)
        .header(PROBE, nonce)
        .header(ACCEPT, "*/*")
        // What is kept somewhere proves nothing.
        .header(CACHE_CONTROL, "no-cache")
        .header(USER_AGENT, "hive-probe")
        .body(Empty::new())
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: Request<Empty<Bytes>>,
    nonce: &str,
    patience: Duration,
    began: Instant,
) -> Answer {
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return Answer::Closed;
    };
    let answer = async {
        match timeout(patience, sender.send_request(request)).await {
            Ok(Ok(response)) => read(response, nonce, patience, began.elapsed()).await,
            Ok(Err(_)) => Answer::Closed,
            Err(_) => Answer::Silent,
        }
    };
    match select(Box::pin(answer), Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        // What it brought before it ended is still there.
        Either::Right((_, answer)) => answer.await,
    }
}

/// Whoever answers without having asked a controller, such as the page of a seller of names, does not know the
/// nonce.
async fn read(
    response: Response<Incoming>,
    nonce: &str,
    patience: Duration,
    latency: Duration,
) -> Answer {
    let (head, body) = response.into_parts();
    let said = |name| said(&head.headers, &name);
    if said(PROBE) != Some(nonce) {
        return Answer::Stranger;
    }
    let Some(reason) = said(REASON) else {
        return Answer::Reached(latency);
    };
    let reason = match is_reason(reason) {
        true => reason,
        false => "Unknown",
    };
    let words = timeout(patience, Limited::new(body, MAX_WORDS).collect()).await;
    let words = words.ok().and_then(Result::ok).map(|body| body.to_bytes());
    let words = words.unwrap_or_default();
    let message = sentence(&String::from_utf8_lossy(&words), reason);
    Answer::Refused(Why::new(reason, message))
}

fn said<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_reason(text: &str) -> bool {
    (1..=MAX_REASON).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// A controller says "502 TargetDown: why".
fn sentence(words: &str, reason: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    let why = line.split_once(&format!(" {reason}: "));
    let mut why = why.map_or(line, |(_, why)| why).to_owned();
    why.retain(|c| !c.is_control());
    cut(&mut why, MAX_WORDS / 2);
    why
}

#[cfg(test)]
mod tests;
