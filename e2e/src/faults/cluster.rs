//! Controllers in the sandbox: each in its own network, on its own disk, with levers in its process.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::client::{API_PORT, Access, Door};
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
    /// In the network; another where the controller was replaced.
    place: Arc<AtomicUsize>,
}

impl Node {
    pub fn place(&self) -> usize {
        self.place.load(Ordering::SeqCst)
    }

    fn address(&self) -> Ipv4Addr {
        network::address(self.place())
    }
}

/// What a newcomer needs.
struct Invitation {
    token: String,
    /// Whom it asks; `host:port`, separated by commas.
    controllers: String,
}

#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    pub access: Access,
    /// Of the first controller.
    kubeconfig: Value,
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
        let kubeconfig = std::fs::read(first.member.dir.join("kubeconfig"));
        let kubeconfig = kubeconfig.expect("`init` leaves a kubeconfig");
        let kubeconfig: Value = serde_json::from_slice(&kubeconfig).expect("it is JSON");
        let mut cluster = Self {
            access: Access::of(&kubeconfig),
            kubeconfig,
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
        let invitation = Invitation {
            token: self.ctl(0).run(&token).await.ok().trim().to_owned(),
            controllers: format!("{}:{LINK_PORT}", self.nodes[0].address()),
        };
        let mut node = self.make(&invitation).await;
        node.member.start();
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.ready(index).await;
        index
    }

    async fn make(&mut self, invitation: &Invitation) -> Node {
        let dir = self.dir.path();
        make(dir, &mut self.network, &self.shim, Some(invitation)).await
    }

    pub fn door(&self, index: usize) -> Door {
        Door::new(&self.access, self.nodes[index].place.clone())
    }

    /// hivectl that asks this controller.
    pub fn ctl(&self, index: usize) -> Ctl {
        let node = &self.nodes[index];
        let mut config = self.kubeconfig.clone();
        let server = format!("https://{}:{API_PORT}", node.address());
        config["clusters"][0]["cluster"]["server"] = server.into();
        let path = self.dir.path().join(format!("kubeconfig-{}", node.place()));
        std::fs::write(&path, config.to_string()).expect("a file of ours");
        Ctl::new(&path)
    }

    /// Puts a fresh controller in the place of one that runs, as `hivectl controller replace` says it
    /// is done. The old one ends by itself; how, and the ids of both.
    ///
    /// # Panics
    ///
    /// If any of it fails.
    pub async fn replace(&mut self, index: usize) -> (u64, u64, ExitStatus) {
        let old = self.nodes[index].id;
        let asked = (index + 1) % self.nodes.len();
        let id = old.to_string();
        let mut asking = self.ctl(asked).spawn(&["controller", "replace", &id]);
        let mut said = BufReader::new(asking.stdout.take().expect("it is piped")).lines();
        let invitation = loop {
            let line = said.next_line().await.expect("it can be read");
            let line = line.expect("it says what to run on the new machine");
            if let Some(invitation) = invited(&line) {
                break invitation;
            }
        };
        let mut fresh = self.make(&invitation).await;
        fresh.member.start();
        let done = async {
            while let Ok(Some(_)) = said.next_line().await {}
            asking.wait().await.expect("a child can be waited for")
        };
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(status) if status.success() => {}
            other => {
                eprintln!("{}", fresh.member.tail());
                self.print_logs();
                panic!("`hivectl controller replace {id}`: {other:?}");
            }
        }
        let node = &mut self.nodes[index];
        let status = node.member.ended(PATIENCE).await;
        // Who was at the old one's door finds the new one there.
        node.place.store(fresh.place(), Ordering::SeqCst);
        fresh.place = node.place.clone();
        *node = fresh;
        self.ready(index).await;
        (old, self.nodes[index].id, status)
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

/// In a line such as `HIVE_TOKEN=... hive controller join --controllers ... --advertise ...`.
fn invited(line: &str) -> Option<Invitation> {
    let after = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    Some(Invitation {
        token: after("HIVE_TOKEN=")?,
        controllers: after("--controllers ")?,
    })
}

/// `init`, or `join` where it is invited.
async fn make(
    dir: &Path,
    network: &mut Network,
    shim: &Path,
    invitation: Option<&Invitation>,
) -> Node {
    let place = network.add();
    let name = format!("controller-{}", place + 1);
    let disk = Disk::create(dir, &name);
    let levers = Levers::new(dir.join(format!("{name}-levers")));
    let data_dir = disk.path.join("data").display().to_string();
    let launcher = network::launcher(place);

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
    match invitation {
        None => {
            make.args(["init", "--cluster", "faults"]);
        }
        Some(Invitation { token, controllers }) => {
            make.args(["join", "--controllers", controllers])
                .env("HIVE_TOKEN", token);
        }
    }
    make.args([
        "--data-dir",
        &data_dir,
        "--advertise",
        &network::address(place).to_string(),
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
        place: Arc::new(AtomicUsize::new(place)),
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
