//! Certificates that a live swarm orders by itself: had by all controllers, renewed once, whoever leads.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hive_acme::{Authority, Habits, Kind, Log};
use hive_e2e::ports::free;
use hive_e2e::swarm::object;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, hive};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

/// Of a controller that takes TLS at its public door.
const TLS_PORT: &str = "--ingress-tls-port";

/// Long enough for an order on a busy machine, short enough to be waited for.
const SHORT_LIFE: Duration = Duration::from_secs(30);

/// Such names lead to the machine itself.
fn host(name: &str) -> String {
    format!("{name}.localhost")
}

/// Whether the program takes TLS for tunnels at all.
async fn takes_tls() -> bool {
    let help = ["controller", "run", "--help"];
    let output = Command::new(hive()).args(help).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).contains(TLS_PORT)
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_get_certificates_and_keep_them() {
    let mut builder = Swarm::builder().agents(0).apart();
    let tls_port = match takes_tls().await {
        true => Some(free()),
        false => None,
    };
    if let Some(port) = tls_port {
        builder = builder.run_flag(TLS_PORT, &port.to_string());
    }
    let mut swarm = builder.start().await;
    let authority = Authority::start(habits(&swarm, tls_port, &[0, 1, 2])).await;
    let mut steps = Steps::new();
    steps
        .run("nobody is asked before the terms are agreed to", async {
            settle(&swarm, &authority, "false").await;
            declare(&swarm, "photos").await;
            let why = says(&mut swarm, "photos", "TermsNotAgreed").await;
            assert!(why.contains("hivectl edit configmap swarm"), "{why}");
            assert_eq!(authority.so_far(), Log::default());
        })
        .await;
    steps
        .run("then a certificate is ordered, once", async {
            settle(&swarm, &authority, "true").await;
            ready(&swarm, "photos").await;
            let log = authority.so_far();
            assert_eq!((log.accounts, log.certificates.len()), (1, 1));
            assert_eq!(log.orders, [[host("photos")]]);
        })
        .await;
    steps
        .run("all controllers have it", async {
            let chain = chain(&swarm, 0, "photos").await;
            for controller in [1, 2] {
                until("another controller has it", PATIENCE, async || {
                    let other = certificate(&swarm, controller, "photos").await?;
                    holds(other == chain, "it has another one")
                })
                .await;
            }
        })
        .await;
    match tls_port {
        Some(port) => {
            steps
                .run(
                    "and serve it, and prove names by it",
                    served(&swarm, &authority, port),
                )
                .await;
        }
        None => eprintln!(
            "SKIPPED: that controllers serve the certificate: `hive controller run` knows no {TLS_PORT}"
        ),
    }
    steps
        .run(
            "a leader that dies in the middle of an order is succeeded",
            leader_dies(&mut swarm, &authority, tls_port),
        )
        .await;
    steps
        .run("what the authority says is said", async {
            let words = "the page says something else";
            authority.change(|habits| habits.fails = Some(words.to_owned()));
            declare(&swarm, "wrong").await;
            let why = says(&mut swarm, "wrong", "NameNotProven").await;
            assert!(why.contains(words), "{why}");
            assert!(why.contains("it is tried again at"), "{why}");
            authority.change(|habits| habits.fails = None);
            // Told after it was noted.
            until("there is an event", PATIENCE, async || {
                let events = swarm.ctl(&["events", "--for", "tunnel/wrong"]).await;
                holds(events.ok().contains("NameNotProven"), events)
            })
            .await;
        })
        .await;
    steps
        .run(
            "a certificate is renewed once, not by each controller",
            renewed(&swarm, &authority),
        )
        .await;
    steps.finish();
}

/// An authority that finds these controllers.
fn habits(swarm: &Swarm, tls_port: Option<u16>, controllers: &[usize]) -> Habits {
    let controllers = controllers.iter().map(|index| &swarm.controllers[*index]);
    let doors = |addresses: Vec<String>| -> Vec<SocketAddr> {
        let addresses = addresses.iter();
        addresses.map(|address| address.parse().unwrap()).collect()
    };
    let http = controllers.clone().map(|it| it.ingress_address()).collect();
    let tls = controllers.flat_map(|it| Some(it.address(tls_port?)));
    Habits {
        http_doors: doors(http),
        tls_doors: doors(tls.collect()),
        ..Habits::default()
    }
}

async fn apply(swarm: &Swarm, object: &Value) {
    let arguments = ["apply", "--server-side", "-f", "-"];
    let object = object.to_string();
    swarm.ctl.run_with_input(&arguments, &object).await.ok();
}

async fn settle(swarm: &Swarm, authority: &Authority, agreed: &str) {
    let settings = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "swarm", "namespace": "hive-system" },
        "data": {
            "acme.directory": authority.directory(),
            "acme.rootCertificates": authority.roots(),
            "acme.email": "ops@example.org",
            "acme.agreeToTerms": agreed,
        },
    });
    apply(swarm, &settings).await;
}

