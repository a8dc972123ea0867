//! The binary: what a service manager and its journal see.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::controller::{Controller, Swarm};
use crate::support::eventually;

/// Ends with the test, however that ends.
struct Process(Child);

impl Process {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hive-agent"))
            .arg("--data-dir")
            .arg(dir)
            .args(["--name", "pi", "--listen", "127.0.0.1:0", "--log", "warn"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).unwrap();
    }

    async fn exit(&mut self) -> (ExitStatus, String) {
        let status = eventually("the process ends", || self.0.try_wait().unwrap()).await;
        let stderr = std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap();
        (status, stderr)
    }

    /// Kilobytes of its own memory: pages of its file are shared and can be dropped.
    fn anonymous(&self) -> u64 {
        self.kilobytes("smaps_rollup", "Anonymous:")
    }

    fn kilobytes(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    /// Clock ticks of CPU time, of which there are a hundred a second.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_agent_is_small_and_ends_cleanly_when_told() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    let token = swarm.token().to_string();
    let endpoint = controller.endpoint();
    let mut agent = Process::start(dir.path(), &["--controllers", &endpoint, "--token", &token]);
    eventually("usage", || controller.state().usages.last().cloned()).await;

    // Not a wait for something: idling is what is measured, of which beginning is no part. That lasts as long
    // as the machine is slow.
    let deadline = Instant::now() + Duration::from_secs(60);
    let busy = loop {
        let before = agent.cpu_ticks();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let busy = agent.cpu_ticks() - before;
        if busy <= 3 || Instant::now() > deadline {
            break busy;
        }
    };
    let (own, all) = (agent.anonymous(), agent.kilobytes("status", "VmRSS:"));
    println!("idle: {own} kB of its own, {all} kB resident, {busy} ticks of 300");
    assert!(own < 15 * 1024, "{own} kB");
    assert!(busy <= 3, "{busy} ticks");

    agent.signal(Signal::TERM);
    let (status, stderr) = agent.exit().await;
    assert!(status.success(), "{status}: {stderr}");
    eventually("the goodbye", || {
        let state = controller.state();
        let ended = state.links.iter().all(|link| link.end().is_some());
        ended.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_data_says_who_is_there() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let controller = Controller::start(&swarm).await;
    let token = swarm.token().to_string();
    let endpoint = controller.endpoint();
    let _first = Process::start(dir.path(), &["--controllers", &endpoint, "--token", &token]);
    eventually("a session", || controller.state().hellos.last().cloned()).await;
    let (status, stderr) = Process::start(dir.path(), &[]).exit().await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("another agent is running on"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_while_it_waits_to_join() {
    let (swarm, dir) = (Swarm::new(), tempfile::tempdir().unwrap());
    let token = swarm.token().to_string();
    // Takes packets, and never answers.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = nobody.local_addr().unwrap().to_string();
    let mut agent = Process::start(dir.path(), &["--controllers", &endpoint, "--token", &token]);
    eventually("it has begun", || {
        dir.path().join("device.key").exists().then_some(())
    })
    .await;
    agent.signal(Signal::INT);
    let (status, stderr) = agent.exit().await;
    assert!(status.success(), "{status}: {stderr}");
}
