//! What throwing somebody out does to each kind of credential, and how soon, at every controller: the
//! table in docs/guides/access.md.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use futures::future::join_all;
use futures::{AsyncBufReadExt as _, Stream, TryStreamExt as _};
use hive_e2e::ctl::{self, Ctl};
use hive_e2e::wait::{PATIENCE, until};
use hive_e2e::{Steps, Swarm, hive};
use http::Request;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::process::Command;

use super::issuer::{ID_TOKEN_LIFETIME, Issuer};
use super::{CONFIG_MAPS, write};

pub async fn all(steps: &mut Steps, swarm: &Swarm, issuer: Option<&Issuer>) {
    let case = admin_token(swarm);
    steps.run("an administrator's token is revoked", case).await;
    let case = account_token(swarm);
    steps
        .run("a service account's token is revoked", case)
        .await;
    let case = account(swarm);
    steps.run("a service account is deleted", case).await;
    let case = certificate(swarm);
    steps.run("a certificate is revoked", case).await;
    if let Some(issuer) = issuer {
        let case = dismissed(swarm, issuer);
        steps.run("somebody is dismissed at the issuer", case).await;
    }
    let case = without_roles(swarm);
    steps.run("somebody's roles are taken away", case).await;
}

async fn admin_token(swarm: &Swarm) {
    let token = swarm.token(&["--kind", "api", "--role", "admin"]).await;
    let kubeconfig = write(swarm, "lost-admin", json!({ "token": token }));
    let revoke = async {
        swarm.ctl(&["token", "revoke", &token]).await.ok();
    };
    let ended = ended(swarm, &kubeconfig, revoke).await;
    ended.tell("an administrator's token");
    assert!(ended.refused, "{ended:?}");
    let refused = Ctl::new(&kubeconfig).run(&["get", "configmaps"]).await;
    refused.fails(&["it was revoked", "`hivectl token create --kind api`"]);
    assert!(!refused.stderr.contains(&token), "{refused}");
}

/// The token of a service account that may look.
async fn robot(swarm: &Swarm, name: &str) -> String {
    swarm.ctl(&["create", "serviceaccount", name]).await.ok();
    let account = format!("--serviceaccount=default:{name}");
    let binding = [
        "create",
        "rolebinding",
        name,
        "--clusterrole=view",
        &account,
    ];
    swarm.ctl(&binding).await.ok();
    let token = swarm.ctl(&["create", "token", name]).await;
    token.ok().trim().to_owned()
}

async fn account_token(swarm: &Swarm) {
    let token = robot(swarm, "robot").await;
    let kubeconfig = write(swarm, "lost-robot", json!({ "token": token }));
    let revoke = async {
        swarm.ctl(&["token", "revoke", &token]).await.ok();
    };
    let ended = ended(swarm, &kubeconfig, revoke).await;
    ended.tell("a service account's token");
    assert!(ended.refused, "{ended:?}");
    let refused = Ctl::new(&kubeconfig).run(&["get", "configmaps"]).await;
    refused.fails(&["was revoked", "hivectl create token robot -n default"]);
}

async fn account(swarm: &Swarm) {
    let token = robot(swarm, "gone").await;
    let kubeconfig = write(swarm, "lost-gone", json!({ "token": token }));
    let revoke = async {
        swarm.ctl(&["delete", "serviceaccount", "gone"]).await.ok();
    };
    let ended = ended(swarm, &kubeconfig, revoke).await;
    ended.tell("the token of a deleted service account");
    assert!(ended.refused, "{ended:?}");
}

async fn certificate(swarm: &Swarm) {
    let kubeconfig = swarm.path().join("lost.kubeconfig");
    let out = kubeconfig.to_str().unwrap();
    let make = ["create", "user", "eve", "--group=hive:admin", "--out", out];
    swarm.ctl(&make).await.ok();
    let revoke = async {
        let revoked = swarm.ctl(&["certificate", "revoke", "--user", "eve"]).await;
        assert!(revoked.ok().contains("revoked"), "{revoked}");
    };
    let ended = ended(swarm, &kubeconfig, revoke).await;
    ended.tell("a client certificate");
    assert!(ended.refused, "{ended:?}");
    let refused = Ctl::new(&kubeconfig).run(&["get", "configmaps"]).await;
    refused.fails(&[
        "the client certificate was revoked",
        "`hivectl create user NAME`",
    ]);
}

/// The swarm asks no issuer about a token: it ends when it says so, and is not renewed.
async fn dismissed(swarm: &Swarm, issuer: &Issuer) {
    let kubeconfig = signed_in(swarm, issuer, "heidi").await;
    let own = write(
        swarm,
        "lost-heidi",
        json!({ "token": token(issuer, &kubeconfig).await }),
    );
    let dismiss = async { issuer.dismiss("heidi@example.org") };
    let found = ended(swarm, &own, dismiss).await;
    found.tell("a token of the issuer");
    assert!(
        found.requests <= ID_TOKEN_LIFETIME + Duration::from_secs(10),
        "{found:?}"
    );
    let renewed = ctl::run(issuer.hivectl(&kubeconfig, &["get-token"]), "").await;
    renewed.fails(&["renews this sign-in no more", "hivectl login"]);
    // What she types says the same, and the page of no plugin.
    let mut get = Command::new(hive());
    get.args(["ctl", "--kubeconfig"]).arg(&kubeconfig);
    get.args(["get", "configmaps"])
        .env("XDG_CACHE_HOME", &issuer.cache);
    let refused = ctl::run(get, "").await;
    refused.fails(&["nobody is signed in", "hivectl login --oidc-issuer-url="]);
    assert!(!refused.stderr.contains("ExecCredential"), "{refused}");
}

