//! People on a live swarm: how they get in (certificates, an OpenID issuer of another make), and what
//! throwing somebody out does, and how soon, for each kind of credential.
//!
//! The issuer is `oidc-provider` of npm, installed under the cache of CI at the versions in its lock
//! file. Where it can't be installed, that part is skipped and says so.
#![allow(clippy::unwrap_used)]

#[path = "people/issuer.rs"]
mod issuer;
#[path = "people/revoked.rs"]
mod revoked;

use std::fs;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use hive_e2e::ctl::{self, Ctl, Output};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, hive};
use issuer::Issuer;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::process::Command;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn people_come_and_go() {
    let desk = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(desk.path()).await;
    let mut builder = Swarm::builder().agents(0);
    if let Some(issuer) = &issuer {
        builder = builder
            .run_flag("--oidc-issuer-url", &issuer.url)
            .run_flag("--oidc-client-id", "hive")
            .run_flag("--oidc-username-claim", "email")
            .run_flag("--oidc-groups-claim", "groups")
            .run_flag("--oidc-groups-prefix", "org:")
            .run_flag("--oidc-ca-file", issuer.certificate.to_str().unwrap());
    }
    let swarm = builder.start().await;
    agreed(&swarm).await;
    let marker = ["create", "-f", "-"];
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "marker" } });
    swarm
        .ctl
        .run_with_input(&marker, &object.to_string())
        .await
        .ok();

    let mut steps = Steps::new();
    steps
        .run(
            "a certificate opens kubectl, curl and hivectl",
            certificate(&swarm),
        )
        .await;
    steps
        .run("who may not approve waits for who may", approval(&swarm))
        .await;
    if let Some(issuer) = &issuer {
        let binding = [
            "create",
            "clusterrolebinding",
            "makers",
            "--clusterrole=edit",
            "--group=org:makers",
        ];
        swarm.ctl(&binding).await.ok();
        steps
            .run("signing in with a browser", browser(&swarm, issuer))
            .await;
        steps
            .run("signing in on another device", device(&swarm, issuer))
            .await;
    }
    revoked::all(&mut steps, &swarm, issuer.as_ref()).await;
    steps.finish();
}

/// Certificates are issued once all controllers have said that they know them.
async fn agreed(swarm: &Swarm) {
    until("the first certificate is issued", PATIENCE, async || {
        let made = swarm.ctl(&["create", "user", "first"]).await;
        holds(made.code == 0, &made.stderr)
    })
    .await;
}

/// A program that is not hive.
async fn run(program: &str, arguments: &[&str], variables: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in variables {
        command.env(name, value);
    }
    ctl::run(command, "").await
}

fn is_here(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    if !found {
        eprintln!("\n!!!! SKIPPED: there is no {program}\n");
    }
    found
}

