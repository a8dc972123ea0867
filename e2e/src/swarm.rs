//! A whole swarm: controllers that agree, agents that joined, and what a test does to them.

mod builder;
mod endpoints;
mod observed;

use std::path::{Path, PathBuf};

use http::Request;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::ctl::{self, Ctl, Output};
use crate::guests::Guest;
use crate::member::Member;
use crate::ports::{LOOPBACK, loopback};
use crate::turn::Turn;
use crate::wait::{PATIENCE, holds, until};
use crate::web::{self, Answer};

pub use builder::{Builder, NODE_GRACE};
pub use endpoints::{Agent, Controller};
use observed::leader_in;
pub use observed::{
    ASSIGNMENTS, CONFIG_MAPS, NODES, answers, condition, function_path, host, node_ready, object,
};

/// All of its processes end when it is dropped.
#[derive(Debug)]
pub struct Swarm {
    pub controllers: Vec<Controller>,
    pub agents: Vec<Agent>,
    /// Its program is what new members are made with, too.
    pub ctl: Ctl,
    next_port: u16,
    /// Whether each controller has an address of its own.
    apart: bool,
    /// Of `hive controller init` and `join`.
    make_flags: Vec<String>,
    /// Of `hive controller run`, for controllers that join later.
    run_flags: Vec<String>,
    agent_flags: Vec<String>,
    dir: TempDir,
    /// Given back last.
    _turn: Turn,
}