/// As fast as a revocation, for requests. A watch goes on until it is opened anew, as in Kubernetes.
async fn without_roles(swarm: &Swarm) {
    let binding = ["create", "clusterrolebinding", "ivan", "--clusterrole=view"];
    swarm
        .ctl(&[&binding[..], &["--user=ivan"]].concat())
        .await
        .ok();
    let kubeconfig = swarm.path().join("ivan.kubeconfig");
    let out = kubeconfig.to_str().unwrap();
    swarm
        .ctl(&["create", "user", "ivan", "--out", out])
        .await
        .ok();
    let clients = clients(swarm, &kubeconfig).await;
    let mut watches = Vec::new();
    for client in &clients {
        until("ivan may look", PATIENCE, async || {
            ask(client, CONFIG_MAPS).await
        })
        .await;
        watches.push(watch(client).await);
    }
    swarm
        .ctl(&["delete", "clusterrolebinding", "ivan"])
        .await
        .ok();
    let revoked = Instant::now();
    join_all(clients.iter().map(|client| refused(client, 403))).await;
    let requests = revoked.elapsed();
    swarm.ctl(&["create", "configmap", "after-ivan"]).await.ok();
    for lines in &mut watches {
        let seen = async {
            while let Some(line) = lines.try_next().await.unwrap() {
                if line.contains("after-ivan") {
                    return;
                }
            }
            panic!("the watch has ended");
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .expect("a watch goes on");
    }
    println!("    roles: requests were refused after {requests:.1?}, watches went on");
}

/// A kubeconfig that signs in by itself.
async fn signed_in(swarm: &Swarm, issuer: &Issuer, name: &str) -> PathBuf {
    let kubeconfig = swarm.path().join(format!("{name}.kubeconfig"));
    fs::copy(&swarm.ctl.kubeconfig, &kubeconfig).unwrap();
    let user = format!("{name}@example.org");
    let port = ["--redirect-port", "0"];
    issuer.sign_in(&kubeconfig, &port, &user).await;
    kubeconfig
}

async fn token(issuer: &Issuer, kubeconfig: &Path) -> String {
    let got = ctl::run(issuer.hivectl(kubeconfig, &["get-token"]), "").await;
    let credential: Value = serde_json::from_str(got.ok()).unwrap();
    credential["status"]["token"].as_str().unwrap().to_owned()
}

/// How long it took after a revocation was answered, at the slowest of the controllers.
#[derive(Debug)]
struct Ended {
    watches: Duration,
    requests: Duration,
    /// Whether all watches said why. One whose time is up says nothing, as in Kubernetes.
    refused: bool,
}

impl Ended {
    fn tell(&self, credential: &str) {
        let Self {
            watches, requests, ..
        } = self;
        println!(
            "    {credential}: watches ended after {watches:.1?}, requests were refused after {requests:.1?}"
        );
    }
}

/// Uses a credential at every controller, revokes it, and waits until nobody takes it any more.
async fn ended(swarm: &Swarm, kubeconfig: &Path, revoke: impl Future<Output = ()>) -> Ended {
    let clients = clients(swarm, kubeconfig).await;
    let mut watches = Vec::new();
    for client in &clients {
        watches.push(watch(client).await);
    }
    revoke.await;
    let revoked = Instant::now();
    let watches = join_all(watches.into_iter().map(|mut lines| async move {
        let mut last = String::new();
        let until_the_end = async {
            while let Ok(Some(line)) = lines.try_next().await {
                last = line;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, until_the_end).await;
        ended.expect("a watch ends in time");
        (revoked.elapsed(), last)
    }));
    let requests = join_all(clients.iter().map(|client| async move {
        refused(client, 401).await;
        revoked.elapsed()
    }));
    let (watches, requests) = tokio::join!(watches, requests);
    let (watches, last): (Vec<_>, Vec<_>) = watches.into_iter().unzip();
    Ended {
        watches: watches.into_iter().max().unwrap(),
        requests: requests.into_iter().max().unwrap(),
        refused: last.iter().all(|line| line.contains("\"code\":401")),
    }
}

/// Waits until requests are answered so, on the connection that is open.
async fn refused(client: &Client, code: u16) {
    until("a request is refused", PATIENCE, async || {
        match ask(client, CONFIG_MAPS).await {
            Err(kube::Error::Api(status)) if status.code == code => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn ask(client: &Client, path: &str) -> Result<(), kube::Error> {
    let request = Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await.map(drop)
}

/// A watch that has begun: its first event has come.
async fn watch(client: &Client) -> impl Stream<Item = io::Result<String>> + Unpin + use<> {
    let path = format!("{CONFIG_MAPS}?watch=1");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let mut lines = client.request_stream(request).await.unwrap().lines();
    let first = lines.try_next().await.unwrap().unwrap_or_default();
    assert!(first.contains("ADDED"), "{first:?}");
    lines
}

/// A client of each controller, with this credential. Its connection stays open.
async fn clients(swarm: &Swarm, kubeconfig: &Path) -> Vec<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut clients = Vec::new();
    for controller in &swarm.controllers {
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await;
        let mut config = config.unwrap();
        let url = format!("https://{}", controller.api_address());
        config.cluster_url = url.parse().unwrap();
        config.default_retry = false;
        clients.push(Client::try_from(config).unwrap());
    }
    clients
}
