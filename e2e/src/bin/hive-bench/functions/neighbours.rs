//! What clients of a function notice of neighbours on the same agent that compute without end and take all
//! memory they get: the time to an answer over a connection, alone and beside them, with as many clients as
//! keep the machine busy and with one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinSet;

use super::Aims;
use crate::load::{Target, connect, get, percentile};
use crate::process;
use crate::swarm::Swarm;

const PROBE: &[u8] = include_bytes!("../../../../../functions/tests/guests/probe/probe.wasm");

const PORT: u16 = 18_700;

/// How many of which neighbours there are at a time.
#[derive(Clone, Copy)]
pub struct Bad {
    spinners: usize,
    bombs: usize,
}

impl Bad {
    pub const BOTH: Self = Self {
        spinners: 32,
        bombs: 16,
    };

    pub fn only(kind: &str) -> Option<Self> {
        match kind {
            "spin" => Some(Self {
                bombs: 0,
                ..Self::BOTH
            }),
            "memory" => Some(Self {
                spinners: 0,
                ..Self::BOTH
            }),
            _ => None,
        }
    }
}

/// More than the function may have.
const BOMB: &str = "/memory?mib=512";

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

/// The neighbours come together when a round begins: what is asked later is shown by itself, too.
const BURST: Duration = Duration::from_millis(500);

/// For a connection that was refused or cut to be tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked at whether the neighbours ended, and how much of a core the agent then uses at most.
const LOOK: Duration = Duration::from_millis(500);
const QUIET: f64 = 0.05;
/// For them to end: their time limit, and more.
const ENDING: Duration = Duration::from_secs(60);

/// Beside neighbours, of the p99 without them.
const AIM: f64 = 2.0;

/// One request of a round.
struct Asked {
    /// Since the round began.
    at: Duration,
    took: Duration,
}

pub async fn run(aims: &mut Aims, bad: Bad) -> anyhow::Result<()> {
    let Bad { spinners, bombs } = bad;
    let hive = crate::beside("hive")?;
    let swarm = Swarm::start(&hive, PORT, &["--agents", "1"])?;
    let manifest = swarm.function("bad", PROBE)?;
    swarm.hivectl(&["apply", "-f", manifest.to_str().context("path")?])?;
    swarm.hivectl(&["wait", "--for=condition=Ready", "function/bad"])?;
    let (hello, target) = (swarm.local("hello")?, swarm.local("bad")?);

    let agent = swarm.agent(1)?;

    println!(
        "\nneighbours: {spinners} that spin, {bombs} that take memory; {ROUNDS} rounds each, in turns"
    );
    println!(
        "{:<42} {:>10} {:>9} {:>9} {:>17}",
        "", "answers/s", "p50 ms", "p99 ms", "p99 after 0.5 s"
    );
    for (clients, name, pause) in [
        (64, "64 clients", Duration::ZERO),
        (1, "1 client, 100 times a second", Duration::from_millis(10)),
    ] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        // Not counted: what is mapped, grown and connected for the first time.
        round(&hello, clients, pause).await?;
        for _ in 0..ROUNDS {
            alone.extend(round(&hello, clients, pause).await?);
            let neighbours = neighbours(bad, &target);
            beside.extend(round(&hello, clients, pause).await?);
            drop(neighbours);
            quiet(agent).await?;
        }
        let mut p99 = [0.0; 2];
        for (at, (how, asked)) in [("alone", alone), ("beside them", beside)]
            .into_iter()
            .enumerate()
        {
            let all = sorted(&asked, Duration::ZERO);
            let later = sorted(&asked, BURST);
            let ms = |took: &[Duration], percent| percentile(took, percent).as_secs_f64() * 1e3;
            let rate = all.len() as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
            p99[at] = ms(&all, 99);
            println!(
                "{:<42} {rate:>10.0} {:>9.3} {:>9.3} {:>17.3}",
                format!("{name}, {how}"),
                ms(&all, 50),
                p99[at],
                ms(&later, 99)
            );
        }
        aims.at_most(
            &format!("p99 beside bad neighbours, {name}"),
            p99[1] / p99[0],
            AIM,
            "x",
        );
    }
    Ok(())
}

/// What those took that were asked from then on.
fn sorted(asked: &[Asked], from: Duration) -> Vec<Duration> {
    let later = asked.iter().filter(|asked| asked.at >= from);
    let mut took: Vec<Duration> = later.map(|asked| asked.took).collect();
    took.sort_unstable();
    took
}

/// As many as there are at a time, each followed by the next, until dropped.
fn neighbours(bad: Bad, function: &Target) -> JoinSet<()> {
    let spinners = std::iter::repeat_n("/spin", bad.spinners);
    let targets = spinners.chain(std::iter::repeat_n(BOMB, bad.bombs));
    targets
        .map(|target| {
            let (address, host) = (function.address, function.host.clone());
            async move {
                loop {
                    // Most of them are stopped.
                    if ask(address, &host, target).await.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
        .collect()
}

/// Waits until nothing of the neighbours runs any more, so that a round alone is one.
async fn quiet(agent: u32) -> anyhow::Result<()> {
    let until = Instant::now() + ENDING;
    while Instant::now() < until {
        let before = process::cpu(agent)?;
        tokio::time::sleep(LOOK).await;
        let used = process::cpu(agent)?.saturating_sub(before);
        if used.as_secs_f64() < QUIET * LOOK.as_secs_f64() {
            return Ok(());
        }
    }
    anyhow::bail!("neighbours still run {ENDING:?} after the last request")
}

async fn ask(address: SocketAddr, host: &str, target: &str) -> anyhow::Result<()> {
    let mut sender = connect(address).await?;
    let request = Request::get(target).header("host", host);
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?);
    answer.await?.into_body().collect().await?;
    Ok(())
}

async fn round(hello: &Target, clients: usize, pause: Duration) -> anyhow::Result<Vec<Asked>> {
    let began = Instant::now();
    let end = began + ROUND;
    let mut calling: JoinSet<anyhow::Result<Vec<Asked>>> = (0..clients)
        .map(|_| {
            let (address, host) = (hello.address, hello.host.clone());
            async move {
                let mut sender = connect(address).await?;
                let mut asked = Vec::new();
                while Instant::now() < end {
                    let started = Instant::now();
                    get(&mut sender, &host).await?;
                    asked.push(Asked {
                        at: started - began,
                        took: started.elapsed(),
                    });
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok(asked)
            }
        })
        .collect();
    let mut all = Vec::new();
    while let Some(asked) = calling.join_next().await {
        all.extend(asked??);
    }
    Ok(all)
}