async fn certificate(swarm: &Swarm) {
    let file = swarm.path().join("ada.kubeconfig");
    let out = file.to_str().unwrap();
    let made = swarm
        .ctl(&[
            "create",
            "user",
            "ada@example.org",
            "--group",
            "hive:view,makers",
            "--out",
            out,
        ])
        .await;
    assert!(
        made.ok().is_empty() && made.stderr.contains("certificate revoke ada-example-org-"),
        "{made}"
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let ada = Ctl::new(&file);
    let who = ada.run(&["auth", "whoami"]).await;
    for part in ["ada@example.org", "hive:view", "makers"] {
        assert!(who.ok().contains(part), "{who}");
    }
    let may = ada.run(&["create", "configmap", "x"]).await;
    may.fails(&["ada@example.org", "cannot create resource \"configmaps\""]);

    if is_here("kubectl") {
        let list = run("kubectl", &["get", "configmaps"], &[("KUBECONFIG", &file)]).await;
        assert!(list.ok().contains("marker"), "{list}");
    }
    if is_here("curl") {
        let config: Value = Kubeconfig::read_from(&file)
            .map(|config| serde_json::to_value(config).unwrap())
            .unwrap();
        let user = &config["users"][0]["user"];
        let pem = |name: &str, value: &Value| {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(value.as_str().unwrap())
                .unwrap();
            let path = swarm.path().join(name);
            fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let [certificate, key, ca] = [
            pem("ada.crt", &user["client-certificate-data"]),
            pem("ada.key", &user["client-key-data"]),
            pem(
                "ca.crt",
                &config["clusters"][0]["cluster"]["certificate-authority-data"],
            ),
        ];
        let url = format!(
            "https://{}{CONFIG_MAPS}",
            swarm.controllers[1].api_address()
        );
        let got = run(
            "curl",
            &[
                "-sS",
                "--cacert",
                &ca,
                "--cert",
                &certificate,
                "--key",
                &key,
                &url,
            ],
            &[],
        )
        .await;
        assert!(got.ok().contains("\"ConfigMapList\""), "{got}");
        let refused = run("curl", &["-sS", "--cacert", &ca, &url], &[]).await;
        assert!(
            refused.ok().contains("or a client certificate is needed"),
            "{refused}"
        );
    }
}

async fn approval(swarm: &Swarm) {
    // Asks, but does not decide.
    let role = [
        "create",
        "clusterrole",
        "asks",
        "--verb=create,get",
        "--resource=certificatesigningrequests",
    ];
    swarm.ctl(&role).await.ok();
    let binding = [
        "create",
        "clusterrolebinding",
        "asks",
        "--clusterrole=asks",
        "--group=hive:view",
    ];
    swarm.ctl(&binding).await.ok();
    let token = swarm.token(&["--kind", "api", "--role", "view"]).await;
    let asking = Ctl::new(&write(swarm, "asking", json!({ "token": token })));
    for (decision, parts) in [
        ("approve", &["client-certificate-data"][..]),
        ("deny", &["was denied"]),
    ] {
        let user = format!("bob-{decision}");
        let waiting = asking.clone();
        let asked = user.clone();
        let waiting = tokio::spawn(async move { waiting.run(&["create", "user", &asked]).await });
        let name = until("bob has asked", PATIENCE, async || {
            let list = swarm.ctl(&["get", "csr", "-o", "name"]).await;
            let mut names = list.stdout.lines();
            let found = names.find_map(|line| {
                line.split_once('/')
                    .filter(|(_, name)| name.starts_with(&user))
            });
            found
                .map(|(_, name)| name.to_owned())
                .ok_or(list.stdout.clone())
        })
        .await;
        swarm.ctl(&["certificate", decision, &name]).await.ok();
        let made = waiting.await.unwrap();
        assert!(
            made.stderr
                .contains(&format!("hivectl certificate approve {name}")),
            "{made}"
        );
        match decision {
            "approve" => assert!(made.ok().contains(parts[0]), "{made}"),
            _ => made.fails(parts),
        }
    }
}

async fn browser(swarm: &Swarm, issuer: &Issuer) {
    let kubeconfig = swarm.path().join("grace.kubeconfig");
    fs::copy(&swarm.ctl.kubeconfig, &kubeconfig).unwrap();
    let unsigned = ctl::run(issuer.hivectl(&kubeconfig, &["get-token"]), "").await;
    unsigned.fails(&["nobody is signed in", "hivectl login --oidc-issuer-url="]);

    let told = issuer
        .sign_in(&kubeconfig, &["--redirect-port", "0"], "grace@example.org")
        .await;
    assert!(
        told.contains("Signed in as \"grace@example.org\""),
        "{told}"
    );
    let cache = [
        ("KUBECONFIG", kubeconfig.as_path()),
        ("XDG_CACHE_HOME", &issuer.cache),
    ];
    if is_here("kubectl") {
        let made = run("kubectl", &["create", "configmap", "of-grace"], &cache).await;
        made.ok();
    }
    let mut whoami = Command::new(hive());
    whoami
        .args(["ctl", "--kubeconfig"])
        .arg(&kubeconfig)
        .args(["auth", "whoami"])
        .env("XDG_CACHE_HOME", &issuer.cache);
    let who = ctl::run(whoami, "").await;
    for part in ["grace@example.org", "org:makers"] {
        assert!(who.ok().contains(part), "{who}");
    }

    // A token that ends is renewed, also by several at a time, though a refresh token is good once.
    let token = async || {
        let got = ctl::run(issuer.hivectl(&kubeconfig, &["get-token"]), "").await;
        let credential: Value = serde_json::from_str(got.ok()).unwrap();
        assert_eq!(credential["kind"], "ExecCredential");
        assert_eq!(credential["apiVersion"], "client.authentication.k8s.io/v1");
        credential["status"]["token"].as_str().unwrap().to_owned()
    };
    let first = token().await;
    until("the token is renewed", PATIENCE, async || {
        let tokens = join_all((0..4).map(|_| token())).await;
        holds(
            tokens.iter().all(|token| *token != first),
            "it is the first one",
        )
    })
    .await;
}

async fn device(swarm: &Swarm, issuer: &Issuer) {
    let kubeconfig = swarm.path().join("device.kubeconfig");
    fs::copy(&swarm.ctl.kubeconfig, &kubeconfig).unwrap();
    let told = issuer
        .sign_in(&kubeconfig, &["--device"], "dan@example.org")
        .await;
    assert!(told.contains("Signed in as \"dan@example.org\""), "{told}");
}

/// A kubeconfig with this credential alone.
fn write(swarm: &Swarm, name: &str, user: Value) -> PathBuf {
    let config = fs::read(&swarm.ctl.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["users"][0]["user"] = user;
    let path = swarm.path().join(format!("{name}.kubeconfig"));
    fs::write(&path, config.to_string()).unwrap();
    path
}
