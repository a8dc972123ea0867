//! Agents on machines that have little: few addresses, little memory, and neighbours that take of it.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use hive_e2e::control_group::ControlGroup;
use hive_e2e::swarm::{NODES, answers, condition, host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::{self, Answer};
use hive_e2e::{Guest, Steps, Swarm, guests};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;
/// As shells count memory.
const GIB_IN_KIB: u64 = 1 << 20;

/// Has js-fetch-hello.wasm and py-hello.wasm, made elsewhere; set where there are such.
const FIXTURES: &str = "HIVE_FIXTURES";

/// For an engine of 18 MB: it is uploaded, inspected and compiled, by a debug build.
const LARGE: Duration = Duration::from_secs(600);

/// At once.
const REQUESTS: usize = 20;

/// A condition stays as it is for a minute, and is told each quarter of one.
const CONDITION: Duration = Duration::from_secs(150);

/// All the memory of a small board.
const BOARD: u64 = 512 * MIB;

/// A twentieth of it is too little; some is left for what is under way.
const LEFT: u64 = 20 * MIB;

/// Phones have 39 bits of addresses, and a service may be given less.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_few_addresses_serves() {
    let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
    let token = swarm.token(&["--uses", "3"]).await;
    for gibibytes in [256, 40, 8] {
        let name = format!("with-{gibibytes}");
        let mut agent = swarm.new_agent(&name, &token);
        let limit = gibibytes * GIB_IN_KIB;
        let limited = format!("ulimit -v {limit} && exec \"$@\"");
        let launcher = ["sh", "-c", &limited, "sh"].map(str::to_owned);
        agent.member.launched_by(launcher.into());
        agent.member.start();
        swarm.agents.push(agent);
    }
    swarm.wait_ready().await;
    let spec = json!({ "everyNode": true });
    swarm.deploy("hello", &guests::hello(), spec.clone()).await;
    swarm.deploy("shared", &guests::rust_p3(), spec).await;
    for (index, allocation) in ["Pooled", "OnDemand", "OnDemand"].into_iter().enumerate() {
        let agent = &swarm.agents[index];
        let log = agent.member.log();
        let ready = log
            .lines()
            .find(|line| line.contains("WebAssembly is ready"));
        assert!(
            ready.unwrap().contains(allocation),
            "{}: {ready:?}",
            agent.member.name
        );
        for function in ["hello", "shared"] {
            for answer in flood(&agent.address(), function, "/").await {
                assert_eq!(
                    answer.status,
                    200,
                    "{}: {}",
                    agent.member.name,
                    answer.text()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_of_512_mib_serves_beside_memory_bombs_and_greedy_neighbours() {
    let Some(board) = board(BOARD) else {
        return;
    };
    let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
    let token = swarm.token(&[]).await;
    let mut agent = swarm.new_agent("board", &token);
    agent.member.launched_by(board.launcher());
    agent.member.start();
    swarm.agents.push(agent);
    swarm.wait_ready().await;
    let pid = swarm.agents[0].member.pid();
    let address = swarm.agents[0].address();
    let mut steps = Steps::new();

    // Together no more than the board has: all of them are placed.
    let small = json!({ "resources": { "memory": "24Mi" } });
    let large = json!({ "resources": { "memory": "96Mi" } });
    let greedy = json!({
        "resources": { "memory": "192Mi" },
        "queueTimeout": "2s",
        // It is memory that stops them, on a slow machine too.
        "timeout": "2m",
    });
    swarm.deploy("hello", &guests::hello(), small).await;
    swarm.deploy("greedy", &guests::probe(), greedy).await;
    for (name, component) in fixtures() {
        let component = Guest { name, component };
        let manifest = swarm.manifest(name, &component, large.clone());
        let manifest = manifest.display().to_string();
        swarm.ctl(&["apply", "-f", &manifest]).await.ok();
        until(&format!("{name} answers"), LARGE, async || {
            let answer = web::get(&address, &host(name), "/").await;
            answer.map_err(|error| error.to_string())?.ok()
        })
        .await;
    }

    steps
        .run("memory bombs are stopped, and others are answered", async {
            let bombs = tokio::spawn({
                let address = address.clone();
                async move { flood(&address, "greedy", "/memory?mib=150").await }
            });
            let mut answered = 0;
            while !bombs.is_finished() {
                let answer = web::get(&address, &host("hello"), "/").await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered += 1;
            }
            let bombs = bombs.await.unwrap();
            let known = |answer: &&Answer| match answer.header("x-hive-reason") {
                "" => answer.status == 200,
                "NodeMemory" | "MemoryPressure" | "QueueTimeout" => answer.status == 503,
                _ => false,
            };
            assert_eq!(bombs.iter().filter(known).count(), REQUESTS, "{bombs:#?}");
            let whole = bombs.iter().filter(|answer| answer.status == 200).count();
            println!("  {whole} of {REQUESTS} bombs were answered, hello {answered} times");
            assert!(whole < REQUESTS, "there was room for all");
        })
        .await;
    steps
        .run("a neighbour that takes the rest stops what starts", async {
            let client = swarm.client().await;
            let node = format!("{NODES}/board");
            let mut neighbour = Neighbour::of(&board);
            // One runs, for as long as the others wait.
            let running = tokio::spawn({
                let address = address.clone();
                async move { web::get(&address, &host("greedy"), "/slow?ms=30000").await }
            });
            until("no more instances start", PATIENCE, async || {
                neighbour.leave(LEFT, &board).await;
                let answer = web::get(&address, &host("greedy"), "/").await;
                let answer = answer.map_err(|error| error.to_string())?;
                let told = answer.header("x-hive-reason") == "MemoryPressure";
                holds(told && answer.status == 503, answer.text())
            })
            .await;
            until("the node says that it is short", CONDITION, async || {
                let node = object(&client, &node).await?;
                holds(
                    condition(&node, "MemoryPressure") == "True",
                    &node["status"],
                )
            })
            .await;
            until("there is an event", PATIENCE, async || {
                let events = swarm.ctl(&["events", "--for", "node/board"]).await;
                holds(events.ok().contains("InsufficientMemory"), events)
            })
            .await;
            running.abort();
            let one = answers(&address, "hello").await;
            assert_eq!(one.status, 200, "one at a time is answered");
            drop(neighbour);
            until("as many start as before", PATIENCE, async || {
                let answers = flood(&address, "hello", "/").await;
                holds(
                    answers.iter().all(|answer| answer.status == 200),
                    format!("{answers:#?}"),
                )
            })
            .await;
        })
        .await;
    steps
        .run("the agent was never killed", async {
            assert_eq!(swarm.agents[0].member.pid(), pid);
            assert!(swarm.agents[0].member.is_running());
            assert_eq!(board.killed(), 0);
        })
        .await;
    drop(swarm);
    board.remove().await;
    steps.finish();
}

/// A group of its own for the agent. Where there can be none, the test is left out, and says so past the capture of
/// tests.
fn board(bytes: u64) -> Option<ControlGroup> {
    let made = ControlGroup::with_memory(bytes);
    made.inspect_err(|error| {
        let why = "run it as root, on Linux with control groups for memory";
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a board of 512 MiB: {error}: {why}"
        );
    })
    .ok()
}

/// Components that take more than others, where there are any.
fn fixtures() -> Vec<(&'static str, PathBuf)> {
    let Some(directory) = std::env::var_os(FIXTURES).map(PathBuf::from) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED JavaScript and Python: set {FIXTURES}"
        );
        return Vec::new();
    };
    [
        ("javascript", "js-fetch-hello.wasm"),
        ("python", "py-hello.wasm"),
    ]
    .map(|(name, file)| (name, directory.join(file)))
    .into()
}

/// A process in the same group that takes what it is told. It ends when it is dropped.
struct Neighbour {
    told: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Neighbour {
    fn of(board: &ControlGroup) -> Self {
        let launcher = board.launcher();
        let mut command = Command::new(&launcher[0]);
        command
            .args(&launcher[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "a_neighbour"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        Self {
            told: process.stdin.take().unwrap(),
            says: BufReader::new(process.stdout.take().unwrap()).lines(),
            _process: process,
        }
    }

    /// Takes all but so many bytes of what the board has left now.
    async fn leave(&mut self, left: u64, board: &ControlGroup) {
        let more = (BOARD - board.used()).saturating_sub(left);
        self.told
            .write_all(format!("{more}\n").as_bytes())
            .await
            .unwrap();
        let taken = async {
            while let Some(line) = self.says.next_line().await.unwrap() {
                if line.contains("it is taken") {
                    return;
                }
            }
            panic!("the neighbour has ended");
        };
        tokio::time::timeout(PATIENCE, taken).await.unwrap();
    }
}

#[test]
#[ignore = "for a process of its own"]
fn a_neighbour() {
    let mut taken = Vec::new();
    for bytes in std::io::stdin().lines() {
        taken.push(vec![1_u8; bytes.unwrap().parse().unwrap()]);
        println!("it is taken");
    }
}

/// The answers to many requests at once.
async fn flood(address: &str, function: &str, path: &'static str) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let (address, host) = (address.to_owned(), host(function));
        requests.spawn(async move { web::get(&address, &host, path).await.unwrap() });
    }
    requests.join_all().await
}
