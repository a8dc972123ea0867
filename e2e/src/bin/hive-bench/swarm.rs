//! A swarm of `hive up` for measuring.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::load::{Target, connect, get};
use super::process::{self, Process};

pub const COMPONENT: &[u8] = include_bytes!("../../../../manifests/examples/hello/hello.wasm");

/// Between two questions whether something answers: it bounds the error of what is measured.
const POLL: Duration = Duration::from_micros(200);

pub struct Swarm {
    hive: PathBuf,
    dir: tempfile::TempDir,
    base_port: u16,
}

impl Swarm {
    pub fn start(hive: &Path, base_port: u16, flags: &[&str]) -> anyhow::Result<Self> {
        let swarm = Self {
            hive: hive.to_owned(),
            dir: tempfile::tempdir()?,
            base_port,
        };
        let port = base_port.to_string();
        let data = swarm.data();
        let mut arguments = vec!["up", "--detach", "--data-dir", &data, "--base-port", &port];
        arguments.extend(flags);
        process::output(hive, &arguments)?;
        Ok(swarm)
    }

    fn data(&self) -> String {
        self.dir.path().join("swarm").display().to_string()
    }

    /// Names and process ids.
    pub fn members(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let path = Path::new(&self.data()).join("processes.json");
        let recorded: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path)?)?;
        recorded
            .iter()
            .map(|process| {
                let name = process["name"].as_str().context("name")?.to_owned();
                let pid = process["pid"].as_u64().context("pid")?;
                Ok((name, u32::try_from(pid)?))
            })
            .collect()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    pub fn hivectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let kubeconfig = format!("{}/kubeconfig", self.data());
        let mut all = vec!["ctl", "--kubeconfig", &kubeconfig];
        all.extend(arguments);
        process::output(&self.hive, &all)
    }

    pub fn ingress(&self, function: &str) -> anyhow::Result<Target> {
        // Whoever answers there, a request costs the agent that runs the function.
        Ok(Target {
            address: ([127, 0, 0, 1], self.base_port).into(),
            host: format!("{function}.default.localhost"),
            pid: self.agent(1)?,
        })
    }

    /// The first agent's local address.
    pub fn local(&self, function: &str) -> anyhow::Result<Target> {
        Ok(Target {
            address: self.listen(1),
            host: format!("{function}.default.localhost"),
            pid: self.agent(1)?,
        })
    }

    /// The process of an agent, as it was started with the swarm.
    pub fn agent(&self, number: u16) -> anyhow::Result<u32> {
        let name = format!("node-{number}");
        let members = self.members()?;
        let agent = members.iter().find(|(member, _)| *member == name);
        Ok(agent.with_context(|| format!("no {name}"))?.1)
    }

    /// Ends the only agent and starts it again with its ledger and artifact, as a program of its own if there is
    /// one; the time from the start of its process to the first response. It ends with what is returned.
    pub async fn cold_start(&self, function: &str) -> anyhow::Result<(Duration, Process)> {
        let target = self.local(function)?;
        self.end_agent(1).await?;
        let shipped = shipped_agent();
        let (program, first) = match &shipped {
            Some(agent) => (agent, &[][..]),
            None => (&self.hive, &["agent"][..]),
        };
        let started = Instant::now();
        let agent = self.start_agent(program, first, 1)?;
        answers(&target, Duration::from_secs(30)).await?;
        Ok((started.elapsed(), agent))
    }

    /// Puts an agent of another program in the place of one of the swarm's.
    pub async fn restart_agent(&self, program: &Path, number: u16) -> anyhow::Result<Process> {
        self.end_agent(number).await?;
        self.start_agent(program, &[], number)
    }

    /// Only the first time: later ones were started, and ended, here.
    async fn end_agent(&self, number: u16) -> anyhow::Result<()> {
        let pid = i32::try_from(self.agent(number)?)?;
        let pid = rustix::process::Pid::from_raw(pid).context("pid")?;
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        while connect(self.listen(number)).await.is_ok() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn start_agent(&self, program: &Path, first: &[&str], number: u16) -> anyhow::Result<Process> {
        let name = format!("node-{number}");
        let dir = format!("{}/{name}", self.data());
        let listen = self.listen(number).to_string();
        let mut arguments = first.to_vec();
        arguments.extend(["--data-dir", &dir, "--name", &name, "--listen", &listen]);
        Process::start(program, &arguments)
    }

    fn listen(&self, number: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.base_port + 40 + number - 1).into()
    }

    /// A manifest of a function.
    pub fn function(&self, name: &str, component: &[u8]) -> anyhow::Result<PathBuf> {
        let file = format!("{name}.wasm");
        self.write(&file, component)?;
        let manifest = format!(
            "apiVersion: hive.dev/v1\nkind: Function\nmetadata:\n  name: {name}\nspec:\n  artifact:\n    path: {file}\n  resources:\n    memory: 128Mi\n    cpu: 10m\n"
        );
        self.write(&format!("{name}.yaml"), manifest.as_bytes())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Err(error) = process::output(&self.hive, &["down", "--data-dir", &self.data()]) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// The agent as nodes get it, where that is named.
pub fn shipped_agent() -> Option<PathBuf> {
    std::env::var_os("HIVE_AGENT").map(PathBuf::from)
}

/// The example with a custom section that makes its digest another; `text` is short.
pub fn fresh_component(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut section = vec![1, b'n'];
    section.extend(text.as_bytes());
    let mut component = COMPONENT.to_vec();
    component.push(0);
    component.push(u8::try_from(section.len())?);
    component.extend(section);
    Ok(component)
}

/// Waits for the first success.
pub async fn answers(target: &Target, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let asked = async { get(&mut connect(target.address).await?, &target.host).await };
        match asked.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!(
                    "{} did not answer within {within:?}: {error:#}",
                    target.host
                )
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