impl Swarm {
    /// Three controllers and three agents, unless said otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Its directory; for manifests and what else a test writes.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A port that nothing uses, and nothing else will.
    pub fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port += 1;
        port
    }

    /// `init` or `join`, then `run`, and waits until it is ready.
    async fn make_controller(&mut self) {
        let number = self.controllers.len() + 1;
        self.add_controller(&format!("controller-{number}")).await;
    }

    /// Another controller, in a data directory of that name.
    pub async fn add_controller(&mut self, name: &str) {
        let (ingress, api, link) = (self.take_port(), self.take_port(), self.take_port());
        let host = match self.apart {
            true => format!("127.0.0.{}", self.controllers.len() + 1),
            false => LOOPBACK.to_owned(),
        };
        let data_dir = self.path().join(name);
        let member = self.controller_in(name);
        let mut make = Command::new(&self.ctl.program);
        make.arg("controller");
        match self.controllers.first() {
            None => {
                make.args(["init", "--cluster", "e2e"]);
            }
            Some(first) => {
                let token = self.token(&["--kind", "controller-join"]).await;
                make.args(["join", "--controllers", &first.link_address()])
                    .env("HIVE_TOKEN", token);
            }
        }
        make.args(&self.make_flags);
        make.arg("--data-dir").arg(&data_dir);
        make.args(["--advertise", &host]);
        for (flag, port) in [
            ("--link-port", link),
            ("--api-port", api),
            ("--ingress-port", ingress),
        ] {
            make.args([flag, &port.to_string()]);
        }
        ctl::run(make, "").await.ok();
        self.start_controller(Controller {
            member,
            host,
            ingress,
            api,
            link,
        })
        .await;
    }

    /// The process of a controller that is in the directory of that name.
    pub fn controller_in(&self, name: &str) -> Member {
        let mut run = strings(&["controller", "run", "--data-dir"]);
        run.push(self.path().join(name).display().to_string());
        run.extend_from_slice(&self.run_flags);
        let mut member = Member::new(name, self.path(), run);
        member.runs(&self.ctl.program);
        member
    }

    /// Starts a controller that was made already, and waits until it is ready.
    pub async fn start_controller(&mut self, controller: Controller) {
        self.controllers.push(controller);
        let last = self.controllers.len() - 1;
        self.controllers[last].member.start();
        self.write_kubeconfig();
        self.controller_ready(last).await;
    }

    /// The administrator's access, with all controllers as servers, as `hive up` writes it.
    fn write_kubeconfig(&self) {
        let made = self.controllers[0].member.dir.join("kubeconfig");
        // One that joined has none; the one from before is good for as long as the token in it.
        let known = match made.exists() {
            true => made,
            false => self.ctl.kubeconfig.clone(),
        };
        let text = std::fs::read(known).expect("`init` leaves a kubeconfig");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        let servers: Vec<String> = self
            .controllers
            .iter()
            .map(|controller| format!("https://{}", controller.api_address()))
            .collect();
        let extension = json!({ "name": "hive.dev/servers", "extension": { "servers": servers } });
        config["clusters"][0]["cluster"]["extensions"] = json!([extension]);
        std::fs::write(&self.ctl.kubeconfig, config.to_string()).expect("a file of ours");
    }

    /// The bearer token of the administrator.
    pub fn admin_token(&self) -> String {
        let text = std::fs::read(&self.ctl.kubeconfig).expect("it was written here");
        let config: Value = serde_json::from_slice(&text).expect("it is JSON");
        let token = config["users"][0]["user"]["token"].as_str();
        token.expect("`init` makes a token").to_owned()
    }

    /// `hive controller ...` on the data directory of that name.
    pub async fn controller_command(&self, name: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.ctl.program);
        command.arg("controller").args(arguments);
        command.arg("--data-dir").arg(self.path().join(name));
        ctl::run(command, input).await
    }

    /// hivectl on this swarm.
    pub async fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl.run(arguments).await
    }

    /// A new token; by default one with which a node joins.
    pub async fn token(&self, flags: &[&str]) -> String {
        let mut arguments = vec!["token", "create"];
        arguments.extend(flags);
        self.ctl(&arguments).await.ok().trim().to_owned()
    }

    /// An agent that is not started yet.
    pub fn new_agent(&mut self, name: &str, token: &str) -> Agent {
        self.new_agent_in(name, name, token)
    }

    /// An agent whose data directory, and whose log, is not called as its node.
    pub fn new_agent_in(&mut self, directory: &str, name: &str, token: &str) -> Agent {
        let listen = self.take_port();
        let links: Vec<String> = self
            .controllers
            .iter()
            .map(Controller::link_address)
            .collect();
        let data_dir = self.path().join(directory).display().to_string();
        let mut arguments = strings(&[
            "agent",
            "--data-dir",
            &data_dir,
            "--name",
            name,
            "--listen",
            &loopback(listen),
            "--controllers",
            &links.join(","),
        ]);
        arguments.extend_from_slice(&self.agent_flags);
        let mut member = Member::new(directory, self.path(), arguments);
        member.runs(&self.ctl.program);
        if !token.is_empty() {
            member.variable("HIVE_TOKEN", token);
        }
        Agent { member, listen }
    }

    pub fn agent(&mut self, name: &str) -> &mut Agent {
        self.agents
            .iter_mut()
            .find(|agent| agent.member.name == name)
            .unwrap_or_else(|| panic!("there is no agent {name}"))
    }

    /// A client of one controller's API.
    pub async fn client_of(&self, controller: usize) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.ctl.kubeconfig).expect("it was written here");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig is good");
        let url = format!("https://{}", self.controllers[controller].api_address());
        config.cluster_url = url.parse().expect("an address makes a URL");
        // A test wants to see what the server answers, and when.
        config.default_retry = false;
        Client::try_from(config).expect("the certificates are good")
    }

    /// A client of the first controller that runs.
    pub async fn client(&mut self) -> Client {
        let running = self
            .controllers
            .iter_mut()
            .position(|controller| controller.member.is_running());
        self.client_of(running.expect("a controller runs")).await
    }

    pub async fn wait_ready(&mut self) {
        for index in 0..self.controllers.len() {
            self.controller_ready(index).await;
        }
        let client = self.client().await;
        for agent in &mut self.agents {
            node_ready(&client, agent).await;
        }
    }

    pub async fn controller_ready(&mut self, index: usize) {
        let client = self.client_of(index).await;
        let member = &mut self.controllers[index].member;
        until(&format!("{} is ready", member.name), PATIENCE, async || {
            if !member.is_running() {
                panic!("{} has ended\n{}", member.name, member.tail());
            }
            let request = Request::get("/readyz")
                .body(Vec::new())
                .expect("the request is well-formed");
            client.request_text(request).await
        })
        .await;
    }

    /// The index of the controller that leads, once all that run agree.
    pub async fn leader(&mut self) -> usize {
        let controllers = &mut self.controllers;
        until(
            "the controllers that run agree who leads",
            PATIENCE,
            async || {
                let mut seen: Option<u64> = None;
                for controller in controllers.iter_mut() {
                    if !controller.member.is_running() {
                        continue;
                    }
                    let told = leader_in(&controller.member.log_of_this_run());
                    let told =
                        told.ok_or_else(|| format!("{} knows none", controller.member.name))?;
                    match seen {
                        Some(other) if other != told => {
                            return Err(format!("some say {other}, some {told}"));
                        }
                        _ => seen = Some(told),
                    }
                }
                // Ids are given in the order in which controllers join, from 1.
                let index = seen.ok_or("none runs")? as usize - 1;
                match controllers[index].member.is_running() {
                    true => Ok(index),
                    false => Err("it is dead".to_owned()),
                }
            },
        )
        .await
    }

    /// Writes a manifest of a function, its component beside it; its path.
    pub fn manifest(&self, name: &str, guest: &Guest, spec: Value) -> PathBuf {
        let component = format!("{}.wasm", guest.name);
        let beside = self.path().join(&component);
        if !beside.exists() {
            std::fs::copy(&guest.component, &beside).expect("components can be read");
        }
        let mut function = json!({
            "apiVersion": "hive.dev/v1",
            "kind": "Function",
            "metadata": { "name": name },
            "spec": { "artifact": { "path": component } },
        });
        for (field, value) in spec.as_object().expect("a spec is an object") {
            function["spec"][field] = value.clone();
        }
        let path = self.path().join(format!("{name}.yaml"));
        std::fs::write(&path, function.to_string()).expect("a file of ours");
        path
    }

    /// Applies a function, and waits until all of its copies answer at every ingress.
    pub async fn deploy(&mut self, name: &str, guest: &Guest, spec: Value) {
        let manifest = self.manifest(name, guest, spec);
        let manifest = manifest.display().to_string();
        self.ctl(&["apply", "-f", &manifest]).await.ok();
        self.function_ready(name).await;
    }

    pub async fn function_ready(&mut self, name: &str) {
        let client = self.client().await;
        until(&format!("{name} is ready"), PATIENCE, async || {
            let function = object(&client, &function_path(name)).await?;
            let status = &function["status"];
            let current = status["observedGeneration"] == function["metadata"]["generation"];
            let ready = status["readyReplicas"] == status["replicas"];
            holds(current && ready && status["replicas"] != 0, status)
        })
        .await;
        for controller in &mut self.controllers {
            if controller.member.is_running() {
                answers(&controller.ingress_address(), name).await;
            }
        }
    }

    /// A request at the ingress of the first controller.
    pub async fn invoke(&self, name: &str, path: &str) -> Answer {
        let address = self.controllers[0].ingress_address();
        web::get(&address, &host(name), path)
            .await
            .unwrap_or_else(|error| panic!("{name}{path}: {error}"))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for controller in &self.controllers {
                eprintln!("{}", controller.member.tail());
            }
            for agent in &self.agents {
                eprintln!("{}", agent.member.tail());
            }
        }
    }
}

fn strings(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}
