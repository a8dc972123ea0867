//! For tests: a certificate authority in this process that speaks ACME (RFC 8555), good or as bad as a test
//! wants it.
//!
//! It takes nothing on trust: a nonce is good once, every request is signed, and a name is somebody's when its
//! challenge was really fetched, over HTTP (RFC 8555) or TLS (RFC 8737). It notes what it was asked. For 127.0.0.1.

mod jws;
mod proof;
mod protocol;
mod root;
mod shared;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use protocol::{Asked, Reply};
use shared::{Claim, Shared};

/// A request for a certificate has some hundred bytes.
const MAX_BODY: usize = 64 << 10;

/// How a name is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Http01,
    TlsAlpn01,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// What the authority does. May be changed at any time.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Where every name leads, over HTTP and over TLS: all of these must answer for it.
    pub http_doors: Vec<SocketAddr>,
    pub tls_doors: Vec<SocketAddr>,
    /// Which challenges a name can be proven with.
    pub offers: Vec<Kind>,
    /// Of the certificates.
    pub lifetime: Duration,
    /// So many signed requests are told that their nonce is a bad one.
    pub bad_nonces: u32,
    /// New orders are refused, and welcome again after so many seconds.
    pub limited: Option<u64>,
    /// No name is proven, for this reason.
    pub fails: Option<String>,
    /// Names are not looked at while this is so.
    pub holds: bool,
    /// Certificates are made no sooner than an order was asked for so often.
    pub slow: u32,
    /// All is answered as by a proxy whose server is gone.
    pub is_down: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            http_doors: Vec::new(),
            tls_doors: Vec::new(),
            offers: vec![Kind::Http01, Kind::TlsAlpn01],
            lifetime: Duration::from_secs(90 * 24 * 3600),
            bad_nonces: 0,
            limited: None,
            fails: None,
            holds: false,
            slow: 0,
            is_down: false,
        }
    }
}

/// What the authority was asked, and gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Accounts that were made.
    pub accounts: usize,
    /// The last that an account said of how to reach somebody.
    pub contacts: Vec<String>,
    /// Names of each order that was made.
    pub orders: Vec<Vec<String>>,
    /// Orders that were refused.
    pub refused: usize,
    /// How often somebody asked how an order is.
    pub looks: usize,
    /// Challenges that it was asked to look at.
    pub claims: Vec<(Kind, String)>,
    /// Names of each certificate that was made.
    pub certificates: Vec<Vec<String>>,
}

/// Ends when it is dropped.
pub struct Authority {
    address: SocketAddr,
    roots: String,
    shared: Arc<Mutex<Shared>>,
    habits: watch::Sender<Habits>,
    log: watch::Receiver<Log>,
    task: JoinHandle<()>,
}

impl Authority {
    pub async fn start(habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let habits = watch::Sender::new(habits);
        let shared = Shared::new(format!("https://{address}"), habits.clone());
        let (roots, log) = (shared.root.pem().to_owned(), shared.log.subscribe());
        let acceptor = TlsAcceptor::from(shared.root.server_config());
        let shared = Arc::new(Mutex::new(shared));
        let task = tokio::spawn(serve(listener, acceptor, shared.clone()));
        Self {
            address,
            roots,
            shared,
            habits,
            log,
            task,
        }
    }

    /// Where its clients begin.
    pub fn directory(&self) -> String {
        format!("https://{}/directory", self.address)
    }

    /// PEM of the certificate that vouches for the directory, and for all that is issued.
    pub fn roots(&self) -> &str {
        &self.roots
    }

    pub fn change(&self, change: impl FnOnce(&mut Habits)) {
        self.habits.send_modify(change);
    }

    /// Changes with each thing that it is asked.
    pub fn log(&self) -> watch::Receiver<Log> {
        self.log.clone()
    }

    /// All that it was asked so far.
    pub fn so_far(&self) -> Log {
        self.log.borrow().clone()
    }

    /// Forgets all accounts, as authorities of tests do now and then.
    pub fn forget_accounts(&self) {
        lock(&self.shared).accounts.clear();
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Its connections, and what it looks at, end with it.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Mutex<Shared>>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while tasks.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tasks.spawn(async move {
            // Clients that break off are a part of tests.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut proofs = JoinSet::new();
            let (tell, mut claims) = tokio::sync::mpsc::unbounded_channel();
            let service = service_fn(move |request: Request<Incoming>| {
                let (shared, tell) = (shared.clone(), tell.clone());
                async move { Ok::<_, Infallible>(answer(&shared, request, &tell).await) }
            });
            let mut serving = std::pin::pin!(
                http1::Builder::new().serve_connection(TokioIo::new(stream), service)
            );
            let mut is_open = true;
            while is_open || !proofs.is_empty() {
                tokio::select! {
                    _ = &mut serving, if is_open => is_open = false,
                    Some(proof) = claims.recv() => drop(proofs.spawn(proof)),
                    Some(_) = proofs.join_next() => {}
                }
            }
        });
    }
}

type Proof = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn answer(
    shared: &Arc<Mutex<Shared>>,
    request: Request<Incoming>,
    tell: &tokio::sync::mpsc::UnboundedSender<Proof>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        is_jose: head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|it| it == "application/jose+json"),
        body,
    };
    let (reply, claim) = protocol::answer(&mut lock(shared), &asked);
    if let Some(claim) = claim {
        // Nobody is told of what the connection's end overtakes.
        let _ = tell.send(Box::pin(look(shared.clone(), claim)));
    }
    response(reply)
}

/// Looks whether a claim is true, at every door.
async fn look(shared: Arc<Mutex<Shared>>, claim: Claim) {
    let mut habits = lock(&shared).habits.subscribe();
    let Ok(habits) = habits
        .wait_for(|habits| !habits.holds)
        .await
        .map(|it| it.clone())
    else {
        return;
    };
    let doors = match claim.kind {
        Kind::Http01 => &habits.http_doors,
        Kind::TlsAlpn01 => &habits.tls_doors,
    };
    let mut found = match (&habits.fails, doors.is_empty()) {
        (Some(why), _) => Err(("unauthorized", why.clone())),
        (None, true) => Err(("dns", format!("no address of {}", claim.name))),
        (None, false) => Ok(()),
    };
    for door in doors {
        if found.is_err() {
            break;
        }
        let Claim {
            name,
            token,
            authorization,
            ..
        } = &claim;
        found = match claim.kind {
            Kind::Http01 => proof::http_01(*door, name, token, authorization).await,
            Kind::TlsAlpn01 => proof::tls_alpn_01(*door, name, authorization).await,
        };
    }
    lock(&shared).conclude(&claim, found);
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("it is a status");
    for (name, value) in reply.headers {
        let value = HeaderValue::from_str(&value).expect("URLs and numbers make headers");
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    response
}
