//! Three controllers, asked for ConfigMaps through the JSON API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hive_e2e::Swarm;
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use super::connection::{Call, Member};
use super::{Calls, System};

/// With name, metadata and quotes it makes an object of 1 KB.
const TEXT_BYTES: usize = 800;

/// Each in a namespace of its own, as etcd has a prefix for each.
const GROUPS: [&str; 5] = ["write", "read", "list", "many", "watched"];

pub struct Hive {
    pub swarm: Swarm,
    members: Vec<Member>,
    calls: Arc<HiveCalls>,
}

pub struct HiveCalls {
    authorization: String,
    text: String,
}

impl Hive {
    /// With the times that controllers have where nobody chose others.
    pub async fn start() -> anyhow::Result<Self> {
        let swarm = Swarm::builder().agents(0).default_timing().start().await;
        for group in GROUPS {
            swarm.ctl.run(&["create", "namespace", group]).await.ok();
        }
        let kubeconfig: Value = serde_json::from_slice(&std::fs::read(&swarm.ctl.kubeconfig)?)?;
        let ca = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
            .as_str()
            .context("the kubeconfig names the CA")?;
        let ca = Arc::new(BASE64.decode(ca)?);
        let members = swarm
            .controllers
            .iter()
            .map(|controller| Member {
                address: ([127, 0, 0, 1], controller.api).into(),
                ca: ca.clone(),
            })
            .collect();
        let calls = Arc::new(HiveCalls {
            authorization: format!("Bearer {}", swarm.admin_token()),
            text: "t".repeat(TEXT_BYTES),
        });
        Ok(Self {
            swarm,
            members,
            calls,
        })
    }

    pub fn hive_calls(&self) -> Arc<HiveCalls> {
        self.calls.clone()
    }
}

impl HiveCalls {
    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path, Bytes::new())
    }

    fn call(&self, method: &str, path: &str, body: Bytes) -> Call {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("host", "127.0.0.1")
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("the request is well-formed");
        Call {
            request,
            grpc: false,
        }
    }
}

pub fn path(group: &str) -> String {
    format!("/api/v1/namespaces/{group}/configmaps")
}

impl Calls for HiveCalls {
    fn is_grpc(&self) -> bool {
        false
    }

    fn write(&self, group: &str, number: u64) -> Call {
        let text = &self.text;
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{group}-{number}"}},"data":{{"text":"{text}"}}}}"#
        );
        self.call("POST", &path(group), body.into())
    }

    fn read(&self, group: &str, number: u64) -> Call {
        self.get(&format!("{}/{group}-{number}", path(group)))
    }

    fn list(&self, group: &str) -> Call {
        self.get(&path(group))
    }
}

impl System for Hive {
    fn name(&self) -> &'static str {
        "hive"
    }

    fn calls(&self) -> Arc<dyn Calls> {
        self.calls.clone()
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn processes(&self) -> Vec<u32> {
        let controllers = self.swarm.controllers.iter();
        controllers.map(|c| c.member.pid()).collect()
    }

    async fn leader(&mut self) -> anyhow::Result<usize> {
        Ok(self.swarm.leader().await)
    }

    async fn restart(&mut self, member: usize) -> anyhow::Result<Duration> {
        self.swarm.controllers[member].member.kill9().await;
        let started = Instant::now();
        self.swarm.controllers[member].member.start();
        self.swarm.controller_ready(member).await;
        Ok(started.elapsed())
    }
}
