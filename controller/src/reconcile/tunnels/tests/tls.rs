//! The same by TLS: served with a Secret's certificate, or passed through to who has one.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{AlertDescription, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::client_tls;
use crate::tunnels::certificates::tests::{Authority, data, server_config};

impl World {
    /// Writes a Secret of that name, or another in its place.
    async fn secret(&self, name: &str, data: Value) {
        let key = Key::new(Resource::Secret, "default", name);
        let extra = json!({ "type": "kubernetes.io/tls", "data": data });
        let known = self.replica.state().get(&key).is_some();
        if !known {
            return self.create(key, extra).await;
        }
        let body = objects::fresh(&key, json!({}), extra).into();
        let expect = None;
        let replaced = Command::Replace { key, body, expect };
        self.replica.propose(replaced).await.unwrap();
    }

    async fn connect(
        &self,
        name: &str,
        trusted: CertificateDer<'static>,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let mut config = client_tls::config(roots);
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(("127.0.0.1", self.tls_port)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// What is answered to a request by http.
    async fn asked_plainly(&self, host: &str) -> String {
        let mut plain = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let asked = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        plain.write_all(asked.as_bytes()).await.unwrap();
        let mut told = String::new();
        plain.read_to_string(&mut told).await.unwrap();
        told
    }
}

/// The fields of a Secret, with the authority that its clients trust.
fn pair(authority: &Authority, host: &str, until: i32) -> Value {
    let [certificate, key] = authority.issue(&[host], until);
    let ca = authority.pem();
    data(&[
        ("tls.crt", &*certificate),
        ("tls.key", &*key),
        ("ca.crt", &*ca),
    ])
}

/// Says by what its requests came.
async fn tells_scheme(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let scheme = request.headers().get("x-forwarded-proto");
            let scheme = scheme.map_or_else(Bytes::new, |it| Bytes::copy_from_slice(it.as_bytes()));
            Ok::<_, Infallible>(Response::new(Full::new(scheme)))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::test]
async fn a_tunnel_is_served_by_https_with_the_certificate_of_its_secret() {
    const HOST: &str = "photos.default.localhost";
    let world = World::new().await;
    let listener = listen().await;
    let service = listener.local_addr().unwrap().port();
    tokio::spawn(tells_scheme(listener));
    let targets = json!([{ "node": "pi", "port": service }]);
    let tls = json!({ "secretName": "photos-tls", "hstsMaxAge": "1h" });
    world
        .declare("photos", json!({ "targets": targets, "tls": tls }))
        .await;
    let absent =
        "False CertificateNotFound spec.tls.secretName: Secret photos-tls: there is no such";
    world.says("photos", absent).await;

    // Until there is one, nobody is sent where it is missing.
    let answered = async {
        loop {
            let told = world.asked_plainly(HOST).await;
            assert!(!told.starts_with("HTTP/1.1 308 "), "{told}");
            // The ingress may not know the tunnel yet.
            if told.starts_with("HTTP/1.1 200 ") {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    let answered = tokio::time::timeout(DEADLINE, answered).await;
    let told = answered.expect("it is answered in time");
    assert!(!told.contains("strict-transport-security"), "{told}");

    let authority = Authority::create();
    world
        .secret("photos-tls", pair(&authority, HOST, 2040))
        .await;
    let expected = format!(
        "True Proven a request to {HOST} came through; its certificate is good until 2040-01-01"
    );
    let status = world.says("photos", &expected).await;
    let url = format!("https://{HOST}:{}/", world.tls_port);
    assert_eq!(status["addresses"], json!([url]));

    let stream = world.connect(HOST, authority.der(), &["h2", "http/1.1"]);
    let stream = stream.await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [(HOST, 200), ("other.localhost", 421)] {
        let request = Request::get(format!("https://{host}/"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
        if status == 200 {
            let told = &answer.headers()["strict-transport-security"];
            assert_eq!(told, "max-age=3600");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "https");
        }
    }

    // By http it is told where to go.
    let told = world.asked_plainly(HOST).await;
    assert!(told.starts_with("HTTP/1.1 308 "), "{told}");
    assert!(told.contains(&format!("location: {url}x\r\n")), "{told}");

    // A name that nobody has.
    let refused = world
        .connect("nobody.localhost", authority.der(), &[])
        .await;
    let refused = refused.err().unwrap();
    let refused = refused.get_ref().unwrap().downcast_ref::<Error>();
    let unknown = Error::AlertReceived(AlertDescription::UnrecognisedName);
    assert_eq!(refused, Some(&unknown));

    // The Secret changes under it.
    world
        .secret("photos-tls", pair(&authority, HOST, 2021))
        .await;
    let expired = format!("False CertificateExpired {HOST} leads to ");
    world.says("photos", &expired).await;
    world.secret("photos-tls", json!({})).await;
    let empty =
        "False CertificateNotFound spec.tls.secretName: Secret photos-tls: it has no tls.crt";
    world.says("photos", empty).await;
    world
        .secret(
            "photos-tls",
            pair(&Authority::create(), "else.localhost", 2040),
        )
        .await;
    world.says("photos", "False CertificateForOthers").await;
}

#[tokio::test]
async fn what_is_passed_through_is_between_the_client_and_the_target() {
    const HOST: &str = "db.localhost";
    let world = World::new().await;
    let authority = Authority::create();
    let own = authority.issue(&[HOST], 2040);
    let acceptor = TlsAcceptor::from(server_config(&own));
    let listener = listen().await;
    let service = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                let (mut reads, mut writes) = tokio::io::split(stream);
                tokio::io::copy(&mut reads, &mut writes).await?;
                writes.shutdown().await
            });
        }
    });
    let targets = json!([{ "node": "pi", "port": service }]);
    let spec = json!({ "protocol": "TLS", "serverNames": [HOST], "targets": targets });
    world.declare("db", spec).await;
    let status = world
        .says("db", "True Proven who has db.localhost was reached")
        .await;
    let address = format!("{HOST}:{}", world.tls_port);
    assert_eq!(status["addresses"], json!([address]));

    // Its client trusts the target's authority, and sees its certificate.
    let mut stream = world.connect(HOST, authority.der(), &[]).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    let pem = own[0].as_bytes();
    let expected: CertificateDer<'static> =
        rustls_pki_types::pem::PemObject::from_pem_slice(pem).unwrap();
    assert_eq!(shown[0], expected);
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echo = String::new();
    stream.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "hello");

    // However many stay, requests find a place.
    let asked = async {
        let mut open = Vec::new();
        for _ in 0..=PLACES {
            open.push(world.connect(HOST, authority.der(), &[]).await.unwrap());
        }
        let told = world.asked_plainly("nobody.localhost").await;
        assert!(told.starts_with("HTTP/1.1 404 "), "{told}");
    };
    let asked = tokio::time::timeout(DEADLINE, asked).await;
    asked.expect("they are answered in time");
}