/// What it leads to is not there, and that is no matter.
async fn declare(swarm: &Swarm, name: &str) {
    let tunnel = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "http": { "host": host(name) },
            "targets": [{ "node": "nobody", "port": 80 }],
            "tls": { "acme": true },
        },
    });
    apply(swarm, &tunnel).await;
}

async fn ready(swarm: &Swarm, name: &str) {
    let tunnel = format!("tunnel/{name}");
    let condition = "--for=condition=CertificateReady";
    let wait = ["wait", condition, &tunnel, "--timeout=180s"];
    swarm.ctl(&wait).await.ok();
}

/// Waits until there is no certificate for that reason; the sentence with it.
async fn says(swarm: &mut Swarm, name: &str, reason: &str) -> String {
    let client = swarm.client().await;
    let path = format!("/apis/hive.dev/v1/namespaces/default/tunnels/{name}");
    until(&format!("{name} says {reason}"), PATIENCE, async || {
        let tunnel = object(&client, &path).await?;
        let conditions = tunnel["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|it| it["type"] == "CertificateReady");
        let found = found.ok_or("nothing is said of its certificate")?;
        holds(
            found["status"] == "False" && found["reason"] == reason,
            &tunnel["status"],
        )?;
        Ok::<_, String>(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// The certificate of a tunnel, as a controller has it.
async fn certificate(swarm: &Swarm, controller: usize, name: &str) -> Result<String, String> {
    let client = swarm.client_of(controller).await;
    let path = format!("/api/v1/namespaces/default/secrets/{name}-acme");
    let secret = object(&client, &path).await?;
    let chain = secret["data"]["tls.crt"].as_str();
    chain.map(str::to_owned).ok_or("it is empty".to_owned())
}

async fn chain(swarm: &Swarm, controller: usize, name: &str) -> String {
    let what = format!("controller {controller} has the certificate of {name}");
    let look = async || certificate(swarm, controller, name).await;
    until(&what, PATIENCE, look).await
}

/// Waits until the authority was asked for something.
async fn asked(authority: &Authority, what: impl FnMut(&Log) -> bool) {
    let mut log = authority.log();
    let asked = tokio::time::timeout(PATIENCE, log.wait_for(what)).await;
    drop(asked.expect("the authority is asked").unwrap());
}

fn orders_for(log: &Log, name: &str) -> usize {
    let orders = log.orders.iter();
    orders.filter(|names| names.contains(&host(name))).count()
}

/// Every controller shows the certificate, and can prove another name over TLS alone.
async fn served(swarm: &Swarm, authority: &Authority, port: u16) {
    let root = CertificateDer::from_pem_slice(authority.roots().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for controller in &swarm.controllers {
        let address = controller.address(port);
        until("the certificate is shown", PATIENCE, async || {
            let stream = TcpStream::connect(&address).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host("photos")).unwrap();
            let shaken = connector.connect(name, stream).await;
            shaken.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    authority.change(|habits| habits.offers = vec![Kind::TlsAlpn01]);
    declare(swarm, "by-tls").await;
    ready(swarm, "by-tls").await;
    authority.change(|habits| habits.offers = Habits::default().offers);
    let claims = authority.so_far().claims;
    assert!(
        claims.contains(&(Kind::TlsAlpn01, host("by-tls"))),
        "{claims:?}"
    );
}

async fn leader_dies(swarm: &mut Swarm, authority: &Authority, tls_port: Option<u16>) {
    authority.change(|habits| habits.holds = true);
    declare(swarm, "orphan").await;
    let is_asked = |log: &Log| log.claims.iter().any(|(_, name)| *name == host("orphan"));
    asked(authority, is_asked).await;
    let dead = swarm.leader().await;
    swarm.controllers[dead].member.kill9().await;
    let living = [(dead + 1) % 3, (dead + 2) % 3];
    // Nobody finds the dead one.
    authority.change(|it| *it = habits(swarm, tls_port, &living));
    ready(swarm, "orphan").await;
    let log = authority.so_far();
    assert_eq!((log.accounts, orders_for(&log, "orphan")), (1, 1));
    swarm.controllers[dead].member.start();
    swarm.controller_ready(dead).await;
    authority.change(|it| *it = habits(swarm, tls_port, &[0, 1, 2]));
}

async fn renewed(swarm: &Swarm, authority: &Authority) {
    authority.change(|habits| habits.lifetime = SHORT_LIFE);
    declare(swarm, "brief").await;
    ready(swarm, "brief").await;
    let first = chain(swarm, 0, "brief").await;
    authority.change(|habits| habits.lifetime = Habits::default().lifetime);
    let orders = |log: &Log| orders_for(log, "brief");
    asked(authority, |log| orders(log) == 2).await;
    for controller in 0..3 {
        until("the new certificate is there", PATIENCE, async || {
            let chain = certificate(swarm, controller, "brief").await?;
            holds(chain != first, "it is the old one")
        })
        .await;
    }
    assert_eq!(orders(&authority.so_far()), 2);
}
