//! A closed-loop HTTP/1.1 load: so many connections, each with one request under way at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::process;

/// As many as a busy small site sees at once.
const CONNECTIONS: usize = 64;

const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub host: String,
    /// The process that answers.
    pub pid: u32,
}

/// What all rounds of a contestant found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The median of the rounds.
    pub requests_per_second: f64,
    /// Of all requests of all rounds.
    pub p50: Duration,
    pub p99: Duration,
    /// Of the process that answers, for each request.
    pub cpu: Duration,
}

struct Round {
    latencies: Vec<Duration>,
    requests_per_second: f64,
    cpu: Duration,
}

pub async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request; its whole answer must come, and be a success.
pub async fn get(sender: &mut SendRequest<Empty<Bytes>>, host: &str) -> anyhow::Result<()> {
    let request = Request::get("/").header("host", host).body(Empty::new())?;
    // The body before may be read before its connection knows that it is free.
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if !status.is_success() {
        bail!("answered {status}");
    }
    Ok(())
}

/// Interleaved rounds of all contestants, after one that is not counted.
pub async fn rounds(contestants: &[(String, Target)]) -> anyhow::Result<Vec<Found>> {
    let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
    for (_, target) in contestants {
        round(target, Duration::from_secs(1)).await?;
    }
    for _ in 0..ROUNDS {
        for (index, (name, target)) in contestants.iter().enumerate() {
            let found = round(target, ROUND).await.with_context(|| name.clone())?;
            rounds[index].push(found);
        }
    }
    Ok(rounds.into_iter().map(found).collect())
}

pub fn print_rounds(contestants: &[(String, Target)], found: &[Found]) {
    println!(
        "{CONNECTIONS} connections, medians of {ROUNDS} interleaved rounds of {} s, latencies of all of them",
        ROUND.as_secs()
    );
    println!(
        "{:<22} {:>12} {:>9} {:>9} {:>15}",
        "", "requests/s", "p50 ms", "p99 ms", "CPU us/request"
    );
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    for ((name, _), found) in contestants.iter().zip(found) {
        println!(
            "{name:<22} {:>12.0} {:>9.2} {:>9.2} {:>15.1}",
            found.requests_per_second,
            ms(found.p50),
            ms(found.p99),
            found.cpu.as_secs_f64() * 1e6
        );
    }
}

/// Any failed request fails the round: figures with errors in them compare nothing.
async fn round(target: &Target, length: Duration) -> anyhow::Result<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sender = connect(target.address)
            .await
            .with_context(|| format!("cannot connect to {}", target.address))?;
        let (stop, host) = (stop.clone(), target.host.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                get(&mut sender, &host).await?;
                latencies.push(started.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let (started, cpu) = (Instant::now(), process::cpu(target.pid)?);
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    if latencies.is_empty() {
        bail!("{} answered nothing", target.address);
    }
    Ok(Round {
        requests_per_second: latencies.len() as f64 / started.elapsed().as_secs_f64(),
        cpu: process::cpu(target.pid)?.saturating_sub(cpu),
        latencies,
    })
}

fn found(rounds: Vec<Round>) -> Found {
    let mut rates: Vec<f64> = rounds.iter().map(|r| r.requests_per_second).collect();
    rates.sort_by(f64::total_cmp);
    let cpu: Duration = rounds.iter().map(|round| round.cpu).sum();
    let mut latencies: Vec<Duration> = rounds.into_iter().flat_map(|r| r.latencies).collect();
    latencies.sort_unstable();
    Found {
        requests_per_second: rates[rates.len() / 2],
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        cpu: cpu.div_f64(latencies.len() as f64),
    }
}

/// Of sorted values; the nearest rank.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}
