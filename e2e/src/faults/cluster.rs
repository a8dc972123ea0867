//! Controllers in the sandbox: each in its own network, on its own disk, with levers in its process.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::client::{Access, Door};
use super::disk::Disk;
use super::levers::{self, Levers};
use super::network::{self, Network};
use crate::ctl::{self, Ctl};
use crate::member::Member;
use crate::program::hive;
use crate::wait::{PATIENCE, until};

/// Between neighbours: a link over which nothing came for two seconds is dialled anew.
const RUN_FLAGS: [&str; 6] = [
    "--node-grace",
    "3s",
    "--link-keep-alive",
    "500ms",
    "--link-idle-timeout",
    "2s",
];

const LINK_PORT: u16 = 7443;

#[derive(Debug)]
pub struct Node {
    pub member: Member,
    pub disk: Disk,
    pub levers: Levers,
    /// Raft's.
    pub id: u64,
    /// How the process ended that ran before this one, if by itself.
    pub ended: Option<ExitStatus>,
}

#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    pub access: Access,
    pub ctl: Ctl,
    shim: std::path::PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// Three controllers that are ready.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("the directory for temporary files can be written");
        let shim = levers::shim(dir.path());
        let mut network = Network::new();
        let first = make(dir.path(), &mut network, &shim, None).await;
        let kubeconfig = first.member.dir.join("kubeconfig");
        let mut cluster = Self {
            access: Access::read(&kubeconfig),
            ctl: Ctl::new(&kubeconfig),
            nodes: vec![first],
            network,
            shim,
            dir,
        };
        cluster.nodes[0].member.start();
        cluster.ready(0).await;
        for _ in 0..2 {
            cluster.join().await;
        }
        cluster.all_ready().await;
        cluster
    }

    /// One more controller, with a disk of its own, that is ready; its index.
    pub async fn join(&mut self) -> usize {
        let token = ["token", "create", "--kind", "controller-join"];
        let token = self.ctl.run(&token).await.ok().trim().to_owned();
        let mut node = make(self.dir.path(), &mut self.network, &self.shim, Some(&token)).await;
        node.member.start();
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.ready(index).await;
        index
    }

    pub fn door(&self, index: usize) -> Door {
        Door::new(&self.access, network::address(index))
    }

    pub async fn ready(&mut self, index: usize) {
        let mut door = self.door(index);
        let node = &mut self.nodes[index];
        until(
            &format!("{} is ready", node.member.name),
            PATIENCE,
            async || {
                if !node.member.is_running() {
                    panic!("{} has ended\n{}", node.member.name, node.member.tail());
                }
                match door
                    .ask(http::Method::GET, "/readyz", None, Duration::from_secs(2))
                    .await
                {
                    super::Heard::Answer { status: 200, .. } => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        )
        .await;
    }

    pub async fn all_ready(&mut self) {
        for index in 0..self.nodes.len() {
            self.ready(index).await;
        }
    }

    /// Starts those that do not run, whoever ended them; all are ready then.
    pub async fn revive(&mut self) {
        for node in &mut self.nodes {
            if !node.member.is_running() {
                node.ended = node.member.reap().or(node.ended);
                node.member.start();
            }
        }
        self.all_ready().await;
    }

    /// Who leads, by the newest term that any controller that runs has told of.
    pub fn leader(&mut self) -> Option<usize> {
        let told = self.nodes.iter_mut().filter_map(|node| {
            let runs = node.member.is_running();
            runs.then(|| told(&node.member.log_of_this_run()))?
        });
        let (_, id) = told.max()?;
        self.nodes.iter().position(|node| node.id == id)
    }

    pub fn print_logs(&self) {
        for node in &self.nodes {
            eprintln!("{}", node.member.tail());
        }
    }
}

/// `init`, or `join` with a token at the first controller.
async fn make(dir: &Path, network: &mut Network, shim: &Path, token: Option<&str>) -> Node {
    let index = network.add();
    let name = format!("controller-{}", index + 1);
    let disk = Disk::create(dir, &name);
    let levers = Levers::new(dir.join(format!("{name}-levers")));
    let data_dir = disk.path.join("data").display().to_string();
    let launcher = network::launcher(index);

    let mut arguments: Vec<String> = ["controller", "run", "--data-dir", &data_dir]
        .map(String::from)
        .to_vec();
    arguments.extend(RUN_FLAGS.map(String::from));
    let mut member = Member::new(&name, dir, arguments);
    member.dir = disk.path.join("data");
    member.launched_by(launcher.clone());
    for (variable, value) in levers.environment(shim) {
        member.variable(variable, &value);
    }

    let mut make = Command::new(&launcher[0]);
    make.args(&launcher[1..]).arg(hive()).arg("controller");
    match token {
        None => {
            make.args(["init", "--cluster", "faults"]);
        }
        Some(token) => {
            let first = format!("{}:{LINK_PORT}", network::address(0));
            make.args(["join", "--controllers", &first])
                .env("HIVE_TOKEN", token);
        }
    }
    make.args([
        "--data-dir",
        &data_dir,
        "--advertise",
        &network::address(index).to_string(),
    ]);
    ctl::run(make, "").await.ok();
    let record = std::fs::read(member.dir.join("controller.json")).expect("it was just made");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("it is JSON");
    Node {
        member,
        disk,
        levers,
        id: record["raftId"].as_u64().expect("it names its Raft id"),
        ended: None,
    }
}

/// Term and leader in the last line that names one.
fn told(log: &str) -> Option<(u64, u64)> {
    let number = |line: &str, name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(name)?;
        rest.split(' ').next()?.parse().ok()
    };
    log.lines()
        .rev()
        .filter(|line| line.contains(": leadership "))
        .find_map(|line| Some((number(line, " term=")?, number(line, " leader=")?)))
}
