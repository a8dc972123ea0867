//! TLS at every controller, as another implementation of it sees it: openssl.

use std::process::{Output, Stdio};
use std::sync::Arc;

use hive_e2e::ports::free;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::declared::{declare, not_ready, proven, target};
use crate::requests::within;
use crate::site::Site;

const SHOP: &str = "shop.localhost";
const DB: &str = "db.localhost";

/// Who vouches for the services of this test.
type Authority = CertifiedIssuer<'static, KeyPair>;

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_reached_by_tls() {
    // Each controller has an address of its own, so one port will do.
    let tls_port = free();
    let mut swarm = Swarm::builder()
        .agents(1)
        .apart()
        .run_flag("--ingress-tls-port", &tls_port.to_string())
        .start()
        .await;
    let (site_port, db_port) = (swarm.take_port(), swarm.take_port());
    let _site = Site::start("one", site_port).await;
    let authority = authority();
    let ca = swarm.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.display().to_string();
    let doors: Vec<String> = swarm
        .controllers
        .iter()
        .map(|controller| controller.address(tls_port))
        .collect();
    let mut steps = Steps::new();

    steps
        .run("a tunnel without its Secret says so", async {
            let spec = json!({
                "http": { "host": SHOP }, "targets": [target("node-1", site_port)],
                "tls": { "secretName": "shop-tls" },
            });
            declare(&swarm, "shop", spec).await;
            let why = not_ready(&mut swarm, "shop", "CertificateNotFound").await;
            assert!(why.contains("Secret shop-tls"), "{why}");
        })
        .await;
    steps
        .run("with it, it is proven, and answers by https", async {
            secret(&swarm, "shop-tls", &authority, SHOP).await;
            proven(&swarm, "shop").await;
            let listed = swarm.ctl(&["get", "tunnels"]).await;
            let url = format!("https://{SHOP}:{tls_port}/");
            assert!(listed.ok().contains(&url), "{listed}");
            for door in &doors {
                for version in ["-tls1_2", "-tls1_3"] {
                    let flags = [version, "-CAfile", &ca, "-verify_return_error"];
                    asks(door, SHOP, &flags, |answer| {
                        let said = String::from_utf8_lossy(&answer.stdout);
                        holds(said.ends_with("one"), format!("{answer:?}"))
                    })
                    .await;
                }
            }
        })
        .await;
    steps
        .run("a name that nobody has is refused by name", async {
            asks(&doors[0], "nobody.localhost", &[], |answer| {
                let said = String::from_utf8_lossy(&answer.stderr);
                holds(said.contains("unrecognized name"), format!("{answer:?}"))
            })
            .await;
        })
        .await;
    steps
        .run(
            "what is passed through shows the target's certificate",
            async {
                let pair = issue(&authority, DB);
                tokio::spawn(greet(db_port, pair));
                let spec = json!({
                    "protocol": "TLS", "serverNames": [DB], "targets": [target("node-1", db_port)],
                });
                declare(&swarm, "db", spec).await;
                proven(&swarm, "db").await;
                for door in &doors {
                    let flags = ["-CAfile", &ca, "-verify_return_error"];
                    asks(door, DB, &flags, |answer| {
                        let said = String::from_utf8_lossy(&answer.stdout);
                        holds(said.ends_with("the target"), format!("{answer:?}"))
                    })
                    .await;
                }
            },
        )
        .await;
    steps.finish();
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    let name = "authority of tests";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM.
fn issue(authority: &Authority, host: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, host);
    let certificate = params.signed_by(&key, authority).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

async fn secret(swarm: &Swarm, name: &str, authority: &Authority, host: &str) {
    let [certificate, key] = issue(authority, host);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": certificate, "tls.key": key, "ca.crt": authority.pem() },
    });
    let text = secret.to_string();
    let applied = swarm.ctl.run_with_input(&["apply", "-f", "-"], &text);
    applied.await.ok();
}

/// Says who it is to each of its clients, after TLS.
async fn greet(port: u16, [certificate, key]: [String; 2]) {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Checks say nothing.
            let mut stream = acceptor.accept(stream).await?;
            stream.write_all(b"the target").await?;
            stream.shutdown().await
        });
    }
}

/// A request by openssl, until it is answered as it should be.
async fn asks(
    door: &str,
    name: &str,
    flags: &[&str],
    is_good: impl Fn(&Output) -> Result<(), String>,
) {
    let what = format!("openssl asks {door} for {name}");
    until(&what, PATIENCE, async || {
        match openssl(door, name, flags).await {
            Some(answer) => is_good(&answer),
            None => Ok(()),
        }
    })
    .await;
}

/// `None` where there is no openssl.
async fn openssl(door: &str, name: &str, flags: &[&str]) -> Option<Output> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", door, "-servername", name]);
    command.args(flags);
    command.stdin(Stdio::piped()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = match command.spawn() {
        Ok(client) => client,
        Err(error) => {
            println!("\n!!!! SKIPPED: openssl s_client: {error}: apt-get install openssl\n");
            return None;
        }
    };
    let request = format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    let mut stdin = client.stdin.take().unwrap();
    // Who is refused does not read it.
    let _ = stdin.write_all(request.as_bytes()).await;
    let answer = within("openssl ends", client.wait_with_output())
        .await
        .unwrap();
    drop(stdin);
    Some(answer)
}
