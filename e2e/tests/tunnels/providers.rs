//! A tunnel whose connections cloudflared brings: a script stands for it, and this process says how many it has.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::declared::{declare, not_ready, proven, target};
use crate::site::Site;

const TOKEN: &str = "eyJhIjoiNWFiNGU5Z";

/// Says that there are four connections.
async fn connected() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_: Request<Incoming>| async {
                let said = r#"{"status":200,"readyConnections":4,"connectorId":""}"#;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    at
}

/// What stands for cloudflared: it writes down its process and its arguments. Where its metrics are it says last:
/// who has read them finds all the rest.
fn script(dir: &Path, metrics: SocketAddr) -> String {
    let text = format!(
        "#!/bin/sh\n\
         echo \"$TUNNEL_TOKEN $*\" > {dir}/asked\n\
         echo $$ > {dir}/process\n\
         echo \"2026-01-01T00:00:00Z ERR with $TUNNEL_TOKEN\" >&2\n\
         echo \"2026-01-01T00:00:00Z INF Starting metrics server on {metrics}/metrics\" >&2\n\
         exec sleep 10000\n",
        dir = dir.display()
    );
    let program = dir.join("cloudflared");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

async fn apply(swarm: &Swarm, object: Value) {
    let text = object.to_string();
    let applied = swarm.ctl.run_with_input(&["apply", "-f", "-"], &text);
    applied.await.ok();
}

/// Gone, or dead and not buried yet.
fn is_gone(process: &str) -> bool {
    match fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflared_runs_while_its_controller_and_its_tunnel_do() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), connected().await);
    let builder = Swarm::builder().controllers(1).agents(1);
    let mut swarm = builder.run_flag("--cloudflared", &program).start().await;
    let port = swarm.take_port();
    let _site = Site::start("one", port).await;
    let mut steps = Steps::new();

    steps
        .run("without the operator's word nothing runs", async {
            let spec = json!({
                "provider": "Cloudflare",
                "cloudflare": { "secretName": "cloudflare" },
                "http": { "host": "photos.localhost" },
                "targets": [target("node-1", port)],
            });
            declare(&swarm, "photos", spec).await;
            let why = not_ready(&mut swarm, "photos", "NotPermitted").await;
            assert!(why.contains("cloudflare.namespaces"), "{why}");
        })
        .await;
    steps
        .run("a token that is missing is told", async {
            let settings = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": "swarm", "namespace": "hive-system" },
                "data": { "cloudflare.namespaces": "default" },
            });
            apply(&swarm, settings).await;
            let why = not_ready(&mut swarm, "photos", "SecretNotFound").await;
            assert!(why.contains("tunnelToken"), "{why}");
        })
        .await;
    steps
        .run("with it the tunnel is ready", async {
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": "cloudflare" },
                "stringData": { "tunnelToken": TOKEN },
            });
            apply(&swarm, secret).await;
            proven(&swarm, "photos").await;
            let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
            assert_eq!(
                asked,
                format!("{TOKEN} tunnel --config /dev/null --no-autoupdate run\n")
            );
            let log = swarm.controllers[0].member.log();
            assert!(log.contains("with [token]") && !log.contains(TOKEN));
        })
        .await;
    let process = fs::read_to_string(dir.path().join("process")).unwrap();
    let process = process.trim();
    assert!(!is_gone(process));
    steps
        .run("a controller that is killed takes it along", async {
            swarm.controllers[0].member.kill9().await;
            until("cloudflared is gone", PATIENCE, async || {
                holds(is_gone(process), process)
            })
            .await;
        })
        .await;
    steps.finish();
}
