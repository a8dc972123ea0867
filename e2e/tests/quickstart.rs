//! `hive up` and `hive down`: the first five minutes, and what can go wrong in them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use hive_e2e::ctl::{self, Ctl, Output};
use hive_e2e::ports::{free_row, loopback};
use hive_e2e::swarm::answers;
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Turn, hive, web};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

/// `hive up` takes ports from its base on, a hundred of them.
const PORTS: u16 = 100;

/// Where one swarm of `hive up` is. What still runs when it is dropped is stopped.
struct Up {
    dir: PathBuf,
    base: u16,
}

impl Up {
    fn new(root: &Path, name: &str, base: u16) -> Self {
        Self {
            dir: root.join(name),
            base,
        }
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(hive());
        command
            .args(["up", "--data-dir"])
            .arg(&self.dir)
            .args(["--base-port", &self.base.to_string()])
            .args(flags);
        command
    }

    async fn up(&self, flags: &[&str]) -> Output {
        ctl::run(self.command(flags), "").await
    }

    async fn down(&self) -> Output {
        let mut command = Command::new(hive());
        command.args(["down", "--data-dir"]).arg(&self.dir);
        ctl::run(command, "").await
    }

    /// In the foreground; standard output and standard error go to `output`.
    fn foreground(&self, flags: &[&str], output: &Path) -> Child {
        let file = std::fs::File::create(output).unwrap();
        self.command(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn ctl(&self) -> Ctl {
        Ctl::new(&self.dir.join("kubeconfig"))
    }

    /// The processes of its members, by name.
    fn processes(&self) -> Vec<(String, Pid)> {
        let Ok(text) = std::fs::read(self.dir.join("processes.json")) else {
            return Vec::new();
        };
        let recorded: Vec<Value> = serde_json::from_slice(&text).unwrap();
        recorded
            .iter()
            // In the foreground `up` itself stands first.
            .filter(|process| process["name"] != "hive up")
            .map(|process| {
                let pid = i32::try_from(process["pid"].as_i64().unwrap()).unwrap();
                let name = process["name"].as_str().unwrap().to_owned();
                (name, Pid::from_raw(pid).unwrap())
            })
            .collect()
    }

    async fn hello(&self) -> String {
        let address = loopback(self.base);
        let answer = web::get(&address, "hello.default.localhost", "/")
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        for (_, pid) in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn alive(pid: Pid) -> bool {
    // A zombie is gone for all that matters here; members of a detached swarm are not our children.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_ok() && stat.is_ok_and(|stat| !stat.contains(") Z "))
}

async fn all_gone(processes: &[(String, Pid)]) {
    until("all members are gone", PATIENCE, async || {
        let left: Vec<_> = processes.iter().filter(|(_, pid)| alive(*pid)).collect();
        holds(left.is_empty(), format!("{left:?} run"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_and_down_and_up_again() {
    let _turn = Turn::take().await;
    let temp = tempfile::tempdir().unwrap();
    let up = Up::new(temp.path(), "swarm", free_row(PORTS));
    let mut steps = Steps::new();
    steps
        .run("up starts six members and the example", async {
            let output = up.up(&["--detach"]).await;
            for part in [
                &format!("curl http://hello.default.localhost:{}/", up.base),
                "kubeconfig:",
                "hivectl get nodes,functions",
                "hive down",
            ] {
                assert!(output.ok().contains(part), "{part}: {output}");
            }
            for name in ["controller-1", "controller-3", "node-1", "node-3"] {
                assert!(
                    output.stderr.contains(name),
                    "no progress of {name}: {output}"
                );
            }
            println!("  ready after {:.1} s", output.took.as_secs_f64());
            assert_eq!(up.processes().len(), 6);
            assert!(up.hello().await.contains("Hello from hello in default"));
            let nodes = up.ctl().run(&["get", "nodes", "--no-headers"]).await;
            let ready = nodes
                .ok()
                .lines()
                .filter(|line| line.contains(" Ready "))
                .count();
            assert_eq!(ready, 3, "{nodes}");
        })
        .await;
    steps
        .run("a second up says that it is running", async {
            let before = up.processes();
            up.up(&["--detach"])
                .await
                .fails(&["is running already", "hive down"]);
            assert_eq!(up.processes().len(), before.len());
            up.hello().await;
        })
        .await;
    steps
        .run("down stops all", async {
            let processes = up.processes();
            let output = up.down().await;
            assert!(output.ok().contains("controller-1 stopped"), "{output}");
            assert!(processes.iter().all(|(_, pid)| !alive(*pid)));
            assert!(up.down().await.ok().contains("No swarm is running"));
        })
        .await;
    steps
        .run("up again resumes it, with what was deployed", async {
            let output = up.up(&["--detach", "--no-example"]).await;
            println!("  resumed after {:.1} s", output.took.as_secs_f64());
            output.ok();
            // The nodes are Ready; their links to the other controllers may be a moment behind.
            answers(&loopback(up.base), "hello").await;
            up.down().await.ok();
        })
        .await;
    steps
        .run("another shape than it was made with is refused", async {
            up.up(&["--detach", "--agents", "1"])
                .await
                .fails(&["holds a swarm of 3 controllers and 3 agents"]);
        })
        .await;
    steps.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_said_plainly() {
    let _turn = Turn::take().await;
    let temp = tempfile::tempdir().unwrap();
    let base = free_row(PORTS);
    let mut steps = Steps::new();
    steps
        .run("a port in use", async {
            let up = Up::new(temp.path(), "port", base);
            let _taken = std::net::TcpListener::bind(loopback(base)).unwrap();
            let output = up.up(&["--detach"]).await;
            output.fails(&[
                &format!("port {base}"),
                "the ingress of controller-1",
                "--base-port",
            ]);
            assert!(up.processes().is_empty());
        })
        .await;
    steps
        .run("a UDP port in use", async {
            let up = Up::new(temp.path(), "udp", base);
            let link = base + 20;
            let _taken = std::net::UdpSocket::bind(loopback(link)).unwrap();
            up.up(&["--detach"])
                .await
                .fails(&[&format!("port {link}"), "the links of controller-1"]);
        })
        .await;
    steps
        .run("a directory of another version", async {
            let up = Up::new(temp.path(), "version", base);
            std::fs::create_dir(&up.dir).unwrap();
            std::fs::write(up.dir.join("version"), "9").unwrap();
            up.up(&["--detach"])
                .await
                .fails(&["layout 9", "--data-dir"]);
        })
        .await;
    steps
        .run("a directory that cannot be written", async {
            let file = temp.path().join("file");
            std::fs::write(&file, "").unwrap();
            let up = Up::new(&file, "inside", base);
            up.up(&["--detach"]).await.fails(&["inside"]);
        })
        .await;
    steps.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_foreground_members_end_together() {
    let _turn = Turn::take().await;
    let temp = tempfile::tempdir().unwrap();
    let mut steps = Steps::new();
    let up = Up::new(temp.path(), "swarm", free_row(PORTS));
    let small = ["--controllers", "1", "--agents", "1", "--no-example"];
    let output = temp.path().join("output");
    steps
        .run("a member that dies takes all along, by name", async {
            let mut child = up.foreground(&small, &output);
            ready(&mut child, &output).await;
            let processes = up.processes();
            let (_, node) = processes.iter().find(|(name, _)| name == "node-1").unwrap();
            kill_process(*node, Signal::KILL).unwrap();
            let status = tokio::time::timeout(PATIENCE, child.wait())
                .await
                .expect("up ends when a member dies")
                .unwrap();
            let text = std::fs::read_to_string(&output).unwrap();
            assert!(!status.success(), "{text}");
            assert!(text.contains("node-1 was killed by signal 9"), "{text}");
            all_gone(&processes).await;
        })
        .await;
    steps
        .run("Ctrl-C stops all, and that is a success", async {
            let mut child = up.foreground(&[], &output);
            ready(&mut child, &output).await;
            let processes = up.processes();
            assert_eq!(processes.len(), 2);
            let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::INT).unwrap();
            let status = tokio::time::timeout(PATIENCE, child.wait())
                .await
                .expect("up ends at Ctrl-C")
                .unwrap();
            let text = std::fs::read_to_string(&output).unwrap();
            assert_eq!(status.code(), Some(0), "{text}");
            all_gone(&processes).await;
            assert!(up.processes().is_empty());
        })
        .await;
    steps
        .run("so does `hive down` from elsewhere", async {
            let mut child = up.foreground(&[], &output);
            ready(&mut child, &output).await;
            let processes = up.processes();
            up.down().await.ok();
            let status = tokio::time::timeout(PATIENCE, child.wait())
                .await
                .expect("up ends at hive down")
                .unwrap();
            let text = std::fs::read_to_string(&output).unwrap();
            assert_eq!(status.code(), Some(0), "{text}");
            all_gone(&processes).await;
        })
        .await;
    steps.finish();
}

async fn ready(child: &mut Child, output: &Path) {
    until("the swarm is ready", PATIENCE, async || {
        let text = std::fs::read_to_string(output).unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("up ended with {status}:\n{text}");
        }
        holds(text.contains("Ctrl-C stops it"), text)
    })
    .await;
}
